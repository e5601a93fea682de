"""The connection to one peer: its agent finds paths, its handshakes make sessions, and both end up in the engine."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from wardgate._fastpath import Engine, OpenedInitiation, PeerActivity, SessionUpcall, StaticKey
from wardgate.errors import RemoteProtocolError
from wardgate.ids import PeerIndex, RelayId
from wardgate.proto.agent import Disconnected, Nominated, Pair
from wardgate.proto.allocation import Allocation
from wardgate.proto.handshake import Expired, Handshakes, KeepaliveDue, SessionExpired, SessionReady, Timers, Unanswered
from wardgate.proto.ice import IceAgent
from wardgate.proto.path_agent import PathAgent
from wardgate.tunnel.connections_events import (
    Established,
    Event,
    InvalidatedCandidates,
    NewCandidates,
    Path,
    PathChanged,
    PathStatus,
)
from wardgate.tunnel.connections_relays import Relays
from wardgate.tunnel.connections_watch import QUIET_POLL_S, Doubt, Watch
from wardgate.wire import candidates, stun
from wardgate.wire.addresses import RandomBytes, SocketAddr, Transmit
from wardgate.wire.candidates import Candidate, Kind
from wardgate.wire.portal import IceCredentials

CONNECT_TIMEOUT_S = 10.0
MAX_IDLE_S = 20.0
REHANDSHAKE_AFTER_S = 20.0
MAX_REMOTE_CANDIDATES = 32
MAX_TRANSMITS = 10_000
MAX_STUN_REQUESTS = 65_536
STUN_REQUEST_TTL_S = 10.0
MAX_CUT_OFF_S = 15.0
FIRST_HANDSHAKE_GAPS_S = (0.25, 0.5, 1.0, 2.0)


@dataclass(slots=True)
class Shared:
    """What all connections of a device have in common.

    Attributes:
        stun_requests: The connection whose agent made a request, and until when its answer counts, by transaction id.
        counts: What was refused or lost, by name.
    """

    engine: Engine
    relays: Relays
    static: StaticKey
    epoch: float
    random_bytes: RandomBytes
    counts: Counter[str]
    transmits: deque[Transmit] = field(default_factory=deque)
    events: deque[Event] = field(default_factory=deque)
    stun_requests: dict[bytes, tuple[int, float]] = field(default_factory=dict)

    def transmit(self, transmit: Transmit) -> None:
        """Queues a datagram, unless nobody drains the queue."""
        if len(self.transmits) >= MAX_TRANSMITS:
            self.counts["transmits refused"] += 1
        else:
            self.transmits.append(transmit)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a connection is made of; it is reused as long as these stay equal."""

    remote_public: bytes
    psk: bytes
    local_credentials: IceCredentials
    remote_credentials: IceCredentials
    controlling: bool
    iceless: bool


