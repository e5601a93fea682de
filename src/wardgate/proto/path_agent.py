"""Path selection of ICE-less mode: WireGuard handshakes open the first path, probes inside the tunnel find better ones.

The agent chooses the *primary* pair. Clearing it is internal: traffic keeps the last nominated path until another pair
has answered. Sans-IO: after each call, drain `poll_event` and `poll_transmit`, then sleep until `poll_timeout`.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from wardgate.proto.agent import AgentEvent, LearningLimit, Nominated, Pair, PairTransmit
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.candidates import Candidate, Kind
from wardgate.wire.probes import Probe, decode_probe, encode_probe

MAX_LOCALS = 16
MAX_PAIRS = 128
MAX_REMOTES = {Kind.HOST: 6, Kind.SRFLX: 6, Kind.RELAY: 6, Kind.PRFLX: 4}
PROBE_BUDGET = 12
PROBE_GAPS_S = (0.2, 0.3, 0.5)
PROBE_GAP_S = 1.0
KEEPALIVE_S = 25.0
URGENT_GAP_S = 0.15
PRIMARY_CHECK_S = 0.5
MAX_UNPROVEN_PROBES = 2
LADDER_GAPS_S = (0.005, 0.005, 0.01, 0.01, 0.02, 0.05, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
ANSWER_CACHE_S = 10.0
MAX_ANSWERS = 16
MAX_OUTSTANDING = 8
_TRIGGER_SPACING_S = 0.02
_TIERS = {Kind.HOST: 0, Kind.SRFLX: 1, Kind.PRFLX: 1, Kind.RELAY: 2}


@dataclass(slots=True)
class _Path:
    """What is known of one pair; `number` identifies it in probes and changes with the local candidate."""

    pair: Pair
    number: int
    local: Candidate
    remote: Candidate
    probe_at: float | None = None
    probed_at: float = float("-inf")
    probes: int = 0
    sequence: int = 0
    outstanding: dict[int, float] = field(default_factory=dict)
    rtt_s: float | None = None
    was_triggered: bool = False
    woken_at: float = float("-inf")
    ladder_at: float | None = None
    ladder_step: int = 0

    def bucket(self) -> tuple[int, int, int, int, int]:
        """Smaller is better; only within a bucket does the round-trip time decide."""
        tiers = _TIERS[self.local.kind], _TIERS[self.remote.kind]
        local_relay = self.local.kind is Kind.RELAY
        other_family = local_relay and self.local.base.is_ipv6 != self.local.address.is_ipv6
        return max(tiers), min(tiers), 0 if local_relay else 1, int(other_family), 0 if self.pair.local.is_ipv6 else 1

    def uses_relay(self) -> bool:
        """Whether a relay carries it at either end."""
        return Kind.RELAY in (self.local.kind, self.remote.kind)

    def restart(self, now: float) -> None:
        """Starts a round of probes, the past forgotten."""
        self.probes, self.rtt_s, self.probe_at = 0, None, now


class PathAgent:
    """Chooses the pair of one peer.

    Attributes:
        counts: What was refused, by name.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._locals: dict[SocketAddr, Candidate] = {}
        self._remotes: dict[SocketAddr, Candidate] = {}
        self._paths: dict[Pair, _Path] = {}
        self._primary: Pair | None = None
        self._nominated: Pair | None = None
        self._numbers = 0
        self._probing = False
        self._initiation: bytes | None = None
        self._bootstrapped = False
        self._answers: dict[bytes, tuple[bytes, float]] = {}
        self._unanswered = 0
        self._peer_initiations = 0
        self._data_seen_at = 0.0
        self._primary_due_at: float | None = None
        self._learning = LearningLimit()
        self._transmits: deque[PairTransmit] = deque()
        self._events: deque[AgentEvent] = deque()

    @property
    def primary(self) -> Pair | None:
        """The pair that is known to work; `None` while that is in doubt."""
        return self._primary

    def rtt_s(self) -> float | None:
        """Round-trip time of the primary."""
        path = self._paths.get(self._primary) if self._primary else None
        return path.rtt_s if path else None

    # candidates

    def add_local(self, candidate: Candidate, now: float) -> None:
        """Adds a candidate of ours; a server-reflexive one takes the place of its base."""
        key = candidate.sends_from
        known = self._locals.get(key)
        if known == candidate or (known and candidate.kind is Kind.HOST):
            return
        if known is None and len(self._locals) >= MAX_LOCALS:
            self.counts["locals refused"] += 1
            return
        self._locals[key] = candidate
        for path in [path for path in self._paths.values() if path.pair.local == key]:
            path.local, path.number = candidate, self._next_number()
            path.outstanding.clear()
            if self._probing and path.pair != self._primary:
                path.restart(now)
        if known is None:
            self._add_pairs([candidate], list(self._remotes.values()), now)

    def remove_local(self, address: SocketAddr, now: float) -> None:
        """Forgets the local candidate that sends from `address`."""
        if self._locals.pop(address, None):
            self._drop_pairs([pair for pair in self._paths if pair.local == address], now)

    def add_remote(self, candidate: Candidate, now: float) -> None:
        """Adds a signalled candidate; one that was peer-reflexive is replaced in place."""
        known = self._remotes.get(candidate.address)
        if known and known.kind is not Kind.PRFLX:
            return
        if known is None:
            self._evict(candidate.kind, now)
        self._remotes[candidate.address] = candidate
        if known:
            for path in self._paths.values():
                if path.remote == known:
                    path.remote = candidate
            self._promote_best()
            self.check_primary(now)
            return
        self._add_pairs(list(self._locals.values()), [candidate], now)
        if self._probing:
            self.handle_distress(now)

    def remove_remote(self, address: SocketAddr, now: float) -> None:
        """Forgets the peer's candidate of that address."""
        if self._remotes.pop(address, None):
            self._drop_pairs([pair for pair in self._paths if pair.remote == address], now)

    def reset(self, now: float) -> None:
        """Drops all local candidates; the session lives on and new ones are probed as they appear."""
        self._locals.clear()
        self._drop_pairs(list(self._paths), now)

    # handshakes

    def send_initiation(self, datagram: bytes, now: float) -> None:
        """Sends our initiation: on the primary, or fanned out while there is none."""
        if self._primary:
            self._send(self._primary, datagram)
            return
        self._initiation = datagram
        first, self._bootstrapped = not self._bootstrapped, True
        for path in self._paths.values():
            if path.uses_relay() or self._probing:
                self._send(path.pair, datagram)
                if first:
                    path.ladder_step, path.ladder_at = 1, now + LADDER_GAPS_S[0]

    def handle_answered(self, pair: Pair, now: float) -> None:
        """A response to our initiation was accepted: the fan-out ends, and a first session's path is the primary."""
        self._initiation = None
        self._unanswered = 0
        for path in self._paths.values():
            path.ladder_at = None
        self._ensure_path(pair, now)
        self._seed(pair)
        self.start_probing(now)

    def send_answer(
        self, pair: Pair, initiation: bytes, response: bytes, now: float, *, data_received_at: float
    ) -> None:
        """Answers the peer's accepted initiation on the path it came by, and remembers the answer for duplicates.

        Args:
            data_received_at: When data of the peer was last received.
        """
        while len(self._answers) >= MAX_ANSWERS:
            del self._answers[next(iter(self._answers))]
        self._answers[initiation] = response, now + ANSWER_CACHE_S
        self._ensure_path(pair, now)
        self._send(pair, response)
        if self._primary and pair != self._primary:
            self.check_primary(now)
        self._seed(pair)
        self.start_probing(now)
        if data_received_at > self._data_seen_at:
            self._data_seen_at, self._peer_initiations = data_received_at, 0
        self._peer_initiations += 1
        if self._peer_initiations >= 2:
            self._peer_initiations = 0
            self.handle_distress(now)

    def handle_duplicate(self, pair: Pair, initiation: bytes, now: float) -> bool:
        """Repeats the answer if this very initiation was answered in the last ten seconds."""
        response, until = self._answers.get(initiation, (b"", 0.0))
        if now >= until:
            return False
        self._send(pair, response)
        return True

    def handle_unanswered(self, now: float) -> None:
        """A re-key of ours went unanswered: once is ordinary, the second time in a row the primary is in doubt."""
        self._unanswered += 1
        if self._unanswered >= 2:
            self._unanswered = 0
            self.handle_distress(now)

    # probes

    def start_probing(self, now: float) -> None:
        """There is a session: every pair that has not been probed is."""
        if self._probing:
            return
        self._probing = True
        for path in self._paths.values():
            path.restart(now)

    def handle_confirmed(self, now: float) -> None:
        """The session that we answered can seal now: what was probed before could not leave, so probe again."""
        self._probing = True
        for path in self._paths.values():
            if path.rtt_s is None:
                path.restart(now)

    def check_primary(self, now: float) -> None:
        """Probes the primary at once, and again shortly after; if it stays silent, every pair."""
        path = self._paths.get(self._primary) if self._primary else None
        if path and self._probing and self._primary_due_at is None:
            self._probe(path, now)
            rtt_s = path.rtt_s or 0.0
            path.probe_at = now + max(URGENT_GAP_S, 1.2 * rtt_s)
            self._primary_due_at = now + max(PRIMARY_CHECK_S, 2.5 * rtt_s)

    def handle_probe(self, pair: Pair, packet: bytes, now: float) -> bool:
        """Takes an inner packet and returns whether it was a probe, whatever became of it."""
        probe = decode_probe(packet)
        if probe is None:
            return False
        if probe.is_reply:
            self._handle_reply(pair, probe, now)
        else:
            self._handle_request(pair, probe, now)
        return True

    def _handle_request(self, pair: Pair, probe: Probe, now: float) -> None:
        path = self._ensure_path(pair, now)
        self._transmits.append(PairTransmit(pair, encode_probe(probe.answer()), True, True))
        if path is None or path.rtt_s is not None or not self._probing:
            return
        if path.probe_at is None:
            # Where requests arrive but answers do not, two ends would keep waking each other up for ever.
            if now < path.woken_at + KEEPALIVE_S:
                return
            path.probes, path.woken_at = 0, now
        if not path.was_triggered and now >= path.probed_at + _TRIGGER_SPACING_S:
            path.was_triggered, path.probe_at = True, now

    def _handle_reply(self, pair: Pair, probe: Probe, now: float) -> None:
        path = self._paths.get(pair)
        sent_at = path.outstanding.pop(probe.sequence, None) if path and path.number == probe.pair_id else None
        if path is None or sent_at is None:
            self.counts["stale probe replies"] += 1
            return
        sample = now - sent_at
        path.rtt_s = sample if path.rtt_s is None else (path.rtt_s + sample) / 2
        path.probe_at = now + self._gap(path)
        if pair == self._primary:
            self._primary_due_at = None
        self._consider(path)

    # choice

    def handle_distress(self, now: float) -> None:
        """Clears the primary and probes every pair; those still inside their first probes go on."""
        self._primary = self._primary_due_at = None
        if not self._probing:
            return
        for path in self._paths.values():
            path.rtt_s = None
            path.outstanding.clear()  # what is still on its way tells of the time before
            if path.probe_at is None or path.probes >= PROBE_BUDGET:
                path.restart(now)
            else:
                path.probe_at = min(path.probe_at, max(now, path.probed_at + URGENT_GAP_S))

    def _seed(self, pair: Pair) -> None:
        if self._primary is None:
            self._set_primary(pair)

    def _consider(self, path: _Path) -> None:
        current = self._paths.get(self._primary) if self._primary else None
        if current is None or (path is not current and (_is_better(path, current) or self._is_unproven(current, path))):
            self._set_primary(path.pair)

    def _is_unproven(self, current: _Path, measured: _Path) -> bool:
        """Whether a primary that a handshake seeded has had its chance to answer: it may work one way only."""
        return current.rtt_s is None and measured.rtt_s is not None and current.probes > MAX_UNPROVEN_PROBES

    def _promote_best(self) -> None:
        for path in self._measured():
            self._consider(path)

    def _measured(self) -> Iterable[_Path]:
        return [path for path in self._paths.values() if path.rtt_s is not None]

    def _set_primary(self, pair: Pair) -> None:
        self._primary, self._primary_due_at = pair, None
        self._unanswered = 0
        if pair != self._nominated:
            self._nominated = pair
            self._events.append(Nominated(pair))

    # pairs

    def _ensure_path(self, pair: Pair, now: float) -> _Path | None:
        """The path of a pair that something authentic arrived on; unknown addresses become candidates."""
        if pair.local not in self._locals:
            self.add_local(Candidate.host(pair.local), now)
        if pair.remote not in self._remotes:
            if not self._learning.take(now):
                self.counts["peer-reflexive candidates refused"] += 1
                return None
            candidate = Candidate(Kind.PRFLX, pair.remote, pair.remote)
            self._evict(Kind.PRFLX, now)
            self._remotes[pair.remote] = candidate
            self._add_pairs(list(self._locals.values()), [candidate], now)
            self.check_primary(now)  # the peer's NAT may have changed its mapping
        return self._paths.get(pair)

    def _evict(self, kind: Kind, now: float) -> None:
        same = [address for address, known in self._remotes.items() if known.kind is kind]
        in_use = self._primary.remote if self._primary else None
        while len(same) >= MAX_REMOTES[kind]:
            oldest = next(address for address in same if address != in_use)
            same.remove(oldest)
            self.counts["remotes evicted"] += 1
            self.remove_remote(oldest, now)

    def _add_pairs(self, locals_: list[Candidate], remotes: list[Candidate], now: float) -> None:
        for local in locals_:
            for remote in remotes:
                pair = Pair(local.sends_from, remote.address)
                if pair.local.is_ipv6 != pair.remote.is_ipv6 or pair in self._paths:
                    continue
                if len(self._paths) >= MAX_PAIRS:
                    self.counts["pairs refused"] += 1
                    return
                path = _Path(pair, self._next_number(), local, remote)
                self._paths[pair] = path
                if self._probing:
                    path.restart(now)
                if self._initiation and self._primary is None and path.uses_relay():
                    self._send(pair, self._initiation)
                    path.ladder_step, path.ladder_at = 1, now + LADDER_GAPS_S[0]

    def _drop_pairs(self, pairs: list[Pair], now: float) -> None:
        for pair in pairs:
            del self._paths[pair]
        if self._primary in pairs:
            self._primary = self._primary_due_at = None
            self._promote_best()
            self._wake_quiet(now)
        if self._nominated in pairs and self._primary is None:
            self._nominated = None

    def _wake_quiet(self, now: float) -> None:
        if self._probing and self._primary is None:
            self.handle_distress(now)

    def _next_number(self) -> int:
        number, self._numbers = self._numbers, (self._numbers + 1) & 0xFFFF
        return number

    # time

    def handle_timeout(self, now: float) -> None:
        """Sends what is due: copies of the initiation, probes."""
        for path in self._paths.values():
            if path.ladder_at is not None and now >= path.ladder_at:
                self._climb(path, now)
            if path.probe_at is not None and now >= path.probe_at:
                if self._is_quiet(path):
                    path.probe_at = None
                elif path.pair == self._primary and path.probes >= PROBE_BUDGET and self._primary_due_at is None:
                    self.check_primary(now)
                else:
                    self._probe(path, now)
        if self._primary_due_at is not None and now >= self._primary_due_at:
            self.counts["primaries fallen silent"] += 1
            self.handle_distress(now)
        if self._answers:
            self._answers = {key: answer for key, answer in self._answers.items() if now < answer[1]}

    def _climb(self, path: _Path, now: float) -> None:
        if self._initiation is None or path.ladder_step > len(LADDER_GAPS_S):
            path.ladder_at = None
            return
        self._send(path.pair, self._initiation)
        step, path.ladder_step = path.ladder_step, path.ladder_step + 1
        path.ladder_at = now + LADDER_GAPS_S[step] if step < len(LADDER_GAPS_S) else None

    def _is_quiet(self, path: _Path) -> bool:
        return self._primary is not None and path.pair != self._primary and path.probes >= PROBE_BUDGET

    def _probe(self, path: _Path, now: float) -> None:
        probe = Probe(False, path.number, path.sequence)
        path.outstanding[path.sequence] = now
        if len(path.outstanding) > MAX_OUTSTANDING:
            del path.outstanding[next(iter(path.outstanding))]
        path.sequence = (path.sequence + 1) & 0xFFFF
        # One triggered probe between two regular ones.
        path.was_triggered = path.was_triggered and path.probed_at + self._gap(path) > now
        path.probe_at, path.probed_at = now + self._gap(path), now
        path.probes += 1
        self._transmits.append(PairTransmit(path.pair, encode_probe(probe), True))

    def _gap(self, path: _Path) -> float:
        if path.probes >= PROBE_BUDGET and path.pair == self._primary:
            return KEEPALIVE_S
        return PROBE_GAPS_S[path.probes] if path.probes < len(PROBE_GAPS_S) else PROBE_GAP_S

    def _send(self, pair: Pair, datagram: bytes) -> None:
        self._transmits.append(PairTransmit(pair, datagram, False))

    def poll_transmit(self) -> PairTransmit | None:
        """The next datagram or inner packet to send."""
        return self._transmits.popleft() if self._transmits else None

    def poll_event(self) -> AgentEvent | None:
        """The next event."""
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> float | None:
        """When something is due; the distant past while output is queued."""
        if self._transmits or self._events:
            return 0.0
        due = [at for path in self._paths.values() for at in (path.probe_at, path.ladder_at) if at is not None]
        if self._primary_due_at is not None:
            due.append(self._primary_due_at)
        return min(due, default=None)


def _is_better(path: _Path, current: _Path) -> bool:
    if path.bucket() != current.bucket():
        return path.bucket() < current.bucket()
    if path.rtt_s is None or current.rtt_s is None:
        return False
    return current.rtt_s - path.rtt_s > max(0.010, 0.2 * current.rtt_s)
