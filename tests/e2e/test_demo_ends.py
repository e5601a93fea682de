"""The demo, ended early: whatever the signal, no process of its lab and no file is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.netns

DEMO = [sys.executable, "-m", "wardgate.lab.demo"]
GONE_S = 15.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_demo_that_is_ended_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path) as demo:
        wait(lambda: list(tmp_path.glob("*/app.log")))
        os.killpg(demo.pid, number)
        os.killpg(demo.pid, number)  # an impatient user
        said = demo.communicate(timeout=GONE_S)[0]

    assert demo.returncode == 128 + number
    assert f"ended by {number.name}" in said
    assert list(tmp_path.iterdir()) == []
    assert processes(tmp_path) == []


def test_demo_that_is_killed_leaves_no_process_and_the_next_run_removes_its_files(tmp_path: Path) -> None:
    with started(tmp_path) as demo:
        wait(lambda: list(tmp_path.glob("*/app.log")))
        left = next(tmp_path.iterdir())
        demo.kill()
        demo.communicate()
    wait(lambda: not processes(tmp_path))
    assert left.exists()

    with started(tmp_path) as demo:
        wait(lambda: not left.exists())
        demo.terminate()
        demo.communicate(timeout=GONE_S)

    assert list(tmp_path.iterdir()) == []


def started(directory: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        DEMO,
        env={**os.environ, "TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def processes(directory: Path) -> list[str]:
    """Processes that the demo started: they have its environment."""
    mark = f"TMPDIR={directory}\0".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (place / "environ").read_bytes():
                found.append((place / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def wait(condition: Callable[[], object]) -> None:
    until = time.monotonic() + GONE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
