"""DNS control with a real systemd-resolved, in namespaces of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.interop.resolved_conversation import SERVERS

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("systemd_resolved.sh")
PLACES = (ROOT / "target" / "resolved", Path("/"))

pytestmark = pytest.mark.netns


def test_tunnel_gets_its_servers_again_when_forgotten_and_they_vanish_with_it() -> None:
    said = conversation()

    assert said["method"] == "systemd-resolved"
    assert said["before"] == said["others"] == said["afterwards"] == ["192.0.2.1"]
    for status in (said["tunnel"], said["tunnel again"]):
        for part in (*SERVERS, "~. corp.example", "-DNSOverTLS", "DNSSEC=no", "+LLMNR"):
            assert part in status
    assert (said["forgotten"], said["told again"]) == (False, True)
    assert "leads to systemd-resolved" in said["refusal"]


def conversation() -> dict[str, Any]:
    place = next((each for each in PLACES if starts(each / "lib/systemd/systemd-resolved")), None)
    if place is None or shutil.which("dbus-daemon") is None or os.geteuid() != 0:
        pytest.skip("systemd-resolved or dbus-daemon is not there (scripts/setup test), or this is not root")
    space = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    command = [*space, str(SCRIPT), str(place), sys.executable, "-m", "tests.interop.resolved_conversation"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])  # before it is the log
    return said


def starts(program: Path) -> bool:
    """Whether it is there, with the library of its version."""
    return program.exists() and subprocess.run([program, "--version"], capture_output=True, check=False).returncode == 0
