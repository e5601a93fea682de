"""TURN server: answers STUN and TURN requests, and says which ports and channels to open and close.

Sans-IO: after each `handle_*`, drain `poll_event` and `poll_transmit`, then sleep until `poll_timeout`. An `OpenPort`
is answered at once with `handle_port_opened` or `handle_port_refused`; the allocation's reply waits for that. Channel
data and indications are forwarded here as well, for simulations and hosts without the native forwarder, which else
takes them first.

Source: RFC 8656, relaying to UDP. Devices of the portal know channels alone, and are served as Firezone's relay serves
them: a bound channel is the only permission, an allocation belongs to a username, whoever signs may free one.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wardgate.errors import RemoteProtocolError
from wardgate.proto.deadlines import Deadlines
from wardgate.proto.turn_allocations import Allocation, Allocations, family_of, in_family
from wardgate.proto.turn_auth import (
    Authenticated,
    Authenticator,
    Devices,
    Nonces,
    Refused,
    Users,
    cookie_for,
)
from wardgate.proto.turn_config import StrangerRules, TurnConfig
from wardgate.proto.turn_events import (
    AddChannel,
    AddPermission,
    ClosePort,
    OpenPort,
    RemoveChannel,
    RemovePermission,
    TurnEvent,
)
from wardgate.proto.turn_limits import AnswerLimit
from wardgate.proto.turn_peers import PeerRules
from wardgate.proto.turn_requests import (
    METHODS,
    SUCCESSES,
    Reply,
    check_owner,
    is_bad_request,
    lifetime_of,
    method_name,
)
from wardgate.wire import channel_data, stun, turn
from wardgate.wire.addresses import RandomBytes, SocketAddr, Transmit, WholeTransmit
from wardgate.wire.stun import AddressFamily, MessageClass, Method

MAX_CHANNELS_PER_ALLOCATION = 4096  # all that Firezone components draw from
MAX_CHANNELS = 262_144
MAX_PERMISSIONS_PER_ALLOCATION = 1024
MAX_PERMISSIONS = 262_144
PORT_ATTEMPTS = 4  # ports tried for one allocation if the host refuses to open them


@dataclass(frozen=True, slots=True)
class _ChannelKey:
    client: SocketAddr
    channel: int


@dataclass(frozen=True, slots=True)
class _PermissionKey:
    client: SocketAddr
    host: str


@dataclass(frozen=True, slots=True)
class _Token:
    value: bytes


class TurnServer:
    """All allocations of one relay."""

    def __init__(
        self, config: TurnConfig, stamp_secret: str | Sequence[Users], epoch: float, random_bytes: RandomBytes
    ) -> None:
        """Makes a server without allocations.

        Args:
            stamp_secret: Hex text from which the passwords of devices follow; or the users, if they are others.
            epoch: Unix seconds at monotonic zero.
        """
        self.counters: Counter[str] = Counter()
        self.is_draining = False
        self._config = config
        self._random_bytes = random_bytes
        users = (Devices(stamp_secret),) if isinstance(stamp_secret, str) else stamp_secret
        self._nonce_key, self._cookie = random_bytes(16), cookie_for(users)
        self._auth = Authenticator(users, config.realm, epoch, Nonces(self._nonce_key, self._cookie))
        self._limit = AnswerLimit(random_bytes(16), per_s=config.refusals_per_s, burst=config.refusals_burst)
        self._peers = PeerRules(
            public=config.public_hosts(),
            own=config.own_hosts,
            allowed=config.allowed_peers,
            private=config.private_peers,
        )
        ports = range(config.lowest_port, config.highest_port + 1)
        self._held = Allocations(ports, config.listen_port, random_bytes)
        self._deadlines: Deadlines[SocketAddr | _ChannelKey | _PermissionKey | _Token] = Deadlines()
        self._events: deque[TurnEvent] = deque()
        self._transmits: deque[Transmit] = deque()

    @property
    def strangers(self) -> StrangerRules:
        """How a forwarder may answer them by itself, so that they never get here."""
        algorithms = turn.PASSWORD_ALGORITHMS if self._auth.offers_algorithms else b""
        return self._config.stranger_rules(self._nonce_key, self._cookie, algorithms)

    @property
    def allocations(self) -> int:
        """How many allocations there are."""
        return len(self._held)

    @property
    def channels(self) -> int:
        """How many channels are bound or in their cool-down."""
        return self._held.channels

    @property
    def permissions(self) -> int:
        """How many permissions there are."""
        return self._held.permissions

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
            match key:
                case _ChannelKey():
                    self._expire_channel(key, now)
                case _PermissionKey(client, host):
                    self._remove_permission(self._held.by_client[client], host)
                case _Token(value):
                    self._held.take_reservation(value)
                case _:
                    self.counters["allocations_expired"] += 1
                    self._delete(self._held.by_client[key])

    def handle_datagram(self, client: SocketAddr, datagram: bytes, now: float) -> None:
        """Takes a datagram that arrived on the listening port. What is malformed is counted and dropped."""
        if client.port == 0:
            self.counters["dropped_source_port"] += 1
        elif stun.is_stun(datagram):
            self._handle_stun(client, datagram, now)
        elif channel_data.is_channel_data(datagram):
            self._forward_channel_data(client, datagram)
        else:
            self.counters["dropped_unknown"] += 1

    def handle_peer_datagram(self, port: int, peer: SocketAddr, payload: bytes) -> None:
        """Takes a datagram that arrived on an allocation's port, and forwards it to the client if it may."""
        allocation = self._held.by_port.get(port)
        if allocation is None:
            self.counters["dropped_peer"] += 1
            return
        channel = allocation.channel_by_peer.get(peer)
        if channel is not None and allocation.binding_by_channel[channel].active:
            self._send(allocation.client, channel_data.encode(channel, payload))
        elif peer.host in allocation.permissions:
            indication = stun.Builder(
                Method.DATA, MessageClass.INDICATION, self._random_bytes(stun.TRANSACTION_ID_SIZE)
            )
            self._send(allocation.client, indication.peer_address(peer).data(payload).build())
        else:
            self.counters["dropped_peer"] += 1

    def handle_port_opened(self, port: int, now: float) -> None:
        """Grants the allocation that asked for this port."""
        allocation = self._held.opened(port)
        self._deadlines.set(allocation.client, now + allocation.lifetime_s)
        if allocation.token is not None:
            self._deadlines.set(_Token(allocation.token), now + turn.RESERVATION_LIFETIME_S)
        self._grant(allocation, allocation.transaction_id)

    def handle_port_refused(self, port: int) -> None:
        """Tries another port for the allocation that asked for this one, or answers 508."""
        self.counters["ports_refused"] += 1
        allocation = self._held.opening_by_port[port]
        may_try = allocation.attempts < PORT_ATTEMPTS and allocation.token is None
        other = self._held.choose_port(even=allocation.is_even) if may_try else None
        self._held.give_up(port)
        if allocation.token is not None:
            self._held.take_reservation(allocation.token)
        if other is None:
            request = Reply(Method.ALLOCATE, allocation.transaction_id)
            self._refuse(allocation.client, request, turn.INSUFFICIENT_CAPACITY, allocation.user.key)
            return
        allocation.port = other
        allocation.attempts += 1
        self._open(allocation)

    def has_allocation(self, client: SocketAddr) -> bool:
        """Whether that client holds something."""
        return client in self._held.by_client

    def handle_stream_opened(self, alias: SocketAddr, client: SocketAddr) -> None:
        """What comes from `alias` from now on is a client's who is connected by TCP or TLS."""
        self.handle_client_gone(alias)  # whatever came late from whoever had this alias before
        self._held.client_by_alias[alias] = client

    def handle_client_gone(self, client: SocketAddr) -> None:
        """The connection of that client is closed, and so is its allocation."""
        self._held.client_by_alias.pop(client, None)
        allocation = self._held.by_client.get(client)
        if allocation is not None:
            self._delete(allocation)

    def drain(self) -> None:
        """From now on no allocation is given, while those that there are go on."""
        self.is_draining = True

    # requests

    def _handle_stun(self, client: SocketAddr, datagram: bytes, now: float) -> None:
        try:
            request = stun.decode(datagram)
            if request.message_class == MessageClass.INDICATION and request.method == Method.SEND:
                self._forward_indication(client, request)
            elif request.message_class != MessageClass.REQUEST:
                self.counters["dropped_not_request"] += 1
            elif request.method not in METHODS and not self._auth.knows_devices:
                self.counters["dropped_method"] += 1  # to devices Firezone's relay says 400
            elif is_bad_request(request):
                self._refuse_unknown(client, Reply.to(request), turn.BAD_REQUEST, now)
            elif request.method != Method.BINDING:
                self._handle_protected(client, request, now)
            elif request.unknown_required:
                self._refuse_unknown(client, Reply.to(request), turn.UNKNOWN_ATTRIBUTE, now)
            else:
                reply = stun.Builder(request.method, MessageClass.SUCCESS, request.transaction_id)
                self._succeed(client, Method.BINDING, reply.mapped_address(self._held.real(client)).build())
        except RemoteProtocolError:
            self.counters["dropped_malformed"] += 1

    def _handle_protected(self, client: SocketAddr, request: stun.Message, now: float) -> None:
        user = self._auth.check(client, request, now)
        if isinstance(user, Refused):
            self._refuse_unknown(client, Reply.to(request), user.code, now, user.key, user.nonce)
            return
        reply = Reply.to(request)
        try:
            if request.unknown_required and not user.is_device:
                raise RemoteProtocolError("unknown attributes", turn.UNKNOWN_ATTRIBUTE)
            match request.method:
                case Method.ALLOCATE:
                    self._allocate(client, user, request)
                case Method.REFRESH:
                    self._refresh(client, user, request, now)
                case Method.CHANNEL_BIND:
                    self._bind_channel(client, user, request, now)
                case _:
                    self._create_permissions(client, user, request, now)
        except RemoteProtocolError as error:
            self._refuse(client, reply, error.code or turn.BAD_REQUEST, user.key)

    def _allocate(self, client: SocketAddr, user: Authenticated, request: stun.Message) -> None:
        existing = self._held.by_client.get(client)
        if existing is not None:
            if existing.transaction_id == request.transaction_id and existing.user == user:
                self._grant(existing, request.transaction_id)  # our answer was lost
                return
            raise RemoteProtocolError("there is an allocation", turn.ALLOCATION_MISMATCH)
        if any(
            client == other.client or (user.is_device and user == other.user)
            for other in self._held.opening_by_port.values()
        ):
            self.counters["dropped_opening"] += 1
            return
        if request.requested_transport != turn.UDP_TRANSPORT:
            raise RemoteProtocolError("only UDP is relayed", turn.UNSUPPORTED_TRANSPORT)
        if request.reservation_token is not None and (
            request.even_port is not None or request.requested_family or request.additional_family
        ):
            raise RemoteProtocolError("a reserved port has its properties already", turn.BAD_REQUEST)
        if request.even_port and request.additional_family:
            raise RemoteProtocolError("ports are reserved in one family alone", turn.BAD_REQUEST)
        families = self._choose_families(request.requested_family, request.additional_family)
        if self.is_draining:
            raise RemoteProtocolError("this relay ends", turn.INSUFFICIENT_CAPACITY)
        former = self._held.by_device.get(user.username) if user.is_device else None
        if former is not None:
            self.counters["allocations_replaced"] += 1
            self._delete(former)
        self._check_quota(client, user)
        port, token = self._choose_port(user, request)
        lacks = AddressFamily.IPV6 if request.additional_family and len(families) == 1 else None
        if lacks and families[0] == lacks:
            lacks = AddressFamily.IPV4
        self._open(
            Allocation(
                client,
                user,
                port,
                families,
                request.transaction_id,
                lifetime_of(request, user),
                lacks=None if user.is_device else lacks,
                token=token,
                is_even=request.even_port is not None,
                attempts=1 if request.reservation_token is None else PORT_ATTEMPTS,  # that port or none
            )
        )

    def _check_quota(self, client: SocketAddr, user: Authenticated) -> None:
        if self._held.of_owner(user.owner) >= self._config.max_per_user:
            self.counters["quota_user"] += 1
            raise RemoteProtocolError("too many allocations of this user", turn.ALLOCATION_QUOTA_REACHED)
        if self._held.of_source(client) >= self._config.max_per_source:
            self.counters["quota_source"] += 1
            raise RemoteProtocolError("too many allocations from this address", turn.ALLOCATION_QUOTA_REACHED)

    def _choose_port(self, user: Authenticated, request: stun.Message) -> tuple[int, bytes | None]:
        """The port for an allocation, and the token of the one behind it if that was asked for."""
        if request.reservation_token is not None:
            port = self._held.take_reservation(request.reservation_token, user.owner)
            self._deadlines.discard(_Token(request.reservation_token))
        else:
            port = self._held.choose_port(even=request.even_port is not None, pair=bool(request.even_port))
        token = self._held.reserve(port + 1, user.owner) if port is not None and request.even_port else None
        if port is None or (request.even_port and token is None):
            raise RemoteProtocolError("no such port is free", turn.INSUFFICIENT_CAPACITY)
        return port, token

    def _refresh(self, client: SocketAddr, user: Authenticated, request: stun.Message, now: float) -> None:
        lifetime_s = lifetime_of(request, user)
        allocation = self._allocation_of(client)
        family = request.requested_family
        if family is not None and family not in allocation.families:
            raise RemoteProtocolError("the allocation has no such family", turn.PEER_ADDRESS_FAMILY_MISMATCH)
        # Whoever holds a device's socket may free it, or a device that restarts with a new key had to wait for the
        # expiry of what its former self left behind; the nonce has proved that the request comes from there.
        if lifetime_s or not user.is_device:
            check_owner(allocation, user)
        if lifetime_s:
            allocation.lifetime_s = lifetime_s
            self._deadlines.set(client, now + lifetime_s)
        elif family is not None and len(allocation.families) > 1:
            self._close_family(allocation, family)
        else:
            self._delete(allocation)
        reply = self._reply(Reply.to(request), MessageClass.SUCCESS).lifetime(lifetime_s)
        self._succeed(client, Method.REFRESH, reply.build(user.key))

    def _bind_channel(self, client: SocketAddr, user: Authenticated, request: stun.Message, now: float) -> None:
        allocation = self._allocation_of(client)
        check_owner(allocation, user)
        channel, peer = request.channel_number, request.peer_addresses[0]
        assert channel is not None  # is_bad_request looked
        self._check_peer(allocation, peer)
        if peer.port == 0:
            raise RemoteProtocolError("port 0 is no peer", turn.BAD_REQUEST)
        binding = allocation.binding_by_channel.get(channel)
        is_free = binding is None and peer not in allocation.channel_by_peer
        if not is_free and (binding is None or binding.peer != peer):
            raise RemoteProtocolError("the channel or the peer is bound to another", turn.BAD_REQUEST)
        if not user.is_device:
            self._permit(allocation, peer.host, now)
        if is_free:
            if len(allocation.binding_by_channel) >= MAX_CHANNELS_PER_ALLOCATION or self.channels >= MAX_CHANNELS:
                raise RemoteProtocolError("too many channels", turn.INSUFFICIENT_CAPACITY)
            self._held.bind(allocation, channel, peer)
        elif binding is not None:
            binding.active = True
        self._deadlines.set(_ChannelKey(client, channel), now + turn.CHANNEL_LIFETIME_S)
        self._events.append(AddChannel(client, channel, allocation.port, peer))
        self._succeed(client, Method.CHANNEL_BIND, self._reply(Reply.to(request), MessageClass.SUCCESS).build(user.key))

    def _create_permissions(self, client: SocketAddr, user: Authenticated, request: stun.Message, now: float) -> None:
        allocation = self._held.by_client.get(client)
        # To Firezone's relay a permission is nothing, and whoever asks for one succeeds.
        if not user.is_device or (allocation is not None and allocation.user.owner == user.owner):
            allocation = self._allocation_of(client)
            check_owner(allocation, user)
            if not request.peer_addresses and not user.is_device:
                raise RemoteProtocolError("nobody is to be permitted", turn.BAD_REQUEST)
            for peer in request.peer_addresses:
                self._check_peer(allocation, peer)
            for peer in request.peer_addresses:
                self._permit(allocation, peer.host, now)
        self._succeed(
            client, Method.CREATE_PERMISSION, self._reply(Reply.to(request), MessageClass.SUCCESS).build(user.key)
        )

    def _permit(self, allocation: Allocation, host: str, now: float) -> None:
        if host not in allocation.permissions and (
            len(allocation.permissions) >= MAX_PERMISSIONS_PER_ALLOCATION or self.permissions >= MAX_PERMISSIONS
        ):
            raise RemoteProtocolError("too many permissions", turn.INSUFFICIENT_CAPACITY)
        self._held.permit(allocation, host)
        self._deadlines.set(_PermissionKey(allocation.client, host), now + turn.PERMISSION_LIFETIME_S)
        self._events.append(AddPermission(allocation.client, allocation.port, host))

    def _allocation_of(self, client: SocketAddr) -> Allocation:
        allocation = self._held.by_client.get(client)
        if allocation is None:
            raise RemoteProtocolError("there is no allocation", turn.ALLOCATION_MISMATCH)
        return allocation

    def _check_peer(self, allocation: Allocation, peer: SocketAddr) -> None:
        if family_of(peer) not in allocation.families:
            raise RemoteProtocolError("the allocation has no such family", turn.PEER_ADDRESS_FAMILY_MISMATCH)
        problem = self._peers.problem(peer.host)
        if problem is not None:
            self.counters["peers_forbidden"] += 1
            raise RemoteProtocolError(f"nothing is relayed to {peer.host}: {problem}", turn.FORBIDDEN)

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

    # changes

    def _open(self, allocation: Allocation) -> None:
        self._held.start(allocation)
        self._events.append(OpenPort(allocation.port, allocation.families))

    def _grant(self, allocation: Allocation, transaction_id: bytes) -> None:
        reply = self._reply(Reply(Method.ALLOCATE, transaction_id), MessageClass.SUCCESS)
        for address in self._relayed_addresses(allocation):
            reply.relayed_address(address)
        reply.mapped_address(self._held.real(allocation.client)).lifetime(allocation.lifetime_s)
        if allocation.token is not None:
            reply.reservation_token(allocation.token)
        if allocation.lacks is not None:
            code = turn.ADDRESS_FAMILY_NOT_SUPPORTED
            reply.address_error(allocation.lacks, code, turn.REASONS[code])
        self._succeed(allocation.client, Method.ALLOCATE, reply.build(allocation.user.key))

    def _relayed_addresses(self, allocation: Allocation) -> Iterator[SocketAddr]:
        for family in allocation.families:
            host = self._config.public_host(family)
            if host is not None:
                yield SocketAddr(host, allocation.port)

    def _delete(self, allocation: Allocation) -> None:
        for family in allocation.families:
            self._clear_family(allocation, family)
        self._deadlines.discard(allocation.client)
        self._held.remove(allocation)
        self._events.append(ClosePort(allocation.port, allocation.families))

    def _close_family(self, allocation: Allocation, family: AddressFamily) -> None:
        self._clear_family(allocation, family)
        allocation.families = tuple(other for other in allocation.families if other != family)
        self._events.append(ClosePort(allocation.port, (family,)))

    def _clear_family(self, allocation: Allocation, family: AddressFamily) -> None:
        for item in in_family(allocation, family):
            if isinstance(item, str):
                self._deadlines.discard(_PermissionKey(allocation.client, item))
                self._remove_permission(allocation, item)
            else:
                self._deadlines.discard(_ChannelKey(allocation.client, item))
                binding = self._held.unbind(allocation, item)
                if binding.active:
                    self._events.append(RemoveChannel(allocation.client, item, allocation.port, binding.peer))

    def _remove_permission(self, allocation: Allocation, host: str) -> None:
        self._held.forbid(allocation, host)
        self._events.append(RemovePermission(allocation.client, allocation.port, host))

    def _expire_channel(self, key: _ChannelKey, now: float) -> None:
        allocation = self._held.by_client[key.client]
        binding = allocation.binding_by_channel[key.channel]
        if binding.active:
            binding.active = False
            self._deadlines.set(key, now + turn.CHANNEL_COOLDOWN_S)
            self._events.append(RemoveChannel(key.client, key.channel, allocation.port, binding.peer))
        else:
            self._held.unbind(allocation, key.channel)

    # data

    def _forward_channel_data(self, client: SocketAddr, datagram: bytes) -> None:
        try:
            channel, payload = channel_data.decode(datagram)
        except RemoteProtocolError:
            self.counters["dropped_malformed"] += 1
            return
        allocation = self._held.by_client.get(client)
        binding = allocation.binding_by_channel.get(channel) if allocation else None
        if allocation is None or binding is None or not binding.active:
            self.counters["dropped_channel"] += 1
            return
        self._forward(allocation, binding.peer, payload)

    def _forward_indication(self, client: SocketAddr, indication: stun.Message) -> None:
        """Sends what a client says outside channels; without permission, or malformed, it is dropped."""
        allocation = self._held.by_client.get(client)
        peer = indication.peer_addresses[0] if indication.peer_addresses else None
        if peer is None or indication.data is None or indication.unknown_required or indication.malformed:
            self.counters["dropped_malformed"] += 1
        elif allocation is None or peer.host not in allocation.permissions or peer.port == 0:
            self.counters["dropped_permission"] += 1
        else:
            self._forward(allocation, peer, indication.data, whole=indication.dont_fragment)

    def _forward(self, allocation: Allocation, peer: SocketAddr, payload: bytes, *, whole: bool = False) -> None:
        local = SocketAddr(self._config.public_host(family_of(peer)) or "", allocation.port)
        if peer.host == local.host and peer.port in self._held.by_port:
            self.handle_peer_datagram(peer.port, local, payload)  # both ends use this relay
        elif self._peers.is_this_host(peer.host):
            self.counters["dropped_own_address"] += 1
        else:
            self._transmits.append((WholeTransmit if whole else Transmit)(local, peer, payload))

    # replies

    def _reply(self, request: Reply, message_class: MessageClass) -> stun.Builder:
        return stun.Builder(request.method, message_class, request.transaction_id).software(self._config.software)

    def _succeed(self, client: SocketAddr, method: Method, datagram: bytes) -> None:
        self.counters[SUCCESSES[method]] += 1
        self._send(client, datagram)

    def _refuse_unknown(
        self,
        client: SocketAddr,
        request: Reply,
        code: int,
        now: float,
        key: bytes | None = None,
        nonce: bytes | None = None,
    ) -> None:
        """Answers whoever has not shown who it is, as long as its network does not ask too often."""
        if self._limit.take(self._held.real(client).host, now):
            self._refuse(client, request, code, key, nonce)
        else:
            self.counters["dropped_refusal_limit"] += 1

    def _refuse(
        self, client: SocketAddr, request: Reply, code: int, key: bytes | None, nonce: bytes | None = None
    ) -> None:
        self.counters[f"responses_error_{method_name(request.method)}_{code}"] += 1
        reply = stun.Builder(request.method, MessageClass.ERROR, request.transaction_id)
        if key is not None:
            reply.software(self._config.software)  # strangers get what they must have and no byte more
        reply.error_code(code, turn.REASONS[code])
        if code == turn.UNKNOWN_ATTRIBUTE:
            reply.unknown_attributes(request.unknown)
        if nonce is not None:
            reply.realm(self._config.realm).nonce(nonce)
            if self._auth.offers_algorithms:
                reply.attribute(stun.Attribute.PASSWORD_ALGORITHMS, turn.PASSWORD_ALGORITHMS)
        self._send(client, reply.build(key))

    def _send(self, client: SocketAddr, datagram: bytes) -> None:
        host = self._config.public_host(family_of(client)) or ("::" if client.is_ipv6 else "0.0.0.0")
        self._transmits.append(Transmit(SocketAddr(host, self._config.listen_port), client, datagram))
