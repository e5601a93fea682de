"""The TURN server, request by request and over time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.proto.turn_client import (
    CONTROL,
    EPOCH,
    PUBLIC_V4,
    PUBLIC_V6,
    Client,
    Host,
    code_of,
    new_server,
)
from wardgate.proto import turn_server
from wardgate.proto.turn_events import AddChannel, ClosePort, OpenPort, RemoveChannel
from wardgate.proto.turn_server import TurnServer
from wardgate.wire import channel_data, stun
from wardgate.wire.addresses import SocketAddr, Transmit
from wardgate.wire.stun import AddressFamily, Attribute, Builder, MessageClass, Method

CLIENT = SocketAddr("198.51.100.7", 40000)
OTHER = SocketAddr("198.51.100.8", 40000)
PEER = SocketAddr("192.0.2.9", 52625)
PEER_2 = SocketAddr("192.0.2.10", 52625)
V4, V6 = AddressFamily.IPV4, AddressFamily.IPV6


# binding and demultiplexing


@given(st.ip_addresses(), st.integers(1, 65535))
def test_binding_is_answered_to_any_source_without_integrity(ip: object, port: int) -> None:
    source = SocketAddr(str(ip), port)

    answer = client_of(new_server(), source).exchange(Builder(1, MessageClass.REQUEST, bytes(12)).build())

    assert answer is not None
    assert answer.mapped_address == source
    assert types_of(answer.raw) == [Attribute.XOR_MAPPED_ADDRESS]


def test_source_port_0_is_ignored() -> None:
    server = new_server()

    assert (
        client_of(server, SocketAddr("198.51.100.7", 0)).exchange(Builder(1, MessageClass.REQUEST, bytes(12)).build())
        is None
    )
    assert server.counters["dropped_source_port"] == 1


@pytest.mark.parametrize("message_class", [MessageClass.INDICATION, MessageClass.SUCCESS, MessageClass.ERROR])
def test_what_is_no_request_is_dropped(message_class: MessageClass) -> None:
    server = new_server()

    assert client_of(server).exchange(Builder(1, message_class, bytes(12)).build()) is None
    assert server.counters["dropped_not_request"] == 1


@given(st.binary(max_size=120))
def test_any_datagram_is_counted_or_answered_and_allocates_nothing(datagram: bytes) -> None:
    server = new_server()

    transmits = Host(server).datagram(CLIENT, datagram, 0.0)

    assert len(transmits) == 1 or sum(server.counters.values()) == 1
    assert server.allocations == 0


# credentials


def test_unauthenticated_allocate_is_challenged_and_then_succeeds() -> None:
    client = client_of(new_server())

    challenge = client.exchange(client.builder(Method.ALLOCATE).requested_transport(17).build())

    assert code_of(challenge) == 401
    assert challenge is not None
    assert challenge.realm == "firezone"
    assert not challenge.has_integrity
    client.nonce = challenge.nonce
    answer = client.allocate()
    assert answer.mapped_address == CLIENT
    assert answer.lifetime_s == 600
    (relayed,) = answer.relayed_addresses
    assert relayed.host == PUBLIC_V4
    assert 49152 <= relayed.port <= 65535


def test_allocate_success_has_its_attributes_in_order() -> None:
    client = client_of(new_server(public_ipv6=PUBLIC_V6))

    answer = client.ask(client.builder(Method.ALLOCATE).requested_transport(17).additional_family(V6))

    assert types_of(answer.raw) == [
        Attribute.SOFTWARE,
        Attribute.XOR_RELAYED_ADDRESS,
        Attribute.XOR_RELAYED_ADDRESS,
        Attribute.XOR_MAPPED_ADDRESS,
        Attribute.LIFETIME,
        Attribute.MESSAGE_INTEGRITY,
    ]


def test_challenges_have_their_attributes_in_order_and_are_signed_for_the_claimed_user() -> None:
    client = client_of(new_server())

    answer = client.exchange(client.builder(Method.REFRESH).username(client.username).build())

    assert answer is not None
    assert types_of(answer.raw) == [
        Attribute.SOFTWARE,
        Attribute.ERROR_CODE,
        Attribute.REALM,
        Attribute.NONCE,
        Attribute.MESSAGE_INTEGRITY,
    ]
    assert answer.verify_integrity(client.key)
    assert answer.error == stun.ErrorCode(401, "Unauthorized")


def test_an_expired_username_is_refused_with_a_signature() -> None:
    client = Client(Host(new_server()), CLIENT, expires_at=int(EPOCH) + 10)
    assert code_of(client.allocate(now=10.0)) == 0

    assert code_of(client.refresh(600, now=11.0)) == 401


def test_a_wrong_password_is_refused_with_a_signature_of_the_right_one() -> None:
    client = client_of(new_server())
    client.allocate()
    right = client.key
    client.key = b"wrong"

    answer = client.exchange(client.signed(client.builder(Method.REFRESH)))

    assert code_of(answer) == 401
    assert answer is not None
    assert answer.verify_integrity(right)


@pytest.mark.parametrize("username", ["", "nocolon", "1:2:3", "x:salt"])
def test_a_malformed_username_gets_no_answer(username: str) -> None:
    server = new_server()
    client = client_of(server)
    client.username = username

    assert client.exchange(client.signed(client.builder(Method.REFRESH))) is None
    assert server.counters["dropped_malformed"] == 1


def test_the_realm_of_a_device_is_not_compared() -> None:
    client = client_of(new_server())
    client.allocate()
    assert client.nonce is not None
    builder = client.builder(Method.REFRESH).username(client.username).realm("elsewhere")

    answer = client.exchange(builder.nonce(client.nonce).build(client.key))

    assert code_of(answer) == 0


def test_a_nonce_belongs_to_one_client_socket() -> None:
    host = Host(new_server())
    client, thief = Client(host, CLIENT), Client(host, OTHER, salt="thief")
    client.allocate()
    thief.nonce = client.nonce

    answer = thief.allocate()

    assert code_of(answer) == 438
    assert answer.nonce != client.nonce


@pytest.mark.parametrize("nonce", [b"", b"f//499k954d6OL34", b"d3b07384-d9a0-4c9b-8f3e-1b2a3c4d5e6f", b"\xff" * 16])
def test_a_nonce_that_is_not_ours_is_stale(nonce: bytes) -> None:
    client = client_of(new_server())
    client.nonce = nonce
    answer = client.exchange(client.signed(client.builder(Method.REFRESH).nonce(nonce)))

    assert code_of(answer) == 438
    assert answer is not None
    assert answer.nonce


def test_a_nonce_is_good_for_an_hour() -> None:
    client = client_of(new_server())
    client.allocate(now=0.9)

    assert code_of(client.refresh(3600, now=3600.0)) == 0
    stale = client.refresh(3600, now=3601.0)

    assert code_of(stale) == 438
    assert stale.nonce != client.nonce
    client.nonce = stale.nonce
    assert code_of(client.refresh(600, now=3601.0)) == 0


def test_forged_sources_leave_nothing_behind_and_get_few_answers() -> None:
    server = new_server(refusals_per_s=10.0, refusals_burst=50.0)
    host = Host(server)
    client = Client(host, CLIENT)
    client.allocate()
    request = Builder(Method.ALLOCATE, MessageClass.REQUEST, bytes(12)).requested_transport(17).build()

    answered = sum(len(host.datagram(SocketAddr("192.0.2.200", port), request, 0.0)) for port in range(1, 1001))

    assert answered == 50
    assert server.counters["dropped_refusal_limit"] == 950
    assert len(host.datagram(SocketAddr("192.0.2.7", 1), request, 1.0)) == 1  # of the same /24, a second later
    assert code_of(client.refresh(600)) == 0


def test_a_stranger_gets_no_attribute_that_it_need_not_have() -> None:
    request = Builder(Method.ALLOCATE, MessageClass.REQUEST, bytes(12)).requested_transport(17).build()

    answer = client_of(new_server()).exchange(request)

    assert answer is not None
    assert types_of(answer.raw) == [Attribute.ERROR_CODE, Attribute.REALM, Attribute.NONCE]
    assert len(answer.raw) == 72


def test_what_stands_behind_integrity_has_no_effect() -> None:
    client = client_of(new_server())
    client.allocate()
    signed = client.signed(client.builder(Method.REFRESH))
    late = signed + bytes.fromhex("000d000400000000")

    answer = client.exchange(late[:2] + (len(late) - 20).to_bytes(2, "big") + late[4:])

    assert answer is not None
    assert answer.lifetime_s == 600


# errors


@pytest.mark.parametrize(
    ("method", "type_", "value"),
    [
        (Method.CHANNEL_BIND, Attribute.CHANNEL_NUMBER, bytes.fromhex("3fff0000")),
        (Method.CHANNEL_BIND, Attribute.CHANNEL_NUMBER, bytes.fromhex("80000000")),
        (Method.CHANNEL_BIND, Attribute.XOR_PEER_ADDRESS, bytes.fromhex("0003a147e112a643")),
        (Method.ALLOCATE, Attribute.REQUESTED_ADDRESS_FAMILY, bytes.fromhex("03000000")),
        (Method.ALLOCATE, Attribute.ADDITIONAL_ADDRESS_FAMILY, bytes.fromhex("00000000")),
        (Method.REFRESH, Attribute.USERNAME, b"\xff\xfe:a"),
        (Method.REFRESH, Attribute.LIFETIME, b"\0\0"),
        (Method.ALLOCATE, Attribute.REQUESTED_TRANSPORT, b"\x11"),
    ],
)
def test_unacceptable_attributes_are_a_bad_request_whoever_asks(method: Method, type_: int, value: bytes) -> None:
    answer = client_of(new_server()).exchange(
        Builder(method, MessageClass.REQUEST, bytes(12)).attribute(type_, value).build()
    )

    assert code_of(answer) == 400
    assert answer is not None
    assert not answer.has_integrity


@pytest.mark.parametrize(
    "builder",
    [
        Builder(0x0BB, MessageClass.REQUEST, bytes(12)),
        Builder(Method.SEND, MessageClass.REQUEST, bytes(12)),
        Builder(Method.ALLOCATE, MessageClass.REQUEST, bytes(12)),
        Builder(Method.CHANNEL_BIND, MessageClass.REQUEST, bytes(12)).channel_number(0x4000),
        Builder(Method.CHANNEL_BIND, MessageClass.REQUEST, bytes(12)).peer_address(PEER),
    ],
)
def test_requests_that_lack_something_are_bad_whoever_asks(builder: Builder) -> None:
    assert code_of(client_of(new_server()).exchange(builder.build())) == 400


def test_a_second_allocation_of_one_socket_is_a_mismatch() -> None:
    client = client_of(new_server())
    client.allocate()

    assert code_of(client.allocate()) == 437


def test_a_repeated_allocate_gets_the_same_answer_again() -> None:
    client = client_of(new_server())
    client.refresh(600)
    datagram = client.signed(client.builder(Method.ALLOCATE).requested_transport(17))

    first, again = client.exchange(datagram), client.exchange(datagram)

    assert first is not None
    assert first.relayed_addresses
    assert first == again


def test_only_udp_is_relayed() -> None:
    client = client_of(new_server())

    assert code_of(client.ask(client.builder(Method.ALLOCATE).requested_transport(6))) == 442


@pytest.mark.parametrize(
    ("public", "requested", "additional", "expected"),
    [
        ("4", None, None, "4"),
        ("4", V4, None, "4"),
        ("46", None, None, "4"),
        ("46", V4, None, "4"),
        ("6", V6, None, "6"),
        ("46", V6, None, "6"),
        ("46", None, V6, "46"),
        ("4", None, V6, "4"),
        ("6", None, V6, "6"),
        ("46", V4, V6, 400),
        ("4", V6, V6, 400),
        ("46", None, V4, 400),
        ("6", None, V4, 400),
        ("6", None, None, 440),
        ("6", V4, None, 440),
        ("4", V6, None, 440),
    ],
)
def test_address_families_follow_from_what_is_there_and_what_is_asked(
    public: str, requested: AddressFamily | None, additional: AddressFamily | None, expected: str | int
) -> None:
    server = new_server(
        public_ipv4=PUBLIC_V4 if "4" in public else None, public_ipv6=PUBLIC_V6 if "6" in public else None
    )
    client = client_of(server)
    builder = client.builder(Method.ALLOCATE).requested_transport(17)
    if requested:
        builder.requested_family(requested)
    if additional:
        builder.additional_family(additional)

    answer = client.ask(builder)

    if isinstance(expected, int):
        assert code_of(answer) == expected
        assert server.allocations == 0
    else:
        assert [address.host for address in answer.relayed_addresses] == [
            {"4": PUBLIC_V4, "6": PUBLIC_V6}[family] for family in expected
        ]
        assert len({address.port for address in answer.relayed_addresses}) == 1


def test_without_an_allocation_refresh_and_bind_are_mismatches() -> None:
    client = client_of(new_server())

    assert code_of(client.refresh(600)) == 437
    assert code_of(client.bind(0x4000, PEER)) == 437


def test_a_peer_of_a_family_without_allocation_is_a_mismatch() -> None:
    client = client_of(new_server())
    client.allocate()

    assert code_of(client.bind(0x4000, SocketAddr("2001:db8::9", 9))) == 443


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.169.254", "255.255.255.255"])
def test_the_relays_own_loopback_and_the_like_are_forbidden(host: str) -> None:
    client = client_of(new_server())
    client.allocate()

    assert code_of(client.bind(0x4000, SocketAddr(host, 80))) == 403


def test_a_loopback_behind_an_ipv6_mapping_is_forbidden() -> None:
    client = client_of(new_server(public_ipv6=PUBLIC_V6))
    client.ask(client.builder(Method.ALLOCATE).requested_transport(17).additional_family(V6))

    assert code_of(client.bind(0x4000, SocketAddr("::ffff:127.0.0.1", 80))) == 403


def test_a_relay_on_loopback_relays_there() -> None:
    client = client_of(new_server(public_ipv4="127.0.0.1"))
    client.allocate()

    assert code_of(client.bind(0x4000, SocketAddr("127.0.0.1", 80))) == 0


def test_channels_and_peers_are_bound_one_to_one() -> None:
    client = client_of(new_server())
    client.allocate()
    assert code_of(client.bind(0x4000, PEER)) == 0

    assert code_of(client.bind(0x4000, PEER)) == 0
    assert code_of(client.bind(0x4001, PEER)) == 400
    assert code_of(client.bind(0x4000, PEER_2)) == 400
    assert code_of(client.bind(0x7FFF, PEER_2)) == 0


def test_two_clients_may_bind_the_same_peer() -> None:
    host = Host(new_server())
    for address, salt in ((CLIENT, "a"), (OTHER, "b")):
        client = Client(host, address, salt=salt)
        client.allocate()
        assert code_of(client.bind(0x4000, PEER)) == 0


def test_create_permission_succeeds_without_effect() -> None:
    host = Host(new_server())
    client = Client(host, CLIENT)

    assert code_of(client.ask(client.builder(Method.CREATE_PERMISSION).peer_address(PEER))) == 0
    assert host.events == []


def test_another_user_of_the_socket_may_free_an_allocation_but_not_use_it() -> None:
    host = Host(new_server())
    owner = Client(host, CLIENT)
    owner.allocate()
    other = Client(host, CLIENT, salt="other")

    assert code_of(other.bind(0x4000, PEER)) == 441
    assert code_of(other.refresh(600)) == 441
    assert code_of(other.allocate()) == 437
    assert code_of(other.refresh(0)) == 0
    assert code_of(other.allocate()) == 0


def test_renewed_credentials_of_the_same_device_are_the_owners() -> None:
    host = Host(new_server())
    Client(host, CLIENT).allocate()

    assert code_of(Client(host, CLIENT, expires_at=1_900_000_000).refresh(600)) == 0


def test_all_ports_taken_is_insufficient_capacity_until_one_is_free() -> None:
    server = new_server(lowest_port=50000, highest_port=50002)
    host = Host(server)
    clients = [Client(host, SocketAddr("198.51.100.1", 1000 + i), salt=f"s{i}") for i in range(4)]

    codes = [code_of(client.allocate()) for client in clients]
    ports = {event.port for event in host.events if isinstance(event, OpenPort)}

    assert codes == [0, 0, 0, 508]
    assert ports == {50000, 50001, 50002}
    clients[0].refresh(0)
    assert code_of(clients[3].allocate()) == 0


def test_the_listening_port_is_never_given_away() -> None:
    client = client_of(new_server(lowest_port=3478, highest_port=3479))

    assert client.allocate().relayed_addresses[0].port == 3479


def test_a_port_that_cannot_be_opened_is_replaced_and_then_refused() -> None:
    server = new_server()
    host = Host(server, refuse_ports=True)
    client = Client(host, CLIENT)

    assert code_of(client.allocate()) == 508
    assert len({event.port for event in host.events if isinstance(event, OpenPort)}) == 4
    assert server.allocations == 0
    host.refuse_ports = False
    assert code_of(client.allocate()) == 0


def test_too_many_channels_are_insufficient_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_server, "MAX_CHANNELS_PER_ALLOCATION", 2)
    client = client_of(new_server())
    client.allocate()

    codes = [code_of(client.bind(0x4000 + i, SocketAddr("192.0.2.9", 1 + i))) for i in range(3)]

    assert codes == [0, 0, 508]


# time


def test_an_allocation_is_freed_exactly_at_its_expiry() -> None:
    host = Host(new_server())
    client = Client(host, CLIENT)
    client.allocate(now=5.0)
    assert host.server.poll_timeout() == 605.0

    host.time(604.9)
    assert host.server.allocations == 1
    host.time(605.0)

    assert host.server.allocations == 0
    assert isinstance(host.events[-1], ClosePort)
    assert host.server.poll_timeout() is None


def test_a_refreshed_allocation_lives_on() -> None:
    host = Host(new_server())
    client = Client(host, CLIENT)
    client.allocate()
    assert client.refresh(700, now=500.0).lifetime_s == 700

    host.time(1199.0)

    assert host.server.allocations == 1


@pytest.mark.parametrize(("asked", "given_"), [(None, 600), (1, 1), (3600, 3600), (3601, 3600), (2**32 - 1, 3600)])
def test_lifetimes_are_capped(asked: int | None, given_: int) -> None:
    client = client_of(new_server())

    assert client.allocate(lifetime_s=asked).lifetime_s == given_


def test_lifetime_0_frees_at_once_and_numbers_are_reusable() -> None:
    host = Host(new_server())
    client = Client(host, CLIENT)
    port = client.allocate().relayed_addresses[0].port
    client.bind(0x4000, PEER)

    assert client.refresh(0).lifetime_s == 0

    assert host.events[-2:] == [RemoveChannel(CLIENT, 0x4000, port, PEER), ClosePort(port, (V4,))]
    assert (host.server.allocations, host.server.channels, host.server.poll_timeout()) == (0, 0, None)
    client.allocate()
    assert code_of(client.bind(0x4000, PEER_2)) == 0


def test_an_allocation_of_lifetime_0_can_be_refreshed_back_to_life() -> None:
    host = Host(new_server())
    client = Client(host, CLIENT)
    assert client.allocate(lifetime_s=0).lifetime_s == 0

    assert code_of(client.refresh(600)) == 0
    host.time(1.0)

    assert host.server.allocations == 1


def test_a_second_allocation_of_one_username_replaces_the_first() -> None:
    host = Host(new_server())
    first, second = Client(host, CLIENT), Client(host, OTHER)
    port = first.allocate().relayed_addresses[0].port
    first.bind(0x4000, PEER)

    assert code_of(second.allocate()) == 0

    assert host.events[2:4] == [RemoveChannel(CLIENT, 0x4000, port, PEER), ClosePort(port, (V4,))]
    assert host.server.allocations == 1
    assert code_of(first.refresh(600)) == 437


def test_a_channel_expires_cools_down_and_is_free() -> None:
    host = Host(new_server())
    client = Client(host, CLIENT)
    port = client.allocate(lifetime_s=3600).relayed_addresses[0].port
    client.bind(0x4000, PEER)

    host.time(600.0)
    assert host.events[-1] == RemoveChannel(CLIENT, 0x4000, port, PEER)
    assert host.datagram(CLIENT, channel_data.encode(0x4000, b"x"), 600.0) == []
    assert code_of(client.bind(0x4000, PEER_2, now=899.0)) == 400
    assert code_of(client.bind(0x4001, PEER, now=899.0)) == 400
    host.time(900.0)

    assert code_of(client.bind(0x4000, PEER_2, now=900.0)) == 0
    assert code_of(client.bind(0x4001, PEER, now=900.0)) == 0


def test_a_channel_in_cool_down_can_be_bound_again_to_its_peer() -> None:
    host = Host(new_server())
    client = Client(host, CLIENT)
    port = client.allocate(lifetime_s=3600).relayed_addresses[0].port
    client.bind(0x4000, PEER)
    host.time(600.0)

    assert code_of(client.bind(0x4000, PEER, now=700.0)) == 0

    assert host.events[-1] == AddChannel(CLIENT, 0x4000, port, PEER)
    host.time(1299.0)
    assert len(host.datagram(CLIENT, channel_data.encode(0x4000, b"x"), 1299.0)) == 1


# data


@pytest.mark.parametrize(("family", "host_"), [(V4, "192.0.2.9"), (V6, "2001:db8::9")])
def test_data_goes_both_ways(family: AddressFamily, host_: str) -> None:
    host = Host(new_server(public_ipv6=PUBLIC_V6))
    client = Client(host, CLIENT)
    peer = SocketAddr(host_, 52625)
    relayed = client.ask(
        client.builder(Method.ALLOCATE).requested_transport(17).requested_family(family)
    ).relayed_addresses[0]
    client.bind(0x4000, peer)

    assert host.datagram(CLIENT, channel_data.encode(0x4000, b"ping") + b"pad", 1.0) == [
        Transmit(relayed, peer, b"ping")
    ]
    host.server.handle_peer_datagram(relayed.port, peer, b"pong")
    assert host.drain(1.0) == [Transmit(CONTROL, CLIENT, channel_data.encode(0x4000, b"pong"))]


def test_data_of_strangers_is_dropped_and_counted() -> None:
    host = Host(new_server())
    client = Client(host, CLIENT)
    port = client.allocate().relayed_addresses[0].port
    client.bind(0x4000, PEER)

    host.server.handle_peer_datagram(port, SocketAddr(PEER.host, PEER.port + 1), b"x")
    host.server.handle_peer_datagram(port + 1, PEER, b"x")
    assert host.datagram(CLIENT, channel_data.encode(0x4001, b"x"), 0.0) == []
    assert host.datagram(OTHER, channel_data.encode(0x4000, b"x"), 0.0) == []

    assert host.drain(0.0) == []
    assert host.server.counters["dropped_peer"] == 2
    assert host.server.counters["dropped_channel"] == 2


def test_both_ends_may_use_this_relay() -> None:
    host = Host(new_server())
    one, two = Client(host, CLIENT, salt="one"), Client(host, OTHER, salt="two")
    relayed_one = one.allocate().relayed_addresses[0]
    relayed_two = two.allocate().relayed_addresses[0]
    one.bind(0x4001, relayed_two)
    two.bind(0x4002, relayed_one)

    transmits = host.datagram(CLIENT, channel_data.encode(0x4001, b"hello"), 0.0)

    assert transmits == [Transmit(CONTROL, OTHER, channel_data.encode(0x4002, b"hello"))]


# invariants


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["allocate", "free", "refresh", "bind", "wait"]),
            st.integers(0, 2),
            st.integers(0, 2),
            st.integers(0, 2),
        ),
        max_size=40,
    )
)
def test_events_open_and_close_in_pairs_whatever_clients_do(steps: list[tuple[str, int, int, int]]) -> None:
    host = Host(new_server(lowest_port=50000, highest_port=50001))
    clients = [Client(host, SocketAddr("198.51.100.7", 1000 + i), salt=f"s{i % 2}") for i in range(3)]
    now = 0.0
    for action, who, channel, peer in steps:
        client = clients[who]
        match action:
            case "allocate":
                client.allocate(now)
            case "free":
                client.refresh(0, now)
            case "refresh":
                client.refresh(100 * channel, now)
            case "bind":
                client.bind(0x4000 + channel, SocketAddr("192.0.2.9", 1 + peer), now)
            case "wait":
                now += 200.0 * (1 + channel)
                host.time(now)
    host.time(now + 10_000.0)
    host.time(now + 10_000.0)

    opened: set[int] = set()
    bound: set[tuple[SocketAddr, int, int, SocketAddr]] = set()
    for event in host.events:
        match event:
            case OpenPort(port):
                assert port not in opened
                opened.add(port)
            case ClosePort(port):
                opened.remove(port)
                assert not [row for row in bound if row[2] == port]
            case AddChannel(address, channel, port, remote):
                assert port in opened
                bound.add((address, channel, port, remote))
            case RemoveChannel(address, channel, port, remote):
                bound.remove((address, channel, port, remote))
    assert (opened, bound) == (set(), set())
    assert (host.server.allocations, host.server.channels, host.server.poll_timeout()) == (0, 0, None)


def client_of(server: TurnServer, address: SocketAddr = CLIENT) -> Client:
    return Client(Host(server), address)


def types_of(datagram: bytes) -> list[int]:
    types, at = [], 20
    while at < len(datagram):
        types.append(int.from_bytes(datagram[at : at + 2], "big"))
        at += 4 + (int.from_bytes(datagram[at + 2 : at + 4], "big") + 3) // 4 * 4
    return types
