"""DNS over TCP to a sentinel, with a small peer that is not as careful as a kernel."""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.proto.stub_resolver import Asker
from wardgate.proto.tcp_connection import IDLE_S, MAX_MESSAGE, MAX_RESENDS, MAX_UNANSWERED, MSS, RECEIVE_WINDOW
from wardgate.proto.tcp_responder import MAX_CONNECTIONS, TcpResponder
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import ACK, FIN, MAX_PACKET, PSH, RST, SYN, Packet, parse, tcp_header, tcp_packet, udp_packet

HOST, SENTINEL = SocketAddr("100.64.0.1", 40000), SocketAddr("100.100.111.1", 53)
HOST6, SENTINEL6 = SocketAddr("fd00:2021:1111::1", 40000), SocketAddr("fd00:2021:1111:8000:100:100:111:0", 53)


@pytest.mark.parametrize(("host", "sentinel"), [(HOST, SENTINEL), (HOST6, SENTINEL6)])
def test_query_comes_out_and_its_answer_goes_back(host: SocketAddr, sentinel: SocketAddr) -> None:
    peer = Peer(host, sentinel)
    peer.connect()

    peer.send(framed(b"question"))
    assert peer.queries() == [(Asker(host, sentinel, "tcp"), b"question")]
    peer.responder.handle_answer(Asker(host, sentinel, "tcp"), b"answer", 0.1)

    assert peer.read() == framed(b"answer")


def test_connection_ends_when_both_have_said_so() -> None:
    peer = connected()
    peer.send(framed(b"q"), FIN)
    assert not peer.saw_fin
    peer.answer(b"a")

    assert peer.read() == framed(b"a")
    assert peer.saw_fin
    assert len(peer.responder) == 0
    assert peer.responder.poll_timeout() is None


def test_question_in_pieces_and_several_in_one_piece() -> None:
    peer = connected()
    stream = framed(b"first") + framed(b"second")
    for at in range(9):
        peer.send(stream[at : at + 1])
    peer.send(stream[9:])
    assert [payload for _, payload in peer.queries()] == [b"first", b"second"]


def test_repeated_and_overlapping_segments_are_taken_once() -> None:
    peer = connected()
    peer.send(framed(b"first"))
    peer.sequence -= 7
    peer.send(framed(b"first") + framed(b"second"))
    assert [payload for _, payload in peer.queries()] == [b"first", b"second"]


def test_segment_from_the_future_is_dropped_and_asked_for_again() -> None:
    peer = connected()
    expected = peer.sequence
    peer.sequence += 5
    peer.send(b"later")
    assert peer.queries() == []
    assert peer.acknowledged == expected


@pytest.mark.parametrize("size", [MSS, 5000, 65535])
def test_long_answers_go_in_segments_that_fit(size: int) -> None:
    peer = connected(window=3000)
    peer.send(framed(b"q"))
    answer = Random(1).randbytes(size)
    peer.answer(answer)
    assert peer.read() == framed(answer)
    assert peer.largest <= MAX_PACKET


def test_lost_segments_are_sent_again() -> None:
    peer = connected()
    peer.send(framed(b"q"))
    peer.queries()
    answer = bytes(5000)
    peer.responder.handle_answer(peer.asker, answer, 0.0)
    while peer.responder.poll_packet() is not None:
        pass

    due = peer.responder.poll_timeout()
    assert due is not None
    assert due == pytest.approx(0.2)
    peer.responder.handle_timeout(due)

    assert peer.read() == framed(answer)


def test_window_of_zero_is_probed_until_it_opens() -> None:
    peer = connected(window=0)
    peer.send(framed(b"q"))
    peer.answer(b"answer")
    assert peer.read() == b""
    peer.responder.handle_timeout(0.2)
    probe = parse(next(peer.packets()))
    assert len(probe.payload) == 1

    peer.window = 1000
    peer.take(probe)
    assert peer.read() == framed(b"answer")


