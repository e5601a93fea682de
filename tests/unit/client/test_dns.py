"""The client's resolver with its packets, over UDP and TCP."""

from random import Random

import dns.message
import pytest

from wardgate.client.dns import ClientDns
from wardgate.ids import ResourceId, SiteId
from wardgate.wire import portal
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import ACK, SYN, icmp_echo, parse, tcp_header, tcp_packet, udp_packet

HOST, SENTINEL = SocketAddr("100.64.0.1", 40000), SocketAddr("100.100.111.1", 53)
FIRST_PROXY_IP = "100.96.0.1"


def test_name_of_a_resource_over_udp() -> None:
    subject = resolver()
    subject.handle_packet(parse(udp_packet(HOST, SENTINEL, query("app.corp.example"))), 0.0)

    answer = parse(subject.poll_packet() or b"")

    assert (answer.key.source, answer.key.destination) == (SENTINEL, HOST)
    assert first_address(answer.payload) == FIRST_PROXY_IP
    assert subject.poll_asked() is not None


def test_name_of_a_resource_over_tcp() -> None:
    subject = resolver()
    stream = Stream(subject)
    stream.send(framed(query("app.corp.example")))

    assert first_address(stream.received[2:]) == FIRST_PROXY_IP
    assert subject.poll_asked() is not None


def test_forwarded_query_over_tcp_gets_its_answer_on_the_same_connection() -> None:
    subject = resolver()
    stream = Stream(subject)
    stream.send(framed(query("example.org")))
    forward = subject.poll_forward()
    assert forward is not None
    assert forward.transport == "tcp"

    response = dns.message.make_response(dns.message.from_wire(forward.payload)).to_wire()
    subject.handle_query_response(forward.query_id, response, 0.1)
    stream.read()

    assert dns.message.from_wire(stream.received[2:]).question[0].name.to_text() == "example.org."


def test_silence_over_tcp_ends_in_servfail_on_time() -> None:
    subject = resolver()
    stream = Stream(subject)
    stream.send(framed(query("example.org")))

    assert subject.poll_timeout() == 5.0
    subject.handle_timeout(5.0)
    stream.read()

    assert dns.message.from_wire(stream.received[2:]).rcode() == 2


def test_malformed_query_over_tcp_does_not_hold_up_the_next() -> None:
    stream = Stream(resolver())
    for _ in range(40):
        stream.send(framed(b"nonsense"))
    stream.send(framed(query("app.corp.example")))
    assert first_address(stream.received[2:]) == FIRST_PROXY_IP


@pytest.mark.parametrize("host", ["100.100.111.1", "100.100.111.2"])
def test_only_sentinels_in_use_speak_tcp(host: str) -> None:
    subject = resolver()
    subject.handle_packet(parse(tcp_packet(HOST, SocketAddr(host, 53), SYN)), 0.0)
    assert (subject.poll_packet() is not None) == (host == SENTINEL.host)


def test_other_protocols_are_refused() -> None:
    subject = resolver()
    subject.handle_packet(parse(icmp_echo(HOST.ip, SENTINEL.ip, 1, 1)), 0.0)
    error = parse(subject.poll_packet() or b"")
    assert (error.icmp_type, error.icmp_code) == (3, 3)


class Stream:
    """A TCP connection to the sentinel."""

    def __init__(self, subject: ClientDns) -> None:
        self.subject = subject
        self.sequence, self.received_to = 1, 0
        self.received = b""
        self.emit(SYN)
        greeting = parse(subject.poll_packet() or b"")
        self.sequence, self.received_to = 2, tcp_header(greeting).sequence + 1
        self.emit(ACK)

    def emit(self, flags: int, payload: bytes = b"") -> None:
        sequence, acknowledgment = self.sequence, self.received_to
        raw = tcp_packet(HOST, SENTINEL, flags, sequence=sequence, acknowledgment=acknowledgment, payload=payload)
        self.subject.handle_packet(parse(raw), 0.0)

    def send(self, payload: bytes) -> None:
        self.emit(ACK, payload)
        self.sequence += len(payload)
        self.read()

    def read(self) -> None:
        while (raw := self.subject.poll_packet()) is not None:
            packet = parse(raw)
            if packet.payload and tcp_header(packet).sequence == self.received_to % (1 << 32):
                self.received += packet.payload
                self.received_to += len(packet.payload)
                self.emit(ACK)


def resolver() -> ClientDns:
    subject = ClientDns(Random(1).randbytes)
    subject.set_system_resolvers([SocketAddr("192.0.2.53", 53).ip])
    site = portal.Site(id=SiteId("00000000-0000-4000-8000-000000000051"), name="Lab")
    identifier = ResourceId("00000000-0000-4000-8000-000000000001")
    subject.set_resources([portal.DnsResource(id=identifier, address="app.corp.example", name="app", sites=(site,))])
    return subject


def query(name: str) -> bytes:
    return dns.message.make_query(name, "A").to_wire()


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def first_address(answer: bytes) -> str:
    return str(dns.message.from_wire(answer).answer[0][0])
