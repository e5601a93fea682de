"""The resolv.conf method on files of the test's own, and which method a host needs."""

import asyncio
import os
import stat
import tempfile
from pathlib import Path

import pytest

from tests.unit.io.namespace import in_namespace, mount_over, unmount
from wardgate.io.dns_control import DnsControlError
from wardgate.io.dns_methods import detect_method, dns_control
from wardgate.io.resolv_conf import EtcResolvConf

ORIGINAL = "nameserver 192.0.2.53\nsearch lan\n"


async def test_file_is_replaced_and_comes_back_byte_for_byte(tmp_path: Path) -> None:
    path, control = prepared(tmp_path)

    await control.set("tun", ["100.100.111.1", "fd00::1"], "corp.example")
    during = path.read_text()
    await control.revert()

    assert "nameserver 100.100.111.1\nnameserver fd00::1\nsearch corp.example\n" in during
    assert path.read_text() == ORIGINAL


async def test_setting_twice_keeps_the_first_backup(tmp_path: Path) -> None:
    path, control = prepared(tmp_path)

    await control.set("tun", ["100.100.111.1"], None)
    await control.set("tun", ["100.100.111.2"], None)
    during = path.read_text()
    await control.revert()

    assert "100.100.111.2" in during
    assert "100.100.111.1" not in during
    assert path.read_text() == ORIGINAL


async def test_next_run_reverts_what_a_killed_one_left(tmp_path: Path) -> None:
    path, control = prepared(tmp_path)
    await control.set("tun", ["100.100.111.1"], None)

    await prepared_again(tmp_path).revert()

    assert path.read_text() == ORIGINAL


async def test_file_that_someone_else_wrote_meanwhile_is_not_reverted(tmp_path: Path) -> None:
    path, control = prepared(tmp_path)
    await control.set("tun", ["100.100.111.1"], None)
    path.write_text("nameserver 198.51.100.1\n")

    await control.revert()

    assert path.read_text() == "nameserver 198.51.100.1\n"


async def test_system_nameservers_are_those_from_before_us(tmp_path: Path) -> None:
    _, control = prepared(tmp_path)

    before = await control.system_nameservers()
    await control.set("tun", ["100.100.111.1"], None)

    assert before == ["192.0.2.53"]
    assert await control.system_nameservers() == ["192.0.2.53"]


async def test_no_servers_leave_the_file_alone(tmp_path: Path) -> None:
    path, control = prepared(tmp_path)

    await control.set("tun", [], "corp.example")

    assert path.read_text() == ORIGINAL


async def test_link_is_replaced_followed_and_put_back(tmp_path: Path) -> None:
    path, control = prepared(tmp_path)
    target = path.rename(tmp_path / "managed")
    path.symlink_to("managed")

    await control.set("tun", ["100.100.111.1"], None)
    during = path.read_text()
    target.write_text("nameserver 198.51.100.1\n")
    followed = await control.system_nameservers()
    await prepared_again(tmp_path).revert()

    assert "100.100.111.1" in during
    assert followed == ["198.51.100.1"]
    assert os.readlink(path) == "managed"
    assert target.read_text() == "nameserver 198.51.100.1\n"


@pytest.mark.parametrize("text", ["nameserver 127.0.0.53\n", "nameserver 127.0.0.54\n"])
async def test_file_that_leads_to_systemd_resolved_is_refused_untouched(tmp_path: Path, text: str) -> None:
    path, control = prepared(tmp_path)
    path.write_text(text)

    with pytest.raises(DnsControlError, match="--dns-control systemd-resolved"):
        await control.set("tun", ["100.100.111.1"], None)

    assert path.read_text() == text


async def test_file_of_another_program_is_taken_up_and_ours_put_back(tmp_path: Path) -> None:
    path, control = prepared(tmp_path)
    await control.set("tun", ["100.100.111.1"], None)
    untouched = await control.keep()
    path.unlink()
    path.write_text("nameserver 198.51.100.1\n")

    again = await control.keep()
    during, upstreams = path.read_text(), await control.system_nameservers()
    await control.revert()
    after_the_end = await control.keep()

    assert (untouched, again, after_the_end) == (False, True, False)
    assert "100.100.111.1" in during
    assert upstreams == ["198.51.100.1"]
    assert path.read_text() == "nameserver 198.51.100.1\n"


async def test_file_of_a_program_that_hands_over_to_systemd_resolved_stays(tmp_path: Path) -> None:
    path, control = prepared(tmp_path)
    await control.set("tun", ["100.100.111.1"], None)
    path.write_text("nameserver 127.0.0.53\n")

    assert [await control.keep(), await control.keep()] == [False, False]
    assert path.read_text() == "nameserver 127.0.0.53\n"


