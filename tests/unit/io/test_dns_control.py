"""The resolv.conf method, on files of the test's own."""

from pathlib import Path

import pytest

from wardgate.io.dns_control import DnsControlError, EtcResolvConf, dns_control

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


async def test_link_is_refused_untouched(tmp_path: Path) -> None:
    path, control = prepared(tmp_path)
    target = path.rename(tmp_path / "stub")
    path.symlink_to(target)

    with pytest.raises(DnsControlError, match="regular file"):
        await control.set("tun", ["100.100.111.1"], None)

    assert target.read_text() == ORIGINAL


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


def prepared(directory: Path) -> tuple[Path, EtcResolvConf]:
    path = directory / "resolv.conf"
    path.write_text(ORIGINAL)
    return path, prepared_again(directory)


def prepared_again(directory: Path) -> EtcResolvConf:
    return EtcResolvConf(directory / "state" / "backup", directory / "resolv.conf")
