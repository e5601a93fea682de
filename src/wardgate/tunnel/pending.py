"""Packets that wait for access to a resource, and when the portal is asked for it.

The portal is asked at once for the first packet of a resource, then at most every two seconds while packets keep
coming, whatever it answered; so a resource that is refused or offline costs one question every two seconds, not one
a packet. Only where a connection was lost a moment ago the questions come faster for a while: its gateway may be back
soon, and somebody is waiting.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from wardgate.wire.ip import ACK, SYN, TCP, Packet

MAX_WAITING_PACKETS: Final = 128
MAX_WAITING_QUERIES: Final = 128
MAX_PENDING: Final = 1024
ASK_INTERVAL_S: Final = 2.0
LOST_ASK_INTERVAL_S: Final = 0.25
ASKS_WHEN_LOST: Final = 12

K = TypeVar("K", bound=str)
Q = TypeVar("Q")
T = TypeVar("T")


class UniquePackets:
    """A ring of packets without repetitions: the oldest goes when it is full.

    A byte-identical packet is not kept twice, and a TCP SYN gives its place to its own retransmission (which differs in
    its timestamp), so that a connection is opened once when the packets are let go.
    """

    def __init__(self, capacity: int = MAX_WAITING_PACKETS) -> None:
        self._capacity = capacity
        self._packets: OrderedDict[bytes, Packet] = OrderedDict()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._packets)

    def __iter__(self) -> Iterator[Packet]:
        return iter(tuple(self._packets.values()))

    def add(self, packet: Packet) -> None:
        """Keeps a packet, unless it is kept already."""
        self._packets[_identity(packet)] = packet
        if len(self._packets) > self._capacity:
            self._packets.popitem(last=False)
            self.evicted += 1

    def take(self) -> list[Packet]:
        """Gives all packets, oldest first, and keeps none."""
        packets = list(self._packets.values())
        self._packets.clear()
        return packets


def _identity(packet: Packet) -> bytes:
    if packet.protocol == TCP and packet.tcp_flags & (SYN | ACK) == SYN:
        at = packet.transport_offset
        return b"SYN" + packet.source.packed + packet.destination.packed + packet.raw[at : at + 8]
    return packet.raw


@dataclass(slots=True)
class Waiting(Generic[Q]):
    """What waits for one resource."""

    packets: UniquePackets = field(default_factory=UniquePackets)
    queries: deque[Q] = field(default_factory=deque)


class PendingAuthorizations(Generic[K, Q]):
    """Resources, by a key of the caller's, that packets or DNS queries (of the caller's type) wait for."""

    def __init__(self) -> None:
        self._waiting: dict[K, Waiting[Q]] = {}
        self._asked_at: OrderedDict[K, float] = OrderedDict()
        self._asks_when_lost: OrderedDict[K, int] = OrderedDict()
        self.refused = 0

    def __contains__(self, resource_id: K) -> bool:
        return resource_id in self._waiting

    def __iter__(self) -> Iterator[K]:
        return iter(sorted(self._waiting))

    def add_packet(self, resource_id: K, packet: Packet, now: float) -> bool:
        """Keeps a packet; returns whether the portal is to be asked now."""
        return self._add(resource_id, lambda waiting: waiting.packets.add(packet), now)

    def add_query(self, resource_id: K, query: Q, now: float) -> bool:
        """Keeps a DNS query for the resource's site; returns whether the portal is to be asked now."""

        def add(waiting: Waiting[Q]) -> None:
            if len(waiting.queries) >= MAX_WAITING_QUERIES:
                waiting.queries.popleft()
                self.refused += 1
            waiting.queries.append(query)

        return self._add(resource_id, add, now)

    def take(self, resource_id: K) -> Waiting[Q] | None:
        """Ends the wait, as access was given or will not be; returns what waited."""
        return self._waiting.pop(resource_id, None)

    def forget(self, resource_id: K) -> None:
        """Ends the wait and the spacing: the resource is gone."""
        self._waiting.pop(resource_id, None)
        self._asked_at.pop(resource_id, None)
        self._asks_when_lost.pop(resource_id, None)

    def hurry(self, resource_id: K) -> None:
        """Ends the wait, as the connection was lost: the next packet asks anew, and some more soon after."""
        self.forget(resource_id)
        _keep(self._asks_when_lost, resource_id, ASKS_WHEN_LOST)

    def clear(self) -> None:
        """Forgets everything."""
        self._waiting.clear()
        self._asked_at.clear()
        self._asks_when_lost.clear()

    def _add(self, resource_id: K, add: Callable[[Waiting[Q]], None], now: float) -> bool:
        waiting = self._waiting.get(resource_id)
        if waiting is None:
            if len(self._waiting) >= MAX_PENDING:
                self.refused += 1
                return False
            waiting = self._waiting[resource_id] = Waiting()
        add(waiting)
        asked_at, left = self._asked_at.get(resource_id), self._asks_when_lost.get(resource_id, 0)
        if asked_at is not None and now - asked_at < (LOST_ASK_INTERVAL_S if left else ASK_INTERVAL_S):
            return False
        _keep(self._asked_at, resource_id, now)
        if left:
            self._asks_when_lost[resource_id] = left - 1
        return True


def _keep(table: OrderedDict[K, T], resource_id: K, value: T) -> None:
    """Notes a value; the entry that was noted longest ago goes when there are too many."""
    table[resource_id] = value
    table.move_to_end(resource_id)
    if len(table) > MAX_PENDING:
        table.popitem(last=False)
