"""The server's side of one TCP connection that carries length-prefixed DNS messages.

Its peer is the host's own kernel at the other end of the TUN device, where segments are hardly ever lost and never
reordered: what comes out of order is dropped, and what is not acknowledged in time is sent again from the start.
Source: RFC 9293; RFC 7766, section 8 (the two bytes of length).
"""

from collections import deque
from enum import Enum
from typing import Final

from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import ACK, FIN, PSH, RST, SYN, Packet, TcpHeader, tcp_header, tcp_packet

MSS: Final = 1220
MAX_MESSAGE: Final = 4096
MAX_UNANSWERED: Final = 16
RECEIVE_WINDOW: Final = 8192
MAX_TO_SEND: Final = 256 * 1024
IDLE_S: Final = 15.0
RESEND_S: Final = 0.2
MAX_RESENDS: Final = 6
_SMALLEST_MSS: Final = 64
_DEFAULT_MSS: Final = 536
_MOD: Final = 1 << 32


class _State(Enum):
    ACCEPTING = 1
    OPEN = 2
    GONE = 3


class TcpConnection:
    """One accepted connection.

    Args:
        syn: The packet that asked for it.
        initial_sequence: 32 random bits.
        now: Monotonic seconds.
    """

    def __init__(self, syn: Packet, initial_sequence: int, now: float) -> None:
        header = tcp_header(syn)
        self.source = SocketAddr(str(syn.source), syn.source_port)
        self.local = SocketAddr(str(syn.destination), syn.destination_port)
        self.packets: deque[bytes] = deque()
        self.messages: deque[bytes] = deque()
        self._state = _State.ACCEPTING
        self._mss = _mss(header.options)
        self._receive_next = (header.sequence + 1) % _MOD
        self._received = bytearray()
        self._unacknowledged = initial_sequence
        self._to_send = bytearray()
        self._in_flight = 0
        self._sent_most = 0
        self._window = header.window
        self._unanswered = 0
        self._fin_received = False
        self._fin_in_flight = False
        self._resends = 0
        self._resend_at: float | None = None
        self._idle_at = now + IDLE_S
        self._accept(now)

    @property
    def is_gone(self) -> bool:
        """Whether there is nothing more to do for it."""
        return self._state is _State.GONE

    # --- segments --------------------------------------------------------------------------------------------------

    def handle_packet(self, packet: Packet, now: float) -> None:
        """Takes a segment of the peer."""
        header, flags = tcp_header(packet), packet.tcp_flags
        if self.is_gone:
            return
        if flags & RST:
            if header.sequence == self._receive_next:
                self._state = _State.GONE
            return
        if flags & SYN:
            if self._state is _State.ACCEPTING:
                self._accept(now)
            else:
                self._emit(ACK)
            return
        if not flags & ACK or not self._take_acknowledgment(header, now):
            return
        self._idle_at = now + IDLE_S
        self._take_payload(header, packet.payload, bool(flags & FIN))
        self._take_messages()
        self._flush(now)

    def _take_acknowledgment(self, header: TcpHeader, now: float) -> bool:
        """Whether the segment acknowledges what we sent, and no more."""
        is_accepting = self._state is _State.ACCEPTING
        sent = 1 if is_accepting else self._sent_most
        acknowledged = (header.acknowledgment - self._unacknowledged) % _MOD
        if acknowledged > sent:
            if not acknowledged > _MOD // 2:
                self._emit(ACK)
                return False
            acknowledged = 0
        if is_accepting:
            if acknowledged != 1:
                return False
            self._state = _State.OPEN
        else:
            self._forget(acknowledged)
        self._unacknowledged = (self._unacknowledged + acknowledged) % _MOD
        self._window = header.window
        if acknowledged:
            self._resends = 0
            self._resend_at = now + RESEND_S if self._in_flight or self._fin_in_flight else None
        return True

    def _forget(self, acknowledged: int) -> None:
        data = min(acknowledged, len(self._to_send))
        del self._to_send[:data]
        self._in_flight = max(0, self._in_flight - data)
        self._sent_most -= acknowledged
        if acknowledged > data:
            self._state = _State.GONE

    def _take_payload(self, header: TcpHeader, payload: bytes, fin: bool) -> None:
        if not payload and not fin:
            return
        known = (self._receive_next - header.sequence) % _MOD
        if known > len(payload) or self._fin_received:
            self._emit(ACK)
            return
        room = RECEIVE_WINDOW - len(self._received)
        fresh = payload[known:]
        self._received += fresh[:room]
        self._receive_next = (self._receive_next + min(len(fresh), room)) % _MOD
        if fin and len(fresh) <= room:
            self._receive_next = (self._receive_next + 1) % _MOD
            self._fin_received = True
        self._emit(ACK)

    def _take_messages(self) -> None:
        while self._unanswered < MAX_UNANSWERED and len(self._received) >= 2:
            length = int.from_bytes(self._received[:2], "big")
            if length > MAX_MESSAGE:
                self.abort()
                return
            if len(self._received) < 2 + length:
                break
            self.messages.append(bytes(self._received[2 : 2 + length]))
            del self._received[: 2 + length]
            self._unanswered += 1

    # --- sending ---------------------------------------------------------------------------------------------------

    def reply(self, payload: bytes | None, now: float) -> None:
        """Sends the answer to one message; `None` if there is none."""
        if self.is_gone:
            return
        self._unanswered = max(0, self._unanswered - 1)
        if payload is not None:
            if len(self._to_send) + 2 + len(payload) > MAX_TO_SEND or len(payload) > 0xFFFF:
                self.abort()
                return
            self._to_send += len(payload).to_bytes(2, "big") + payload
        waiting = len(self._received)
        self._take_messages()
        if len(self._received) < waiting:
            self._emit(ACK)
        self._flush(now)

    def abort(self) -> None:
        """Resets the connection."""
        self._emit(RST | ACK)
        self._state = _State.GONE

    def _accept(self, now: float) -> None:
        options = bytes((2, 4)) + MSS.to_bytes(2, "big")
        self.packets.append(
            tcp_packet(
                self.local,
                self.source,
                SYN | ACK,
                sequence=self._unacknowledged,
                acknowledgment=self._receive_next,
                window=RECEIVE_WINDOW,
                options=options,
            )
        )
        self._resend_at = now + RESEND_S

    def _flush(self, now: float) -> None:
        """Sends what the peer's window takes, and our FIN when nothing is left to say."""
        if self._state is not _State.OPEN:
            return
        while self._in_flight < min(len(self._to_send), self._window):
            self._send_segment(min(self._mss, len(self._to_send) - self._in_flight, self._window - self._in_flight))
        is_done = self._fin_received and not self._unanswered
        if is_done and not self._fin_in_flight and self._in_flight == len(self._to_send):
            self._emit(FIN | ACK, offset=self._in_flight)
            self._fin_in_flight = True
            self._sent_most = max(self._sent_most, self._in_flight + 1)
        if self._resend_at is None and (self._to_send or self._fin_in_flight):
            self._resend_at = now + RESEND_S

    def _send_segment(self, length: int) -> None:
        payload = bytes(self._to_send[self._in_flight : self._in_flight + length])
        self._emit(ACK | PSH, offset=self._in_flight, payload=payload)
        self._in_flight += length
        self._sent_most = max(self._sent_most, self._in_flight)

    def _emit(self, flags: int, offset: int | None = None, payload: bytes = b"") -> None:
        ahead = self._in_flight + self._fin_in_flight if offset is None else offset
        self.packets.append(
            tcp_packet(
                self.local,
                self.source,
                flags,
                sequence=self._unacknowledged + ahead,
                acknowledgment=self._receive_next,
                window=RECEIVE_WINDOW - len(self._received),
                payload=payload,
            )
        )

    # --- time ------------------------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        """Does what is due at `now`. Calling it early, late or twice is harmless."""
        if self.is_gone:
            return
        if now >= self._idle_at:
            self.abort()
        elif self._resend_at is not None and now >= self._resend_at:
            self._resends += 1
            if self._resends > MAX_RESENDS:
                self.abort()
            else:
                self._resend(now)

    def _resend(self, now: float) -> None:
        if self._state is _State.ACCEPTING:
            self._accept(now)
        else:
            self._in_flight, self._fin_in_flight = 0, False
            if self._to_send and not self._window:
                self._send_segment(1)
            self._flush(now)
        self._resend_at = now + RESEND_S * (1 << self._resends)

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` has something to do."""
        if self.is_gone:
            return None
        return self._idle_at if self._resend_at is None else min(self._idle_at, self._resend_at)


def _mss(options: bytes) -> int:
    """The largest segment that the peer takes, no larger than ours."""
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            break
        if options[at] == 2 and length == 4:
            return max(_SMALLEST_MSS, min(MSS, int.from_bytes(options[at + 2 : at + 4], "big")))
        at += length
    return _DEFAULT_MSS
