"""A question over TCP to a resolver inside the tunnel, against the server's side of our own."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.proto.tcp_connection import TcpConnection
from wardgate.proto.tcp_query import RESEND_GAPS_S, TcpQuery
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import ACK, FIN, RST, SYN, parse, tcp_header, tcp_packet

CLIENT, SERVER = SocketAddr("100.64.3.9", 50000), SocketAddr("100.64.0.1", 53535)


@pytest.mark.parametrize("size", [1, 1220, 2600, 65535])
@pytest.mark.parametrize("question", [b"question", bytes(4096)])
def test_question_goes_and_its_answer_comes(question: bytes, size: int) -> None:
    answer = Random(1).randbytes(size)

    link = Link(question, answer)
    link.run()

    assert link.asked == [question]
    assert link.answers == [answer]
    assert link.query.is_gone


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.2))
def test_lost_segments_are_made_up_for_or_the_question_fails(seed: int, loss: float) -> None:
    link = Link(bytes(3000), bytes(range(256)) * 20, loss=loss, seed=seed)
    link.run()
    assert link.answers in ([bytes(range(256)) * 20], [None])
    assert link.answers != [None] or loss > 0.02


@pytest.mark.parametrize("seed", range(20))
def test_a_tenth_of_the_segments_lost_is_made_up_for(seed: int) -> None:
    link = Link(bytes(3000), bytes(5000), loss=0.1, seed=seed)
    link.run()
    assert link.answers == [bytes(5000)]


def test_a_closed_port_fails_at_once() -> None:
    query = TcpQuery(CLIENT, SERVER, b"q", 7, 0.0)
    syn = tcp_header(parse(query.poll_packet() or b""))

    query.handle_packet(parse(tcp_packet(SERVER, CLIENT, RST | ACK, acknowledgment=syn.sequence + 1)), 0.1)

    assert query.poll_answer() == (None,)
    assert query.poll_answer() is None
    assert query.is_gone


def test_silence_fails_in_the_end() -> None:
    query = TcpQuery(CLIENT, SERVER, b"q", 7, 0.0)
    while (due := query.poll_timeout()) is not None:
        query.handle_timeout(due)

    assert due is None
    assert query.poll_answer() == (None,)
    assert len(list(iter(query.poll_packet, None))) == len(RESEND_GAPS_S)


def test_a_server_that_hangs_up_before_it_answered_has_none() -> None:
    query = TcpQuery(CLIENT, SERVER, b"q", 7, 0.0)
    query.handle_packet(parse(tcp_packet(SERVER, CLIENT, SYN | ACK, sequence=20, acknowledgment=8)), 0.1)
    query.handle_packet(parse(tcp_packet(SERVER, CLIENT, FIN | ACK, sequence=21, acknowledgment=8)), 0.2)
    assert query.poll_answer() == (None,)


@given(st.lists(st.tuples(st.integers(0, 63), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary())))
def test_any_segments_are_borne(segments: list[tuple[int, int, int, bytes]]) -> None:
    query = TcpQuery(CLIENT, SERVER, b"q", 2**32 - 1, 0.0)
    for flags, sequence, acknowledgment, payload in segments:
        raw = tcp_packet(SERVER, CLIENT, flags, sequence=sequence, acknowledgment=acknowledgment, payload=payload)
        query.handle_packet(parse(raw), 0.0)
    answers = list(iter(query.poll_answer, None))
    assert len(answers) <= 1


class Link:
    """Both ends of a connection, 10 ms apart."""

    def __init__(self, question: bytes, answer: bytes, loss: float = 0.0, seed: int = 1) -> None:
        self.random = Random(seed)
        self.loss = loss
        self.answer = answer
        self.asked: list[bytes] = []
        self.answers: list[bytes | None] = []
        self.now = 0.0
        self.query = TcpQuery(CLIENT, SERVER, question, 2**32 - 10, 0.0)
        self.server: TcpConnection | None = None

    def run(self) -> None:
        while self.now < 12.0 and not self.query.is_gone:
            moved = self.to_server() | self.to_client()
            if answered := self.query.poll_answer():
                self.answers.append(answered[0])
            if not moved:
                due = [one.poll_timeout() for one in (self.query, self.server) if one is not None]
                self.now = max(self.now, min((at for at in due if at is not None), default=99.0))
                self.query.handle_timeout(self.now)
                if self.server is not None:
                    self.server.handle_timeout(self.now)
            self.now += 0.01
        if answered := self.query.poll_answer():
            self.answers.append(answered[0])

    def to_server(self) -> bool:
        sent = list(iter(self.query.poll_packet, None))
        for packet in map(parse, sent):
            if self.random.random() < self.loss:
                continue
            if self.server is None:
                self.server = TcpConnection(packet, 1000, self.now)
            else:
                self.server.handle_packet(packet, self.now)
            while self.server.messages:
                self.asked.append(self.server.messages.popleft())
                self.server.reply(self.answer, self.now)
        return bool(sent)

    def to_client(self) -> bool:
        if self.server is None:
            return False
        sent = list(self.server.packets)
        self.server.packets.clear()
        for raw in sent:
            if self.random.random() >= self.loss:
                self.query.handle_packet(parse(raw), self.now)
        return bool(sent)
