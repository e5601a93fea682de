"""What a run has measured, and how figures are taken from it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.rows import Figure
from bench.statistics import median, round_ratios


@dataclass(frozen=True, slots=True)
class Sample:
    """One contender's part in one row of one round.

    Attributes:
        round: Counted from 0.
        row: Which row.
        contender: Who.
        at_s: When it began, in seconds since the run did.
        values: What was measured, by name; empty if it failed.
        error: Why it failed; `None` if it did not.
    """

    round: int
    row: str
    contender: str
    at_s: float
    values: Mapping[str, float]
    error: str | None = None


@dataclass
class Results:
    """All samples of a run.

    Attributes:
        contenders: Who took part, in the order of the tables.
        samples: As they came.
    """

    contenders: Sequence[str]
    samples: list[Sample] = field(default_factory=list)

    def by_round(self, row: str, key: str, contender: str) -> dict[int, float]:
        """What a contender reached in each round."""
        return {
            sample.round: sample.values[key]
            for sample in self.samples
            if sample.contender == contender and row in (sample.row, "*") and key in sample.values
        }

    def value(self, figure: Figure, contender: str) -> float | None:
        """What the tables show: the median of all rounds, or the peak; `None` if there is nothing."""
        if not figure.peak:
            return median(list(self.by_round(figure.row, figure.key, contender).values()))
        every = [sample.values.get(figure.key, 0.0) for sample in self.samples if sample.contender == contender]
        return max(every, default=0.0) or None

    def spread(self, figure: Figure, contender: str) -> tuple[float, float] | None:
        """The least and the most of all rounds."""
        reached = self.by_round(figure.row, figure.key, contender).values()
        return (min(reached), max(reached)) if reached else None

    def ratio(self, figure: Figure, ours: str, theirs: str) -> float | None:
        """The median of the ratios of each round; of peaks, their ratio."""
        if figure.peak:
            first, second = self.value(figure, ours), self.value(figure, theirs)
            return first / second if first and second else None
        return median(self.ratios(figure.row, figure.key, ours, theirs))

    def ratios(self, row: str, key: str, ours: str, theirs: str) -> list[float]:
        """The ratio of each round."""
        return round_ratios(self.by_round(row, key, ours), self.by_round(row, key, theirs))

    def failures(self) -> list[Sample]:
        """Samples that failed."""
        return [sample for sample in self.samples if sample.error is not None]

    def as_json(self) -> list[dict[str, Any]]:
        """Every sample."""
        return [asdict(sample) for sample in self.samples]


def shown(figures: Iterable[Figure], results: Results) -> list[Figure]:
    """The figures that somebody has a value for."""
    return [figure for figure in figures if any(results.value(figure, name) is not None for name in results.contenders)]
