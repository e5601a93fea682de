"""WireGuard handshakes with one peer: when to start one, how to answer, which sessions live.

Sans-IO: after each `handle_*`, drain `poll_event` and `poll_transmit_bytes`, then sleep until `poll_timeout`; give the
engine's `PeerActivity` to `handle_activity` before each `handle_timeout`, at least once a second while a session lives.
Source: the WireGuard paper, section 6 (timers); the figures are fields of `Timers`.
"""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from wardgate._fastpath import HandshakeError, Initiation, Keypair, OpenedInitiation, StaticKey
from wardgate.errors import LocalProtocolError, RemoteProtocolError
from wardgate.proto.cookies import CookieJar, CookieReply, Gate
from wardgate.wire import wireguard
from wardgate.wire.addresses import RandomBytes

__all__ = ["Activity", "CookieReply", "Event", "Expired", "Gate", "Handshakes", "KeepaliveDue", "SessionExpired"]
__all__ += ["SessionReady", "Timers", "Unanswered"]

INDEX_BITS = 8
MAX_QUEUED = 16
MAX_FAILED_RESPONSES = 16
"""Wrong answers to one initiation before no more are tried: each costs a key exchange."""
_MAX_OUTSTANDING = 3
"""Initiations of one attempt whose late answers still count, as on paths slower than the rekey timeout."""


@dataclass(frozen=True, slots=True)
class Timers:
    """When things happen to a session; seconds.

    Attributes:
        rekey_timeout_s: An unanswered initiation is repeated after so long.
        keepalive_s: Data received and nothing sent for so long: an empty packet goes out.
        attempt_window_s: After so long without an answer the peer is given up.
        rekey_after_s: The initiator renews a session of this age on which it sends or has sent data.
        renew_idle_after_s: The initiator renews a session of this age even if nothing was sent or received on it;
            before `initiator_stops_s`, so that the first packet after a silence finds keys.
        reject_after_s: A session of this age is gone.
        initiator_stops_s: The initiator seals nothing with a session of this age; for `Engine.add_session`.
        expire_after_s: Without new keys for so long the peer is given up.
        max_jitter_s: Every initiation that a timer causes is late by a random part of this.
        max_sessions: The oldest goes when there is one more.
    """

    rekey_timeout_s: float
    keepalive_s: float
    attempt_window_s: float
    rekey_after_s: float = 120.0
    renew_idle_after_s: float = 165.0
    reject_after_s: float = 180.0
    initiator_stops_s: float = 170.0
    expire_after_s: float = 540.0
    max_jitter_s: float = 0.333
    max_sessions: int = 8

    @classmethod
    def ice(cls) -> "Timers":
        """Where ICE watches the path."""
        return cls(rekey_timeout_s=5.0, keepalive_s=10.0, attempt_window_s=20.0)

    @classmethod
    def iceless(cls) -> "Timers":
        """Where WireGuard alone notices that a path is dead."""
        return cls(rekey_timeout_s=2.0, keepalive_s=5.0, attempt_window_s=90.0)

    @property
    def rekey_on_receive_s(self) -> float:
        """The initiator renews a session of this age on which it received data."""
        return self.reject_after_s - self.keepalive_s - self.rekey_timeout_s

    @property
    def unanswered_s(self) -> float:
        """Data sent and nothing at all received for so long: either end starts a handshake."""
        return self.keepalive_s + self.rekey_timeout_s


class Activity(Protocol):
    """What the native module knows of a peer's traffic (`PeerActivity` is one); 0.0 means never."""

    @property
    def last_data_sent_at(self) -> float: ...
    @property
    def last_data_received_at(self) -> float: ...
    @property
    def last_sent_at(self) -> float: ...
    @property
    def first_unanswered_at(self) -> float: ...


@dataclass(frozen=True, slots=True)
class SessionReady:
    """Install these keys."""

    keypair: Keypair


@dataclass(frozen=True, slots=True)
class SessionExpired:
    """Remove the session of this index."""

    local_index: int


@dataclass(frozen=True, slots=True)
class KeepaliveDue:
    """Seal an empty packet and send it."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """An initiation that was to renew a session got no answer in time; the next one follows this event."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The peer does not answer: give the connection up. Nothing happens any more."""