async def test_file_is_replaced_at_once_with_its_mode(tmp_path: Path) -> None:
    path, control = prepared(tmp_path)
    path.chmod(0o640)
    with path.open() as reader:
        await control.set("tun", ["100.100.111.1"], None)

        assert reader.read() == ORIGINAL
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["resolv.conf", "state"]


@in_namespace
def test_file_that_is_a_mount_is_written_in_place_and_one_that_is_read_only_is_named() -> None:
    async def body(directory: Path) -> None:
        path, control = prepared(directory)
        (directory / "mounted").write_text(ORIGINAL + "# and a tail that is longer than what we write\n" * 50)
        before = (directory / "mounted").read_text()
        mount_over(directory / "mounted", path)
        await control.set("tun", ["100.100.111.1"], None)
        during = path.read_text()
        await control.revert()
        after = path.read_text()
        unmount(path)
        mount_over(directory / "mounted", path, read_only=True)
        with pytest.raises(DnsControlError, match=r"resolv\.conf could not be written: Read-only file system"):
            await control.set("tun", ["100.100.111.1"], None)
        unmount(path)

        assert during.endswith("options ndots:1\n")
        assert "tail" not in during
        assert after == before

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(body(Path(directory)))


async def test_lost_copy_leaves_the_file_and_nothing_fails(tmp_path: Path) -> None:
    path, control = prepared(tmp_path)
    await control.set("tun", ["100.100.111.1"], None)
    (tmp_path / "state" / "backup").unlink()

    await control.revert()

    assert "100.100.111.1" in path.read_text()


async def test_copy_that_cannot_be_kept_is_named_and_the_file_untouched(tmp_path: Path) -> None:
    path, control = prepared(tmp_path)
    (tmp_path / "state").write_text("no directory")

    with pytest.raises(DnsControlError, match="state/backup"):
        await control.set("tun", ["100.100.111.1"], None)

    assert path.read_text() == ORIGINAL


async def test_disabled_reads_and_never_writes(tmp_path: Path) -> None:
    path, _ = prepared(tmp_path)
    control = dns_control("disabled", tmp_path / "backup", path)

    await control.set("tun", ["100.100.111.1"], None)

    assert await control.system_nameservers() == ["192.0.2.53"]
    assert path.read_text() == ORIGINAL


@pytest.mark.parametrize("method", ["systemd-resolved", "etc-resolv-conf", "disabled"])
async def test_every_method_first_takes_back_what_a_killed_run_left(tmp_path: Path, method: str) -> None:
    path, control = prepared(tmp_path)
    await control.set("tun", ["100.100.111.1"], None)

    dns_control(method, tmp_path / "state" / "backup", path)  # type: ignore[arg-type]

    assert path.read_text() == ORIGINAL


@pytest.mark.parametrize(
    ("resolv_conf", "hosts", "runs", "method"),
    [
        ("nameserver 192.0.2.53\n", "files dns", False, "etc-resolv-conf"),
        ("nameserver 192.0.2.53\n", "files dns", True, "etc-resolv-conf"),
        ("nameserver 192.0.2.53\n", "files resolve [!UNAVAIL=return] dns", True, "systemd-resolved"),
        ("nameserver 192.0.2.53\n", "files resolve [!UNAVAIL=return] dns", False, "etc-resolv-conf"),
        ("nameserver 127.0.0.53\noptions edns0\n", "files dns", True, "systemd-resolved"),
        (None, "files dns", True, "systemd-resolved"),
    ],
)
def test_method_is_the_one_that_the_hosts_programs_go_by(
    tmp_path: Path, resolv_conf: str | None, hosts: str, runs: bool, method: str
) -> None:
    path, nsswitch, runtime = tmp_path / "resolv.conf", tmp_path / "nsswitch.conf", tmp_path / "resolve"
    nsswitch.write_text(f"passwd: files systemd\nhosts: {hosts}\n")
    if runs:
        runtime.mkdir()
        (runtime / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    if resolv_conf is None:
        path.symlink_to("resolve/resolv.conf")
    else:
        path.write_text(resolv_conf)

    assert detect_method(path, nsswitch, runtime) == method


def prepared(directory: Path) -> tuple[Path, EtcResolvConf]:
    path = directory / "resolv.conf"
    path.write_text(ORIGINAL)
    return path, prepared_again(directory)


def prepared_again(directory: Path) -> EtcResolvConf:
    return EtcResolvConf(directory / "state" / "backup", directory / "resolv.conf")
