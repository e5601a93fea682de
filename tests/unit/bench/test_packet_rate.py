"""The search for the highest rate of which nearly all arrives, on tunnels that are functions."""

from collections.abc import Callable

import pytest
from bench.workloads.udp import FLOOD, MAX_PROBES, Probe, highest_rate, read_probe

from wardgate.errors import LabError

SECONDS = 1.0


def tunnel(capacity: float, collapse: float = 1.0, sender: float = FLOOD) -> Callable[[float], Probe]:
    """Carries so many datagrams a second, and only a share of that when it gets more; the sender has a limit, too."""

    def probe(rate: float) -> Probe:
        sent = min(rate, sender)
        return Probe(round(sent), round(sent if sent <= capacity else capacity * collapse), SECONDS)

    return probe


@pytest.mark.parametrize("capacity", [900.0, 17_000.0, 240_000.0, 700_000.0])
@pytest.mark.parametrize("collapse", [1.0, 0.5, 0.2])
def test_found_rate_is_just_below_what_the_tunnel_carries(capacity: float, collapse: float) -> None:
    found = highest_rate(tunnel(capacity, collapse))

    assert found.best is not None
    assert 0.93 * capacity <= found.best.rate <= capacity


def test_sender_that_is_slower_than_the_tunnel_is_found_by_the_flood_alone() -> None:
    found = highest_rate(tunnel(300_000.0, sender=60_000.0))

    assert found.best is not None
    assert (found.best.rate, found.probes) == (60_000.0, 1)


def test_search_is_bounded_and_finds_nothing_where_nothing_holds() -> None:
    asked: list[float] = []

    def broken(rate: float) -> Probe:
        asked.append(rate)
        return Probe(round(rate), round(rate * 0.9), SECONDS)

    found = highest_rate(broken)

    assert found.best is None
    assert found.probes == len(asked) <= MAX_PROBES


def test_unlucky_probe_is_tried_once_more() -> None:
    asked: list[float] = []

    def hiccups_once(rate: float) -> Probe:
        asked.append(rate)
        outcome = tunnel(50_000.0)(rate)
        return Probe(outcome.sent, round(outcome.received * 0.98), SECONDS) if len(asked) == 2 else outcome

    found = highest_rate(hiccups_once)

    assert asked[1] == asked[2]
    assert found.best is not None
    assert found.best.rate >= 0.93 * 50_000


def test_tunnel_that_carries_nothing_ends_the_search() -> None:
    found = highest_rate(lambda rate: Probe(round(rate), 0, SECONDS))

    assert found.best is None
    assert found.probes < MAX_PROBES


def test_loss_includes_what_the_kernel_refused() -> None:
    outcome = read_probe('{"sent": 90, "refused": 10, "received": 90, "seconds": 0.5}')

    assert outcome.loss == pytest.approx(0.1)
    assert outcome.rate == 180.0
    assert not outcome.holds


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[]", '{"sent": 1}', '{"sent": "x", "refused": 0, "received": 0, "seconds": 1}']
)
def test_text_that_is_no_result_is_refused(text: str) -> None:
    with pytest.raises(LabError):
        read_probe(text)
