"""What the forwarder answers strangers, beside what the TURN server answers them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate._fastpath import judge_stranger
from wardgate.proto.turn_auth import Devices, StaticUsers
from wardgate.proto.turn_config import TurnConfig
from wardgate.proto.turn_server import TurnServer
from wardgate.wire import stun, turn
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.stun import Attribute, Builder, MessageClass, Method

CLIENTS = (
    SocketAddr("198.51.100.7", 40000),
    SocketAddr("255.255.255.254", 1),
    SocketAddr("2001:db8::7", 65535),
    SocketAddr("::ffff:198.51.100.7", 9),
)
ID = b"transactions"
NOW = 70_000_000.25
HOUR_S = 3600
ATTRIBUTES = st.tuples(
    st.sampled_from([*Attribute, 0x0001, 0x7FFF, 0x8003, 0xC001, 0xFFFF]),
    st.binary(max_size=9) | st.sampled_from([b"", bytes(4), b"\x11\0\0\0", b"\1\0\0\0", bytes(8), bytes(20)]),
)
REALMS = ("firezone", "a realm of another length")


def new_server(realm: str, *, is_alone: bool = False) -> TurnServer:
    users = (StaticUsers({"alice": "wonderland"}),) if is_alone else (Devices("5ec7e7"),)
    config = TurnConfig("203.0.113.3", "2001:db8::3", realm=realm, refusals_burst=1e9)
    return TurnServer(config, users, 1_700_000_000.0, bytes)


def judged(server: TurnServer, client: SocketAddr, datagram: bytes, now: float = NOW) -> bytes | bool:
    rules = server.strangers
    return judge_stranger(
        client,
        datagram,
        now,
        nonce_key=rules.nonce_key,
        realm=rules.realm,
        nonce_cookie=rules.nonce_cookie,
        algorithms=rules.algorithms,
    )


def answered(server: TurnServer, client: SocketAddr, datagram: bytes, now: float = NOW) -> bytes | None:
    server.handle_datagram(client, datagram, now)
    transmit = server.poll_transmit()
    assert transmit is None or transmit.remote == client
    return None if transmit is None else transmit.payload


def request(method: Method) -> Builder:
    return Builder(method, MessageClass.REQUEST, ID)


def test_plain_requests_are_answered_with_the_same_bytes() -> None:
    software = request(Method.BINDING).software("a client")
    bare = request(Method.ALLOCATE).requested_transport(turn.UDP_TRANSPORT)
    for realm in REALMS:
        for is_alone in (True, False):
            for client in CLIENTS:
                for builder in (request(Method.BINDING), software, bare, bare.lifetime(600)):
                    server = new_server(realm, is_alone=is_alone)
                    native = judged(server, client, builder.build())
                    assert isinstance(native, bytes)
                    assert native == answered(server, client, builder.build())


@given(
    st.sampled_from([Method.BINDING, Method.ALLOCATE, Method.REFRESH]),
    st.lists(ATTRIBUTES, max_size=4),
    st.sampled_from(CLIENTS),
    st.booleans(),
)
def test_what_the_forwarder_answers_the_server_answers_with_the_same_bytes(
    method: Method, attributes: list[tuple[int, bytes]], client: SocketAddr, is_cut: bool
) -> None:
    builder = request(method)
    for kind, value in attributes:
        builder.attribute(kind, value)
    datagram = builder.build()
    if is_cut:
        datagram = datagram[:2] + struct.pack("!H", len(datagram) - 16) + datagram[4:]
    server = new_server(REALMS[0])

    native = judged(server, client, datagram)

    if isinstance(native, bytes):
        assert native == answered(server, client, datagram)


@given(st.binary(max_size=60))
def test_any_bytes_are_judged(datagram: bytes) -> None:
    server = new_server(REALMS[0])
    native = judged(server, CLIENTS[0], datagram)
    if isinstance(native, bytes):
        assert native == answered(server, CLIENTS[0], datagram)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_nonce_of_either_is_good_for_the_other(client: SocketAddr) -> None:
    server = new_server(REALMS[0], is_alone=True)
    key = turn.long_term_key("alice", "wonderland", REALMS[0])
    bare = request(Method.ALLOCATE).requested_transport(turn.UDP_TRANSPORT).build()
    native, python = judged(server, client, bare), answered(server, client, bare)
    assert isinstance(native, bytes)
    assert python is not None

    for answer in (native, python):
        signed = request(Method.REFRESH).username("alice").realm(REALMS[0]).nonce(stun.decode(answer).nonce or b"")
        proof = signed.build(key)
        for later_s, is_good in ((0, True), (HOUR_S, True), (HOUR_S + 1, False), (-1, False)):
            assert judged(server, client, proof, NOW + later_s) is is_good
            refreshed = answered(server, client, proof, NOW + later_s)
            assert refreshed is not None
            error = stun.decode(refreshed).error
            assert error is not None
            assert (error.code == turn.ALLOCATION_MISMATCH) is is_good  # there is none, which strangers are not told
        assert judged(server, SocketAddr(client.host, 7), proof) is False


def test_clients_of_this_host_are_left_to_python() -> None:
    server = new_server(REALMS[0])
    for host in ("127.0.0.1", "::1"):
        assert judged(server, SocketAddr(host, 9), request(Method.BINDING).build()) is False
