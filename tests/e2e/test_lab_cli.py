"""`wardgate lab` in two terminals: one keeps the lab up, the other looks inside."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.netns

LAB = [sys.executable, "-m", "wardgate.lab"]


@dataclass
class Terminal:
    """A user's session, with a runtime directory of its own."""

    runtime: Path

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*LAB, *arguments], env=self.env, capture_output=True, text=True, timeout=30, check=False)

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "XDG_RUNTIME_DIR": str(self.runtime)}


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


@pytest.fixture
def up(terminal: Terminal) -> Iterator[subprocess.Popen[str]]:
    argv = [*LAB, "up", "--client-nat", "symmetric", "--json"]
    with subprocess.Popen(argv, env=terminal.env, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_programs_run_in_the_lab_of_another_terminal(terminal: Terminal, up: subprocess.Popen[str]) -> None:
    assert up.stdout is not None
    shown = json.loads(up.stdout.readline())["nodes"]
    assert shown["client"]["addresses"] == ["192.168.1.10", "2001:db8:1::10"]
    listed = json.loads(terminal.command("nodes", "--json").stdout)
    assert listed["nodes"] == {name: row["pid"] for name, row in shown.items()}

    assert terminal.command("run", "client", "--", "hostname").stdout == "client\n"
    assert terminal.command("run", "client", "--", "ping", "-c1", "-W2", "portal").returncode == 0
    assert terminal.command("run", "client", "--", "sh", "-c", "exit 7").returncode == 7
    moon = terminal.command("run", "moon", "--", "true")
    assert (moon.returncode, "no node 'moon'" in moon.stderr) == (1, True)
    missing = terminal.command("run", "client", "--", "no-such-program")
    assert (missing.returncode, missing.stderr) == (1, "lab: no-such-program: No such file or directory\n")

    up.send_signal(signal.SIGINT)
    assert up.wait(20) == 0
    assert terminal.command("nodes").stderr == "lab: no lab is running; `wardgate lab up` starts one\n"


def test_remains_of_a_killed_lab_are_cleaned(terminal: Terminal, up: subprocess.Popen[str]) -> None:
    assert up.stdout is not None
    up.stdout.readline()
    directory = terminal.runtime / f"wardgate-lab-{os.getuid()}"
    (directory / "lab-nonsense.json").write_text("{}")
    up.kill()
    up.wait()
    assert len(list(directory.iterdir())) == 2

    assert terminal.command("nodes").returncode == 1
    assert list(directory.iterdir()) == []


def test_directory_that_others_can_write_is_refused(terminal: Terminal) -> None:
    directory = terminal.runtime / f"wardgate-lab-{os.getuid()}"
    directory.mkdir()
    directory.chmod(0o777)

    refused = terminal.command("nodes")

    assert refused.returncode == 1
    assert "not a private directory" in refused.stderr


def test_wrong_settings_are_refused_before_anything_is_built(terminal: Terminal) -> None:
    assert terminal.command("up", "--client-nat", "upside_down").returncode == 2
    refused = terminal.command("up", "--client-nat", "carrier_grade", "--carrier", "none")
    assert (refused.returncode, refused.stderr) == (1, "lab: a carrier's NAT cannot be none\n")
