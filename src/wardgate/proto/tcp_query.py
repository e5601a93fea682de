"""The client's side of one TCP connection that carries a single DNS question to a resolver inside the tunnel.

Its peer is a real TCP stack across a network that loses and reorders: what is not acknowledged is sent again, what
comes out of order is dropped, and its sender told to repeat it.

Sans-IO: after each call, drain `poll_packet` and `poll_answer`, then sleep until `poll_timeout`.
Source: RFC 9293; RFC 7766, section 8 (the two bytes of length).
"""

from collections import deque
from enum import Enum, auto
from typing import Final

from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import ACK, FIN, PSH, RST, SYN, Packet, tcp_header, tcp_packet

MSS: Final = 1220
RECEIVE_WINDOW: Final = 0xFFFF
RESEND_GAPS_S: Final = (0.5, 1.0, 2.0, 4.0)
LINGER_S: Final = 1.0
_MOD: Final = 1 << 32


class _State(Enum):
    GREETING = auto()
    OPEN = auto()
    CLOSING = auto()
    GONE = auto()


class TcpQuery:
    """One question and its answer.

    Args:
        source, server: Both ends.
        query: The question; its answer comes as it is.
        initial_sequence: 32 random bits.
    """

    def __init__(self, source: SocketAddr, server: SocketAddr, query: bytes, initial_sequence: int, now: float) -> None:
        self._answers: deque[bytes | None] = deque()
        self._is_answered = False
        self._source, self._server = source, server
        self._state = _State.GREETING
        self._unacknowledged = initial_sequence
        self._to_send = len(query).to_bytes(2, "big") + query
        self._window = 0
        self._receive_next = 0
        self._received = bytearray()
        self._packets: deque[bytes] = deque()
        self._resends = 0
        self._due_at = now
        self._greet(now)

    @property
    def is_gone(self) -> bool:
        """Whether there is nothing more to do for it."""
        return self._state is _State.GONE

    # --- segments --------------------------------------------------------------------------------------------------

    def handle_packet(self, packet: Packet, now: float) -> None:
        """Takes a segment of the server."""
        header, flags = tcp_header(packet), packet.tcp_flags
        acknowledged = (header.acknowledgment - self._unacknowledged) % _MOD
        if self.is_gone or not flags & ACK:
            return
        if flags & RST:
            if self._state is _State.GREETING or header.sequence == self._receive_next:
                self._end()
            return
        if self._state is _State.GREETING:
            if not flags & SYN or acknowledged != 1:
                return
            self._state, self._receive_next = _State.OPEN, (header.sequence + 1) % _MOD
            self._unacknowledged = (self._unacknowledged + 1) % _MOD
            self._window = header.window
            self._send_all(now)
            return
        if flags & SYN:
            self._emit(ACK)  # ours was lost
            return
        if acknowledged <= len(self._to_send):
            self._unacknowledged = (self._unacknowledged + acknowledged) % _MOD
            self._to_send = self._to_send[acknowledged:]
            self._window = header.window
            if acknowledged:
                self._resends, self._due_at = 0, now + RESEND_GAPS_S[0]
                self._send_all(now)
        self._take(header.sequence, packet.payload, bool(flags & FIN), now)

    def _take(self, sequence: int, payload: bytes, fin: bool, now: float) -> None:
        if not payload and not fin:
            return
        known = (self._receive_next - sequence) % _MOD
        if known > len(payload):
            self._emit(ACK)
            return
        fresh = payload[known:]
        self._received += fresh
        self._receive_next = (self._receive_next + len(fresh) + fin) % _MOD
        length = 2 + int.from_bytes(self._received[:2], "big")
        if self._state is _State.OPEN and len(self._received) >= max(2, length):
            self._answer(bytes(self._received[2:length]))
            self._state, self._due_at = _State.CLOSING, now + LINGER_S
            self._emit(FIN | ACK)
            self._to_send, self._unacknowledged = b"", (self._unacknowledged + len(self._to_send) + 1) % _MOD
        else:
            self._emit(ACK)
        if fin:
            self._end()

    def _answer(self, answer: bytes | None) -> None:
        if not self._is_answered:
            self._is_answered = True
            self._answers.append(answer)

    def _end(self) -> None:
        self._state = _State.GONE
        self._answer(None)

    # --- sending ---------------------------------------------------------------------------------------------------

    def _greet(self, now: float) -> None:
        options = bytes((2, 4)) + MSS.to_bytes(2, "big")
        self._packets.append(
            tcp_packet(
                self._source, self._server, SYN, sequence=self._unacknowledged, window=RECEIVE_WINDOW, options=options
            )
        )
        self._due_at = now + RESEND_GAPS_S[self._resends]

    def _send_all(self, now: float) -> None:
        """Sends all that is not acknowledged and fits into the server's window."""
        room = self._to_send[: max(1, self._window)]
        for at in range(0, len(room), MSS):
            self._emit(ACK | PSH, at, room[at : at + MSS])
        if not room:
            self._emit(ACK)
        self._due_at = now + RESEND_GAPS_S[self._resends]

    def _emit(self, flags: int, ahead: int = 0, payload: bytes = b"") -> None:
        self._packets.append(
            tcp_packet(
                self._source,
                self._server,
                flags,
                sequence=self._unacknowledged + ahead,
                acknowledgment=self._receive_next,
                window=RECEIVE_WINDOW,
                payload=payload,
            )
        )

    # --- time and output -------------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        """Does what is due at `now`. Calling it early, late or twice is harmless."""
        if self.is_gone or now < self._due_at:
            return
        self._resends += 1
        if self._state is _State.CLOSING or self._resends == len(RESEND_GAPS_S):
            self._end()
        elif self._state is _State.GREETING:
            self._greet(now)
        else:
            self._send_all(now)

    def poll_packet(self) -> bytes | None:
        """The next packet for the server."""
        return self._packets.popleft() if self._packets else None

    def poll_answer(self) -> tuple[bytes | None] | None:
        """What the server said, once, in a tuple: `None` if there will be no answer."""
        return (self._answers.popleft(),) if self._answers else None

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` has something to do."""
        return None if self.is_gone else self._due_at
