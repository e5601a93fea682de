"""A component's side of the portal link: dial, join, heartbeat, replies by reference, reconnect with backoff.

Sans-IO: the shell dials when told to, hands in what it reads, and after each `handle_*` drains `poll_event` and
`poll_transmit`; then it sleeps until `poll_timeout`. Source: portal protocol, sections 1.3 to 1.6.
"""

from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

from wardgate.errors import RemoteProtocolError
from wardgate.proto.portal_login import Refusal
from wardgate.wire import portal
from wardgate.wire.addresses import RandomBytes

HEARTBEAT_S: Final = 10.0
MAX_UNANSWERED_HEARTBEATS: Final = 3
JOIN_TIMEOUT_S: Final = 5.0
CONNECT_TIMEOUT_S: Final = 15.0
MAX_QUEUED: Final = 128
"""Frames that wait to be written, and events that wait to be read."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait between attempts, and how long to go on.

    Attributes:
        first_interval_s, first_budget_s: Before the first successful join: fixed intervals, then it is fatal.
        initial_s, factor, cap_s: Afterwards: growing intervals, each lengthened by up to its own length at random.
        budget_s: How long an outage may last; `None` for as long as it takes.
    """

    first_interval_s: float = 1.0
    first_budget_s: float = 15.0
    initial_s: float = 0.5
    factor: float = 1.5
    cap_s: float = 60.0
    budget_s: float | None = 86400.0

    def later_interval_s(self, failures: int, fraction: float) -> float:
        """The wait after the given number of failures in a row (1 for the first), `fraction` being 0 to 1 at random."""
        grown = self.initial_s * self.factor ** min(failures - 1, 64)
        return float(min(grown * (1.0 + fraction), self.cap_s))


MIN_RETRY_AFTER_S: Final = 0.5
"""A portal that says `Retry-After: 0` is not taken literally."""


class FatalKind(Enum):
    """Why a link ended for good."""

    TOKEN_REFUSED = "token refused"
    LOGIN_REFUSED = "login refused"
    GAVE_UP = "gave up"


