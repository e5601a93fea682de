"""How fast a portal empties itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.portal.drain import due_by


@pytest.mark.parametrize(
    ("elapsed_s", "channels", "seconds", "closed"),
    [
        (0.0, 20, 5, 1),
        (0.05, 20, 5, 1),
        (0.3, 20, 5, 2),
        (2.5, 20, 5, 11),
        (4.99, 20, 5, 20),
        (5.0, 20, 5, 20),
        (0.0, 10_000, 5, 1),
        (0.05, 10_000, 5, 101),
        (0.0, 20, 0, 20),
        (0.0, 0, 5, 0),
        (9.0, 0, 5, 0),
    ],
)
def test_channels_are_closed_evenly(elapsed_s: float, channels: int, seconds: float, closed: int) -> None:
    assert due_by(elapsed_s, channels, seconds) == closed


@given(st.floats(0, 60), st.floats(0, 60), st.integers(0, 20_000), st.floats(0, 40))
def test_it_never_goes_back_and_ends_in_time(one: float, two: float, channels: int, seconds: float) -> None:
    early, late = sorted((one, two))

    assert 0 <= due_by(early, channels, seconds) <= due_by(late, channels, seconds) <= channels
    assert due_by(seconds, channels, seconds) == channels
