"""A pytest plugin: what is tried, a line for each check when it is over with the time that it took, and a last line.

SIGTERM ends the run as SIGINT does, so that no process and no file is left behind.
"""

import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
STARTED_AT = pytest.StashKey[float]()
DIRECTORY = pytest.StashKey[str]()
OUTCOME = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Says what is tried, and gives the run a directory of its own."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config.stash[STARTED_AT] = time.monotonic()
    config.stash[DIRECTORY] = tempfile.mkdtemp(prefix="wardgate-interop-")
    config.option.basetemp = f"{config.stash[DIRECTORY]}/pytest"
    print(f"interop:\n  {', '.join(_versions())}", flush=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes it, and says how it ended."""
    took_s = time.monotonic() - config.stash[STARTED_AT]
    print(f"interop: {config.stash.get(OUTCOME, 'FAILED')} in {took_s:.0f} s", flush=True)
    shutil.rmtree(config.stash[DIRECTORY], ignore_errors=True)


def pytest_report_teststatus(report: pytest.CollectReport | pytest.TestReport) -> tuple[str, str, str] | None:
    """Says in words what pytest says with a letter."""
    if not isinstance(report, pytest.TestReport) or (report.when != "call" and report.passed):
        return None
    category, word = {"passed": ("passed", "ok"), "skipped": ("skipped", "skipped"), "failed": ("failed", "FAILED")}[
        report.outcome
    ]
    if report.failed and report.when != "call":
        category = "error"
    detail = f"{report.duration:.1f} s"
    if report.skipped and isinstance(report.longrepr, tuple):
        detail = str(report.longrepr[2]).removeprefix("Skipped: ")
    return category, f"  {_title(report.nodeid)}: {word} ({detail})\n", word


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config, exitstatus: int) -> None:
    """Notes how it ended."""
    if exitstatus == pytest.ExitCode.OK:
        skipped = len(terminalreporter.stats.get("skipped", []))
        config.stash[OUTCOME] = f"passed, but {skipped} were not tried" if skipped else "all passed"
    elif exitstatus == pytest.ExitCode.INTERRUPTED:
        config.stash[OUTCOME] = "interrupted"


def _versions() -> list[str]:
    pinned = (HERE / "requirements.txt").read_text() + (HERE.parent / "pion" / "go.mod").read_text()
    found = re.findall(r"(aioice|pion/turn|pion/webrtc)(?:/v\d+ v|==)([\d.]+)", pinned)
    browser = shutil.which("chromium")
    said = subprocess.run([browser, "--version"], capture_output=True, text=True).stdout if browser else "no Chromium"
    return [f"{name} {version}" for name, version in found] + [" ".join(said.split()[:2])]


def _title(nodeid: str) -> str:
    found = re.search(r"check_(\w+)\.py::test_(\w+)(?:\[(.*)\])?$", nodeid)
    if found is None:
        return nodeid
    client, name, parameters = found.groups()
    return f"{client}{f', {parameters}' if parameters else ''}: {name.replace('_', ' ')}"
