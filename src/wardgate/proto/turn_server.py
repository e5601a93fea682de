"""TURN server: answers STUN and TURN requests, and says which ports and channels to open and close.

Sans-IO: after each `handle_*`, drain `poll_event` and `poll_transmit`, then sleep until `poll_timeout`. An `OpenPort`
is answered at once with `handle_port_opened` or `handle_port_refused`; the allocation's reply waits for that. Channel
data is forwarded here as well, for simulations and hosts without the native forwarder, which else takes it first.
Source: RFC 8656, with UDP and channel data only: no Send and Data indications, a bound channel is the only permission.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from wardgate.errors import RemoteProtocolError
from wardgate.proto.deadlines import Deadlines
from wardgate.proto.turn_auth import Authenticated, Authenticator, Nonces, Refused
from wardgate.wire import channel_data, stun, turn
from wardgate.wire.addresses import RandomBytes, SocketAddr, Transmit
from wardgate.wire.stun import AddressFamily, MessageClass, Method

MAX_CHANNELS_PER_ALLOCATION = 4096  # all that Firezone components draw from
MAX_CHANNELS = 262_144
MAX_NONCES = 65_536  # of each kind
PORT_ATTEMPTS = 4  # ports tried for one allocation if the host refuses to open them


@dataclass(frozen=True, slots=True)
class TurnConfig:
    """What one relay offers; `public_ipv4` or `public_ipv6` must be there."""

    public_ipv4: str | None
    public_ipv6: str | None = None
    listen_port: int = turn.DEFAULT_PORT
    lowest_port: int = 49152
    highest_port: int = 65535
    software: str = "wardgate-relay"

    def public_host(self, family: AddressFamily) -> str | None:
        """The address of that family that clients and peers see."""
        return self.public_ipv4 if family == AddressFamily.IPV4 else self.public_ipv6


@dataclass(frozen=True, slots=True)
class OpenPort:
    """Open this UDP port in each family; answer with `handle_port_opened` or `handle_port_refused`."""

    port: int
    families: tuple[AddressFamily, ...]


@dataclass(frozen=True, slots=True)
class ClosePort:
    """The allocation is gone; its channels were removed before."""

    port: int
    families: tuple[AddressFamily, ...]


@dataclass(frozen=True, slots=True)
class AddChannel:
    """Forward between a client's channel and a peer of the allocation's port. May repeat what is there."""

    client: SocketAddr
    channel: int
    port: int
    peer: SocketAddr


@dataclass(frozen=True, slots=True)
class RemoveChannel:
    """Stop forwarding."""

    client: SocketAddr
    channel: int
    port: int
    peer: SocketAddr


TurnEvent = OpenPort | ClosePort | AddChannel | RemoveChannel


@dataclass(slots=True)
class _Binding:
    peer: SocketAddr
    active: bool = True  # else in its cool-down: reserved, but nothing is forwarded


@dataclass(slots=True)
class _Allocation:
    client: SocketAddr
    user: Authenticated
    port: int
    families: tuple[AddressFamily, ...]
    transaction_id: bytes
    lifetime_s: int
    attempts: int = 1
    binding_by_channel: dict[int, _Binding] = field(default_factory=dict)
    channel_by_peer: dict[SocketAddr, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _ChannelKey:
    client: SocketAddr
    channel: int


class TurnServer:
    """All allocations of one relay."""

    def __init__(self, config: TurnConfig, stamp_secret: str, epoch: float, random_bytes: RandomBytes) -> None:
        """Makes a server without allocations.

        Args:
            stamp_secret: Hex text from which every password follows.
            epoch: Unix seconds at monotonic zero.
        """
        self.counters: Counter[str] = Counter()
        self._config = config
        self._random_bytes = random_bytes
        self._auth = Authenticator(stamp_secret, epoch, Nonces(random_bytes, self.counters, MAX_NONCES))
        self._allocation_by_client: dict[SocketAddr, _Allocation] = {}
        self._allocation_by_port: dict[int, _Allocation] = {}
        self._allocation_by_username: dict[str, _Allocation] = {}
        self._opening_by_port: dict[int, _Allocation] = {}
        self._channels = 0
        self._deadlines: Deadlines[SocketAddr | _ChannelKey] = Deadlines()
        self._events: deque[TurnEvent] = deque()
        self._transmits: deque[Transmit] = deque()

    @property
    def allocations(self) -> int:
        """How many allocations there are."""
        return len(self._allocation_by_client)

    @property
    def channels(self) -> int:
        """How many channels are bound or in their cool-down."""
        return self._channels

    def poll_event(self) -> TurnEvent | None:
        return self._events.popleft() if self._events else None

    def poll_transmit(self) -> Transmit | None:
        """Gives datagrams whose `local` names the listening port or an allocation's port at our public address."""
        return self._transmits.popleft() if self._transmits else None

    def poll_timeout(self) -> float | None:
        return self._deadlines.next_at()

    def handle_timeout(self, now: float) -> None:
        """Ends what expired by `now`."""
        while (key := self._deadlines.pop_due(now)) is not None:
            if isinstance(key, _ChannelKey):
                self._expire_channel(key, now)
            else:
                self.counters["allocations_expired"] += 1
                self._delete(self._allocation_by_client[key])

    def handle_datagram(self, client: SocketAddr, datagram: bytes, now: float) -> None:
        """Takes a datagram that arrived on the listening port. What is malformed is counted and dropped."""
        if client.port == 0:
            self.counters["dropped_source_port"] += 1
        elif stun.is_stun(datagram):
            self._handle_stun(client, datagram, now)
        elif channel_data.is_channel_data(datagram):
            self._forward_to_peer(client, datagram)
        else:
            self.counters["dropped_unknown"] += 1

    def handle_peer_datagram(self, port: int, peer: SocketAddr, payload: bytes) -> None:
        """Takes a datagram that arrived on an allocation's port, and forwards it to the client if it may."""
        allocation = self._allocation_by_port.get(port)
        channel = allocation.channel_by_peer.get(peer) if allocation else None
        if allocation is None or channel is None or not allocation.binding_by_channel[channel].active:
            self.counters["dropped_peer"] += 1
            return
        self._send(allocation.client, channel_data.encode(channel, payload))

    def handle_port_opened(self, port: int, now: float) -> None:
        """Grants the allocation that asked for this port."""
        allocation = self._opening_by_port.pop(port)
        self._allocation_by_client[allocation.client] = allocation
        self._allocation_by_port[port] = allocation
        self._allocation_by_username[allocation.user.username] = allocation
        self._deadlines.set(allocation.client, now + allocation.lifetime_s)
        self._grant(allocation, allocation.transaction_id)

    def handle_port_refused(self, port: int) -> None:
        """Tries another port for the allocation that asked for this one, or answers 508."""
        self.counters["ports_refused"] += 1
        allocation = self._opening_by_port[port]
        other = self._choose_port() if allocation.attempts < PORT_ATTEMPTS else None
        del self._opening_by_port[port]
        if other is None:
            request = _Reply(Method.ALLOCATE, allocation.transaction_id)
            self._refuse(allocation.client, request, turn.INSUFFICIENT_CAPACITY, allocation.user.key)
            return
        allocation.port = other
        allocation.attempts += 1
        self._open(allocation)

    # requests

    def _handle_stun(self, client: SocketAddr, datagram: bytes, now: float) -> None:
        try:
            request = stun.decode(datagram)
            if request.message_class != MessageClass.REQUEST:
                self.counters["dropped_not_request"] += 1
            elif _is_bad_request(request):
                self._refuse(client, _Reply.to(request), turn.BAD_REQUEST, None)
            elif request.method == Method.BINDING:
                reply = self._reply(_Reply.to(request), MessageClass.SUCCESS).mapped_address(client)
                self._succeed(client, Method.BINDING, reply.build())
            else:
                self._handle_protected(client, request, now)
        except RemoteProtocolError:
            self.counters["dropped_malformed"] += 1

    def _handle_protected(self, client: SocketAddr, request: stun.Message, now: float) -> None:
        user = self._auth.check(client, request, now)
        if isinstance(user, Refused):
            self._refuse(client, _Reply.to(request), user.code, user.key, user.nonce)
            return
        try:
            match request.method:
                case Method.ALLOCATE:
                    self._allocate(client, user, request)
                case Method.REFRESH:
                    self._refresh(client, user, request, now)
                case Method.CHANNEL_BIND:
                    self._bind_channel(client, user, request, now)
                case _:  # CreatePermission: a bound channel is the only permission there is
                    self._succeed(
                        client,
                        Method.CREATE_PERMISSION,
                        self._reply(_Reply.to(request), MessageClass.SUCCESS).build(user.key),
                    )
        except RemoteProtocolError as error:
            self._refuse(client, _Reply.to(request), error.code or turn.BAD_REQUEST, user.key)

    def _allocate(self, client: SocketAddr, user: Authenticated, request: stun.Message) -> None:
        existing = self._allocation_by_client.get(client)
        if existing is not None:
            if existing.transaction_id == request.transaction_id and existing.user == user:
                self._grant(existing, request.transaction_id)  # our answer was lost
                return
            raise RemoteProtocolError("there is an allocation", turn.ALLOCATION_MISMATCH)
        if any(client == other.client or user == other.user for other in self._opening_by_port.values()):
            self.counters["dropped_opening"] += 1
            return
        if request.requested_transport != turn.UDP_TRANSPORT:
            raise RemoteProtocolError("only UDP is relayed", turn.UNSUPPORTED_TRANSPORT)
        families = self._choose_families(request.requested_family, request.additional_family)
        former = self._allocation_by_username.get(user.username)
        if former is not None:
            self.counters["allocations_replaced"] += 1
            self._delete(former)
        port = self._choose_port()
        if port is None:
            raise RemoteProtocolError("no port is free", turn.INSUFFICIENT_CAPACITY)
        self._open(_Allocation(client, user, port, families, request.transaction_id, _lifetime(request)))

    def _refresh(self, client: SocketAddr, user: Authenticated, request: stun.Message, now: float) -> None:
        lifetime_s = _lifetime(request)
        allocation = self._allocation_of(client)
        # Whoever holds the socket may free it, or a device that restarts with a new key had to wait for the expiry of
        # what its former self left behind; the nonce has proved that the request comes from there.
        if lifetime_s:
            _check_owner(allocation, user)
            allocation.lifetime_s = lifetime_s
            self._deadlines.set(client, now + lifetime_s)
        else:
            self._delete(allocation)
        reply = self._reply(_Reply.to(request), MessageClass.SUCCESS).lifetime(lifetime_s)
        self._succeed(client, Method.REFRESH, reply.build(user.key))

    def _bind_channel(self, client: SocketAddr, user: Authenticated, request: stun.Message, now: float) -> None:
        allocation = self._allocation_of(client)
        _check_owner(allocation, user)
        channel, peer = request.channel_number, request.peer_addresses[0]
        assert channel is not None  # _is_bad_request looked
        self._check_peer(allocation, peer)
        binding = allocation.binding_by_channel.get(channel)
        if binding is None and peer not in allocation.channel_by_peer:
            if len(allocation.binding_by_channel) >= MAX_CHANNELS_PER_ALLOCATION or self._channels >= MAX_CHANNELS:
                raise RemoteProtocolError("too many channels", turn.INSUFFICIENT_CAPACITY)
            allocation.binding_by_channel[channel] = _Binding(peer)
            allocation.channel_by_peer[peer] = channel
            self._channels += 1
        elif binding is None or binding.peer != peer:
            raise RemoteProtocolError("the channel or the peer is bound to another", turn.BAD_REQUEST)
        else:
            binding.active = True
        self._deadlines.set(_ChannelKey(client, channel), now + turn.CHANNEL_LIFETIME_S)
        self._events.append(AddChannel(client, channel, allocation.port, peer))
        self._succeed(
            client, Method.CHANNEL_BIND, self._reply(_Reply.to(request), MessageClass.SUCCESS).build(user.key)
        )

    def _allocation_of(self, client: SocketAddr) -> _Allocation:
        allocation = self._allocation_by_client.get(client)
        if allocation is None:
            raise RemoteProtocolError("there is no allocation", turn.ALLOCATION_MISMATCH)
        return allocation

    def _check_peer(self, allocation: _Allocation, peer: SocketAddr) -> None:
        if (AddressFamily.IPV6 if peer.is_ipv6 else AddressFamily.IPV4) not in allocation.families:
            raise RemoteProtocolError("the allocation has no such family", turn.PEER_ADDRESS_FAMILY_MISMATCH)
        if peer.port == 0:
            raise RemoteProtocolError("port 0 is no peer", turn.BAD_REQUEST)
        ip = peer.ip
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if _is_forbidden(ip) and not (ip.is_loopback and self._is_on_loopback()):
            raise RemoteProtocolError("not a host to relay to", turn.FORBIDDEN)

    def _is_on_loopback(self) -> bool:
        return any(
            ip_address(host).is_loopback for host in (self._config.public_ipv4, self._config.public_ipv6) if host
        )

    def _choose_families(
        self, requested: AddressFamily | None, additional: AddressFamily | None
    ) -> tuple[AddressFamily, ...]:
        if additional == AddressFamily.IPV4 or (requested and additional):
            raise RemoteProtocolError("address families contradict each other", turn.BAD_REQUEST)
        wanted = tuple(AddressFamily) if additional else (requested or AddressFamily.IPV4,)
        families = tuple(family for family in wanted if self._config.public_host(family))
        if not families:
            raise RemoteProtocolError("no address of that family", turn.ADDRESS_FAMILY_NOT_SUPPORTED)
        return families

    def _choose_port(self) -> int | None:
        """A uniformly random free port; `None` if all are taken."""
        lowest, size = self._config.lowest_port, self._config.highest_port - self._config.lowest_port + 1
        if len(self._allocation_by_port) + len(self._opening_by_port) >= size:
            return None
        first = int.from_bytes(self._random_bytes(8), "big") % size
        for attempt in range(size):
            # A few random draws, then one after the other, so that a full range is found out.
            offset = first + attempt if attempt >= 16 or attempt == 0 else int.from_bytes(self._random_bytes(8), "big")
            port = lowest + offset % size
            if (
                port not in self._allocation_by_port
                and port not in self._opening_by_port
                and port != self._config.listen_port
            ):
                return port
        return None

    # changes

    def _open(self, allocation: _Allocation) -> None:
        self._opening_by_port[allocation.port] = allocation
        self._events.append(OpenPort(allocation.port, allocation.families))

    def _grant(self, allocation: _Allocation, transaction_id: bytes) -> None:
        reply = self._reply(_Reply(Method.ALLOCATE, transaction_id), MessageClass.SUCCESS)
        for address in self._relayed_addresses(allocation):
            reply.relayed_address(address)
        reply.mapped_address(allocation.client).lifetime(allocation.lifetime_s)
        self._succeed(allocation.client, Method.ALLOCATE, reply.build(allocation.user.key))

    def _relayed_addresses(self, allocation: _Allocation) -> Iterator[SocketAddr]:
        for family in allocation.families:
            host = self._config.public_host(family)
            if host is not None:
                yield SocketAddr(host, allocation.port)

    def _delete(self, allocation: _Allocation) -> None:
        client = allocation.client
        for channel, binding in allocation.binding_by_channel.items():
            self._deadlines.discard(_ChannelKey(client, channel))
            if binding.active:
                self._events.append(RemoveChannel(client, channel, allocation.port, binding.peer))
        self._channels -= len(allocation.binding_by_channel)
        self._deadlines.discard(client)
        del self._allocation_by_client[client]
        del self._allocation_by_port[allocation.port]
        del self._allocation_by_username[allocation.user.username]
        self._events.append(ClosePort(allocation.port, allocation.families))

    def _expire_channel(self, key: _ChannelKey, now: float) -> None:
        allocation = self._allocation_by_client[key.client]
        binding = allocation.binding_by_channel[key.channel]
        if binding.active:
            binding.active = False
            self._deadlines.set(key, now + turn.CHANNEL_COOLDOWN_S)
            self._events.append(RemoveChannel(key.client, key.channel, allocation.port, binding.peer))
        else:
            del allocation.binding_by_channel[key.channel]
            del allocation.channel_by_peer[binding.peer]
            self._channels -= 1

    def _forward_to_peer(self, client: SocketAddr, datagram: bytes) -> None:
        try:
            channel, payload = channel_data.decode(datagram)
        except RemoteProtocolError:
            self.counters["dropped_malformed"] += 1
            return
        allocation = self._allocation_by_client.get(client)
        binding = allocation.binding_by_channel.get(channel) if allocation else None
        if allocation is None or binding is None or not binding.active:
            self.counters["dropped_channel"] += 1
            return
        family = AddressFamily.IPV6 if binding.peer.is_ipv6 else AddressFamily.IPV4
        local = SocketAddr(self._config.public_host(family) or "", allocation.port)
        if binding.peer.host == local.host and binding.peer.port in self._allocation_by_port:
            self.handle_peer_datagram(binding.peer.port, local, payload)  # both ends use this relay
        else:
            self._transmits.append(Transmit(local, binding.peer, payload))

    # replies

    def _reply(self, request: "_Reply", message_class: MessageClass) -> stun.Builder:
        return stun.Builder(request.method, message_class, request.transaction_id).software(self._config.software)

    def _succeed(self, client: SocketAddr, method: Method, datagram: bytes) -> None:
        self.counters[f"responses_success_{method.name.lower()}"] += 1
        self._send(client, datagram)

    def _refuse(
        self, client: SocketAddr, request: "_Reply", code: int, key: bytes | None, nonce: bytes | None = None
    ) -> None:
        self.counters[f"responses_error_{_name(request.method)}_{code}"] += 1
        reply = self._reply(request, MessageClass.ERROR).error_code(code, turn.REASONS[code])
        if nonce is not None:
            reply.realm(turn.REALM).nonce(nonce)
        self._send(client, reply.build(key))

    def _send(self, client: SocketAddr, datagram: bytes) -> None:
        family = AddressFamily.IPV6 if client.is_ipv6 else AddressFamily.IPV4
        host = self._config.public_host(family) or ("::" if client.is_ipv6 else "0.0.0.0")
        self._transmits.append(Transmit(SocketAddr(host, self._config.listen_port), client, datagram))


