"""Percentiles by nearest rank, and ratios within rounds."""

import pytest
from bench.statistics import median, percentile, round_ratios


def test_percentile_is_one_of_the_values() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]

    assert percentile(values, 0.5) == 3.0
    assert percentile(values, 0.99) == 5.0
    assert percentile(values, 0.0) == 1.0
    assert percentile([7.0], 0.99) == 7.0


def test_percentile_99_of_a_thousand_leaves_ten_above() -> None:
    assert percentile([float(number) for number in range(1, 1001)], 0.99) == 990.0


def test_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError):
        percentile([], 0.5)
    with pytest.raises(ValueError):
        percentile([1.0], 1.5)


def test_ratio_is_taken_within_each_round() -> None:
    assert round_ratios({0: 2.0, 1: 9.0}, {0: 1.0, 1: 3.0}) == [2.0, 3.0]


def test_round_that_one_of_both_has_nothing_for_is_left_out() -> None:
    assert round_ratios({0: 2.0, 1: 3.0, 2: 0.0}, {0: 0.0, 1: 1.5, 2: 1.0, 3: 1.0}) == [2.0]


def test_median_of_nothing_is_nothing() -> None:
    assert median([]) is None
    assert median([3.0, 1.0, 2.0]) == 2.0
