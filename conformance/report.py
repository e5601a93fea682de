"""Results for people and programs: a line each, Markdown with one column for each server, JSON."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from conformance.registry import LEVELS, Requirement
from conformance.runner import Result, Status

TITLES = {"8489": "RFC 8489: STUN", "8656": "RFC 8656: TURN"}
CELLS = {
    Status.PASS: "pass",
    Status.FAIL: "**fail**",
    Status.NOT_APPLICABLE: "n/a",
    Status.NOT_TESTED: "–",
}


@dataclass(frozen=True)
class Column:
    """One server's results."""

    name: str
    results: Sequence[Result]

    def result_of(self, requirement: Requirement) -> Result | None:
        return next((each for each in self.results if each.requirement.id == requirement.id), None)

    def count(self, level: str, status: Status) -> int:
        return sum(each.requirement.level == level and each.status == status for each in self.results)


def line(result: Result) -> str:
    """One result on one line of a terminal."""
    requirement = result.requirement
    head = f"{result.status:<15}{requirement.id:<16}{requirement.level:<7}{requirement.text}"
    return head if result.status == Status.PASS else f"{head}\n{'':15}{result.detail}"


def summary(column: Column) -> str:
    """All results of a server in one line."""
    counts = Counter(result.status for result in column.results)
    parts = [f"{counts[status]} {status}" for status in Status if counts[status]]
    broken = sum(result.is_broken_must for result in column.results)
    return f"{column.name}: {', '.join(parts)}; {broken} MUST broken"


def markdown(columns: Sequence[Column], how: str, deliberate: Mapping[str, str] | None = None) -> str:
    """The table of all requirements, and beneath it why each failed.

    Args:
        how: A sentence on how the results were made.
        deliberate: What the first server breaks on purpose: id -> why.
    """
    lines = ["# STUN and TURN conformance", "", how, ""]
    lines += ["What the levels and results mean, and how to test another server: `conformance/README.md`.", ""]
    lines += _counts(columns)
    requirements = [result.requirement for result in columns[0].results]
    for rfc, group in groupby(requirements, key=lambda each: each.rfc):
        lines += [f"## {TITLES[rfc]}", "", *_head("requirement", "level", columns)]
        lines += [_row(requirement, columns) for requirement in group]
        lines += [""]
    lines += _details("What failed", columns, Status.FAIL)
    if deliberate:
        lines += [f"## What {columns[0].name} breaks on purpose", ""]
        lines += [*(f"- `{id_}`: {why}" for id_, why in deliberate.items()), ""]
    lines += _details("What does not apply", columns, Status.NOT_APPLICABLE)
    lines += _details("What was not tested", columns, Status.NOT_TESTED)
    return "\n".join(lines).rstrip() + "\n"


def as_json(columns: Sequence[Column]) -> str:
    """The same for programs."""
    return json.dumps(
        [
            {
                "server": column.name,
                "results": [
                    {
                        "id": result.requirement.id,
                        "level": result.requirement.level,
                        "text": result.requirement.text,
                        "status": str(result.status),
                        "detail": result.detail,
                        "seconds": round(result.seconds, 3),
                    }
                    for result in column.results
                ],
            }
            for column in columns
        ],
        indent=1,
    )


def listing(requirements: Sequence[Requirement]) -> str:
    """The requirements themselves."""
    return "\n".join(
        f"{each.id:<16}{each.level:<7}{each.text}{' (slow)' if each.slow else ''}" for each in requirements
    )


def _counts(columns: Sequence[Column]) -> list[str]:
    lines = _head("passed, failed, of those that apply", "", columns, blank=True)
    for level in LEVELS:
        cells = []
        for column in columns:
            passed, failed = column.count(level, Status.PASS), column.count(level, Status.FAIL)
            cells.append(f"{passed} passed, {failed} failed of {passed + failed}")
        lines.append(f"| {level} | {' | '.join(cells)} |")
    return [*lines, ""]


def _head(first: str, second: str, columns: Sequence[Column], *, blank: bool = False) -> list[str]:
    names = [column.name for column in columns]
    if blank:
        return [f"| level | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    return [f"| | {first} | {second} | {' | '.join(names)} |", f"| --- | --- | --- |{' --- |' * len(names)}"]


def _row(requirement: Requirement, columns: Sequence[Column]) -> str:
    results = [column.result_of(requirement) for column in columns]
    cells = [CELLS[result.status] if result else "–" for result in results]
    text = requirement.text.replace("|", "\\|")
    return f"| {requirement.id} | {text} | {requirement.level} | {' | '.join(cells)} |"


def _details(title: str, columns: Sequence[Column], status: Status) -> list[str]:
    lines = []
    for column in columns:
        found = [result for result in column.results if result.status == status]
        if found:
            lines += [f"### {column.name}", ""]
            lines += [f"- {_ids(ids)}: {detail}" for detail, ids in _by_detail(found).items()]
            lines += [""]
    return [f"## {title}", "", *lines] if lines else []


def _by_detail(results: Sequence[Result]) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = {}
    for result in results:
        ids.setdefault(_lasting(result.detail.replace("|", "\\|")), []).append(result.requirement.id)
    return ids


def _lasting(detail: str) -> str:
    """Without the ports of loopback, so that a report changes only when a server does."""
    return re.sub(r"(127\.0\.0\.\d+|\[::1\]):\d+", r"\1:port", detail)


def _ids(ids: list[str]) -> str:
    return ", ".join(f"`{id_}`" for id_ in ids)