@dataclass(frozen=True, slots=True)
class _Reply:
    """What of a request its reply repeats."""

    method: int
    transaction_id: bytes

    @classmethod
    def to(cls, request: stun.Message) -> "_Reply":
        return cls(request.method, request.transaction_id)


_PROTECTED = (Method.ALLOCATE, Method.REFRESH, Method.CHANNEL_BIND, Method.CREATE_PERMISSION)


def _is_bad_request(request: stun.Message) -> bool:
    """What is wrong whoever asks."""
    if request.malformed:
        return True
    match request.method:
        case Method.ALLOCATE:
            return request.requested_transport is None
        case Method.CHANNEL_BIND:
            return request.channel_number is None or not request.peer_addresses
    return request.method != Method.BINDING and request.method not in _PROTECTED


def _check_owner(allocation: _Allocation, user: Authenticated) -> None:
    """A device's renewed credentials differ in their expiry only."""
    if allocation.user.salt != user.salt:
        raise RemoteProtocolError("the allocation is another user's", turn.WRONG_CREDENTIALS)


def _lifetime(request: stun.Message) -> int:
    return min(turn.DEFAULT_LIFETIME_S if request.lifetime_s is None else request.lifetime_s, turn.MAX_LIFETIME_S)


_BROADCAST = IPv4Address("255.255.255.255")


def _is_forbidden(ip: IPv4Address | IPv6Address) -> bool:
    return ip.is_loopback or ip.is_multicast or ip.is_unspecified or ip.is_link_local or ip == _BROADCAST


_NAMES = {method.value: method.name.lower() for method in Method}


def _name(method: int) -> str:
    return _NAMES.get(method, "unknown")
