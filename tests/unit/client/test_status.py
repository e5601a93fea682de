"""What people see of a running client."""

import pytest

from wardgate.client.status import age, render, size

STATUS = {
    "at": 1000.0,
    "api_url": "wss://portal.example",
    "portal": "up",
    "interface": "tun-wardgate",
    "addresses": ["100.64.0.7"],
    "resources": [
        {
            "name": "App",
            "address": "app.corp.example",
            "sites": [{"id": "s", "name": "Vienna"}],
            "status": "online",
            "path": {"kind": "direct", "rtt_ms": 12.34, "last_handshake": 940.0},
            "sent_bytes": 1500,
            "received_bytes": 2_000_000,
        },
        {"name": None, "address": "10.9.0.0/24", "sites": [], "status": "unknown", "path": None},
    ],
    "denials": [{"resource": "Lab", "reason": "forbidden", "violated_properties": ["remote_ip"], "at": 990.0}],
    "refusals": [{"destination": "10.9.0.2", "port": 81, "reason": "filtered", "packets": 3, "at": 995.0}],
}


def test_resource_is_shown_with_its_path() -> None:
    text = rendered(STATUS)

    (line,) = [line for line in text.splitlines() if "app.corp.example" in line]
    for part in ("App", "Vienna", "online", "direct", "12.3 ms", "1.5 kB", "2.0 MB", "1m ago"):
        assert part in line


def test_devices_are_shown_with_the_pools_they_are_reached_through() -> None:
    device = {
        "id": "d",
        "name": "printer",
        "addresses": ["100.64.1.2", "fd00::2"],
        "connected": True,
        "reached_through": ["pool"],
        "reaches_us_through": [],
        "path": {"kind": "direct", "rtt_ms": 1.42},
    }
    text = rendered({**STATUS, "resources": [{"id": "pool", "name": "Printers"}], "devices": [device]})

    (line,) = [line for line in text.splitlines() if "100.64.1.2" in line]
    for part in ("printer", "Printers", "no", "online", "direct", "1.4 ms"):
        assert part in line


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ({"up": True, "running": True, "mtu": 1280, "txqlen": 10_000}, "tun-wardgate (up, mtu 1280)  100.64.0.7"),
        ({"up": False, "running": False, "mtu": 1280, "txqlen": 10_000}, "tun-wardgate (down, mtu 1280)  100.64.0.7"),
        (None, "tun-wardgate (gone)  100.64.0.7"),
    ],
)
def test_state_of_the_interface_is_shown(link: dict[str, object] | None, shown: str) -> None:
    assert f"interface   {shown}" in rendered({**STATUS, "link": link})


def test_reasons_are_shown() -> None:
    text = rendered(STATUS)

    assert "denied      Lab: forbidden, remote_ip (10s ago)" in text
    assert "refused     10.9.0.2 port 81: filtered, 3 packets (5s ago)" in text


def test_long_names_are_not_cut_and_cannot_move_the_cursor() -> None:
    name = "a name that is wider than eighty columns of a terminal, " * 3
    resource = {"name": name + "\x1b[2J", "address": "*.very.long.corp.example", "status": "online"}

    (line,) = [line for line in render({**STATUS, "resources": [resource]}) if "corp.example" in line]

    assert line.startswith(name + "\N{REPLACEMENT CHARACTER}[2J  *.very.long.corp.example  -  ")


def test_empty_answer_can_be_shown() -> None:
    assert "none that this user may reach" in rendered({})


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (3e12, "3.0 TB")]
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0s"), (59, "59s"), (61, "1m"), (7300, "2h"), (200_000, "2d")])
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


def rendered(status: dict[str, object]) -> str:
    return "\n".join(render(status))
