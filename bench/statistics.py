"""The few statistics that the benchmark needs."""

import math
import statistics
from collections.abc import Mapping, Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank).

    Raises:
        ValueError: There are no values, or the share is outside 0 to 1.
    """
    if not values or not 0 <= share <= 1:
        raise ValueError(f"no percentile {share} of {len(values)} values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def median(values: Sequence[float]) -> float | None:
    """The median; `None` of nothing."""
    return statistics.median(values) if values else None


def round_ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Ratios of what two contenders reached in the same round, for the rounds in which both have a value above zero."""
    return [
        ours[number] / theirs[number] for number in sorted(ours) if theirs.get(number, 0.0) > 0 and ours[number] > 0
    ]