@dataclass(frozen=True, slots=True)
class Dial:
    """To the shell: open a websocket now, and report with `handle_connected`, `handle_refused` or `handle_lost`."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """To the shell: drop the websocket or the attempt to open one; nothing more of it is to be handed in."""


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The portal confirmed a join; also after a silent join anew on the same connection."""


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The link is lost or an attempt to get one failed; the next attempt is made by itself."""

    reason: str
    retry_in_s: float


@dataclass(frozen=True, slots=True)
class Message:
    """A push of the portal, still to be decoded with `wire.portal`."""

    event: str
    payload: portal.Json


@dataclass(frozen=True, slots=True)
class Fatal:
    """The link ended for good."""

    kind: FatalKind
    reason: str

    @property
    def requires_sign_in(self) -> bool:
        """Whether the token is worthless now."""
        return self.kind is FatalKind.TOKEN_REFUSED


Event = Dial | HangUp | LinkUp | LinkDown | Message | Fatal


@dataclass(frozen=True, slots=True)
class Waiting:
    """For the next attempt."""

    dial_at: float


@dataclass(frozen=True, slots=True)
class Dialing:
    """For the websocket."""

    since: float
    give_up_at: float


@dataclass(frozen=True, slots=True)
class Joining:
    """For the reply to our join."""

    since: float
    join_ref: int
    give_up_at: float
    heartbeat_at: float


@dataclass(frozen=True, slots=True)
class Joined:
    """Both ways are open."""

    heartbeat_at: float


@dataclass(frozen=True, slots=True)
class Ended:
    """For good."""

    fatal: Fatal | None


State = Waiting | Dialing | Joining | Joined | Ended


class Link:
    """One component's link to the portal, over any number of connections."""

    def __init__(
        self, topic: portal.Topic, join_payload: portal.Json, policy: RetryPolicy, random_bytes: RandomBytes, now: float
    ) -> None:
        self._topic: portal.Topic = topic
        self._join_payload = join_payload
        self._policy = policy
        self._random_bytes = random_bytes
        self._state: State = Waiting(now)
        self._was_joined = False
        self._failures = 0
        self._spent_s = 0.0
        self._next_ref = 0
        self._unanswered: list[int] = []
        self._first: deque[str] = deque()
        self._messages: deque[portal.Frame] = deque()
        self._events: deque[Event] = deque()
        self.counters: Counter[str] = Counter()

    @property
    def state(self) -> State:
        """Where the link stands."""
        return self._state

    # --- what the shell reports -----------------------------------------------------------------------------------

    def handle_connected(self, now: float) -> None:
        """The websocket is open: join at once."""
        if isinstance(self._state, Dialing):
            self._next_ref = 0
            self._join(self._state.since, now + HEARTBEAT_S, now)

    def handle_refused(self, refusal: Refusal, now: float) -> None:
        """The portal answered the upgrade with an HTTP error."""
        if not isinstance(self._state, Dialing):
            return
        self.counters["refused"] += 1
        if refusal.is_unauthorized:
            kind = FatalKind.TOKEN_REFUSED if refusal.requires_sign_in else FatalKind.LOGIN_REFUSED
            what = "the token was refused" if refusal.requires_sign_in else "the login was refused"
            self._end(Fatal(kind, f"{what} ({refusal})"))
        else:
            self._retry(str(refusal), now, retry_after_s=refusal.retry_after_s)

    def handle_lost(self, reason: str, now: float) -> None:
        """The attempt failed, or the connection is gone."""
        if isinstance(self._state, Dialing | Joining | Joined):
            self._retry(reason, now)

    def handle_text(self, text: str | bytes, now: float) -> None:
        """Takes one websocket message; what is malformed or unknown is counted and dropped."""
        if not isinstance(self._state, Joining | Joined):
            return
        try:
            frame = portal.decode_frame(text)
            control = portal.decode_control(frame)
        except RemoteProtocolError:
            self.counters["frames_malformed"] += 1
            return
        if frame.topic not in (self._topic, portal.HEARTBEAT_TOPIC):
            self.counters["frames_foreign"] += 1
            return
        match control:
            case portal.Reply():
                self._handle_reply(control, now)
            case portal.Closed():
                self._retry("the portal closed the channel", now)
            case portal.ChannelError():
                self.counters["channel_errors"] += 1
            case None:
                self._handle_push(frame)
            case unreachable:
                assert_never(unreachable)

    def handle_reset(self, now: float) -> None:
        """The network changed: reconnect at once, with the patience of a new start."""
        if isinstance(self._state, Ended):
            return
        if isinstance(self._state, Dialing | Joining | Joined):
            self._hang_up()
            self._events.append(LinkDown("the network changed", 0.0))
        self._failures, self._spent_s = 0, 0.0
        self._state = Waiting(now)

    def handle_close(self, now: float) -> None:
        """Ours is the end: hang up, and no attempt follows."""
        if isinstance(self._state, Dialing | Joining | Joined):
            self._hang_up()
        if not isinstance(self._state, Ended):
            self._state = Ended(None)

    def handle_timeout(self, now: float) -> None:
        """Does what is due at `now`. Calling it early, late or twice is harmless."""
        match self._state:
            case Waiting(dial_at=due) if now >= due:
                self._state = Dialing(now, now + CONNECT_TIMEOUT_S)
                self._events.append(Dial())
            case Dialing(give_up_at=due) if now >= due:
                self._retry("the portal did not answer", now)
            case Joining(give_up_at=due) if now >= due:
                self._retry("the portal did not confirm the join", now)
            case Joining(heartbeat_at=due) | Joined(heartbeat_at=due) if now >= due:
                self._heartbeat(now)
            case _:
                pass

    def poll_timeout(self) -> float | None:
        """When to call `handle_timeout`."""
        match self._state:
            case Waiting(dial_at=at) | Joined(heartbeat_at=at) | Dialing(give_up_at=at):
                return at
            case Joining(give_up_at=give_up_at, heartbeat_at=heartbeat_at):
                return min(give_up_at, heartbeat_at)
            case Ended():
                return None
            case unreachable:
                assert_never(unreachable)

    def poll_event(self) -> Event | None:
        """The next thing to do or to pass on."""
        return self._events.popleft() if self._events else None

    def poll_transmit(self) -> str | None:
        """The next text to write; messages wait until the join is confirmed."""
        if self._first:
            return self._first.popleft()
        if isinstance(self._state, Joined) and self._messages:
            frame = self._messages.popleft()
            return portal.encode_frame(portal.Frame(frame.topic, frame.event, frame.payload, self._take_ref()))
        return None

    def send(self, event: str, payload: portal.Json) -> bool:
        """Queues a message; `False` if there is no connection or too much waits, and then it is not sent.

        A message equal to one that still waits counts as sent.
        """
        if not isinstance(self._state, Joining | Joined) or len(self._messages) >= MAX_QUEUED:
            self.counters["sends_refused"] += 1
            return False
        frame = portal.Frame(self._topic, event, payload)
        if frame not in self._messages:
            self._messages.append(frame)
        return True

    # --- steps ----------------------------------------------------------------------------------------------------

    def _take_ref(self) -> int:
        self._next_ref += 1
        return self._next_ref - 1

    def _join(self, since: float, heartbeat_at: float, now: float) -> None:
        ref = self._take_ref()
        self._first.append(portal.encode_frame(portal.join(self._topic, ref, self._join_payload)))
        self._state = Joining(since, ref, now + JOIN_TIMEOUT_S, heartbeat_at)

    def _handle_reply(self, reply: portal.Reply, now: float) -> None:
        state = self._state
        if isinstance(state, Joining) and reply.ref == state.join_ref:
            if reply.error is not None:
                self._end(Fatal(FatalKind.LOGIN_REFUSED, f"the portal refused the join: {reply.error}"))
            elif reply.confirms:
                self._enter_joined(state)
        elif reply.ref in self._unanswered:
            if reply.error is None and reply.confirms:
                self._unanswered = [ref for ref in self._unanswered if ref > reply.ref]
        elif isinstance(state, Joined) and reply.error == portal.UNMATCHED_TOPIC:
            self._join(now, state.heartbeat_at, now)
        elif reply.error is not None:
            self.counters["error_replies"] += 1

    def _enter_joined(self, state: Joining) -> None:
        self._state = Joined(state.heartbeat_at)
        self._was_joined = True
        self._failures, self._spent_s = 0, 0.0
        self._events.append(LinkUp())

    def _handle_push(self, frame: portal.Frame) -> None:
        if frame.topic != self._topic:
            self.counters["frames_foreign"] += 1
        elif frame.event == portal.Disconnect.EVENT:
            if isinstance(frame.payload, dict) and frame.payload.get("reason") == portal.TOKEN_EXPIRED:
                self._end(Fatal(FatalKind.TOKEN_REFUSED, "the portal withdrew the token"))
        else:
            self._events.append(Message(frame.event, frame.payload))

    def _heartbeat(self, now: float) -> None:
        if len(self._unanswered) >= MAX_UNANSWERED_HEARTBEATS:
            self._retry("the portal stopped answering heartbeats", now)
            return
        ref = self._take_ref()
        self._unanswered.append(ref)
        self._first.append(portal.encode_frame(portal.heartbeat(ref)))
        match self._state:
            case Joining(since=since, join_ref=join_ref, give_up_at=give_up_at):
                self._state = Joining(since, join_ref, give_up_at, now + HEARTBEAT_S)
            case _:
                self._state = Joined(now + HEARTBEAT_S)

    # --- the ends of a connection ---------------------------------------------------------------------------------

    def _hang_up(self) -> None:
        self._unanswered.clear()
        self._first.clear()
        self._messages.clear()
        self._events.append(HangUp())

    def _end(self, fatal: Fatal) -> None:
        self._hang_up()
        self._state = Ended(fatal)
        self._events.append(fatal)

    def _retry(self, reason: str, now: float, *, retry_after_s: float | None = None) -> None:
        self._count_failure(now)
        if retry_after_s is not None:
            self._wait(reason, max(retry_after_s, MIN_RETRY_AFTER_S), now, spend=False)
            return
        budget = self._policy.budget_s if self._was_joined else self._policy.first_budget_s
        if budget is not None and self._spent_s >= budget:
            self._end(Fatal(FatalKind.GAVE_UP, f"the portal could not be reached for {budget:g} s; at last: {reason}"))
            return
        if self._was_joined:
            fraction = int.from_bytes(self._random_bytes(4), "big") / 2**32
            self._wait(reason, self._policy.later_interval_s(self._failures, fraction), now, spend=True)
        else:
            self._wait(reason, self._policy.first_interval_s, now, spend=True)

    def _count_failure(self, now: float) -> None:
        self.counters["hiccups"] += 1
        self._failures += 1
        if isinstance(self._state, Dialing | Joining):
            self._spent_s += max(0.0, now - self._state.since)

    def _wait(self, reason: str, seconds: float, now: float, *, spend: bool) -> None:
        if spend:
            self._spent_s += seconds
        self._hang_up()
        self._state = Waiting(now + seconds)
        self._events.append(LinkDown(reason, seconds))
