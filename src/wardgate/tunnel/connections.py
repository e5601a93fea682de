"""Which peers there are and by which path: the relays, and an agent, handshakes and sessions of each peer.

Installs sessions, paths and channels into the engine itself. Sans-IO: after each call, drain `poll_event` and
`poll_transmit`, then sleep until `poll_timeout`.
"""

from collections import Counter, deque
from collections.abc import Iterable
from typing import Literal

from wardgate._fastpath import (
    DatagramUpcall,
    Engine,
    FlowReport,
    OpenedInitiation,
    PacketUpcall,
    SessionUpcall,
    StaticKey,
)
from wardgate.errors import RemoteProtocolError
from wardgate.ids import PeerIndex, RelayId
from wardgate.proto.agent import Pair
from wardgate.proto.allocation import Allocation
from wardgate.proto.allocation_events import (
    CandidateFound,
    CandidateLost,
    ChannelBound,
    ChannelLost,
    Silent,
    Unreachable,
)
from wardgate.proto.deadlines import Deadlines
from wardgate.proto.handshake import CookieReply, Gate
from wardgate.tunnel.connections_events import (
    Closed,
    Established,
    Event,
    Failed,
    InvalidatedCandidates,
    NewCandidates,
    NoRelays,
    Path,
    PathChanged,
    PathStatus,
    RelaySilent,
    RelaysNeeded,
)
from wardgate.tunnel.connections_peer import Connection, Parameters, Shared
from wardgate.tunnel.connections_relays import Relays
from wardgate.wire import candidates, channel_data, stun, wireguard
from wardgate.wire.addresses import RandomBytes, SocketAddr, Transmit
from wardgate.wire.candidates import Candidate, Kind
from wardgate.wire.control import Goodbye, encode_control
from wardgate.wire.portal import IceCredentials, Relay
from wardgate.wire.stun import MessageClass, Method
from wardgate.wire.wireguard import MessageType

__all__ = [
    "Closed",
    "Connections",
    "Established",
    "Event",
    "Failed",
    "InvalidatedCandidates",
    "NewCandidates",
    "NoRelays",
    "Path",
    "PathChanged",
    "PathStatus",
    "RelaySilent",
    "RelaysNeeded",
]

MAX_CONNECTIONS = 16_384
MAX_LINES = 64
MAX_ANSWERED = 1024
MAX_EARLY_CHECKS = 100
EARLY_CHECK_TTL_S = 5.0
RELAYS_NEEDED_EVERY_S = 10.0