def test_silent_peer_is_reset_after_some_repetitions() -> None:
    peer = connected()
    peer.send(framed(b"q"))
    peer.queries()
    peer.responder.handle_answer(peer.asker, b"answer", 0.0)
    list(peer.packets())

    flags = []
    while (due := peer.responder.poll_timeout()) is not None:
        peer.responder.handle_timeout(due)
        flags += [parse(packet).tcp_flags for packet in peer.packets()]

    assert flags[-1] & RST
    assert 2 <= len(flags) <= MAX_RESENDS + 1
    assert len(peer.responder) == 0


def test_idle_connection_is_reset() -> None:
    peer = connected()
    peer.responder.handle_timeout(IDLE_S)
    assert [parse(packet).tcp_flags & RST for packet in peer.packets()] == [RST]
    assert len(peer.responder) == 0


def test_unacknowledged_greeting_is_repeated() -> None:
    peer = Peer(HOST, SENTINEL)
    peer.emit(SYN)
    first = [parse(packet).tcp_flags for packet in peer.packets()]
    peer.responder.handle_timeout(0.2)
    assert first == [parse(packet).tcp_flags for packet in peer.packets()] == [SYN | ACK]


def test_too_long_question_resets_the_connection() -> None:
    peer = connected()
    peer.send((MAX_MESSAGE + 1).to_bytes(2, "big"))
    assert peer.saw_reset
    assert len(peer.responder) == 0


def test_unanswered_questions_close_the_window_until_answers_open_it() -> None:
    peer = connected()
    for _ in range(MAX_UNANSWERED):
        peer.send(framed(b"q"))
    peer.send(framed(bytes(1000)))
    assert peer.their_window == RECEIVE_WINDOW - 1002
    assert len(peer.queries()) == MAX_UNANSWERED

    peer.responder.handle_answer(peer.asker, b"a", 0.1)
    peer.read()

    assert peer.their_window == RECEIVE_WINDOW
    assert len(peer.queries()) == 1


def test_what_belongs_to_no_connection_is_reset() -> None:
    peer = Peer(HOST, SENTINEL)
    peer.emit(ACK, b"data")
    peer.emit(RST)
    assert [parse(packet).tcp_flags for packet in peer.packets()] == [RST]
    assert peer.responder.refused == 1


def test_other_ports_are_refused_as_a_kernel_does() -> None:
    peer = Peer(HOST, SocketAddr(SENTINEL.host, 54))
    peer.emit(SYN)
    answer = parse(next(peer.packets()))
    assert answer.tcp_flags == RST | ACK
    assert tcp_header(answer).acknowledgment == 1001


def test_connections_are_bounded() -> None:
    responder = TcpResponder(Random(1).randbytes)
    for port in range(MAX_CONNECTIONS + 1):
        Peer(SocketAddr(HOST.host, 1000 + port), SENTINEL, responder).emit(SYN)
    assert (len(responder), responder.refused) == (MAX_CONNECTIONS, 1)


def test_peer_may_reset() -> None:
    peer = connected()
    peer.emit(RST)
    assert len(peer.responder) == 0


def test_answer_for_a_connection_that_is_gone_is_dropped() -> None:
    peer = connected()
    peer.responder.handle_answer(Asker(SocketAddr(HOST.host, 1), SENTINEL, "tcp"), b"a", 0.0)
    assert peer.read() == b""


SEGMENT = st.tuples(
    st.sampled_from([SYN, ACK, ACK | PSH, ACK | FIN, RST, SYN | ACK, 0, 0xFF]),
    st.integers(-3000, 3000),
    st.integers(-3000, 3000),
    st.integers(0, 65535),
    st.binary(max_size=40),
    st.binary(max_size=8).map(lambda options: options + bytes(-len(options) % 4)),
)