class Connection:
    """One peer.

    Attributes:
        number: 24 bits that tell its WireGuard indices from those of other connections.
        failure: Why it is over; the owner removes it then.
    """

    def __init__(
        self, peer_id: str, index: PeerIndex, number: int, parameters: Parameters, shared: Shared, now: float
    ) -> None:
        self.peer_id = peer_id
        self.index = index
        self.number = number
        self.parameters = parameters
        self.failure: str | None = None
        self.relay_id: RelayId | None = None
        self._shared = shared
        self._created_at = now
        self._timers = Timers.iceless() if parameters.iceless else Timers.ice()
        self._handshakes = Handshakes(
            shared.static,
            parameters.remote_public,
            parameters.psk,
            number << 8,
            self._timers,
            shared.epoch,
            shared.random_bytes,
        )
        self._paths: PathAgent | None = PathAgent() if parameters.iceless else None
        self._ice: IceAgent | None = None if parameters.iceless else self._new_ice_agent()
        self._locals: dict[Candidate, str] = {}
        self._remotes: dict[SocketAddr, Candidate] = {}
        self._relayed: set[SocketAddr] = set()
        self._new_lines: list[str] = []
        self._is_seeding = True
        self._path: Pair | None = None
        self._is_confirmed = False
        self._is_established = False
        self._alive_at = now
        self._watcher = Watch()
        self._unanswered_since: float | None = None
        self._relays_checked_at = now
        self._sent_at = now
        self._noted_at = 0.0
        self._poll_at = now
        self._first_handshakes = 0
        self._first_handshake_at: float | None = None
        if parameters.iceless and parameters.controlling:
            self._handshakes.initiate(now)

    def _new_ice_agent(self) -> IceAgent:
        p = self.parameters
        return IceAgent(
            local=(p.local_credentials.username, p.local_credentials.password),
            remote=(p.remote_credentials.username, p.remote_credentials.password),
            controlling=p.controlling,
            random_bytes=self._shared.random_bytes,
        )

    @property
    def _agent(self) -> PathAgent | IceAgent:
        agent = self._paths or self._ice
        assert agent  # one of them is there from the start
        return agent

    @property
    def local_ufrag(self) -> str:
        """The name by which the peer's connectivity checks ask for us."""
        return self.parameters.local_credentials.username

    # candidates

    def add_local(self, candidate: Candidate, now: float) -> None:
        """Uses a candidate of ours and tells the peer."""
        if candidate in self._locals:
            return
        line, prepared = self._prepare(candidate)
        self._locals[candidate] = line
        if candidate.kind is Kind.RELAY:
            self._relayed.add(candidate.address)
        self._new_lines.append(line)
        self._agent.add_local(prepared, now)
        self.drain(now)

    def _prepare(self, candidate: Candidate) -> tuple[str, Candidate]:
        if self.parameters.iceless:
            return candidates.encode_iceless(candidate), candidate
        family = candidate.address.is_ipv6
        earlier = sum(1 for known in self._locals if (known.kind, known.address.is_ipv6) == (candidate.kind, family))
        prepared = candidates.with_ice_priority(candidate, earlier)
        return candidates.encode_ice(prepared, self.local_ufrag), prepared

    def start(self, now: float) -> None:
        """All candidates known so far were added: tells the peer of them at once."""
        self._is_seeding = False
        self.drain(now)

    def lose_local(self, candidate: Candidate, now: float, *, tell: bool) -> None:
        """Stops using a relay candidate."""
        line = self._locals.pop(candidate, None)
        if line is None:
            return
        if tell:
            self._shared.events.append(InvalidatedCandidates(self.peer_id, (line,)))
        if line in self._new_lines:
            self._new_lines.remove(line)
        if self._path and self._path.local == candidate.address:
            self._path = None
            self._shared.engine.clear_path(self.index)
        self._agent.remove_local(candidate.address, now)
        self.drain(now)

    def signal_all(self) -> None:
        """Tells the peer all our candidates again; it may have lost its state."""
        self._new_lines = list(self._locals.values())

    def reset(self, now: float) -> None:
        """This host moved: all local candidates are void."""
        self._locals.clear()
        self._new_lines.clear()
        self._relayed.clear()
        self._path = None
        self.relay_id = None
        self._alive_at = now
        self._shared.engine.clear_path(self.index)
        self._agent.reset(now)
        self.drain(now)

    def use_relay(self, allocation: Allocation, now: float) -> None:
        """Moves to another relay, or to the first."""
        if allocation.relay_id == self.relay_id:
            return
        for candidate in [known for known in self._locals if known.kind is Kind.RELAY]:
            self.lose_local(candidate, now, tell=not self.parameters.iceless)
        if self.relay_id is not None and self._path is None:
            self._alive_at = now  # what was lost with the relay is not the peer's fault
        self.relay_id = allocation.relay_id
        self.bind_channels(allocation, now)
        for candidate in allocation.relay_candidates():
            self.add_local(candidate, now)

    def leave_relay(self, now: float) -> None:
        """Its relay is gone and there is no other yet."""
        for candidate in [known for known in self._locals if known.kind is Kind.RELAY]:
            self.lose_local(candidate, now, tell=not self.parameters.iceless)
        self.relay_id = None

    def bind_channels(self, allocation: Allocation, now: float) -> None:
        """Has a channel to every candidate of the peer bound."""
        for address in self._remotes:
            allocation.bind_channel(address, now)

    def add_remotes(self, found: Iterable[Candidate], now: float) -> None:
        """Takes candidates of the peer."""
        allocation = self._shared.relays.get(self.relay_id)
        for candidate in found:
            if candidate.address not in self._remotes and len(self._remotes) >= MAX_REMOTE_CANDIDATES:
                del self._remotes[next(iter(self._remotes))]
                self._shared.counts["remote candidates evicted"] += 1
            self._remotes[candidate.address] = candidate
            if allocation:
                allocation.bind_channel(candidate.address, now)
            self._agent.add_remote(candidate, now)
        self.drain(now)

    def remove_remotes(self, lost: Iterable[Candidate], now: float) -> None:
        """Forgets candidates of the peer."""
        for candidate in lost:
            known = self._remotes.get(candidate.address)
            if known and known.kind is candidate.kind:
                del self._remotes[candidate.address]
            self._agent.remove_remote(candidate.address, now)
        self.drain(now)

    def reuse(self, now: float) -> None:
        """The same connection was asked for again: shows the peer that we are here."""
        self.signal_all()
        if self._ice:
            self._ice.set_idle(False, now)
            if self.parameters.controlling and self._path:
                self._rehandshake(now)
        self.drain(now)

    # datagrams

    def handle_initiation(self, pair: Pair, datagram: bytes, opened: OpenedInitiation, now: float) -> bool:
        """Answers the peer's initiation on the pair it came by; returns whether it was accepted."""
        self.drain(now)
        try:
            self._handshakes.handle_initiation(opened, now)
        except RemoteProtocolError:
            self._shared.counts["initiations refused"] += 1
            return False
        self._alive_at = now
        answers = list(iter(self._handshakes.poll_transmit_bytes, None))
        if self._paths:
            received_at = self._shared.engine.activity(self.index).last_data_received_at
            for answer in answers:
                self._paths.send_answer(pair, datagram, answer, now, data_received_at=received_at)
        else:
            for answer in answers:
                self._send(pair, answer, now)
            self._path = self._path or pair  # until one is nominated
            self.install_path(now)
        self.drain(now)
        return True

    def handle_duplicate(self, pair: Pair, datagram: bytes, now: float) -> bool:
        """Repeats the answer to an initiation that came before."""
        answered = bool(self._paths and self._paths.handle_duplicate(pair, datagram, now))
        self.drain(now)
        return answered

    def handle_response(self, pair: Pair, datagram: bytes, now: float) -> None:
        """Takes the answer to an initiation of ours."""
        try:
            self._handshakes.handle_response(datagram, now)
        except RemoteProtocolError:
            self._shared.counts["responses refused"] += 1
            return
        self._alive_at, self._is_confirmed, self._first_handshake_at = now, True, None
        if self._paths:
            self._paths.handle_answered(pair, now)
        self.drain(now)

    def handle_cookie_reply(self, datagram: bytes, now: float) -> None:
        """Takes the cookie of a busy peer."""
        try:
            self._handshakes.handle_cookie_reply(datagram, now)
        except RemoteProtocolError:
            self._shared.counts["cookie replies refused"] += 1
        self.drain(now)

    def handle_stun(self, pair: Pair, message: stun.Message, now: float) -> None:
        """Takes a connectivity check or the answer to one."""
        if self._ice is None or not self._ice.handle_stun(pair, message, now):
            self._shared.counts["stun refused"] += 1
        self.drain(now)

    def handle_probe(self, pair: Pair, packet: bytes, now: float) -> bool:
        """Takes a packet from the tunnel and returns whether it was a path probe."""
        taken = bool(self._paths and self._paths.handle_probe(pair, packet, now))
        self.drain(now)
        return taken

    def handle_session(self, upcall: SessionUpcall, now: float) -> None:
        """Takes what the engine says of a session."""
        match upcall.kind:
            case "confirmed":
                self._alive_at = now
                self._is_confirmed = True
                self._handshakes.handle_confirmed(upcall.local_index, now)
                if self._paths:
                    self._paths.handle_confirmed(now)
            case "woken":
                self._poll_at = now
            case "missing" | "exhausted" if self.parameters.controlling and (self._path or self._paths):
                self._handshakes.initiate(now)
        self.drain(now)

    def send(self, packet: bytes, now: float) -> bool:
        """Seals a packet and queues it on the current path."""
        self._sent_at = now
        self._poll_at = min(self._poll_at, now + QUIET_POLL_S)
        if self._ice:
            self._ice.set_idle(False, now)
        return self._path is not None and self._seal(self._path, packet, now)

    def _seal(self, pair: Pair, packet: bytes, now: float, *, expects_answer: bool = True) -> bool:
        datagram = self._shared.engine.seal(self.index, packet, now, expects_answer)
        if datagram is None:
            self._shared.counts["packets without a session"] += 1
            return False
        return self._send(pair, datagram, now)

    def _send(self, pair: Pair, datagram: bytes, now: float) -> bool:
        owner = self._shared.relays.owner_of(pair.local)
        if owner:
            sent = owner.send(pair.remote, datagram, now)
            while transmit := owner.poll_transmit():
                self._shared.transmit(transmit)
            return sent
        if pair.local in self._relayed:
            self._shared.counts["sent without a relay"] += 1
            return False
        self._shared.transmit(Transmit(pair.local, pair.remote, datagram))
        return True

    # paths and sessions

    def install_path(self, now: float) -> None:
        """Tells the engine the current path, with the channel that it needs."""
        if self._path is None:
            return
        owner = self._shared.relays.owner_of(self._path.local)
        if owner is None:
            self._shared.engine.set_path(self.index, self._path.local, self._path.remote)
            return
        if owner.channel_to(self._path.remote, now) is None:
            owner.bind_channel(self._path.remote, now)
        way = owner.channel_to(self._path.remote, now)
        if way:
            self._shared.engine.set_path(self.index, None, way[0], way[1])
        else:
            self._shared.engine.clear_path(self.index)

    def is_reached_by(self, relay_id: RelayId, peer: SocketAddr) -> bool:
        """Whether the current path goes through this channel."""
        return relay_id == self.relay_id and self._path is not None and self._path.remote == peer

    def drain(self, now: float) -> None:
        """Takes what agent and handshakes produced and makes it the device's output."""
        self._drain_agent_events(now)
        self._drain_handshakes(now)
        self._drain_agent_events(now)
        while transmit := self._agent.poll_transmit():
            if transmit.inner:
                self._seal(transmit.pair, transmit.payload, now, expects_answer=not transmit.is_answer)
            else:
                self._remember_request(transmit.payload, now)
                self._send(transmit.pair, transmit.payload, now)
        if self._new_lines and not self._is_seeding:
            lines, self._new_lines = tuple(self._new_lines), []
            self._shared.events.append(NewCandidates(self.peer_id, lines))
        if self._path and self._is_confirmed and not self._is_established:
            self._is_established = True
            self._shared.events.append(Established(self.peer_id))

    def _drain_agent_events(self, now: float) -> None:
        while event := self._agent.poll_event():
            match event:
                case Nominated(pair):
                    self._path = pair
                    self.install_path(now)
                    self._shared.events.append(PathChanged(self.peer_id, self._describe(pair)))
                    if self._ice and self.parameters.controlling:
                        self._rehandshake(now)
                case Disconnected() if self._is_established and self._is_cut_off(now):
                    self._doubt_everything(now)
                case Disconnected(reason):
                    self.failure = self.failure or reason

    def _rehandshake(self, now: float) -> None:
        last = self._handshakes.last_handshake_at
        if last is None or not self._is_confirmed:
            self._handshakes.initiate(now, force=True)
            self._first_handshakes = 0
            self._first_handshake_at = now + self._first_gap_s()
        elif now - last >= REHANDSHAKE_AFTER_S:
            self._handshakes.initiate(now)

    def _first_gap_s(self) -> float:
        """When to repeat the first initiation; on a slow path not before its answer can be here."""
        gap_s = FIRST_HANDSHAKE_GAPS_S[min(self._first_handshakes, len(FIRST_HANDSHAKE_GAPS_S) - 1)]
        return max(gap_s, 1.5 * (self._agent.rtt_s() or 0.0))

    def _drain_handshakes(self, now: float) -> None:
        while event := self._handshakes.poll_event():
            match event:
                case SessionReady(keypair):
                    self._shared.engine.add_session(self.index, keypair, now, self._timers.initiator_stops_s)
                case SessionExpired(local_index):
                    self._shared.engine.remove_session(local_index)
                case KeepaliveDue():
                    if self._path:
                        self._seal(self._path, b"", now)
                case Unanswered():
                    if self._paths:
                        self._paths.handle_unanswered(now)
                case Expired():
                    self.failure = self.failure or "the tunnel expired"
        while (datagram := self._handshakes.poll_transmit_bytes()) is not None:
            if self._paths:
                self._paths.send_initiation(datagram, now)
            elif self._path:
                self._send(self._path, datagram, now)
            else:
                self._shared.counts["initiations without a path"] += 1

    def _remember_request(self, payload: bytes, now: float) -> None:
        """Answers to connectivity checks are told apart by transaction id alone, never by source."""
        if self._ice is None or not stun.is_stun(payload):
            return
        requests = self._shared.stun_requests
        transaction_id = payload[8:20]
        requests.pop(transaction_id, None)
        while requests and (len(requests) >= MAX_STUN_REQUESTS or next(iter(requests.values()))[1] < now):
            del requests[next(iter(requests))]
        requests[transaction_id] = self.number, now + STUN_REQUEST_TTL_S

    # time

    def handle_timeout(self, now: float) -> None:
        """Does what is due at `now`."""
        if now >= self._poll_at:
            activity = self._shared.engine.activity(self.index)
            self._watch(activity, now)
            self._poll_at = now + self._poll_gap_s(activity, now)
            self._handshakes.handle_activity(activity, now)
            self._keep_channel(activity, now)
            self._set_idle(activity, now)
        if self._first_handshake_at is not None and now >= self._first_handshake_at:
            self._first_handshakes += 1
            self._first_handshake_at = now + self._first_gap_s()
            self._handshakes.initiate(now, force=True)
        self._handshakes.handle_timeout(now)
        self._agent.handle_timeout(now)
        self._check_connecting(now)
        self.drain(now)

    def _poll_gap_s(self, activity: PeerActivity, now: float) -> float:
        """When to look at the engine's figures again; for ever if it tells when data moves."""
        is_watched = self.parameters.controlling or self._is_relayed
        if self._is_quiet(activity, now) and not self._watcher.is_doubtful:
            self._shared.engine.sleep(self.index)
            if self._is_quiet(self._shared.engine.activity(self.index), now):
                return float("inf")
        return self._watcher.gap_s(is_active=is_watched and now - activity.last_data_sent_at <= MAX_IDLE_S)

    def _is_quiet(self, activity: PeerActivity, now: float) -> bool:
        quiet_s = now - max(activity.last_flow_packet_at, self._sent_at)
        return self._is_established and activity.first_unanswered_at == 0.0 and quiet_s >= MAX_IDLE_S

    def _check_connecting(self, now: float) -> None:
        if self._is_established or now < self._created_at + CONNECT_TIMEOUT_S:
            return
        if not self._remotes:
            self.failure = self.failure or "the peer sent no candidates"
        elif self.parameters.controlling:
            self.failure = self.failure or "no path to the peer"

    def _keep_channel(self, activity: PeerActivity, now: float) -> None:
        """Channel data of sessions never gets here, so the allocation is told that its channel is used."""
        if self._path and activity.last_data_received_at > self._noted_at:
            self._noted_at = activity.last_data_received_at
            owner = self._shared.relays.owner_of(self._path.local)
            if owner:
                owner.note_received(self._path.remote, now)

    def _watch(self, activity: PeerActivity, now: float) -> None:
        """Doubts a peer that leaves data unanswered; with ICE its agent knows better when to give up."""
        unanswered = self._is_confirmed and activity.first_unanswered_at != 0.0
        since = self._unanswered_since = max(activity.first_unanswered_at, self._alive_at) if unanswered else None
        match self._watcher.handle_unanswered(since, now, self._agent.rtt_s() or 0.0):
            case Doubt.CHECK_RELAYS:
                self._relays_checked_at = now
                if self._is_relayed:
                    self._shared.relays.check(now)
            case Doubt.LEAVE_SILENT_RELAY:
                self._leave_silent_relay(now)
            case Doubt.CHECK_PATH:
                self._agent.check_primary(now)
            case Doubt.TRY_EVERY_PATH:
                self._doubt_everything(now)
            case Doubt.GIVE_UP if self._is_cut_off(now):
                self._watcher.try_again(now)
                self._doubt_everything(now)
            case Doubt.GIVE_UP if self._paths and self.parameters.controlling:
                self.failure = self.failure or "the peer does not answer"

    @property
    def _is_relayed(self) -> bool:
        return self._path is not None and self._shared.relays.owner_of(self._path.local) is not None

    def _leave_silent_relay(self, now: float) -> None:
        other = self._shared.relays.instead_of(self.relay_id, self._relays_checked_at)
        if other and self._is_relayed:
            self._shared.counts["silent relays left"] += 1
            self.use_relay(other, now)

    def _is_cut_off(self, now: float) -> bool:
        """Whether the relays are as silent as the peer: this host's own link is down then, and worth waiting for."""
        since = self._unanswered_since
        if since is None or self._shared.relays.get(self.relay_id) is None:
            return False
        return self._shared.relays.heard_at < since and now < since + MAX_CUT_OFF_S

    def _doubt_everything(self, now: float) -> None:
        self._agent.handle_distress(now)
        allocation = self._shared.relays.get(self.relay_id)
        if allocation:
            allocation.check(now)

    def _set_idle(self, activity: PeerActivity, now: float) -> None:
        if self._ice and self._is_established:
            used_at = max(activity.last_flow_packet_at, self._sent_at)
            self._ice.set_idle(now - used_at >= MAX_IDLE_S, now)

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` has something to do."""
        connect_by = None if self._is_established else self._created_at + CONNECT_TIMEOUT_S
        if connect_by is not None and not self.parameters.controlling and self._remotes:
            connect_by = None
        due = [self._poll_at, self._first_handshake_at, connect_by]
        due += [self._handshakes.poll_timeout(), self._agent.poll_timeout()]
        return min(at for at in due if at is not None)

    # what it is

    def _describe(self, pair: Pair) -> Path:
        owner = self._shared.relays.owner_of(pair.local)
        remote = self._remotes.get(pair.remote)
        relayed = owner is not None or (remote is not None and remote.kind is Kind.RELAY)
        relayed = relayed or self._shared.relays.is_at(pair.remote.host)
        return Path("relayed" if relayed else "direct", pair.local, pair.remote, owner.relay_id if owner else None)

    def status(self) -> PathStatus:
        """How it is doing."""
        activity = self._shared.engine.activity(self.index)
        return PathStatus(
            self.peer_id,
            self._describe(self._path) if self._path else None,
            self._is_established,
            self.parameters.iceless,
            self._agent.rtt_s(),
            self._handshakes.last_handshake_at,
            activity.sent_bytes,
            activity.received_bytes,
        )
