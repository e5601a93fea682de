"""Kernel settings are put back, also by the run after one that was killed; on files that stand for the kernel's."""

import json
import tempfile
from pathlib import Path

import pytest

from tests.unit.io.namespace import in_namespace
from wardgate.io.forwarding import HostForwarding
from wardgate.io.reverse_path import ReversePathFilter
from wardgate.io.sysctls import Sysctls

FORWARD = "net/ipv4/ip_forward"
OTHER = "net/ipv4/other"


def test_settings_come_back_and_the_record_goes(tmp_path: Path) -> None:
    sysctls = kernel(tmp_path, {FORWARD: "0", OTHER: "7"})

    done = sysctls.set(FORWARD, "1"), sysctls.set(OTHER, "7"), sysctls.set("net/ipv6/none", "1")
    during, record = values(tmp_path), json.loads((tmp_path / "state" / "record").read_text())
    sysctls.restore()

    assert done == (True, True, False)
    assert during == {FORWARD: "1", OTHER: "7"}
    assert record == {FORWARD: ["0", "1"]}
    assert values(tmp_path) == {FORWARD: "0", OTHER: "7"}
    assert not (tmp_path / "state" / "record").exists()


def test_setting_that_changed_twice_comes_back_to_the_first_value(tmp_path: Path) -> None:
    sysctls = kernel(tmp_path, {OTHER: "0"})

    sysctls.set(OTHER, "1")
    sysctls.set(OTHER, "2")
    sysctls.restore()

    assert values(tmp_path) == {OTHER: "0"}


def test_setting_that_somebody_else_changed_meanwhile_stays(tmp_path: Path) -> None:
    sysctls = kernel(tmp_path, {FORWARD: "0"})
    sysctls.set(FORWARD, "1")
    (tmp_path / "sys" / FORWARD).write_text("2")

    sysctls.restore()

    assert values(tmp_path) == {FORWARD: "2"}


def test_next_run_puts_back_what_a_killed_one_left_and_nothing_else(tmp_path: Path) -> None:
    killed = kernel(tmp_path, {FORWARD: "0", OTHER: "7"})
    killed.set(FORWARD, "1")
    killed.set(OTHER, "8")
    (tmp_path / "sys" / OTHER).write_text("9")

    following = again(tmp_path)
    following.take_over()
    following.set(FORWARD, "1")
    following.restore()

    assert values(tmp_path) == {FORWARD: "0", OTHER: "9"}


@pytest.mark.parametrize(
    "record",
    ["", "[]", "[" * 9999, '{"net/x": 5}', '{"net/x": ["0"]}', '{"../etc/x": ["0", "1"]}', '{"net/x": [0, 1]}'],
)
def test_record_that_is_none_is_left_alone(tmp_path: Path, record: str) -> None:
    sysctls = kernel(tmp_path, {FORWARD: "1"})
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "record").write_text(record)

    sysctls.take_over()
    sysctls.restore()

    assert values(tmp_path) == {FORWARD: "1"}


@pytest.mark.parametrize(
    ("before", "during"),
    [
        ({"all": "1", "eth0": "0", "lo": "1"}, {"all": "2", "eth0": "0", "lo": "1"}),
        ({"all": "0", "eth0": "1", "lo": "0"}, {"all": "0", "eth0": "2", "lo": "0"}),
        ({"all": "2", "eth0": "1", "lo": "1"}, {"all": "2", "eth0": "1", "lo": "1"}),
        ({"all": "0", "eth0": "0", "lo": "0"}, {"all": "0", "eth0": "0", "lo": "0"}),
    ],
)
def test_check_of_the_way_back_is_loosened_where_it_is_strict(
    tmp_path: Path, before: dict[str, str], during: dict[str, str]
) -> None:
    names = {interface: f"net/ipv4/conf/{interface}/rp_filter" for interface in before}
    checks = ReversePathFilter(kernel(tmp_path, {names[interface]: value for interface, value in before.items()}))

    checks.loosen()
    loose = values(tmp_path)
    checks.tighten()

    assert loose == {names[interface]: value for interface, value in during.items()}
    assert values(tmp_path) == {names[interface]: value for interface, value in before.items()}


def test_interface_that_comes_later_is_loosened_while_it_must_be(tmp_path: Path) -> None:
    checks = ReversePathFilter(kernel(tmp_path, {"net/ipv4/conf/all/rp_filter": "0"}))
    late = "net/ipv4/conf/wlan0/rp_filter"
    kernel(tmp_path, {late: "1"})

    checks.keep()
    unneeded = values(tmp_path)[late]
    checks.loosen()
    checks.tighten()
    checks.keep()
    over = values(tmp_path)[late]
    checks.loosen()
    kernel(tmp_path, {late: "1"})
    checks.keep()

    assert (unneeded, over, values(tmp_path)[late]) == ("1", "1", "2")


@in_namespace
def test_gateway_after_a_killed_one_leaves_the_host_as_it_was_before_both() -> None:
    with tempfile.TemporaryDirectory() as directory:
        record = Path(directory, "record")
        HostForwarding("tun-test", Sysctls(record)).install()

        following = HostForwarding("tun-test", Sysctls(record))
        following.install()
        during = Path("/proc/sys", FORWARD).read_text().strip()
        following.remove()

        assert during == "1"
        assert Path("/proc/sys", FORWARD).read_text().strip() == "0"
        assert not record.exists()


def kernel(directory: Path, settings: dict[str, str]) -> Sysctls:
    for name, value in settings.items():
        path = directory / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    return again(directory)


def again(directory: Path) -> Sysctls:
    return Sysctls(directory / "state" / "record", directory / "sys")


def values(directory: Path) -> dict[str, str]:
    root = directory / "sys"
    return {str(path.relative_to(root)): path.read_text().strip() for path in root.rglob("*") if path.is_file()}
