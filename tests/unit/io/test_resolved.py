"""The calls of systemd-resolved's program, with a stand-in that keeps what it is told as the real one does."""

import json
import os
import sys
from pathlib import Path

import pytest

from wardgate.io.dns_control import DnsControlError
from wardgate.io.resolved import SystemdResolved

STAND_IN = """#!{python}
import json, pathlib, sys
path = pathlib.Path({path!r})
state = json.loads(path.read_text())
command, *rest = sys.argv[1:]
if command in state["refuses"]:
    sys.exit(print("Failed: refused", file=sys.stderr) or 1)
if command == "dns" and not rest:
    print("Global: 192.0.2.1")
    print("Link 2 (eth0): 192.0.2.53#dns.example 2001:db8::53%2 192.0.2.1")
    print("Link 3 (tun-test): " + " ".join(state["set"].get("dns", [])[1:]))
else:
    state["set"][command] = rest
    path.write_text(json.dumps(state))
"""


async def test_interface_gets_servers_all_names_and_nothing_that_a_stub_cannot_do(resolved: Path) -> None:
    await SystemdResolved().set("tun-test", ["100.100.111.1", "fd00::1"], "corp.example")

    assert told(resolved) == {
        "dns": ["tun-test", "100.100.111.1", "fd00::1"],
        "domain": ["tun-test", "~.", "corp.example"],
        "llmnr": ["tun-test", "true"],
        "dnsovertls": ["tun-test", "no"],
        "dnssec": ["tun-test", "no"],
    }


async def test_servers_of_other_interfaces_are_the_systems(resolved: Path) -> None:
    control = SystemdResolved()
    await control.set("tun-test", ["100.100.111.1"], None)

    assert await control.system_nameservers() == ["192.0.2.1", "192.0.2.53", "2001:db8::53"]
    assert not await control.keep()


async def test_servers_that_were_forgotten_are_told_again(resolved: Path) -> None:
    control = SystemdResolved()
    await control.set("tun-test", ["100.100.111.1"], None)
    forget(resolved)

    await control.system_nameservers()
    again = await control.keep()
    servers = told(resolved)["dns"]
    await control.revert()
    forget(resolved)
    await control.system_nameservers()

    assert again
    assert servers == ["tun-test", "100.100.111.1"]
    assert not await control.keep()


async def test_what_is_refused_is_an_error_or_left_out(resolved: Path) -> None:
    refuse(resolved, "dnssec", "llmnr")
    await SystemdResolved().set("tun-test", ["100.100.111.1"], None)
    refuse(resolved, "domain")
    with pytest.raises(DnsControlError, match="resolvectl domain: Failed: refused"):
        await SystemdResolved().set("tun-test", ["100.100.111.1"], None)


async def test_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(DnsControlError, match="resolvectl cannot be run"):
        await SystemdResolved().system_nameservers()


@pytest.fixture
def resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"set": {}, "refuses": []}))
    program = tmp_path / "resolvectl"
    program.write_text(STAND_IN.format(python=sys.executable, path=str(state)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return state


def told(state: Path) -> dict[str, list[str]]:
    settings: dict[str, list[str]] = json.loads(state.read_text())["set"]
    return settings


def forget(state: Path) -> None:
    state.write_text(json.dumps({"set": {}, "refuses": []}))


def refuse(state: Path, *commands: str) -> None:
    state.write_text(json.dumps({"set": {}, "refuses": list(commands)}))