@given(st.lists(SEGMENT, max_size=12), st.booleans())
def test_any_segments_leave_it_sane(segments: list[tuple[int, int, int, int, bytes, bytes]], opened: bool) -> None:
    peer = connected() if opened else Peer(HOST, SENTINEL)
    now = 0.0
    for flags, ahead, beyond, window, payload, options in segments:
        now += 0.1
        sequence, acknowledgment = peer.sequence + ahead, peer.received_to + beyond
        raw = tcp_packet(
            HOST,
            SENTINEL,
            flags,
            sequence=sequence,
            acknowledgment=acknowledgment,
            window=window,
            options=options,
            payload=payload,
        )
        peer.responder.handle_packet(parse(raw), now)
        for asker, query in peer.queries():
            peer.responder.handle_answer(asker, query * 10, now)
        for packet in peer.packets():
            assert parse(packet).destination_port == HOST.port
        due = peer.responder.poll_timeout()
        assert (due is None) == (len(peer.responder) == 0)
    peer.responder.handle_timeout(now + 100.0)
    assert len(peer.responder) == 0


def test_other_protocols_are_ignored() -> None:
    responder = TcpResponder(Random(1).randbytes)
    responder.handle_packet(parse(udp_packet(HOST, SENTINEL, b"x")), 0.0)
    assert responder.poll_packet() is None


class Peer:
    """A TCP client that acknowledges everything at once."""

    def __init__(self, host: SocketAddr, sentinel: SocketAddr, responder: TcpResponder | None = None) -> None:
        self.host, self.sentinel = host, sentinel
        self.responder = TcpResponder(Random(1).randbytes) if responder is None else responder
        self.asker = Asker(host, sentinel, "tcp")
        self.sequence, self.received_to, self.acknowledged = 1000, 0, 0
        self.window, self.their_window, self.largest = 0xFFFF, 0, 0
        self.received = b""
        self.saw_fin = self.saw_reset = False

    def connect(self) -> None:
        self.emit(SYN, options=bytes((2, 4, 5, 0xB4)))
        greeting = parse(next(self.packets()))
        header = tcp_header(greeting)
        assert greeting.tcp_flags == SYN | ACK
        assert header.acknowledgment == 1001
        assert header.options == bytes((2, 4)) + MSS.to_bytes(2, "big")
        self.sequence, self.received_to = 1001, header.sequence + 1
        self.emit(ACK)

    def emit(self, flags: int, payload: bytes = b"", options: bytes = b"") -> None:
        raw = tcp_packet(
            self.host,
            self.sentinel,
            flags,
            sequence=self.sequence,
            acknowledgment=self.received_to,
            window=self.window,
            options=options,
            payload=payload,
        )
        self.responder.handle_packet(parse(raw), 0.0)

    def send(self, payload: bytes, flags: int = 0) -> None:
        self.emit(ACK | flags, payload)
        self.sequence += len(payload) + bool(flags & FIN)
        self.read()

    def answer(self, payload: bytes) -> None:
        for asker, _ in self.queries():
            self.responder.handle_answer(asker, payload, 0.0)

    def queries(self) -> list[tuple[Asker, bytes]]:
        found = []
        while (query := self.responder.poll_query()) is not None:
            found.append(query)
        return found

    def packets(self) -> Iterator[bytes]:
        while (packet := self.responder.poll_packet()) is not None:
            yield packet

    def read(self) -> bytes:
        """Takes and acknowledges until nothing comes any more; gives all that was received so far."""
        for packet in self.packets():
            self.take(parse(packet))
        return self.received

    def take(self, packet: Packet) -> None:
        header = tcp_header(packet)
        self.largest = max(self.largest, len(packet.raw))
        self.saw_reset = self.saw_reset or bool(packet.tcp_flags & RST)
        self.acknowledged, self.their_window = header.acknowledgment, header.window
        if header.sequence != self.received_to % (1 << 32):
            return
        self.received += packet.payload
        fin = bool(packet.tcp_flags & FIN)
        self.received_to += len(packet.payload) + fin
        self.saw_fin = self.saw_fin or fin
        if packet.payload or fin:
            self.emit(ACK)


def connected(window: int = 0xFFFF) -> Peer:
    peer = Peer(HOST, SENTINEL)
    peer.window = window
    peer.connect()
    return peer


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message
