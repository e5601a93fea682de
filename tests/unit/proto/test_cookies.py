"""The gate in front of handshakes: mac1, load, cookies."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from wardgate._fastpath import Initiation, OpenedInitiation, StaticKey
from wardgate.errors import RemoteProtocolError
from wardgate.proto.cookies import HANDSHAKES_PER_S, HANDSHAKES_PER_SOURCE_AND_S, CookieJar, CookieReply, Gate
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.wireguard import RESPONSE_SIZE, with_macs

CLIENT = StaticKey.from_bytes(b"\x01" * 32)
GATEWAY = StaticKey.from_bytes(b"\x02" * 32)
SOURCE = SocketAddr("203.0.113.21", 52625)
OTHER = SocketAddr("203.0.113.22", 52625)


def test_initiation_is_opened() -> None:
    opened = gate().open(SOURCE, stamped(), now=0.0)
    assert isinstance(opened, OpenedInitiation)
    assert opened.remote_public == CLIENT.public_key


def test_wrong_mac1_and_other_messages_cost_no_key_exchange() -> None:
    subject = gate()
    datagram = stamped()

    assert subject.open(SOURCE, datagram[:-17] + bytes((datagram[-17] ^ 1,)) + datagram[-16:], now=0.0) is None
    assert subject.open(SOURCE, b"\x02\0\0\0" + bytes(RESPONSE_SIZE - 4), now=0.0) is None
    assert subject.counters == {**dict.fromkeys(subject.counters, 0), "bad_mac1": 1, "malformed": 1}


def test_message_to_another_key_is_counted() -> None:
    subject = gate()
    _, message = Initiation.start(CLIENT, CLIENT.public_key, bytes(32), 1, bytes(12), b"\x03" * 32)
    assert subject.open(SOURCE, CookieJar(GATEWAY.public_key).stamp(message, 0.0), now=0.0) is None
    assert subject.counters["bad_key"] == 1


def test_above_a_hundred_a_second_senders_get_cookies() -> None:
    subject = gate()
    answers = [subject.open(SOURCE, stamped(), now=5.0 + n / 320) for n in range(160)]

    assert [type(answer) for answer in answers] == [OpenedInitiation] * HANDSHAKES_PER_S + [CookieReply] * 60
    assert isinstance(subject.open(SOURCE, stamped(), now=6.0), OpenedInitiation)


def test_cookie_opens_the_gate_under_load_and_only_for_its_address() -> None:
    subject, jar = gate(), CookieJar(GATEWAY.public_key)
    overload(subject, now=0.0)
    reply = subject.open(SOURCE, jar.stamp(fresh(), 0.1), now=0.1)
    assert isinstance(reply, CookieReply)

    jar.handle_reply(reply.datagram, now=0.2)

    assert isinstance(subject.open(SOURCE, jar.stamp(fresh(), 0.3), now=0.3), OpenedInitiation)
    assert isinstance(subject.open(OTHER, jar.stamp(fresh(), 0.3), now=0.3), CookieReply)


def test_one_proven_source_has_a_limit_too() -> None:
    subject, jar = gate(), CookieJar(GATEWAY.public_key)
    overload(subject, now=0.0)
    reply = subject.open(SOURCE, jar.stamp(fresh(), 0.1), now=0.1)
    assert isinstance(reply, CookieReply)
    jar.handle_reply(reply.datagram, now=0.2)

    answers = [subject.open(SOURCE, jar.stamp(fresh(), 0.3), now=0.3) for _ in range(30)]

    assert sum(isinstance(answer, OpenedInitiation) for answer in answers) == HANDSHAKES_PER_SOURCE_AND_S
    assert subject.counters["too_many"] == 30 - HANDSHAKES_PER_SOURCE_AND_S


def test_cookie_is_forgotten_after_two_minutes() -> None:
    subject, jar = gate(), CookieJar(GATEWAY.public_key)
    overload(subject, now=0.0)
    reply = subject.open(SOURCE, jar.stamp(fresh(), 0.1), now=0.1)
    assert isinstance(reply, CookieReply)
    jar.handle_reply(reply.datagram, now=0.1)

    assert jar.stamp(fresh(), 120.0)[-16:] != bytes(16)
    assert jar.stamp(fresh(), 120.2)[-16:] == bytes(16)


def test_secret_changes_after_two_minutes() -> None:
    subject, jar = gate(), CookieJar(GATEWAY.public_key)
    overload(subject, now=0.0)
    reply = subject.open(SOURCE, jar.stamp(fresh(), 0.1), now=0.1)
    assert isinstance(reply, CookieReply)
    jar.handle_reply(reply.datagram, now=60.0)
    overload(subject, now=125.0)

    assert isinstance(subject.open(SOURCE, jar.stamp(fresh(), 125.1), now=125.1), CookieReply)


@given(st.binary(max_size=160))
def test_any_bytes_are_dropped_and_counted(data: bytes) -> None:
    subject = gate()
    for datagram in (data, with_macs(b"\x01\0\0\0" + data[:144].ljust(144, b"x"), bytes(32), None)):
        assert subject.open(SOURCE, datagram, now=0.0) is None
    assert sum(subject.counters.values()) == 2


@given(st.binary(min_size=56, max_size=56))
def test_any_cookie_reply_is_refused_unless_it_authenticates(body: bytes) -> None:
    jar = CookieJar(GATEWAY.public_key)
    jar.stamp(fresh(), 0.0)
    for datagram in (body, b"\x03\0\0\0\x09\0\0\0" + body):
        try:
            jar.handle_reply(datagram, 0.0)
        except RemoteProtocolError:
            continue
        raise AssertionError("accepted a forged cookie")


def gate() -> Gate:
    return Gate(GATEWAY, Random(1).randbytes)


def overload(subject: Gate, now: float) -> None:
    for _ in range(HANDSHAKES_PER_S):
        subject.open(SOURCE, stamped(), now)


def fresh() -> bytes:
    _, message = Initiation.start(CLIENT, GATEWAY.public_key, bytes(32), 9, bytes(12), b"\x03" * 32)
    return message


def stamped() -> bytes:
    return CookieJar(GATEWAY.public_key).stamp(fresh(), 0.0)
