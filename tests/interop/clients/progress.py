"""A pytest plugin: a line for each check when it is over, with the time that it took."""

import re

import pytest


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


def _title(nodeid: str) -> str:
    found = re.search(r"check_(\w+)\.py::test_(\w+)(?:\[(.*)\])?$", nodeid)
    if found is None:
        return nodeid
    client, name, parameters = found.groups()
    return f"{client}{f', {parameters}' if parameters else ''}: {name.replace('_', ' ')}"
