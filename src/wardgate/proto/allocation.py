"""Client side of one TURN allocation: find the relay, allocate, keep it alive, bind channels, measure the way there.

It is the only source of candidates: the address at which the relay's answers arrive is a host candidate, the mapped
address in them a server-reflexive one, the allocated addresses are relay candidates.

Where the network lets no UDP out, the program around it may bring datagrams to the relay by TCP or TLS: such a way is
an address of this host that stands for the relay. Whichever way answers first is used; UDP is looked for again.

Sans-IO: after each call, drain `poll_event` and `poll_transmit`, then sleep until `poll_timeout`.
Source: RFC 8656, sections 6 to 12; RFC 8489, sections 6.2.1 and 9.2.
"""

from collections import Counter, deque
from dataclasses import dataclass

from wardgate.ids import RelayId
from wardgate.proto.allocation_events import (
    CandidateFound,
    CandidateLost,
    ChannelBound,
    ChannelLost,
    Event,
    Silent,
    Unreachable,
)
from wardgate.proto.allocation_requests import (
    ANSWERS,
    MAX_NONCE_ROUNDS,
    METHODS,
    Purpose,
    Request,
    is_challenge,
    is_refused_without_nonce,
)
from wardgate.proto.channels import Channels
from wardgate.wire import channel_data, stun, turn
from wardgate.wire.addresses import RandomBytes, SocketAddr, Transmit
from wardgate.wire.candidates import Candidate, Kind
from wardgate.wire.stun import AddressFamily, Message, MessageClass, Method

SOFTWARE = "wardgate"
BINDING_GAPS_S = (0.1, 0.2, 0.4, 0.8, 1.5, 2.25, 2.75)
REQUEST_GAPS_S = (0.5, 1.0, 1.5, 2.0, 3.0)
PROBE_GAPS_S = (0.3, 0.7)
KEEPALIVE_S = 25.0
PROBE_SPACING_S = 1.0
RETRY_S = 5.0
MAX_WAITING_BINDS = 100
MAX_FORBIDDEN = 256
SILENT_AFTER = 4  # requests without an answer, so 0.7 s


@dataclass(frozen=True, slots=True)
class _Granted:
    """What the relay gave us."""

    relayed: tuple[SocketAddr, ...]
    expires_at: float
    refresh_at: float


