"""Figures against their limits: the table on the terminal, and the JSON file that keeps them."""

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"


class Bar(NamedTuple):
    """One figure and what it has to be.

    Attributes:
        limit: At least this much, or at most if `is_ceiling`.
        aim: What we want; `None` if nobody said.
    """

    name: str
    value: float
    unit: str
    limit: float
    is_ceiling: bool = False
    aim: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the figure is on the right side of its limit."""
        return self.value <= self.limit if self.is_ceiling else self.value >= self.limit

    def as_json(self) -> dict[str, Any]:
        """What the file keeps of it."""
        return {
            "name": self.name,
            "value": round(self.value, 3),
            "unit": self.unit,
            "limit": self.limit,
            "is_ceiling": self.is_ceiling,
            "aim": self.aim,
            "holds": self.holds,
        }


def write(file_name: str, bars: Sequence[Bar], method: str, samples: Mapping[str, Any]) -> None:
    """Prints the bars and keeps them with every sample, the method and the machine."""
    show(bars)
    contents = {
        "bars": [bar.as_json() for bar in bars],
        "method": method,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "samples": samples,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / file_name
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(contents, indent=1) + "\n")
    temporary.replace(path)


def show(bars: Sequence[Bar]) -> None:
    """Prints the bars."""
    for bar in bars:
        word = "at most" if bar.is_ceiling else "at least"
        verdict = "holds" if bar.holds else "DOES NOT HOLD"
        print(f"{bar.name}: {bar.value:,.1f} {bar.unit} ({word} {bar.limit:,g}: {verdict})")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints rows below their heads, the first column to the left and the others to the right."""
    lines = [tuple(heads), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells), flush=True)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
