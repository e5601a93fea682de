"""A small full ICE agent for one component: trickles for ever, freezes nothing, nominates aggressively.

The controlling end uses the best pair that works and says so with USE-CANDIDATE, again whenever a better one appears;
the controlled end follows. Sans-IO: after each call, drain `poll_event` and `poll_transmit`, then sleep until
`poll_timeout`. Source: RFC 8445; RFC 8838.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

from wardgate.proto.agent import AgentEvent, Disconnected, LearningLimit, Nominated, Pair, PairTransmit
from wardgate.wire import stun
from wardgate.wire.addresses import RandomBytes, SocketAddr
from wardgate.wire.candidates import Candidate, Kind
from wardgate.wire.stun import Builder, Message, MessageClass, Method

MAX_LOCALS = 16
MAX_REMOTES = 32
MAX_LEARNED = 6
MAX_INVALIDATED = 64
MAX_PAIRS = 160
MAX_OUTSTANDING = 8
MAX_OPTIMISTIC = 2
FIRST_RTO_S = 0.01
DISCONNECT_TIMEOUT_S = 2.0
STALE_AFTER_S = 1.0
NOMINATION_WINDOW_S = 3.0
DOUBT_ELECT_S = 0.6
DOUBT_FAIL_S = 1.0
_PEER_REFLEXIVE = 110
_TRIGGER_SPACING_S = 0.01


@dataclass(frozen=True, slots=True)
class IceTimers:
    """How often checks are repeated and when a pair counts as dead; seconds."""

    initial_rto_s: float
    max_rto_s: float
    max_retransmits: int

    def delay_s(self, sent: int) -> float:
        """The wait after check number `sent` in a row without an answer."""
        return min(self.initial_rto_s * 2.0 ** min(sent - 1, 30), self.max_rto_s)

    @property
    def timeout_s(self) -> float:
        """How long all checks may stay unanswered."""
        later = sum(self.delay_s(sent) for sent in range(2, self.max_retransmits + 1))
        return later + self.delay_s(self.max_retransmits)


CLIENT = IceTimers(0.25, 1.5, 12)
CLIENT_IDLE = IceTimers(25.0, 25.0, 4)
SERVER = IceTimers(0.25, 15.0, 45)
SERVER_IDLE = IceTimers(25.0, 25.0, 40)


@dataclass(slots=True)
class _Check:
    """One pair and its checks.

    Attributes:
        succeeded: Whether an answer came, and since then not too many were missing.
        unanswered_at: When the first check was sent that has not been followed by an answer.
        flagged_at: When the controlling end last chose it.
    """

    pair: Pair
    local: Candidate
    remote: Candidate
    check_at: float | None
    sent: int = 0
    sent_at: float = float("-inf")
    was_triggered: bool = False
    outstanding: dict[bytes, float] = field(default_factory=dict)
    succeeded: bool = False
    succeeded_at: float = float("-inf")
    unanswered_at: float | None = None
    flagged_at: float | None = None
    rtt_s: float | None = None


class IceAgent:
    """Chooses the pair of one peer.

    Attributes:
        counts: What was refused, by name.
    """

    def __init__(
        self, *, local: tuple[str, str], remote: tuple[str, str], controlling: bool, random_bytes: RandomBytes
    ) -> None:
        """Starts without candidates.

        Args:
            local: Our ufrag and password; likewise `remote`.
        """
        self.counts: Counter[str] = Counter()
        self._local_ufrag, local_password = local
        self._remote_ufrag, remote_password = remote
        self._local_key, self._remote_key = stun.short_term_key(local_password), stun.short_term_key(remote_password)
        self._controlling = controlling
        self._random = random_bytes
        self._tie_breaker = int.from_bytes(random_bytes(8), "big")
        self._timers = CLIENT if controlling else SERVER
        self._is_idle = False
        self._locals: dict[SocketAddr, Candidate] = {}
        self._remotes: dict[SocketAddr, Candidate] = {}
        self._signalled: list[Candidate] = []
        self._invalidated: dict[SocketAddr, None] = {}
        self._checks: dict[Pair, _Check] = {}
        self._check_by_id: dict[bytes, _Check] = {}
        self._primary: Pair | None = None
        self._learning = LearningLimit()
        self._was_connected = False
        self._disconnected_at: float | None = None
        self._doubt_at: float | None = None
        self._doubt_due_at = 0.0
        self._transmits: deque[PairTransmit] = deque()
        self._events: deque[AgentEvent] = deque()

    @property
    def primary(self) -> Pair | None:
        """The nominated pair."""
        return self._primary

    def rtt_s(self) -> float | None:
        """Round-trip time of the nominated pair."""
        check = self._checks.get(self._primary) if self._primary else None
        return check.rtt_s if check else None

    # candidates

    def add_local(self, candidate: Candidate, now: float) -> None:
        """Adds a candidate of ours; server-reflexive ones make no pairs of their own, their bases do."""
        key = candidate.sends_from
        if candidate.kind in (Kind.SRFLX, Kind.PRFLX) or key in self._locals:
            return
        if len(self._locals) >= MAX_LOCALS:
            self.counts["locals refused"] += 1
            return
        self._locals[key] = candidate
        for remote in list(self._remotes.values()):
            self._add_pair(candidate, remote, now)

    def remove_local(self, address: SocketAddr, now: float) -> None:
        """Forgets the local candidate that sends from `address`."""
        if self._locals.pop(address, None):
            self._drop([pair for pair in self._checks if pair.local == address], now)

    def add_remote(self, candidate: Candidate, now: float) -> None:
        """Adds a signalled candidate, and guesses at forwarded ports behind the peer's public address."""
        self._invalidated.pop(candidate.address, None)
        self._add_remote(candidate, now)
        self._signalled.append(candidate)
        del self._signalled[:-MAX_REMOTES]
        for guess in self._optimistic(candidate)[:MAX_OPTIMISTIC]:
            self._add_remote(guess, now)

    def _optimistic(self, candidate: Candidate) -> list[Candidate]:
        """The peer's public addresses with its private ports, as far as `candidate` makes them new."""
        known = [one for one in self._signalled if not one.address.is_ipv6]
        reflexive = [one for one in known if one.kind is Kind.SRFLX]
        hosts = [one for one in known if one.kind is Kind.HOST]
        guesses = [
            Candidate(Kind.SRFLX, SocketAddr(srflx.address.host, host.address.port), srflx.base, srflx.priority)
            for srflx in reflexive
            for host in hosts
            if candidate in (srflx, host)
        ]
        return [one for one in dict.fromkeys(guesses) if one.address not in self._remotes]

    def _add_remote(self, candidate: Candidate, now: float) -> None:
        known = self._remotes.get(candidate.address)
        if known and known.kind is not Kind.PRFLX:
            return
        if known is None and not self._make_room(candidate.kind, now):
            self.counts["remotes refused"] += 1
            return
        self._remotes[candidate.address] = candidate
        if known:
            for check in self._checks.values():
                if check.remote == known:
                    check.remote = candidate
            self._elect(now)
            return
        for local in list(self._locals.values()):
            self._add_pair(local, candidate, now)

    def _make_room(self, kind: Kind, now: float) -> bool:
        """Whether there is room for another candidate; of those learned from checks the oldest goes."""
        learned = [address for address, known in self._remotes.items() if known.kind is Kind.PRFLX]
        if kind is not Kind.PRFLX:
            return len(self._remotes) - len(learned) < MAX_REMOTES
        if not self._learning.take(now):
            return False
        in_use = self._primary.remote if self._primary else None
        unused = [address for address in learned if address != in_use]
        for address in unused[: max(len(learned) - MAX_LEARNED + 1, 0)]:
            del self._remotes[address]
            self._drop([pair for pair in self._checks if pair.remote == address], now)
        return True

    def remove_remote(self, address: SocketAddr, now: float) -> None:
        """Forgets the peer's candidate of that address, and does not learn it again from checks."""
        self._signalled = [one for one in self._signalled if one.address != address]
        self._invalidated[address] = None
        while len(self._invalidated) > MAX_INVALIDATED:
            del self._invalidated[next(iter(self._invalidated))]
        if self._remotes.pop(address, None):
            self._drop([pair for pair in self._checks if pair.remote == address], now)

    def reset(self, now: float) -> None:
        """Drops all local candidates."""
        self._locals.clear()
        self._drop(list(self._checks), now)

    def _add_pair(self, local: Candidate, remote: Candidate, now: float) -> _Check | None:
        pair = Pair(local.sends_from, remote.address)
        if pair.local.is_ipv6 != pair.remote.is_ipv6:
            return None
        if pair not in self._checks:
            if len(self._checks) >= MAX_PAIRS:
                self.counts["pairs refused"] += 1
                return None
            self._checks[pair] = _Check(pair, local, remote, now)
        return self._checks[pair]

    def _drop(self, pairs: list[Pair], now: float) -> None:
        for pair in pairs:
            self._forget_ids(self._checks.pop(pair))
        if self._primary in pairs:
            self._primary = None
        self._elect(now)

    # input

    def handle_stun(self, pair: Pair, message: Message, now: float) -> bool:
        """Takes a connectivity check or an answer to one, and returns whether it was acceptable."""
        if message.method != Method.BINDING:
            return False
        match message.message_class:
            case MessageClass.REQUEST:
                return self._handle_request(pair, message, now)
            case MessageClass.SUCCESS:
                return self._handle_answer(pair, message, now)
        return False

    def _handle_request(self, pair: Pair, message: Message, now: float) -> bool:
        expected = f"{self._local_ufrag}:{self._remote_ufrag}"
        if message.username != expected or message.priority is None or not message.verify_integrity(self._local_key):
            self.counts["requests refused"] += 1
            return False
        answer = Builder(Method.BINDING, MessageClass.SUCCESS, message.transaction_id).mapped_address(pair.remote)
        self._transmits.append(PairTransmit(pair, answer.build(self._local_key, fingerprint=True), False))
        check = self._check_for(pair, message.priority, now)
        if check is None:
            return True
        if message.use_candidate and not self._controlling:
            if check.flagged_at is None and pair != self._primary:
                self.check_primary(now)  # the other end may be leaving it because it does not work any more
            check.flagged_at = now
        if not check.succeeded:
            if check.check_at is None:
                check.sent, check.unanswered_at = 0, None
            if not check.was_triggered and now >= check.sent_at + _TRIGGER_SPACING_S:
                check.was_triggered, check.check_at = True, now
        self._elect(now)
        return True

    def _check_for(self, pair: Pair, priority: int, now: float) -> _Check | None:
        """The pair a request came on; an unknown source is a peer-reflexive candidate, unless it was withdrawn."""
        known = self._checks.get(pair)
        if known or pair.remote in self._invalidated:
            return known
        local = self._locals.get(pair.local)
        if local is None:
            self.counts["requests at unknown addresses"] += 1
            return None
        if pair.remote not in self._remotes:
            self._add_remote(Candidate(Kind.PRFLX, pair.remote, pair.remote, priority), now)
        remote = self._remotes.get(pair.remote)
        return self._add_pair(local, remote, now) if remote else None

    def _handle_answer(self, pair: Pair, message: Message, now: float) -> bool:
        check = self._check_by_id.get(message.transaction_id)
        authentic = message.mapped_address is not None and message.verify_integrity(self._remote_key)
        if check is None or check.pair != pair or not authentic:
            self.counts["answers refused"] += 1
            return False
        sample = now - check.outstanding[message.transaction_id]
        check.rtt_s = sample if check.rtt_s is None else (check.rtt_s + sample) / 2
        self._forget_ids(check)
        check.succeeded, check.succeeded_at = True, now
        check.unanswered_at, check.sent = None, 0
        check.check_at = now + self._timers.max_rto_s
        self._disconnected_at = None
        if self._doubt_at is not None and now >= self._doubt_at + self._doubt_elect_s():
            self._doubt_due_at = now
        self._elect(now)
        return True

    # choice

    def handle_distress(self, now: float) -> None:
        """Data goes unanswered: checks every pair at once and soon believes only those that answer."""
        if self._doubt_at is not None:
            return
        self._doubt_at, self._doubt_due_at = now, now + self._doubt_elect_s()
        for check in self._checks.values():
            if check.succeeded or check.check_at is not None:
                check.sent, check.check_at = 0, now

    def check_primary(self, now: float) -> None:
        """Checks the nominated pair at once."""
        check = self._checks.get(self._primary) if self._primary else None
        if check:
            check.sent, check.check_at = 0, now

    def set_idle(self, idle: bool, now: float) -> None:
        """Checks seldom while nobody uses the tunnel, and often again afterwards."""
        if idle == self._is_idle:
            return
        self._is_idle = idle
        if self._controlling:
            self._timers = CLIENT_IDLE if idle else CLIENT
        else:
            self._timers = SERVER_IDLE if idle else SERVER
        for check in self._checks.values():
            if check.succeeded and check.unanswered_at is None:
                check.check_at = now + self._timers.max_rto_s if idle else now

    def _elect(self, now: float) -> None:
        best = self._best_controlling(now) if self._controlling else self._best_controlled(now)
        if best is None or best.pair == self._primary:
            return
        self._primary = best.pair
        self._was_connected = True
        self._events.append(Nominated(best.pair))
        if self._controlling:
            self._send_check(best, now)

    def _best_controlling(self, now: float) -> _Check | None:
        return self._best_of([check for check in self._checks.values() if check.succeeded], now)

    def _best_of(self, working: list[_Check], now: float) -> _Check | None:
        """The best of those that answer, or if none does of all of them."""
        fresh = [check for check in working if self._is_fresh(check, now)]
        return max(fresh or working, key=self._priority, default=None)

    def _is_fresh(self, check: _Check, now: float) -> bool:
        patience_s = max(STALE_AFTER_S, 2.5 * (check.rtt_s or 0.0))
        return check.unanswered_at is None or now < check.unanswered_at + patience_s

    def _best_controlled(self, now: float) -> _Check | None:
        """The best of those chosen together; what the other end has since left for another no longer counts."""
        flagged = [(check.flagged_at, check) for check in self._checks.values() if check.flagged_at is not None]
        newest = max((at for at, _ in flagged), default=0.0)
        for at, check in flagged:
            if at < newest - NOMINATION_WINDOW_S:
                check.flagged_at = None
        return self._best_of([check for _, check in flagged if check.flagged_at is not None and check.succeeded], now)

    def _priority(self, check: _Check) -> int:
        ours, theirs = check.local.priority, check.remote.priority
        controlling, controlled = (ours, theirs) if self._controlling else (theirs, ours)
        low, high = min(ours, theirs), max(ours, theirs)
        return (low << 32) + 2 * high + (1 if controlling > controlled else 0)

    # time

    def handle_timeout(self, now: float) -> None:
        """Sends the checks that are due, and gives up pairs that stay silent."""
        for check in self._checks.values():
            if check.unanswered_at is not None and now >= check.unanswered_at + self._timers.timeout_s:
                self._give_up(check)
            elif check.check_at is not None and now >= check.check_at:
                self._send_check(check, now)
        self._resolve_doubt(now)
        if self._primary and not self._checks[self._primary].succeeded:
            self._primary = None
        self._elect(now)
        self._watch_connection(now)

    def _give_up(self, check: _Check) -> None:
        check.succeeded, check.check_at, check.unanswered_at, check.flagged_at = False, None, None, None
        self._forget_ids(check)

    def _resolve_doubt(self, now: float) -> None:
        doubt_at = self._doubt_at
        if doubt_at is None or now < self._doubt_due_at:
            return
        fail_at = doubt_at + self._doubt_elect_s() + DOUBT_FAIL_S - DOUBT_ELECT_S
        self._doubt_due_at = fail_at
        answered = [check for check in self._checks.values() if check.succeeded_at > doubt_at]
        if answered:
            self._doubt_at = None
            for check in self._checks.values():
                if check.succeeded_at <= doubt_at:
                    check.succeeded = False
        elif now >= fail_at:
            self._doubt_at = None
            if self._controlling:
                self._events.append(Disconnected("no connectivity check was answered"))

    def _doubt_elect_s(self) -> float:
        """How long an answer may take; longer on slow paths."""
        return max(DOUBT_ELECT_S, 2.0 * (self.rtt_s() or 0.0))

    def _watch_connection(self, now: float) -> None:
        if not self._was_connected or any(check.succeeded for check in self._checks.values()):
            self._disconnected_at = None
        elif self._disconnected_at is None:
            self._disconnected_at = now
        elif now >= self._disconnected_at + DISCONNECT_TIMEOUT_S:
            self._was_connected, self._disconnected_at = False, None
            self._events.append(Disconnected("no pair of candidates works any more"))

    def _send_check(self, check: _Check, now: float) -> None:
        transaction_id = self._random(stun.TRANSACTION_ID_SIZE)
        builder = Builder(Method.BINDING, MessageClass.REQUEST, transaction_id)
        builder.username(f"{self._remote_ufrag}:{self._local_ufrag}")
        if self._controlling:
            builder.controlling(self._tie_breaker)
        else:
            builder.controlled(self._tie_breaker)
        builder.priority(_PEER_REFLEXIVE << 24 | check.local.priority & 0xFFFFFF)
        if self._controlling and check.pair == self._primary:
            builder.use_candidate()
        payload = builder.build(self._remote_key, fingerprint=True)
        self._transmits.append(PairTransmit(check.pair, payload, False))
        check.outstanding[transaction_id] = now
        self._check_by_id[transaction_id] = check
        if len(check.outstanding) > MAX_OUTSTANDING:
            oldest = next(iter(check.outstanding))
            del check.outstanding[oldest]
            self._check_by_id.pop(oldest, None)
        if check.unanswered_at is None:
            check.unanswered_at = now
        check.sent += 1
        # One triggered check between two regular ones, or ends that hear no answers would go on as fast as they can.
        check.was_triggered = check.was_triggered and check.sent_at + self._gap(check) > now
        check.sent_at = now
        check.check_at = now + self._gap(check)

    def _gap(self, check: _Check) -> float:
        """Short at first, when the other end's NAT may just not be open yet, or when an answer is missing."""
        initial = 0.1 if check.succeeded or self._doubt_at is not None else FIRST_RTO_S
        return min(initial * 2.0 ** min(check.sent - 1, 30), self._timers.max_rto_s)

    def _forget_ids(self, check: _Check) -> None:
        for transaction_id in check.outstanding:
            self._check_by_id.pop(transaction_id, None)
        check.outstanding.clear()

    def poll_transmit(self) -> PairTransmit | None:
        """The next datagram to send."""
        return self._transmits.popleft() if self._transmits else None

    def poll_event(self) -> AgentEvent | None:
        """The next event."""
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> float | None:
        """When something is due; the distant past while output is queued."""
        if self._transmits or self._events:
            return 0.0
        due: list[float | None] = []
        for check in self._checks.values():
            due.append(check.check_at)
            if check.unanswered_at is not None:
                due.append(check.unanswered_at + self._timers.timeout_s)
        if self._doubt_at is not None:
            due.append(self._doubt_due_at)
        if self._disconnected_at is not None:
            due.append(self._disconnected_at + DISCONNECT_TIMEOUT_S)
        return min((at for at in due if at is not None), default=None)