class Allocation:
    """One relay as seen by a device.

    Attributes:
        relay_id: The portal's name for it.
        heard_at: When it last answered; monotonic seconds.
        counts: What was refused or lost, by name.
    """

    def __init__(
        self,
        relay_id: RelayId,
        ipv4: SocketAddr | None,
        ipv6: SocketAddr | None,
        username: str,
        password: str,
        random_bytes: RandomBytes,
        now: float,
    ) -> None:
        """Starts looking for the relay at once.

        Args:
            ipv4: Its address of that family, if it has one; likewise `ipv6`.
        """
        self.relay_id = relay_id
        self.heard_at = float("-inf")
        self.counts: Counter[str] = Counter()
        self._ipv4, self._ipv6 = ipv4, ipv6
        self._ways: dict[SocketAddr, str] = {}
        self._username, self._password = username, password
        self._key = turn.long_term_key(username, password)
        self._random = random_bytes
        self._nonce: bytes | None = None
        self._active: SocketAddr | None = None
        self._local: SocketAddr | None = None
        self._mapped: dict[SocketAddr, SocketAddr] = {}
        self._granted: _Granted | None = None
        self._refused = False
        self._requests: list[Request] = []
        self._request_by_id: dict[bytes, Request] = {}
        self._channels = Channels()
        self._waiting_binds: dict[SocketAddr, None] = {}
        self._forbidden: set[SocketAddr] = set()
        self._rtt_s: float | None = None
        self._keepalive_at: float | None = None
        self._retry_at: float | None = None
        self._probed_at = float("-inf")
        self._reflexive: dict[SocketAddr, Candidate] = {}
        self._transmits: deque[Transmit] = deque()
        self._events: deque[Event] = deque()
        self._find(now)

    # what it is

    @property
    def servers(self) -> tuple[SocketAddr, ...]:
        """The relay's addresses, and those that stand for it."""
        return (*self._udp_servers(), *self._ways)

    @property
    def ways(self) -> tuple[SocketAddr, ...]:
        """The addresses that stand for it."""
        return tuple(self._ways)

    @property
    def way(self) -> str:
        """How it is reached: `udp`, or what its way was called."""
        return self._ways.get(self._active, "udp") if self._active else "udp"

    @property
    def address(self) -> SocketAddr | None:
        """Its own address that is in use, or would be."""
        udp = self._udp_servers()
        return self._active if self._active in udp else next(iter(udp), None)

    def _udp_servers(self) -> tuple[SocketAddr, ...]:
        return tuple(address for address in (self._ipv4, self._ipv6) if address)

    @property
    def active_server(self) -> SocketAddr | None:
        """The relay address in use."""
        return self._active

    @property
    def rtt_s(self) -> float | None:
        """Smoothed round-trip time to the relay."""
        return self._rtt_s

    @property
    def is_usable(self) -> bool:
        """Whether there is an allocation."""
        return self._granted is not None

    @property
    def relayed_addresses(self) -> tuple[SocketAddr, ...]:
        """The allocated addresses."""
        return self._granted.relayed if self._granted else ()

    def same_as(self, ipv4: SocketAddr | None, ipv6: SocketAddr | None, username: str, password: str) -> bool:
        """Whether an announcement describes this very relay with these credentials."""
        return (self._ipv4, self._ipv6, self._username, self._password) == (ipv4, ipv6, username, password)

    def reflexive_candidates(self) -> list[Candidate]:
        """Our host and server-reflexive candidates as this relay sees us."""
        hosts = dict.fromkeys(Candidate.host(candidate.base) for candidate in self._reflexive.values())
        return [*hosts, *(candidate for candidate in self._reflexive.values() if candidate.kind is Kind.SRFLX)]

    def relay_candidates(self) -> list[Candidate]:
        """The allocated addresses."""
        if self._granted is None or self._local is None:
            return []
        return [Candidate(Kind.RELAY, relayed, self._local) for relayed in self._granted.relayed]

    # input

    def handle_input(self, local: SocketAddr, source: SocketAddr, message: Message, now: float) -> bool:
        """Takes a STUN message and returns whether it answered a request of ours.

        Args:
            local: Where it arrived: our host candidate.
            source: Where it came from; anything but this relay is refused.
        """
        request = self._request_by_id.get(message.transaction_id)
        if request is None or request.server != source or message.message_class not in ANSWERS:
            self.counts["unexpected answers"] += 1
            return False
        if message.method != METHODS[request.purpose]:
            return False
        is_authentic = message.method == Method.BINDING or message.verify_integrity(self._key)
        if not is_authentic and not is_challenge(request, message):
            self.counts["unauthentic answers"] += 1
            return False
        self.heard_at = now
        self._sample_rtt(now - request.copies[message.transaction_id])
        self._finish(request)
        if message.message_class is MessageClass.SUCCESS:
            self._handle_success(request, local, message, now)
        else:
            self._handle_error(request, message, now)
        return True

    def peer_of(self, channel: int, now: float) -> tuple[SocketAddr, SocketAddr] | None:
        """Our relayed address and the peer of a channel on which data may arrive; notes that some did."""
        known = self._channels.receiving_on(channel, now)
        relayed = self._relayed_for(known.peer) if known else None
        if known is None or relayed is None:
            return None
        known.received = True
        return relayed, known.peer

    def note_received(self, peer: SocketAddr, now: float) -> None:
        """Data has come by the channel of that peer without passing through here."""
        channel = self._channels.sending_to(peer, now)
        if channel:
            channel.received = True

    # output

    def bind_channel(self, peer: SocketAddr, now: float) -> None:
        """Has a channel to `peer` bound, now or as soon as there is an allocation."""
        if self._granted is None:
            if peer in self._waiting_binds or len(self._waiting_binds) < MAX_WAITING_BINDS:
                self._waiting_binds[peer] = None
            else:
                self.counts["binds refused"] += 1
            return
        if self._relayed_for(peer) is None or peer in self._forbidden or self._channels.sending_to(peer, now):
            return
        channel = self._channels.assign(peer, now)
        if channel is None:
            self.counts["binds refused"] += 1
            return
        self._request(Purpose.BIND, now, channel=channel.number)

    def channel_to(self, peer: SocketAddr, now: float) -> tuple[SocketAddr, int] | None:
        """The relay's address and the channel by which data for `peer` may leave."""
        channel = self._channels.sending_to(peer, now) if self._granted else None
        return (self._active, channel.number) if channel and self._active else None

    def send(self, peer: SocketAddr, payload: bytes, now: float) -> bool:
        """Queues data for `peer`; without a channel one is bound and the data is lost."""
        way = self.channel_to(peer, now)
        if way is None:
            self.counts["sent without a channel"] += 1
            self.bind_channel(peer, now)
            return False
        self._transmits.append(Transmit(None, way[0], channel_data.encode(way[1], payload)))
        return True

    def add_way(self, alias: SocketAddr, kind: str, now: float) -> None:
        """Datagrams sent to `alias` reach the relay by `kind` from now on."""
        self._ways[alias] = kind
        if self._active is None:
            self._look_at(alias, BINDING_GAPS_S, now)

    def lose_way(self, alias: SocketAddr, now: float) -> None:
        """They no longer do."""
        if self._ways.pop(alias, None) is None:
            return
        for request in [request for request in self._requests if request.server == alias]:
            self._finish(request)
        if self._active == alias:
            self._withdraw()
            self._find(now)

    def check(self, now: float) -> None:
        """Asks the relay at once how it sees us, to notice a NAT that changed its mapping or a relay that is gone."""
        if self._active and self._granted and now - self._probed_at >= PROBE_SPACING_S:
            self._probed_at = now
            self._keepalive(now)

    def probe(self, now: float) -> None:
        """Refreshes the allocation at once: other relays came or went."""
        if self._granted and not self._in_flight(Purpose.REFRESH):
            self._request(Purpose.REFRESH, now, gaps=REQUEST_GAPS_S)

    def reset(self, now: float) -> None:
        """Starts anew with the same credentials: this host moved."""
        self._drop_requests()
        self._withdraw()
        self._mapped.clear()
        self._reflexive.clear()
        self._ways.clear()
        self._rtt_s, self._refused = None, False
        self._transmits.clear()
        self._find(now)

    def close(self, now: float) -> None:
        """Gives the allocation back; the farewell is the last thing to be sent."""
        self._drop_requests()
        if self._granted:
            self._request(Purpose.DELETE, now)
        self._drop_requests()
        self._withdraw()
        self._keepalive_at = self._retry_at = None
        self._refused = True

    # life-cycle

    def _find(self, now: float) -> None:
        self._active = self._retry_at = self._keepalive_at = None
        self._nonce = None
        for server in self.servers:
            self._look_at(server, BINDING_GAPS_S, now)

    def _look_at(self, server: SocketAddr, gaps: tuple[float, ...], now: float) -> None:
        request = Request(Purpose.FIND, server, gaps)
        self._requests.append(request)
        self._transmit(request, now)

    def _handle_success(self, request: Request, local: SocketAddr, message: Message, now: float) -> None:
        match request.purpose:
            case Purpose.FIND | Purpose.KEEPALIVE:
                self._handle_binding(request.server, local, message, now)
            case Purpose.ALLOCATE:
                self._handle_allocated(message, now)
            case Purpose.DELETE:
                self._request(Purpose.ALLOCATE, now)
            case Purpose.REFRESH if self._granted:
                self._granted = self._grant(self._granted.relayed, message, now)
            case Purpose.BIND:
                self._handle_bound(request.channel, now)

    def _handle_binding(self, server: SocketAddr, local: SocketAddr, message: Message, now: float) -> None:
        if message.mapped_address is None:
            return
        mapped, before = message.mapped_address, self._mapped.get(server)
        self._mapped[server] = mapped
        if server not in self._ways:
            self._note_reflexive(server, local, mapped)
        if self._active is None:
            self._active, self._local = server, local
            self._keepalive_at = now + KEEPALIVE_S
            self._request(Purpose.ALLOCATE, now)
        elif self._active in self._ways and server not in self._ways:
            self._active, self._local = server, local
            self._allocate_anew(now)
        elif self._active == server and before is not None and before != mapped:
            # The relay knows the allocation by the old mapping and drops what comes from the new one.
            self.counts["mappings changed"] += 1
            self._local = local
            self._allocate_anew(now)

    def _note_reflexive(self, server: SocketAddr, local: SocketAddr, mapped: SocketAddr) -> None:
        srflx = Candidate(Kind.SRFLX, mapped, local) if mapped != local else Candidate.host(local)
        if self._reflexive.get(server) != srflx:
            self._reflexive[server] = srflx
            self._events.append(CandidateFound(Candidate.host(local)))
            if srflx.kind is Kind.SRFLX:
                self._events.append(CandidateFound(srflx))

    def _handle_allocated(self, message: Message, now: float) -> None:
        if not message.relayed_addresses:
            self._fail("the relay granted no address", now)
            return
        self._granted = self._grant(message.relayed_addresses[:2], message, now)
        self._events.extend(CandidateFound(candidate) for candidate in self.relay_candidates())
        waiting, self._waiting_binds = self._waiting_binds, {}
        for peer in waiting:
            self.bind_channel(peer, now)

    def _grant(self, relayed: tuple[SocketAddr, ...], message: Message, now: float) -> _Granted:
        lifetime_s = turn.DEFAULT_LIFETIME_S if message.lifetime_s is None else message.lifetime_s
        return _Granted(relayed, now + lifetime_s, now + max(lifetime_s / 2, 1.0))

    def _handle_bound(self, number: int, now: float) -> None:
        channel = self._channels.get(number)
        if channel is None or self._granted is None:
            return
        fresh = not channel.confirmed
        channel.bound_at, channel.confirmed, channel.received, channel.pending = now, True, False, False
        if fresh:
            self._events.append(ChannelBound(number, channel.peer))

    def _handle_error(self, request: Request, message: Message, now: float) -> None:
        code = message.error.code if message.error else 0
        self.counts[f"errors {code}"] += 1
        if is_refused_without_nonce(request, message):
            self._again(request, now, is_bare=True)
            return
        unauthorized = code == turn.UNAUTHORIZED and not request.with_nonce
        if message.method != Method.BINDING and (unauthorized or code == turn.STALE_NONCE):
            self._retry_with_nonce(request, message, now)
            return
        match request.purpose, code:
            case (Purpose.KEEPALIVE, _):
                pass
            case (Purpose.FIND, _) if self._active or self._in_flight(Purpose.FIND):
                pass
            case (Purpose.FIND, _):
                self._fail(f"the relay answered {code}", now)
            case (_, turn.UNAUTHORIZED):
                self._refused = True
                self._fail("the relay refuses our credentials", now)
            case (Purpose.ALLOCATE, turn.ALLOCATION_MISMATCH):
                self._request(Purpose.DELETE, now)
            case (Purpose.DELETE, _):
                self._request(Purpose.ALLOCATE, now)
            case (Purpose.REFRESH | Purpose.BIND, turn.ALLOCATION_MISMATCH):
                self._allocate_anew(now)
            case (Purpose.BIND, _):
                channel = self._channels.get(request.channel)
                if channel and code == turn.FORBIDDEN and len(self._forbidden) < MAX_FORBIDDEN:
                    self._forbidden.add(channel.peer)  # such as a private address, which the relay does not reach
                self._remove_channel(request.channel)
            case _:
                self._fail(f"the relay answered {code}", now)

    def _retry_with_nonce(self, request: Request, message: Message, now: float) -> None:
        if message.nonce is None or message.realm != turn.REALM or request.nonce_rounds >= MAX_NONCE_ROUNDS:
            self._refused = True
            self._fail("the relay asks for another realm or for ever new nonces", now)
            return
        self._nonce = message.nonce
        self._again(request, now)

    def _again(self, request: Request, now: float, *, is_bare: bool = False) -> None:
        again = Request(request.purpose, request.server, request.gaps, request.channel, is_bare=is_bare)
        again.nonce_rounds = request.nonce_rounds + 1
        self._requests.append(again)
        self._transmit(again, now)

    def _allocate_anew(self, now: float) -> None:
        peers = list(self._waiting_binds)
        self._drop_requests()
        peers += self._withdraw()
        self._waiting_binds = dict.fromkeys(peers[:MAX_WAITING_BINDS])
        self._request(Purpose.ALLOCATE, now)

    def _fail(self, reason: str, now: float) -> None:
        """The allocation is gone; looks for the relay again after a while, unless it refuses us for good."""
        self._drop_requests()
        self._withdraw()
        self._active = self._keepalive_at = None
        self._retry_at = None if self._refused else now + RETRY_S
        self._events.append(Unreachable(reason))

    def _withdraw(self) -> list[SocketAddr]:
        """Forgets allocation and channels, and gives the peers of the latter."""
        lost = self.relay_candidates()
        confirmed = self._channels.clear()
        self._granted = None
        self._waiting_binds.clear()
        self._forbidden.clear()
        self._events.extend(ChannelLost(channel.number, channel.peer) for channel in confirmed)
        self._events.extend(CandidateLost(candidate) for candidate in lost)
        return [channel.peer for channel in confirmed]

    def _remove_channel(self, number: int) -> None:
        channel = self._channels.get(number)
        self._channels.remove(number)
        if channel and channel.confirmed:
            self._events.append(ChannelLost(number, channel.peer))

    def _relayed_for(self, peer: SocketAddr) -> SocketAddr | None:
        relayed = self._granted.relayed if self._granted else ()
        return next((address for address in relayed if address.is_ipv6 == peer.is_ipv6), None)

    # requests

    def _keepalive(self, now: float) -> None:
        if self._active and not self._in_flight(Purpose.KEEPALIVE):
            self._request(Purpose.KEEPALIVE, now, gaps=BINDING_GAPS_S)
        if self._active in self._ways and not self._in_flight(Purpose.FIND):
            for server in self._udp_servers():
                self._look_at(server, PROBE_GAPS_S, now)
        self._keepalive_at = now + KEEPALIVE_S

    def _in_flight(self, purpose: Purpose) -> bool:
        return any(request.purpose is purpose for request in self._requests)

    def _request(
        self, purpose: Purpose, now: float, *, channel: int = 0, gaps: tuple[float, ...] = REQUEST_GAPS_S
    ) -> None:
        if self._active is None:
            return
        request = Request(purpose, self._active, gaps, channel)
        self._requests.append(request)
        self._transmit(request, now)

    def _transmit(self, request: Request, now: float) -> None:
        transaction_id = self._random(stun.TRANSACTION_ID_SIZE)
        request.due_at = now + request.gaps[len(request.copies)]
        request.copies[transaction_id] = now
        self._request_by_id[transaction_id] = request
        self._transmits.append(Transmit(None, request.server, self._encode(request, transaction_id)))
        is_finding = request.purpose is Purpose.FIND and self._active is None and not self._ways
        if is_finding and len(request.copies) == SILENT_AFTER and request.server == self.servers[0]:
            self._events.append(Silent())

    def _encode(self, request: Request, transaction_id: bytes) -> bytes:
        builder = stun.Builder(METHODS[request.purpose], MessageClass.REQUEST, transaction_id).software(SOFTWARE)
        match request.purpose:
            case Purpose.FIND | Purpose.KEEPALIVE:
                return builder.build()
            case Purpose.ALLOCATE:
                builder.requested_transport(turn.UDP_TRANSPORT).additional_family(AddressFamily.IPV6)
            case Purpose.DELETE:
                builder.lifetime(0)
            case Purpose.BIND:
                channel = self._channels.get(request.channel)
                if channel:
                    builder.peer_address(channel.peer).channel_number(channel.number)
        if request.is_bare:
            return builder.build()
        builder.username(self._username).realm(turn.REALM)
        request.with_nonce = self._nonce is not None
        if self._nonce is not None:
            builder.nonce(self._nonce)
        return builder.build(self._key)

    def _finish(self, request: Request) -> None:
        self._requests.remove(request)
        for transaction_id in request.copies:
            del self._request_by_id[transaction_id]

    def _drop_requests(self) -> None:
        self._requests.clear()
        self._request_by_id.clear()

    def _sample_rtt(self, sample_s: float) -> None:
        self._rtt_s = sample_s if self._rtt_s is None else self._rtt_s * 7 / 8 + sample_s / 8

    # time

    def handle_timeout(self, now: float) -> None:
        """Does what is due at `now`: repeats, gives up, refreshes, keeps alive."""
        for request in [request for request in self._requests if now >= request.due_at]:
            if request not in self._requests:
                continue
            if len(request.copies) < len(request.gaps):
                self._transmit(request, now)
            else:
                self._finish(request)
                self._give_up(request, now)
        if self._granted and now >= self._granted.expires_at:
            self._allocate_anew(now)
        if self._granted and now >= self._granted.refresh_at and not self._in_flight(Purpose.REFRESH):
            self._request(Purpose.REFRESH, now)
        if self._keepalive_at is not None and now >= self._keepalive_at:
            self._keepalive(now)
        if self._retry_at is not None and now >= self._retry_at:
            self._find(now)
        self._tend_channels(now)

    def _tend_channels(self, now: float) -> None:
        for channel in self._channels.expire(now):
            self._events.append(ChannelLost(channel.number, channel.peer))
        for channel in self._channels.due(now):
            channel.pending = True
            self._request(Purpose.BIND, now, channel=channel.number)

    def _give_up(self, request: Request, now: float) -> None:
        self.counts["requests unanswered"] += 1
        match request.purpose:
            case Purpose.FIND if self._active or self._in_flight(Purpose.FIND):
                pass
            case Purpose.KEEPALIVE:
                # A busy relay may lose these; whether it is gone, the refresh tells.
                self.probe(now)
            case _:
                self._fail("the relay does not answer", now)

    def poll_transmit(self) -> Transmit | None:
        """The next datagram to send."""
        return self._transmits.popleft() if self._transmits else None

    def poll_event(self) -> Event | None:
        """The next event."""
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> float | None:
        """When something is due; the distant past while output is queued."""
        if self._transmits or self._events:
            return 0.0
        due = [request.due_at for request in self._requests]
        if self._granted:
            due.append(self._granted.expires_at)
            if not self._in_flight(Purpose.REFRESH):
                due.append(self._granted.refresh_at)
        channels = self._channels.next_change()
        return min((at for at in (*due, self._keepalive_at, self._retry_at, channels) if at is not None), default=None)
