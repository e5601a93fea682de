"""Makes programs notice that the access they were using has ended.

An established TCP connection takes an ICMP error as a hint only, and a program that downloads sends nothing that could
be answered. So each TCP connection that was cut gets a SYN from its far end: the host's TCP has to answer it with an
ACK that names the next byte it expects (RFC 5961, section 4), and that ACK is answered with a RST that carries exactly
this number, which resets the connection at once. Whatever else is sent on a cut flow gets ICMP "prohibited".

The resets wait a moment, since a portal that wants a client to ask for access anew deletes a resource and creates it
again in the same breath; then running connections go on.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from wardgate.ids import ResourceId
from wardgate.tunnel.ranges import IpNetwork
from wardgate.wire.icmp_errors import Unreachable, unreachable
from wardgate.wire.ip import ACK, RST, SYN, TCP, FlowKey, IpAddress, Packet, tcp_packet

MAX_CUT: Final = 4096
MAX_LOST: Final = 4096
GRACE_S: Final = 0.25
PROBE_INTERVAL_S: Final = 0.25
MAX_PROBES: Final = 3
KEPT_S: Final = 5.0
LOST_KEPT_S: Final = 60.0


@dataclass(slots=True)
class _Cut:
    resource_id: ResourceId
    key: FlowKey
    acts_at: float
    probes: int
    probe_at: float | None
    forget_at: float


@dataclass(frozen=True, slots=True)
class _Lost:
    resource_id: ResourceId
    forget_at: float


class Revocations:
    """Flows that were cut because access ended, and flows that lost their connection and may yet be cut."""

    def __init__(self) -> None:
        self._cut: dict[FlowKey, _Cut] = {}
        self._lost: dict[FlowKey, _Lost] = {}
        self._routes: dict[IpNetwork, float] = {}
        self._packets: deque[bytes] = deque()
        self.refused = 0

    def lose(self, key: FlowKey, resource_id: ResourceId, now: float) -> None:
        """A flow's connection is gone; if its resource goes too, the flow is to be cut."""
        self._lost.pop(key, None)
        if len(self._lost) >= MAX_LOST:
            self._lost.pop(next(iter(self._lost)))
            self.refused += 1
        self._lost[key] = _Lost(resource_id, now + LOST_KEPT_S)

    @property
    def is_idle(self) -> bool:
        """Whether no flow was cut or lost of late."""
        return not self._cut and not self._lost

    def found(self, key: FlowKey) -> None:
        """The flow runs again."""
        self._lost.pop(key, None)
        self._cut.pop(key, None)

    def take_lost(self, resource_id: ResourceId) -> list[FlowKey]:
        """The flows of a resource that lost their connection; they are no longer kept."""
        keys = [key for key, one in self._lost.items() if one.resource_id == resource_id]
        for key in keys:
            del self._lost[key]
        return keys

    def cut(self, resource_id: ResourceId, keys: Iterable[FlowKey], route: IpNetwork | None, now: float) -> int:
        """Access to a resource ended, under which these flows ran; returns how many of them are kept track of.

        Args:
            route: The resource's network, which stays routed into the tunnel until the flows are reset.
        """
        count = 0
        for key in keys:
            if len(self._cut) >= MAX_CUT:
                self.refused += 1
                continue
            probe_at = now + GRACE_S if key.protocol == TCP else None
            self._cut[key] = _Cut(resource_id, key, now + GRACE_S, 0, probe_at, now + KEPT_S)
            count += 1
        if route is not None and count:
            self._routes[route] = now + KEPT_S
        return count

    def restore(self, resource_id: ResourceId, is_permitted: Callable[[FlowKey], bool]) -> None:
        """The resource is there again, and those of its flows that are permitted may go on."""
        back = [key for key, one in self._cut.items() if one.resource_id == resource_id and is_permitted(key)]
        for key in back:
            del self._cut[key]

    def answer(self, packet: Packet, now: float) -> bool:
        """Whether the packet is of a flow that was cut; what it deserves is then in `poll_packet`."""
        cut = self._cut.get(packet.key)
        if cut is None:
            return False
        if now < cut.acts_at:
            return True
        if packet.protocol == TCP and packet.tcp_flags & ACK:
            cut.probe_at = None
            if not packet.tcp_flags & RST:
                self._packets.append(_reset(packet))
        else:
            error = unreachable(packet, Unreachable.PROHIBITED)
            if error is not None:
                self._packets.append(error)
        return True

    def lingering_routes(self) -> tuple[IpNetwork, ...]:
        """Networks that stay routed into the tunnel although their resource is gone."""
        return tuple(self._routes)

    def is_lingering(self, address: IpAddress) -> bool:
        """Whether the address is in one of them."""
        return any(address.version == route.version and address in route for route in self._routes)

    def handle_timeout(self, now: float) -> bool:
        """Does what is due; returns whether `lingering_routes` changed."""
        for cut in self._cut.values():
            if cut.probe_at is not None and now >= cut.probe_at:
                cut.probes += 1
                cut.probe_at = now + PROBE_INTERVAL_S if cut.probes < MAX_PROBES else None
                self._packets.append(tcp_packet(cut.key.destination, cut.key.source, SYN))
        self._cut = {key: one for key, one in self._cut.items() if now < one.forget_at}
        while self._lost and now >= next(iter(self._lost.values())).forget_at:
            self._lost.pop(next(iter(self._lost)))
        routes = {route: until for route, until in self._routes.items() if now < until}
        is_changed = routes.keys() != self._routes.keys()
        self._routes = routes
        return is_changed

    def poll_packet(self) -> bytes | None:
        """The next packet for the TUN device."""
        return self._packets.popleft() if self._packets else None

    def poll_timeout(self) -> float | None:
        """When something is due."""
        times = [one.probe_at for one in self._cut.values() if one.probe_at is not None]
        times += [one.forget_at for one in self._cut.values()]
        times += self._routes.values()
        times += [one.forget_at for one in itertools.islice(self._lost.values(), 1)]
        return min(times, default=None)


def _reset(packet: Packet) -> bytes:
    """The reset that the sender of a segment accepts: it carries the number that the segment expects next."""
    at = packet.transport_offset
    expected = int.from_bytes(packet.raw[at + 8 : at + 12], "big")
    return tcp_packet(packet.key.destination, packet.key.source, RST, sequence=expected)
