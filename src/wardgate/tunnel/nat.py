"""Proxy IP <-> real IP of one client on a gateway: which port a flow leaves with.

Several proxy IPs may stand for one real IP, so a flow is told apart outside by its port (ICMP: identifier), which is
searched from the original one upwards. What flows that are not translated use, the native table knows: it refuses a
flow that looks like another one outside, and then a port beside the `taken` ones is searched.
"""

from collections.abc import Container
from typing import Final, NewType

from wardgate.wire.ip import ICMP, ICMPV6, TCP, UDP, IpAddress

MAX_BINDINGS: Final = 65_536
LINGER_S: Final = {TCP: 2 * 3600 + 4 * 60.0, UDP: 120.0, ICMP: 120.0, ICMPV6: 120.0}
"""How long a binding outlives its connection's loss, so that a client that comes back finds its flows."""
SHORTEST_LINGER_S: Final = min(LINGER_S.values())
_PORTS: Final = 65_536
_ADDRESS: Final = 3

Side = NewType("Side", bytes)
"""A flow as one side sees it: protocol, the client's port (two bytes), and the address it talks to, as the native
module writes it. There are two for each translated flow, so it is small."""


def side(protocol: int, port: int, address: IpAddress) -> Side:
    """The flow of that protocol and port that talks to that address."""
    return Side(bytes((protocol, *port.to_bytes(2, "big"))) + address.packed)


class NatTable:
    """The bindings of one client."""

    def __init__(self) -> None:
        self._outside_by_inside: dict[Side, Side] = {}
        self._inside_by_outside: dict[Side, Side] = {}
        self._flows: dict[Side, int] = {}  # of bindings that more than one flow uses
        self._unused_until: dict[Side, float] = {}  # of bindings that none uses
        self.refused = 0

    def __len__(self) -> int:
        return len(self._outside_by_inside)

    def bind(self, inside: Side, real: bytes, now: float, taken: Container[Side] = ()) -> Side | None:
        """How a new flow of `inside` looks outside; each call is to be followed by one `release`.

        A binding that exists wins over `real`: running connections stay where they are when a name's addresses change.

        Args:
            inside: What the client sends: its port, and the proxy IP (or the real one, if nothing is translated).
            real: The packed address of where it goes.
            taken: Not to be chosen, although free here.

        Returns:
            `None` if no port is free (counted).
        """
        outside = self._outside_by_inside.get(inside)
        if outside is not None:
            until = self._unused_until.pop(inside, None)
            if until is None:
                self._flows[inside] = self._flows.get(inside, 1) + 1
                return outside
            if now < until:
                return outside
            self._drop(inside)
        outside = self._free_outside(inside, real, now, taken) if len(self) < MAX_BINDINGS else None
        if outside is None:
            self.refused += 1
            return None
        self._outside_by_inside[inside] = outside
        self._inside_by_outside[outside] = inside
        return outside

    def release(self, inside: Side, now: float, *, linger: bool = False) -> None:
        """A flow is gone; with the last one its binding goes, at once or (`linger`) after a while unused."""
        flows = self._flows.pop(inside, 1) - 1
        if flows > 1:
            self._flows[inside] = flows
        if flows or inside not in self._outside_by_inside:
            return
        if linger:
            self._unused_until[inside] = now + LINGER_S.get(inside[0], LINGER_S[UDP])
        else:
            self._drop(inside)

    def outside_of(self, inside: Side) -> Side | None:
        """How a flow looks outside, if it is bound."""
        return self._outside_by_inside.get(inside)

    def inside_of(self, outside: Side) -> Side | None:
        """The flow that a reply from outside belongs to."""
        return self._inside_by_outside.get(outside)

    def expire(self, now: float) -> None:
        """Drops bindings that lingered long enough."""
        for inside in [inside for inside, until in self._unused_until.items() if now >= until]:
            self._drop(inside)

    def next_expiry(self) -> float:
        """When the next binding is dropped at the earliest; never if none lingers."""
        return min(self._unused_until.values(), default=float("inf"))

    def clear(self) -> None:
        """Forgets every binding: the client's proxy IPs mean other names now."""
        self._outside_by_inside.clear()
        self._inside_by_outside.clear()
        self._flows.clear()
        self._unused_until.clear()

    def _free_outside(self, inside: Side, real: bytes, now: float, taken: Container[Side]) -> Side | None:
        first = int.from_bytes(inside[1:_ADDRESS], "big")
        for step in range(_PORTS):
            port = (first + step) % _PORTS
            if port == 0 and first != 0:
                continue
            outside = Side(inside[:1] + port.to_bytes(2, "big") + real)
            owner = self._inside_by_outside.get(outside)
            if owner is not None and now >= self._unused_until.get(owner, now + 1.0):
                self._drop(owner)
                owner = None
            if owner is None and outside not in taken:
                return outside
            if inside[0] not in LINGER_S:
                return None
        return None

    def _drop(self, inside: Side) -> None:
        del self._inside_by_outside[self._outside_by_inside.pop(inside)]
        self._flows.pop(inside, None)
        self._unused_until.pop(inside, None)
