"""What a relay holds for its clients: allocations with their channels and permissions, and the ports that are left.

Source: RFC 8656, sections 3 and 7.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from wardgate.proto.turn_auth import Authenticated
from wardgate.wire import turn
from wardgate.wire.addresses import RandomBytes, SocketAddr, packed
from wardgate.wire.stun import AddressFamily

RANDOM_DRAWS = 16  # then one port after the other, so that a full range is found out
MAX_RESERVATIONS = 1024


@dataclass(slots=True)
class Binding:
    """One channel; not active in its cool-down, when it is reserved but nothing is forwarded."""

    peer: SocketAddr
    active: bool = True


@dataclass(slots=True)
class Allocation:
    """One relayed port of one client.

    Attributes:
        transaction_id: Of the request that made it, which may come again.
        source: What it counts for in the cap of sources.
        token: What reserves the next port, if that was asked for.
        attempts: How many ports the host was asked to open for it.
    """

    client: SocketAddr
    user: Authenticated
    port: int
    families: tuple[AddressFamily, ...]
    transaction_id: bytes
    lifetime_s: int
    lacks: AddressFamily | None = None
    token: bytes | None = None
    is_even: bool = False
    source: str = ""
    attempts: int = 1
    binding_by_channel: dict[int, Binding] = field(default_factory=dict)
    channel_by_peer: dict[SocketAddr, int] = field(default_factory=dict)
    permissions: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Reservation:
    """A port that waits for whoever shows its token."""

    port: int
    owner: str


class Allocations:
    """All allocations of one relay, by all that they are looked up by."""

    def __init__(self, ports: range, listen_port: int, random_bytes: RandomBytes) -> None:
        self._ports = ports
        self._listen_port = listen_port
        self._random_bytes = random_bytes
        self._by_owner: Counter[str] = Counter()
        self._by_source: Counter[str] = Counter()
        self._reserved_ports: set[int] = set()
        self.by_client: dict[SocketAddr, Allocation] = {}
        self.by_port: dict[int, Allocation] = {}
        self.by_device: dict[str, Allocation] = {}
        self.opening_by_port: dict[int, Allocation] = {}
        self.reservation_by_token: dict[bytes, Reservation] = {}
        self.client_by_alias: dict[SocketAddr, SocketAddr] = {}
        self.channels = 0
        self.permissions = 0

    def __len__(self) -> int:
        return len(self.by_client)

    def real(self, client: SocketAddr) -> SocketAddr:
        """Where a client is, whose messages may come from an alias of its connection."""
        return self.client_by_alias.get(client, client)

    def of_owner(self, owner: str) -> int:
        """How many allocations that user holds or opens."""
        return self._by_owner[owner]

    def of_source(self, client: SocketAddr) -> int:
        """How many allocations clients of that address hold or open."""
        return self._by_source[source_of(self.real(client))]

    def start(self, allocation: Allocation) -> None:
        """Takes the port of an allocation that the host is asked to open."""
        allocation.source = source_of(self.real(allocation.client))
        self.opening_by_port[allocation.port] = allocation
        self._count(allocation, 1)

    def give_up(self, port: int) -> Allocation:
        """Takes back an allocation whose port could not be opened."""
        allocation = self.opening_by_port.pop(port)
        self._count(allocation, -1)
        return allocation

    def opened(self, port: int) -> Allocation:
        """Files the allocation that asked for this port."""
        allocation = self.opening_by_port.pop(port)
        self.by_client[allocation.client] = allocation
        self.by_port[port] = allocation
        if allocation.user.is_device:
            self.by_device[allocation.user.username] = allocation
        return allocation

    def remove(self, allocation: Allocation) -> None:
        """Forgets an allocation with all that hangs on it."""
        del self.by_client[allocation.client]
        del self.by_port[allocation.port]
        if allocation.user.is_device:
            del self.by_device[allocation.user.username]
        self.channels -= len(allocation.binding_by_channel)
        self.permissions -= len(allocation.permissions)
        self._count(allocation, -1)

    def bind(self, allocation: Allocation, channel: int, peer: SocketAddr) -> None:
        """Adds a channel."""
        allocation.binding_by_channel[channel] = Binding(peer)
        allocation.channel_by_peer[peer] = channel
        self.channels += 1

    def unbind(self, allocation: Allocation, channel: int) -> Binding:
        """Forgets a channel."""
        binding = allocation.binding_by_channel.pop(channel)
        del allocation.channel_by_peer[binding.peer]
        self.channels -= 1
        return binding

    def permit(self, allocation: Allocation, host: str) -> None:
        """Adds a permission, if it is new."""
        if host not in allocation.permissions:
            allocation.permissions.add(host)
            self.permissions += 1

    def forbid(self, allocation: Allocation, host: str) -> None:
        """Takes a permission away."""
        allocation.permissions.remove(host)
        self.permissions -= 1

    # ports

    def choose_port(self, *, even: bool = False, pair: bool = False) -> int | None:
        """A uniformly random free port; `None` if all are taken.

        Args:
            even: It must be even.
            pair: The one behind it must be free as well.
        """
        step = 2 if even or pair else 1
        first = self._ports.start + (self._ports.start % 2 if step == 2 else 0)
        candidates = range(first, self._ports.stop, step)
        size = len(candidates)
        if not size:
            return None
        start = self._draw() % size
        for attempt in range(size):
            drawn = start + attempt if attempt >= RANDOM_DRAWS or attempt == 0 else self._draw()
            port = candidates[drawn % size]
            if self._is_free(port) and (not pair or self._is_free(port + 1)):
                return port
        return None

    def reserve(self, port: int, owner: str) -> bytes | None:
        """Keeps a port for whoever shows the token; `None` if too many are kept."""
        if len(self.reservation_by_token) >= MAX_RESERVATIONS:
            return None
        token = self._random_bytes(turn.RESERVATION_TOKEN_SIZE)
        self.reservation_by_token[token] = Reservation(port, owner)
        self._reserved_ports.add(port)
        return token

    def take_reservation(self, token: bytes, owner: str | None = None) -> int | None:
        """The port of that token, which is good once; for that owner, if one is named."""
        reservation = self.reservation_by_token.get(token)
        if reservation is None or owner not in (None, reservation.owner):
            return None
        del self.reservation_by_token[token]
        self._reserved_ports.discard(reservation.port)
        return reservation.port

    def _draw(self) -> int:
        return int.from_bytes(self._random_bytes(8), "big")

    def _is_free(self, port: int) -> bool:
        return (
            port in self._ports
            and port not in self.by_port
            and port not in self.opening_by_port
            and port not in self._reserved_ports
            and port != self._listen_port
        )

    def _count(self, allocation: Allocation, step: int) -> None:
        for counter, key in (
            (self._by_owner, allocation.user.owner),
            (self._by_source, allocation.source),
        ):
            counter[key] += step
            if counter[key] <= 0:
                del counter[key]


def source_of(client: SocketAddr) -> str:
    """What counts as one source: an IPv4 address, or the /64 of an IPv6 address."""
    return packed(client.host)[:8].hex() if client.is_ipv6 else client.host


def family_of(address: SocketAddr) -> AddressFamily:
    """The family of an address."""
    return AddressFamily.IPV6 if address.is_ipv6 else AddressFamily.IPV4


def in_family(allocation: Allocation, family: AddressFamily) -> Iterator[int | str]:
    """The channels and permissions of an allocation whose peers are of that family."""
    yield from [
        channel for channel, binding in allocation.binding_by_channel.items() if family_of(binding.peer) == family
    ]
    yield from [host for host in allocation.permissions if (":" in host) == (family == AddressFamily.IPV6)]
