"""Proxy IP <-> real IP of one client on a gateway: which port a flow leaves with.

Several proxy IPs may stand for one real IP, so a flow is told apart outside by its port (ICMP: identifier), which is
searched from the original one upwards. Flows that are not translated reserve their place in the same table; otherwise
a reply to one of them could be taken for one of a translated flow.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple

from wardgate.wire.ip import ICMP, ICMPV6, TCP, UDP, IpAddress

MAX_BINDINGS: Final = 65_536
MAX_REMEMBERED: Final = 4096
LINGER_S: Final = {TCP: 2 * 3600 + 4 * 60.0, UDP: 120.0, ICMP: 120.0, ICMPV6: 120.0}
"""How long a binding outlives its connection's loss, so that a client that comes back finds its flows."""
_PORTS: Final = 65_536


class Side(NamedTuple):
    """A flow as one side sees it: protocol, the client's port, and the address it talks to."""

    protocol: int
    port: int
    address: IpAddress


@dataclass(slots=True)
class _Binding:
    outside: Side
    flows: int = 0
    unused_until: float = 0.0


class NatTable:
    """The bindings of one client."""

    def __init__(self) -> None:
        self._by_inside: dict[Side, _Binding] = {}
        self._inside_by_outside: dict[Side, Side] = {}
        self._unused: dict[Side, None] = {}
        self._expired: OrderedDict[Side, None] = OrderedDict()
        self.refused = 0

    def __len__(self) -> int:
        return len(self._by_inside)

    def bind(self, inside: Side, real: IpAddress, now: float) -> Side | None:
        """How a new flow of `inside` looks outside; each call is to be followed by one `release`.

        A binding that exists wins over `real`: running connections stay where they are when a name's addresses change.

        Args:
            inside: What the client sends: its port, and the proxy IP (or the real one, if nothing is translated).
            real: Where to.

        Returns:
            `None` if no port is free (counted).
        """
        self._drop_unused(inside, now)
        binding = self._by_inside.get(inside)
        if binding is None:
            outside = self._free_outside(inside, real, now) if len(self._by_inside) < MAX_BINDINGS else None
            if outside is None:
                self.refused += 1
                return None
            binding = self._by_inside[inside] = _Binding(outside)
            self._inside_by_outside[outside] = inside
            self._expired.pop(outside, None)
        binding.flows += 1
        self._unused.pop(inside, None)
        return binding.outside

    def release(self, inside: Side, now: float, *, linger: bool = False) -> None:
        """A flow is gone; with the last one its binding goes, at once or (`linger`) after a while unused."""
        binding = self._by_inside.get(inside)
        if binding is None:
            return
        binding.flows -= 1
        if binding.flows <= 0:
            binding.flows = 0
            binding.unused_until = now + LINGER_S.get(inside.protocol, LINGER_S[UDP]) if linger else now
            self._unused[inside] = None
            self._drop_unused(inside, now)

    def outside_of(self, inside: Side) -> Side | None:
        """How a flow looks outside, if it is bound."""
        binding = self._by_inside.get(inside)
        return None if binding is None else binding.outside

    def inside_of(self, outside: Side) -> Side | None:
        """The flow that a reply from outside belongs to."""
        return self._inside_by_outside.get(outside)

    def is_expired(self, outside: Side) -> bool:
        """Whether a binding with this outside is known to have ended: its late packets are nobody's."""
        return outside in self._expired

    def expire(self, now: float) -> None:
        """Drops bindings that lingered long enough."""
        for inside in tuple(self._unused):
            self._drop_unused(inside, now)

    def clear(self) -> None:
        """Forgets every binding: the client's proxy IPs mean other names now."""
        for outside in self._inside_by_outside:
            self._remember(outside)
        self._by_inside.clear()
        self._inside_by_outside.clear()
        self._unused.clear()

    def _free_outside(self, inside: Side, real: IpAddress, now: float) -> Side | None:
        for step in range(_PORTS):
            port = (inside.port + step) % _PORTS
            if port == 0 and inside.port != 0:
                continue
            outside = Side(inside.protocol, port, real)
            owner = self._inside_by_outside.get(outside)
            if owner is not None:
                self._drop_unused(owner, now)
            if outside not in self._inside_by_outside:
                return outside
            if inside.protocol not in LINGER_S:
                return None
        return None

    def _drop_unused(self, inside: Side, now: float) -> None:
        binding = self._by_inside.get(inside)
        if binding is not None and not binding.flows and now >= binding.unused_until:
            del self._by_inside[inside]
            del self._inside_by_outside[binding.outside]
            self._unused.pop(inside, None)
            self._remember(binding.outside)

    def _remember(self, outside: Side) -> None:
        self._expired[outside] = None
        if len(self._expired) > MAX_REMEMBERED:
            self._expired.popitem(last=False)