Event = SessionReady | SessionExpired | KeepaliveDue | Unanswered | Expired


@dataclass(frozen=True, slots=True)
class _Session:
    local_index: int
    is_initiator: bool
    created_at: float


@dataclass(slots=True)
class _Outstanding:
    """An initiation of ours that waits for its response."""

    local_index: int
    initiation: Initiation
    failures: int = 0


@dataclass(frozen=True, slots=True)
class _Attempt:
    """Handshakes of ours since the first that was not answered."""

    started_at: float
    sent_at: float


class Handshakes:
    """All handshakes with one peer.

    Args:
        static: Our key pair.
        remote_public: The peer's public key.
        psk: 32 bytes that both ends know.
        index_base: The connection's number, shifted left by 8.
        timers: The figures.
        epoch: Unix time at monotonic 0, for timestamps.
        random_bytes: For ephemeral keys and jitter.
    """

    def __init__(
        self,
        static: StaticKey,
        remote_public: bytes,
        psk: bytes,
        index_base: int,
        timers: Timers,
        epoch: float,
        random_bytes: RandomBytes,
    ) -> None:
        if index_base & ((1 << INDEX_BITS) - 1) or not 0 <= index_base < 1 << 32:
            raise LocalProtocolError("an index base leaves its lower 8 bits free")
        self._static = static
        self._remote_public = remote_public
        self._psk = psk
        self._index_base = index_base
        self._timers = timers
        self._epoch = epoch
        self._random_bytes = random_bytes
        self._mac1_key = wireguard.mac1_key(static.public_key)
        self._jar = CookieJar(remote_public)
        self._events: deque[Event] = deque()
        self._datagrams: deque[bytes] = deque()
        self._not_queued = 0
        self._sessions: dict[int, _Session] = {}
        self._current: _Session | None = None
        self._outstanding: dict[int, _Outstanding] = {}
        self._attempt: _Attempt | None = None
        self._handshakes = 0
        self._last_sent_timestamp = bytes(wireguard.TIMESTAMP_SIZE)
        self._last_received_timestamp = bytes(wireguard.TIMESTAMP_SIZE)
        self._fresh_keys_at: float | None = None
        self._activity: Activity | None = None
        self._unanswered_since: float | None = None
        self._keepalive_at: float | None = None
        self._kept_alive_for = 0.0
        self._jitter = self._new_jitter()
        self._now = 0.0
        self._expired = False

    # --- what happens to us ----------------------------------------------------------------------------------------

    @property
    def last_handshake_at(self) -> float | None:
        """When the session in use was made; `None` before the first."""
        return None if self._current is None else self._current.created_at

    @property
    def is_handshaking(self) -> bool:
        """Whether an initiation of ours waits for its response."""
        return self._attempt is not None

    @property
    def not_queued(self) -> int:
        """How many datagrams were dropped because nobody drained the queue."""
        return self._not_queued

    def initiate(self, now: float, force: bool = False) -> bool:
        """Starts a handshake now.

        Args:
            now: Monotonic seconds.
            force: Even if an initiation was sent less than a rekey timeout ago, for instance because the path is new.

        Returns:
            Whether an initiation was queued.
        """
        self._see(now)
        recent = self._attempt is not None and now < self._attempt.sent_at + self._timers.rekey_timeout_s
        if self._expired or (recent and not force):
            return False
        self._send_initiation(now)
        return True

    def handle_initiation(self, opened: OpenedInitiation, now: float) -> None:
        """Answers an initiation of the peer, at any time; older sessions stay.

        Raises:
            RemoteProtocolError: It is of another peer, or a replay of this one or of an older one.
        """
        self._see(now)
        if opened.remote_public != self._remote_public:
            raise RemoteProtocolError("initiation of another peer")
        if opened.timestamp <= self._last_received_timestamp:
            raise RemoteProtocolError("initiation is a replay")
        if self._expired:
            return
        index = self._free_index()
        try:
            response, keypair = opened.respond(self._psk, index, self._random_bytes(wireguard.KEY_SIZE))
        except HandshakeError:
            raise RemoteProtocolError("initiation does not fit our keys") from None
        self._last_received_timestamp = opened.timestamp
        self._queue(self._jar.stamp(response, now))
        self._add_session(keypair, now)

    def handle_response(self, datagram: bytes, now: float) -> None:
        """Finishes a handshake of ours and wants a packet sent at once, which lets the peer use the session too.

        Raises:
            RemoteProtocolError: It answers nothing that we wait for, or does not authenticate.
        """
        self._see(now)
        outstanding = self._outstanding.get(wireguard.receiver_index(datagram))
        if outstanding is None or wireguard.message_type(datagram) is not wireguard.MessageType.RESPONSE:
            raise RemoteProtocolError("response to no initiation of ours")
        if not wireguard.is_mac1_valid(datagram, self._mac1_key):
            raise RemoteProtocolError("response with a wrong mac1")
        if outstanding.failures >= MAX_FAILED_RESPONSES:
            raise RemoteProtocolError("too many wrong responses")
        try:
            keypair = outstanding.initiation.finish(datagram)
        except HandshakeError:
            outstanding.failures += 1
            raise RemoteProtocolError("response does not authenticate") from None
        self._end_attempt()
        session = self._add_session(keypair, now)
        self._use(session)
        self._events.append(KeepaliveDue())

    def handle_cookie_reply(self, datagram: bytes, now: float) -> None:
        """Takes the cookie of a peer under load; the next initiation carries it.

        Raises:
            RemoteProtocolError: It is no cookie for one of our last messages.
        """
        self._see(now)
        self._jar.handle_reply(datagram, now)

    def handle_confirmed(self, local_index: int, now: float) -> None:
        """Takes that the peer used a session which it initiated: it counts from now on, ours under way do not."""
        self._see(now)
        session = self._sessions.get(local_index)
        if session is None or session.is_initiator:
            return
        if self._attempt is not None and session.created_at >= self._attempt.started_at:
            self._end_attempt()
        self._use(session)

    def handle_activity(self, activity: Activity, now: float) -> None:
        """Takes the engine's latest figures about this peer."""
        self._see(now)
        self._activity = activity
        self._unanswered_since = self._unanswered(activity)
        received, sent = activity.last_data_received_at, activity.last_sent_at
        if received == 0.0 or received < sent or received <= self._kept_alive_for:
            self._keepalive_at = None
        elif self._keepalive_at is None:
            self._keepalive_at = received + self._timers.keepalive_s

    def _unanswered(self, activity: Activity) -> float | None:
        """Since when data of the session in use goes unanswered; what was sent before it does not count."""
        current = self._current
        if current is None or activity.first_unanswered_at == 0.0 or not _since(activity.last_data_sent_at, current):
            return None
        if _since(activity.first_unanswered_at, current):
            return activity.first_unanswered_at
        return activity.last_data_sent_at if self._unanswered_since is None else self._unanswered_since

    # --- time ------------------------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        """Does what is due at `now`. Calling it early, late or twice is harmless."""
        self._see(now)
        if self._expired:
            return
        for session in [s for s in self._sessions.values() if now >= s.created_at + self._timers.reject_after_s]:
            self._drop_session(session)
        give_up_at = self._give_up_at()
        if give_up_at is not None and now >= give_up_at:
            self._give_up()
            return
        initiate_at = self._initiate_at()
        if initiate_at is not None and now >= initiate_at:
            if self._attempt is not None and self._current is not None:
                self._events.append(Unanswered())
            self._send_initiation(now)
        if self._keepalive_at is not None and now >= self._keepalive_at and self._activity is not None:
            self._keepalive_at = None
            self._kept_alive_for = self._activity.last_data_received_at
            self._events.append(KeepaliveDue())

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` has something to do; due now while output is queued."""
        if self._events or self._datagrams:
            return self._now
        if self._expired:
            return None
        deadlines = [s.created_at + self._timers.reject_after_s for s in self._sessions.values()]
        deadlines += [at for at in (self._give_up_at(), self._initiate_at(), self._keepalive_at) if at is not None]
        return min(deadlines, default=None)

    def poll_transmit_bytes(self) -> bytes | None:
        """The next datagram: an initiation (for every path) or a response (to where its initiation came from)."""
        return self._datagrams.popleft() if self._datagrams else None

    def poll_event(self) -> Event | None:
        """The next event."""
        return self._events.popleft() if self._events else None

    def _see(self, now: float) -> None:
        self._now = max(self._now, now)
        if self._fresh_keys_at is None:
            self._fresh_keys_at = now

    def _give_up_at(self) -> float | None:
        if self._fresh_keys_at is None:
            return None
        without_keys = self._fresh_keys_at + self._timers.expire_after_s
        if self._attempt is None:
            return without_keys
        return min(without_keys, self._attempt.started_at + self._timers.attempt_window_s)

    def _initiate_at(self) -> float | None:
        """When the next initiation goes out by itself."""
        if self._attempt is not None:
            return self._attempt.sent_at + self._timers.rekey_timeout_s + self._jitter
        due = self._renewal_due_at()
        return None if due is None else due + self._jitter

    def _renewal_due_at(self) -> float | None:
        """The earliest reason for a new session: age and use (initiator only), or unanswered data (either end)."""
        current, activity, timers = self._current, self._activity, self._timers
        if current is None:
            return None
        reasons: list[float] = []
        if self._unanswered_since is not None:
            reasons.append(self._unanswered_since + timers.unanswered_s)
        if current.is_initiator:
            reasons.append(current.created_at + timers.renew_idle_after_s)
            if activity is not None and _since(activity.last_data_sent_at, current):
                reasons.append(current.created_at + timers.rekey_after_s)
            if activity is not None and _since(activity.last_data_received_at, current):
                reasons.append(current.created_at + timers.rekey_on_receive_s)
        return min(reasons, default=None)

    # --- sessions and initiations ----------------------------------------------------------------------------------

    def _send_initiation(self, now: float) -> None:
        index = self._free_index()
        self._last_sent_timestamp = wireguard.tai64n(self._epoch + now, after=self._last_sent_timestamp)
        ephemeral = self._random_bytes(wireguard.KEY_SIZE)
        initiation, message = Initiation.start(
            self._static, self._remote_public, self._psk, index, self._last_sent_timestamp, ephemeral
        )
        while len(self._outstanding) >= _MAX_OUTSTANDING:
            del self._outstanding[next(iter(self._outstanding))]
        self._outstanding[index] = _Outstanding(index, initiation)
        self._queue(self._jar.stamp(message, now))
        self._attempt = _Attempt(now if self._attempt is None else self._attempt.started_at, sent_at=now)
        self._jitter = self._new_jitter()

    def _queue(self, datagram: bytes) -> None:
        if len(self._datagrams) >= MAX_QUEUED:
            self._not_queued += 1
        else:
            self._datagrams.append(datagram)

    def _end_attempt(self) -> None:
        self._attempt = None
        self._outstanding.clear()
        self._jitter = self._new_jitter()

    def _free_index(self) -> int:
        """The next number that no session and no initiation of ours has."""
        while True:
            index = self._index_base | (self._handshakes & ((1 << INDEX_BITS) - 1))
            self._handshakes += 1
            if index not in self._sessions and index not in self._outstanding:
                return index

    def _add_session(self, keypair: Keypair, now: float) -> _Session:
        session = _Session(keypair.local_index, keypair.is_initiator, now)
        while len(self._sessions) >= self._timers.max_sessions:
            self._drop_session(next(iter(self._sessions.values())))
        self._sessions[session.local_index] = session
        self._fresh_keys_at = now
        self._events.append(SessionReady(keypair))
        return session

    def _drop_session(self, session: _Session) -> None:
        del self._sessions[session.local_index]
        self._events.append(SessionExpired(session.local_index))

    def _use(self, session: _Session) -> None:
        """Makes it the session whose age and use decide, unless a newer one is."""
        current = self._current
        if current is not None and (current.created_at, current.is_initiator) > (
            session.created_at,
            session.is_initiator,
        ):
            return
        self._current = session
        self._unanswered_since = None

    def _give_up(self) -> None:
        for session in list(self._sessions.values()):
            self._drop_session(session)
        self._end_attempt()
        self._expired = True
        self._events.append(Expired())

    def _new_jitter(self) -> float:
        return int.from_bytes(self._random_bytes(2), "big") / 0xFFFF * self._timers.max_jitter_s


def _since(at: float, session: _Session) -> bool:
    """Whether something ever happened, and not before the session was made."""
    return at != 0.0 and at >= session.created_at