class Connections:
    """All peers and all relays of one client or gateway.

    Attributes:
        counts: What was refused or lost, by name.
    """

    def __init__(
        self,
        engine: Engine,
        static: StaticKey,
        role: Literal["client", "gateway"],
        epoch: float,
        random_bytes: RandomBytes,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.role = role
        self._engine = engine
        self._relays = Relays(engine, random_bytes, self.counts)
        self._shared = Shared(engine, self._relays, static, epoch, random_bytes, self.counts)
        self._gate = Gate(static, random_bytes)
        self._by_peer: dict[str, Connection] = {}
        self._by_index: dict[PeerIndex, Connection] = {}
        self._by_number: dict[int, Connection] = {}
        self._by_key: dict[bytes, Connection] = {}
        self._by_ufrag: dict[str, Connection] = {}
        self._answered: dict[bytes, int] = {}
        self._early_checks: deque[tuple[float, Pair, stun.Message]] = deque()
        self._deadlines: Deadlines[int] = Deadlines()
        self._next_index = 0
        self._relays_needed_at = float("-inf")

    # relays

    def update_relays(self, remove: Iterable[RelayId], add: Iterable[Relay], now: float) -> None:
        """Forgets some relays and learns others; connections of the former move on."""
        gone = self._relays.update(remove, add, now)
        for allocation in gone:
            for connection in self._using(allocation.relay_id):
                connection.leave_relay(now)
        self._drain_relays(now)
        self._find_relays(now)
        if gone and not len(self._relays):
            self._need_relays(now)

    def handle_relay_way(self, relay_id: RelayId, alias: SocketAddr, kind: str | None, now: float) -> None:
        """Datagrams to `alias`, an address of this host, reach that relay by `kind`; if that is `None`, no longer."""
        if kind is None:
            self._relays.lose_way(alias, now)
        else:
            self._relays.add_way(relay_id, alias, kind, now)
        self._drain_relays(now)

    def _find_relays(self, now: float) -> None:
        """Gives a relay to each connection that has none."""
        for connection in self._by_peer.values():
            if connection.relay_id is None:
                self._give_relay(connection, now)

    def _give_relay(self, connection: Connection, now: float) -> None:
        allocation = self._relays.choose()
        if allocation:
            connection.use_relay(allocation, now)
            self._schedule(connection)

    def _using(self, relay_id: RelayId) -> list[Connection]:
        return [connection for connection in self._by_peer.values() if connection.relay_id == relay_id]

    def _need_relays(self, now: float) -> None:
        if now >= self._relays_needed_at + RELAYS_NEEDED_EVERY_S:
            self._relays_needed_at = now
            self._shared.events.append(RelaysNeeded())

    def _drain_relays(self, now: float) -> None:
        for allocation in self._relays:
            while event := allocation.poll_event():
                self._relays.install(allocation, event)
                match event:
                    case CandidateFound(candidate):
                        self._add_local(allocation, candidate, now)
                    case CandidateLost(candidate):
                        for connection in self._using(allocation.relay_id):
                            connection.lose_local(candidate, now, tell=True)
                            self._schedule(connection)
                    case ChannelBound(_, peer) | ChannelLost(_, peer):
                        for connection in self._using(allocation.relay_id):
                            if connection.is_reached_by(allocation.relay_id, peer):
                                connection.install_path(now)
                    case Silent():
                        self._shared.events.append(RelaySilent(allocation.relay_id, allocation.servers))
                    case Unreachable():
                        self._leave_unreachable(allocation, now)

    def _add_local(self, allocation: Allocation, candidate: Candidate, now: float) -> None:
        for connection in list(self._by_peer.values()):
            if candidate.kind is not Kind.RELAY or connection.relay_id == allocation.relay_id:
                connection.add_local(candidate, now)
            elif connection.relay_id is None:
                connection.use_relay(allocation, now)
            if candidate.kind is Kind.RELAY and connection.relay_id == allocation.relay_id:
                connection.bind_channels(allocation, now)
            self._schedule(connection)

    def _leave_unreachable(self, allocation: Allocation, now: float) -> None:
        other = self._relays.choose()
        if other is None or not other.is_usable:
            self._need_relays(now)
            return
        for connection in self._using(allocation.relay_id):
            connection.use_relay(other, now)
            self._schedule(connection)

    # peers

    def upsert(
        self,
        peer_id: str,
        remote_public: bytes,
        psk: bytes,
        local_credentials: IceCredentials,
        remote_credentials: IceCredentials,
        controlling: bool,
        iceless: bool,
        now: float,
    ) -> PeerIndex | NoRelays:
        """Connects to a peer, or reuses its connection if all parameters are the same.

        Returns:
            The peer's index in the engine, another than before if the connection was replaced.
        """
        parameters = Parameters(remote_public, psk, local_credentials, remote_credentials, controlling, iceless)
        known = self._by_peer.get(peer_id)
        if known and known.parameters == parameters and known.failure is None:
            known.reuse(now)
            self._schedule(known)
            return known.index
        if not len(self._relays) or (known is None and len(self._by_peer) >= MAX_CONNECTIONS):
            self.counts["connections refused"] += 1
            return NoRelays()
        if known:
            self._forget(known)
        connection = Connection(peer_id, self._new_index(), self._new_number(), parameters, self._shared, now)
        same_key = self._by_key.get(remote_public)
        if same_key:
            self._close(same_key)
        self._by_peer[peer_id] = self._by_index[connection.index] = connection
        self._by_number[connection.number] = self._by_key[remote_public] = connection
        self._by_ufrag[connection.local_ufrag] = connection
        for candidate in self._relays.reflexive_candidates():
            connection.add_local(candidate, now)
        self._give_relay(connection, now)
        connection.start(now)
        self._replay_early_checks(connection, now)
        self._schedule(connection)
        return connection.index

    def _new_index(self) -> PeerIndex:
        self._next_index += 1
        return PeerIndex(self._next_index - 1)

    def _new_number(self) -> int:
        while (number := int.from_bytes(self._shared.random_bytes(3), "big")) in self._by_number:
            self.counts["connection numbers drawn again"] += 1
        return number

    def add_remote_candidates(self, peer_id: str, lines: Iterable[str], now: float) -> None:
        """Takes candidate lines of a peer; those of unknown peers and unreadable ones are counted and dropped."""
        connection = self._by_peer.get(peer_id)
        if connection:
            connection.add_remotes(self._decode(lines), now)
            self._schedule(connection)
        else:
            self.counts["candidates of unknown peers"] += 1

    def remove_remote_candidates(self, peer_id: str, lines: Iterable[str], now: float) -> None:
        """Forgets candidates of a peer; they are matched by kind and address."""
        connection = self._by_peer.get(peer_id)
        if connection:
            connection.remove_remotes(self._decode(lines), now)
            self._schedule(connection)

    def _decode(self, lines: Iterable[str]) -> list[Candidate]:
        found = []
        for line in list(lines)[:MAX_LINES]:
            try:
                found.append(candidates.decode(line))
            except RemoteProtocolError:
                self.counts["unreadable candidates"] += 1
        return found

    def remove(self, peer_id: str, now: float, goodbye: bool) -> None:
        """Ends the connection to a peer.

        Args:
            goodbye: Tell the peer, so that it does not have to find out.
        """
        connection = self._by_peer.get(peer_id)
        if connection is None:
            return
        if goodbye:
            connection.send(encode_control(Goodbye()), now)
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        self._shared.events.append(Closed(connection.peer_id, self._forget(connection)))

    def _forget(self, connection: Connection) -> tuple[FlowReport, ...]:
        del self._by_peer[connection.peer_id]
        del self._by_index[connection.index]
        del self._by_number[connection.number]
        if self._by_key.get(connection.parameters.remote_public) is connection:
            del self._by_key[connection.parameters.remote_public]
        if self._by_ufrag.get(connection.local_ufrag) is connection:
            del self._by_ufrag[connection.local_ufrag]
        self._deadlines.discard(connection.number)
        return tuple(self._engine.remove_peer(connection.index))

    def peer_id_of(self, index: PeerIndex) -> str | None:
        """The peer of that index in the engine."""
        connection = self._by_index.get(index)
        return connection.peer_id if connection else None

    def index_of(self, peer_id: str) -> PeerIndex | None:
        """The index of that peer in the engine."""
        connection = self._by_peer.get(peer_id)
        return connection.index if connection else None

    def paths(self) -> list[PathStatus]:
        """How each connection is doing."""
        return [connection.status() for connection in self._by_peer.values()]

    def public_address_of(self, local: SocketAddr) -> SocketAddr | None:
        """How the relays see one of the host's addresses, if that differs."""
        seen = (one for one in self._relays.reflexive_candidates() if one.kind is Kind.SRFLX and one.base == local)
        return next((one.address for one in seen), None)

    def relay_address(self, relay_id: RelayId | None) -> SocketAddr | None:
        """Where a relay of ours is."""
        allocation = self._relays.get(relay_id)
        return allocation.address if allocation else None

    def relay_way(self, relay_id: RelayId | None) -> str | None:
        """By what a relay of ours is reached: `udp`, `tcp` or `tls`."""
        allocation = self._relays.get(relay_id)
        return allocation.way if allocation else None

    def gate_counters(self) -> dict[str, int]:
        """What became of initiations, by name."""
        return dict(self._gate.counters)

    # roaming

    def reset(self, now: float) -> bool:
        """This host moved to another network: relays are found anew.

        Returns:
            Whether the connections live on, as they do if all are ICE-less. Otherwise they are closed, and the caller
            makes a new key pair, hands it to `set_static` and joins the portal with it.
        """
        kept = all(connection.parameters.iceless for connection in self._by_peer.values())
        self._shared.transmits.clear()
        self._shared.stun_requests.clear()
        for connection in list(self._by_peer.values()):
            if kept:
                connection.reset(now)
                self._schedule(connection)
            else:
                self._close(connection)
        self._relays.reset(now)
        self._drain_relays(now)
        return kept

    def set_static(self, static: StaticKey) -> None:
        """Uses another key pair for connections from now on; there must be none."""
        for connection in list(self._by_peer.values()):
            self._close(connection)
        self._shared.static = static
        self._gate = Gate(static, self._shared.random_bytes)
        self._answered.clear()

    # input

    def handle_datagram(self, upcall: DatagramUpcall, now: float) -> None:
        """Takes a datagram from the network that is not data of a known session."""
        local, remote = SocketAddr(*upcall.local), SocketAddr(*upcall.remote)
        allocation = self._relays.at(remote)
        if allocation is None:
            if self._relays.is_former(remote):
                self.counts["datagrams of former relays"] += 1
            else:
                self._handle_peer_datagram(Pair(local, remote), upcall.payload, now)
            return
        if stun.is_stun(upcall.payload):
            self._handle_relay_stun(allocation, local, remote, upcall.payload, now)
        elif channel_data.is_channel_data(upcall.payload):
            self._handle_channel_data(allocation, upcall.payload, now)
        else:
            self.counts["unknown datagrams of relays"] += 1

    def _handle_relay_stun(
        self, allocation: Allocation, local: SocketAddr, remote: SocketAddr, payload: bytes, now: float
    ) -> None:
        try:
            message = stun.decode(payload)
        except RemoteProtocolError:
            self._handle_peer_datagram(Pair(local, remote), payload, now)
            return
        if allocation.handle_input(local, remote, message, now):
            self._relays.heard_at = now
        self._drain_relays(now)

    def _handle_channel_data(self, allocation: Allocation, payload: bytes, now: float) -> None:
        try:
            frame = channel_data.decode(payload, exact=True)
        except RemoteProtocolError:
            self.counts["malformed channel data"] += 1
            return
        ends = allocation.peer_of(frame.channel, now)
        if ends is None:
            self.counts["data on unknown channels"] += 1
            return
        self._handle_peer_datagram(Pair(*ends), frame.payload, now)

    def _handle_peer_datagram(self, pair: Pair, payload: bytes, now: float) -> None:
        if stun.is_stun(payload):
            try:
                self._handle_check(pair, stun.decode(payload), now)
                return
            except RemoteProtocolError:
                pass  # handshake messages begin like STUN
        match wireguard.message_type(payload):
            case MessageType.INITIATION:
                self._handle_initiation(pair, payload, now)
            case MessageType.RESPONSE:
                connection = self._by_number.get(wireguard.receiver_index(payload) >> 8)
                if connection:
                    connection.handle_response(pair, payload, now)
                    self._schedule(connection)
                else:
                    self.counts["responses to nobody"] += 1
            case MessageType.COOKIE_REPLY:
                connection = self._by_number.get(wireguard.receiver_index(payload) >> 8)
                if connection:
                    connection.handle_cookie_reply(payload, now)
                    self._schedule(connection)
            case MessageType.TRANSPORT:
                self.counts["data of unknown sessions"] += 1
            case _:
                self.counts["unknown datagrams"] += 1

    def _handle_check(self, pair: Pair, message: stun.Message, now: float) -> None:
        if message.method != Method.BINDING:
            self.counts["unknown datagrams"] += 1
            return
        if message.message_class is MessageClass.REQUEST:
            connection = self._by_ufrag.get((message.username or "").partition(":")[0])
            if connection is None:
                self._early_checks.append((now + EARLY_CHECK_TTL_S, pair, message))
                if len(self._early_checks) > MAX_EARLY_CHECKS:
                    self._early_checks.popleft()
                    self.counts["early checks dropped"] += 1
        else:
            number, until = self._shared.stun_requests.pop(message.transaction_id, (-1, 0.0))
            connection = self._by_number.get(number) if now <= until else None
            self.counts["answers to nobody"] += connection is None
        if connection:
            connection.handle_stun(pair, message, now)
            self._schedule(connection)

    def _replay_early_checks(self, connection: Connection, now: float) -> None:
        waiting, self._early_checks = self._early_checks, deque()
        for until, pair, message in waiting:
            if (message.username or "").partition(":")[0] == connection.local_ufrag:
                if now <= until:
                    connection.handle_stun(pair, message, now)
            else:
                self._early_checks.append((until, pair, message))

    def _handle_initiation(self, pair: Pair, datagram: bytes, now: float) -> None:
        answered = self._by_number.get(self._answered.get(datagram, -1))
        if answered:
            if not answered.handle_duplicate(pair, datagram, now):
                self.counts["initiations repeated too late"] += 1
            self._schedule(answered)
            return
        opened = self._gate.open(pair.remote, datagram, now)
        if opened is None:
            return
        if isinstance(opened, CookieReply):
            self._send_cookie_reply(pair, opened, now)
            return
        connection = self._by_key.get(opened.remote_public)
        if connection is None:
            self.counts["initiations of unknown peers"] += 1
            return
        self._answer(connection, pair, datagram, opened, now)

    def _answer(
        self, connection: Connection, pair: Pair, datagram: bytes, opened: OpenedInitiation, now: float
    ) -> None:
        if connection.handle_initiation(pair, datagram, opened, now):
            self._answered[datagram] = connection.number
            if len(self._answered) > MAX_ANSWERED:
                del self._answered[next(iter(self._answered))]
        self._schedule(connection)

    def _send_cookie_reply(self, pair: Pair, reply: CookieReply, now: float) -> None:
        owner = self._relays.owner_of(pair.local)
        if owner:
            owner.send(pair.remote, reply.datagram, now)
        else:
            self._shared.transmit(Transmit(pair.local, pair.remote, reply.datagram))

    def handle_session(self, upcall: SessionUpcall, now: float) -> None:
        """Takes what the engine says of a session."""
        connection = self._by_index.get(PeerIndex(upcall.peer))
        if connection:
            connection.handle_session(upcall, now)
            self._schedule(connection)

    def handle_probe(self, upcall: PacketUpcall, now: float) -> bool:
        """Takes a packet from a tunnel and returns whether it was a path probe."""
        connection = self._by_index.get(PeerIndex(upcall.peer)) if upcall.peer is not None else None
        pair = self._pair_of(upcall, now)
        if connection is None or pair is None or not connection.handle_probe(pair, upcall.packet, now):
            return False
        self._schedule(connection)
        return True

    def _pair_of(self, upcall: PacketUpcall, now: float) -> Pair | None:
        if upcall.local is None or upcall.remote is None:
            return None
        if upcall.channel is None:
            return Pair(SocketAddr(*upcall.local), SocketAddr(*upcall.remote))
        allocation = self._relays.at(SocketAddr(*upcall.remote))
        ends = allocation.peer_of(upcall.channel, now) if allocation else None
        return Pair(*ends) if ends else None

    def send(self, peer_id: str, packet: bytes, now: float) -> bool:
        """Seals a packet of Python's own and queues it on the peer's path."""
        connection = self._by_peer.get(peer_id)
        return connection is not None and connection.send(packet, now)

    # time

    def handle_timeout(self, now: float) -> None:
        """Does what is due at `now`. Calling it early, late or twice is harmless."""
        self._relays.handle_timeout(now)
        self._drain_relays(now)
        due = []
        while (number := self._deadlines.pop_due(now)) is not None:
            due.append(number)
        for number in due:
            connection = self._by_number.get(number)
            if connection is None:
                continue
            connection.handle_timeout(now)
            if connection.failure is not None:
                reason = connection.failure
                self._shared.events.append(Failed(connection.peer_id, reason, self._forget(connection)))
            else:
                self._schedule(connection)

    def _schedule(self, connection: Connection) -> None:
        if connection.number in self._by_number:
            at = 0.0 if connection.failure is not None else connection.poll_timeout()
            if at is None or at == float("inf"):
                self._deadlines.discard(connection.number)
            else:
                self._deadlines.set(connection.number, at)

    def poll_transmit(self) -> Transmit | None:
        """The next datagram to send."""
        return self._shared.transmits.popleft() if self._shared.transmits else self._relays.poll_transmit()

    def poll_event(self) -> Event | None:
        """The next event."""
        return self._shared.events.popleft() if self._shared.events else None

    def poll_timeout(self) -> float | None:
        """When something is due; the distant past while output is queued."""
        if self._shared.transmits or self._shared.events:
            return 0.0
        due = (self._relays.poll_timeout(), self._deadlines.next_at())
        return min((at for at in due if at is not None), default=None)
