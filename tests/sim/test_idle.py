"""How often a client and a gateway wake up when nobody uses the tunnel between them; virtual time.

What wakes them has a reason: a check of the path every 25 s and the relay's answer, which keep NATs open where packets
may come in; handshakes every two minutes, refreshes and channels every five. The portal's heartbeat is the link's.
"""

import pytest

from tests.sim.product import Product, Program, product
from tests.sim.test_gaps import gap

HOUR_S = 3600.0
CHECKS = HOUR_S / 25.0


class Count:
    """Wake-ups by a timer, and datagrams that came."""

    def __init__(self, program: Program) -> None:
        self.timers = self.datagrams = 0
        self.program = program
        self._handle_timeout, self._handle_datagram = program.handle_timeout, program.handle_datagram
        program.handle_timeout = self._timer  # type: ignore[method-assign]
        program.handle_datagram = self._datagram  # type: ignore[method-assign, assignment]

    def _timer(self, now: float) -> None:
        self.timers += 1
        self._handle_timeout(now)

    def _datagram(self, *args: object) -> None:
        self.datagrams += 1
        self._handle_datagram(*args)  # type: ignore[arg-type]


@pytest.mark.parametrize("iceless", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
def test_an_idle_tunnel_wakes_for_what_keeps_it_alive(*, iceless: bool, symmetric: bool) -> None:
    lab, client, gateway = idle(iceless, symmetric)

    lab.run(HOUR_S)

    assert client.timers <= 6 * CHECKS
    assert gateway.timers <= 10 * CHECKS
    assert client.datagrams <= 10 * CHECKS


@pytest.mark.parametrize("iceless", [True, False])
def test_a_tunnel_that_slept_works_at_once_and_is_watched_again(*, iceless: bool) -> None:
    lab, _, _ = idle(iceless, symmetric=False)
    lab.run(HOUR_S)

    found = gap(lab, lambda lab: lab.gateways[0].restart(), after_s=10.0)

    assert found < 3.0


def idle(iceless: bool, symmetric: bool) -> tuple[Product, Count, Count]:
    """A connection whose last packet was five minutes ago."""
    lab = product(symmetric=symmetric)
    lab.portal.iceless = iceless
    gap(lab, lambda lab: None, after_s=1.0)
    lab.run(300.0)
    return lab, Count(lab.client.program), Count(lab.gateways[0].program)
