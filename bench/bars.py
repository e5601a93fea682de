"""What a small benchmark leaves: its table and bars on the terminal, and both with every sample in a file."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import describe
from bench.ratio_bars import Bar

RESULTS = Path(__file__).parent / "results"


def write(file_name: str, bars: Sequence[Bar], method: str | None, samples: Mapping[str, Any]) -> None:
    """Prints the bars and keeps them with every sample, the method and the machine."""
    for bar in bars:
        word = "at most" if bar.at_most else "at least"
        verdict = "holds" if bar.holds else "DOES NOT HOLD"
        print(f"{bar.name}: {bar.value or 0:,.1f} {bar.unit} ({word} {bar.limit:,g}, aim {bar.aim:,g}: {verdict})")
    contents = {
        "bars": [bar.as_json() for bar in bars],
        "method": " ".join((method or "").split()),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe(),
        "samples": samples,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / file_name
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(contents, indent=1) + "\n")
    temporary.replace(path)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints rows below their heads, the first column to the left and the others to the right."""
    lines = [tuple(heads), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        others = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        print("  ".join((line[0].ljust(widths[0]), *others)), flush=True)
