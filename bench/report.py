"""The result in Markdown: medians, ratios, bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.bars import Bar
from bench.cast import ENTRIES
from bench.options import Options
from bench.ratio_bars import bars_of, held
from bench.results import Results, shown
from bench.rows import FIGURES, Figure

BASES = ("openvpn", "wireguard-go", "gotatun", "plain")
OURS = ("wardgate", "wardgate-dns", "wardgate-relayed")
NOTHING = "–"
FEW = 100
"""Bars above it are shown without decimals."""


@dataclass
class Report:
    """A whole run.

    Attributes:
        date: When it began, as in file names.
        options: What was asked for.
        results: What was measured.
        machine: What it was measured on.
        versions: Of each program.
        facts: Of each contender in each lab.
        notes: What a reader must know of this run.
        more_bars: Bars of other benchmarks.
    """

    date: str
    options: Options
    results: Results
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    facts: Mapping[str, Mapping[str, str]]
    notes: list[str] = field(default_factory=list)
    more_bars: list[Bar] = field(default_factory=list)

    def bars(self) -> list[Bar]:
        """Ours, and the other benchmarks'."""
        return [*bars_of(self.results), *self.more_bars]

    def as_json(self) -> dict[str, Any]:
        """Everything, every sample included."""
        figures = [
            {
                "row": figure.row,
                "key": figure.key,
                "title": figure.title,
                "unit": figure.unit,
                "better": figure.better.value,
                "values": {name: self.results.value(figure, name) for name in self.results.contenders},
                "ratios": self._ratios(figure),
            }
            for figure in shown(FIGURES, self.results)
        ]
        return {
            "date": self.date,
            "rounds": self.options.rounds,
            "seconds": self.options.seconds,
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "facts": {name: dict(facts) for name, facts in self.facts.items()},
            "notes": list(self.notes),
            "figures": figures,
            "bars": [bar.as_json() for bar in self.bars()],
            "samples": self.results.as_json(),
        }

    def markdown(self) -> str:
        """For people."""
        options = self.options
        parts = [
            f"# Tunnels compared, {self.date}",
            f"{options.rounds} rounds, {options.seconds:g} s a sample; medians of all rounds, and medians of the "
            "ratios within each round. `bench/README.md` has the method.",
            "\n".join(f"- {name}: {value}" for name, value in {**self.machine, **self.versions}.items()),
            *(["\n".join(f"- **{note}**" for note in self.notes)] if self.notes else []),
            "## Medians\n\n" + self._medians(),
            *self._ratio_tables(),
            f"## Bars\n\n{bar_table(self.bars())}\n\n{held(self.bars())}." if self.bars() else "",
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _medians(self) -> str:
        names = list(self.results.contenders)
        rows = []
        for figure in shown(FIGURES, self.results):
            cells = [_number(self.results.value(figure, name), figure.digits) for name in names]
            rows.append([f"{figure.title}, {figure.unit}", *cells])
        return table(["", *(ENTRIES[name].title for name in names)], rows)

    def _ratio_tables(self) -> list[str]:
        made = []
        for ours in (name for name in OURS if name in self.results.contenders):
            others = BASES if ours == OURS[0] else (*BASES, OURS[0])
            bases = [name for name in others if name in self.results.contenders]
            if bases:
                made.append(f"## {ENTRIES[ours].title}, ratios\n\n{self._ratio_table(ours, bases)}")
        return made

    def _ratio_table(self, ours: str, bases: Sequence[str]) -> str:
        rows = []
        for figure in shown(FIGURES, self.results):
            if self.results.value(figure, ours) is not None:
                cells = [_number(self.results.ratio(figure, ours, base), 2) for base in bases]
                rows.append([f"{figure.title} ({figure.better.value} is better)", *cells])
        return table(["", *(f"÷ {ENTRIES[base].title}" for base in bases)], rows)

    def _ratios(self, figure: Figure) -> dict[str, dict[str, float | None]]:
        names = self.results.contenders
        return {
            base: {name: self.results.ratio(figure, name, base) for name in names if name != base}
            for base in (*BASES, "wardgate")
            if base in names
        }


def bar_table(bars: Sequence[Bar]) -> str:
    """The bars, with what was measured."""
    rows = []
    for bar in bars:
        limit = f"{'at most' if bar.is_ceiling else 'at least'} {bar.limit:,g} {bar.unit}"
        aim = NOTHING if bar.aim is None else f"{bar.aim:,g}"
        digits = 2 if bar.limit < FEW else 0
        rows.append([bar.name, limit, aim, _number(bar.value, digits), "yes" if bar.holds else "**no**"])
    return table(["", "bar", "aim", "measured", "holds"], rows)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is also readable as text: first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *rest])} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(heads), f"|{rule}|", *(line(row) for row in rows)])


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}"
