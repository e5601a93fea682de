"""What is read from a soak."""

import pytest
from bench.soak import Look, bars_of, carried_by, gbit_per_s, growth, wait_for_flows_to_go

from wardgate.errors import LabError

MB = 1_000_000


def looks(gateway_mb: list[float]) -> list[Look]:
    return [
        Look(at_s=float(at), rss={"gateway": round(mb * MB), "client": 50 * MB}, flows=10, carried=at * MB)
        for at, mb in enumerate(gateway_mb)
    ]


def test_memory_at_the_end_is_compared_with_the_first_minute_and_not_with_the_start() -> None:
    seen = looks([20.0] * 50 + [100.0] * 50 + [120.0] * 21)

    assert growth(seen, "gateway") == 1.2
    assert growth(seen, "client") == 1.0
    assert [bar.holds for bar in bars_of(seen, 100.0, 0)] == [False, True, True, True]


def test_connections_that_fail_and_flows_that_stay_are_told() -> None:
    assert [bar.holds for bar in bars_of(looks([100.0] * 121), 98.9, 101)] == [True, True, False, False]


def test_what_was_carried_is_a_difference() -> None:
    assert gbit_per_s(looks([1.0] * 11)[4:]) == 8 * MB / 1e9


def test_what_an_interface_carried_is_both_ways() -> None:
    text = (
        "Inter-|   Receive                                                |  Transmit\n"
        "    lo: 7 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n"
        "  tun0: 1000 2 0 0 0 0 0 0 30 1 0 0 0 0 0 0\n"
    )

    assert carried_by(text, "tun0") == 1030
    with pytest.raises(LabError, match="no interface tun1"):
        carried_by(text, "tun1")


def test_flows_that_are_gone_are_not_waited_for() -> None:
    assert wait_for_flows_to_go(lambda: 7) == 7
