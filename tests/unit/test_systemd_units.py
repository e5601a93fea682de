"""The units in `deploy/systemd` are ones that systemd takes, and start commands that exist."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main

from wardgate.client import command as client
from wardgate.gateway import command as gateway
from wardgate.portal import main as portal
from wardgate.relay import main as relay
from wardgate.settings import read_token

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
PROGRAM = "/usr/bin/wardgate"
APPS = {"client": client.app, "gateway": gateway.app, "relay": relay.app, "portal": portal.app}
MOST_EXPOSED = 3.0


@pytest.mark.parametrize("part", APPS)
def test_systemd_accepts_the_unit_and_finds_it_well_confined(part: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    path = tmp_path / unit_path(part).name
    path.write_text(unit_path(part).read_text().replace(PROGRAM, "/bin/true"))

    verified = analyze("verify", "--man=no", str(path))
    confined = analyze("security", "--offline=true", f"--threshold={round(MOST_EXPOSED * 10)}", str(path))

    assert (verified.returncode, verified.stderr) == (0, "")
    assert confined.returncode == 0, confined.stdout[-200:]


@pytest.mark.parametrize("part", APPS)
def test_unit_waits_for_readiness_watches_and_starts_again(part: str) -> None:
    service = read_unit(part)["Service"]

    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) >= 10
    assert service["Restart"] in ("always", "on-failure")
    assert service["RestartPreventExitStatus"] == "2"
    assert ("ExecReload" in service) == (part in ("client", "gateway"))


@pytest.mark.parametrize("part", APPS)
def test_unit_runs_commands_that_exist(part: str) -> None:
    service = read_unit(part)["Service"]

    for key in ("ExecStart", "ExecStopPost"):
        if key in service:
            program, name, *words = service[key].lstrip("-").split()
            command = typer.main.get_command(APPS[name])
            assert (program, name) == (PROGRAM, part)
            assert words == [] or words[0] in command.commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("part", ["client", "gateway", "relay"])
def test_credential_of_the_unit_is_the_one_that_is_read(part: str, tmp_path: Path) -> None:
    name, _, source = read_unit(part)["Service"]["LoadCredential"].partition(":")
    (tmp_path / name).write_text(".t\n")

    assert read_token({"CREDENTIALS_DIRECTORY": str(tmp_path)}, None) == ".t"
    assert source == f"/etc/wardgate/{part}/token"


def test_portals_user_is_made() -> None:
    user = read_unit("portal")["Service"]["User"]

    assert f"\nu {user} - " in (UNITS / "wardgate.sysusers.conf").read_text()


def unit_path(part: str) -> Path:
    return UNITS / f"wardgate-{part}.service"


def read_unit(part: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(delimiters=("=",), comment_prefixes=("#",), interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(unit_path(part))
    return unit


def analyze(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False, timeout=60)
