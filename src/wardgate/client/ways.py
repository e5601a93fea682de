"""Which way first packets of flows go, once that is known: flows to open for them, and what holds for their like."""

from collections import Counter
from typing import Final

from wardgate._fastpath import Decided, PacketUpcall
from wardgate.ids import PeerIndex
from wardgate.tunnel.flows import FlowTable, transmits
from wardgate.wire.addresses import Transmit

MAX_KNOWN: Final = 4096


class Ways:
    """Flows that wait to be opened together, and the ways of late, by `PacketUpcall.target`."""

    def __init__(self, flows: FlowTable, counters: Counter[str]) -> None:
        self._flows = flows
        self._counters = counters
        self._decided: list[Decided] = []
        self._known: dict[bytes, tuple[PeerIndex, int]] = {}

    def take(self, upcall: PacketUpcall) -> bool:
        """Lets a packet go the way of others to the same target; returns whether that is known."""
        known = self._known.get(upcall.target or b"")
        if known is None:
            return False
        self._decided.append((upcall, *known, b""))
        return True

    def open(self, upcall: PacketUpcall, peer: PeerIndex, number: int, *, is_lasting: bool) -> None:
        """Has the packet's flow opened and the packet sent on that way.

        Args:
            upcall: The packet; it opens a flow.
            number: What the flow is marked with.
            is_lasting: Whether all packets to the same target may take the same way, until `forget`.
        """
        self._decided.append((upcall, peer, number, b""))
        if is_lasting and upcall.target is not None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[upcall.target] = (peer, number)

    def forget(self) -> None:
        """Something changed: every way is to be found anew."""
        self._known.clear()

    def install(self, now: float) -> tuple[list[bytes], list[Transmit]]:
        """Opens the flows that wait; returns what their packets became, for the TUN device and for the network."""
        decided, self._decided = self._decided, []
        if not decided:
            return [], []
        packets, datagrams, exceptions = self._flows.install(decided, now)
        self._counters["flows_installed"] += len(decided) - len(exceptions)
        refused = sum(1 for _, what in exceptions if what != "known")
        if refused:
            self._counters["dropped_not_installed"] += refused
        return packets, transmits(datagrams)
