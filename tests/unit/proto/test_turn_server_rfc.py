"""What the TURN server gives to users that are no devices: all of RFC 8656 that concerns UDP."""

import base64
import hashlib
import hmac
from collections.abc import Mapping

import pytest

from tests.unit.proto.turn_client import CONTROL, EPOCH, PUBLIC_V4, PUBLIC_V6, Counting, Host, code_of
from wardgate.proto import turn_server
from wardgate.proto.turn_auth import Devices, SharedSecretUsers, StaticUsers, Users
from wardgate.proto.turn_config import TurnConfig
from wardgate.proto.turn_events import AddPermission, ClosePort, OpenPort, RemoveChannel, RemovePermission
from wardgate.proto.turn_server import TurnServer
from wardgate.wire import channel_data, stun, turn
from wardgate.wire.addresses import SocketAddr, Transmit, WholeTransmit
from wardgate.wire.stun import (
    AddressFamily,
    Attribute,
    Builder,
    MessageClass,
    Method,
    PasswordAlgorithm,
    Sha256Key,
)

CLIENT = SocketAddr("198.51.100.7", 40000)
OTHER = SocketAddr("198.51.100.8", 40000)
PEER = SocketAddr("192.0.2.9", 52625)
PEER_V6 = SocketAddr("2001:db8:9::9", 52625)
REALM = "example.org"
V4, V6 = AddressFamily.IPV4, AddressFamily.IPV6
USERS: tuple[Users, ...] = (StaticUsers({"alice": "wonderland", "bob": "builder"}), SharedSecretUsers("north"))


class User:
    """One client socket with a user's credentials, who learns realm and nonce as RFC 8489 says."""

    def __init__(self, host: Host, address: SocketAddr = CLIENT, name: str = "alice", password: str = "wonderland"):
        self.host = host
        self.address = address
        self.name = name
        self.key = turn.long_term_key(name, password, REALM)
        self.nonce = b""
        self._transactions = 0

    def builder(self, method: int, message_class: MessageClass = MessageClass.REQUEST) -> Builder:
        self._transactions += 1
        seed = f"{self.name} {self.address} {self._transactions}".encode()
        return Builder(method, message_class, hashlib.sha256(seed).digest()[:12])

    def send(self, datagram: bytes, now: float = 0.0) -> stun.Message | None:
        transmits = self.host.datagram(self.address, datagram, now)
        return stun.decode(transmits[0].payload) if transmits else None

    def ask(self, builder: Builder, now: float = 0.0) -> stun.Message:
        if not self.nonce:
            challenge = self.send(self.builder(Method.REFRESH).build(), now)
            assert challenge is not None
            assert challenge.nonce is not None
            assert challenge.realm == REALM
            self.nonce = challenge.nonce
        answer = self.send(builder.username(self.name).realm(REALM).nonce(self.nonce).build(self.key), now)
        assert answer is not None
        assert answer.verify_integrity(self.key) == (code_of(answer) not in (400, 401, 438) or answer.has_integrity)
        return answer

    def allocating(self) -> Builder:
        return self.builder(Method.ALLOCATE).requested_transport(17)

    def allocate(self, now: float = 0.0) -> SocketAddr:
        return self.ask(self.allocating(), now).relayed_addresses[0]

    def permit(self, *peers: SocketAddr, now: float = 0.0) -> int:
        builder = self.builder(Method.CREATE_PERMISSION)
        for peer in peers:
            builder.peer_address(peer)
        return code_of(self.ask(builder, now))

    def bind(self, channel: int, peer: SocketAddr, now: float = 0.0) -> int:
        return code_of(self.ask(self.builder(Method.CHANNEL_BIND).channel_number(channel).peer_address(peer), now))

    def say(self, peer: SocketAddr, payload: bytes, now: float = 0.0) -> list[Transmit]:
        builder = self.builder(Method.SEND, MessageClass.INDICATION).peer_address(peer).data(payload)
        return self.host.datagram(self.address, builder.build(), now)


def new_host(users: tuple[Users, ...] = USERS, **config: object) -> Host:
    settings: dict[str, object] = {"public_ipv4": PUBLIC_V4, "public_ipv6": PUBLIC_V6, "realm": REALM} | config
    return Host(TurnServer(TurnConfig(**settings), users, EPOCH, Counting()))  # type: ignore[arg-type]


# credentials


def test_static_users_and_users_of_a_shared_secret_are_let_in() -> None:
    host = new_host()
    until = int(EPOCH) + 100
    password = base64.b64encode(hmac.digest(b"north", f"{until}:carol".encode(), "sha1")).decode()

    assert User(host).allocate().host == PUBLIC_V4
    assert (
        code_of(User(host, OTHER, f"{until}:carol", password).ask(Builder(3, MessageClass.REQUEST, bytes(12)))) == 400
    )
    assert User(host, OTHER, f"{until}:carol", password).allocate(now=100.0).host == PUBLIC_V4


def test_credentials_of_a_shared_secret_end() -> None:
    until = int(EPOCH) + 100
    user = User(new_host(), CLIENT, str(until), turn.shared_secret_password("north", str(until)))

    assert code_of(user.ask(user.allocating(), now=101.0)) == 401


@pytest.mark.parametrize(("name", "password"), [("alice", "looking-glass"), ("mallory", "wonderland"), ("1:2:3", "")])
def test_others_are_refused_without_a_signature(name: str, password: str) -> None:
    user = User(new_host(), CLIENT, name, password)

    answer = user.ask(user.allocating())

    assert code_of(answer) == 401
    assert not answer.has_integrity
    assert answer.nonce
    assert answer.realm == REALM


@pytest.mark.parametrize("missing", ["username", "realm", "nonce"])
def test_a_signed_request_without_all_credentials_is_a_bad_request(missing: str) -> None:
    user = User(new_host())
    user.allocate()
    builder = user.builder(Method.REFRESH)
    if missing != "username":
        builder.username(user.name)
    if missing != "realm":
        builder.realm(REALM)
    if missing != "nonce":
        builder.nonce(user.nonce)

    assert code_of(user.send(builder.build(user.key))) == 400


def test_a_nonce_begins_with_the_cookie_and_unknown_methods_get_no_answer() -> None:
    user = User(new_host())
    user.allocate()

    assert user.nonce.startswith(b"obMatJos2gAAA")
    assert len(user.nonce) == 29
    for method in (0x0BB, Method.SEND):
        assert user.send(user.builder(method).build()) is None
    assert user.host.server.counters["dropped_method"] == 2


def signed_by_sha256(user: User, changed: Mapping[str, bytes] = {}, *, hides_name: bool = False) -> bytes:
    """A Refresh as of a client that knows all of RFC 8489."""
    builder = user.builder(Method.REFRESH)
    if hides_name:
        builder.attribute(Attribute.USERHASH, turn.userhash(user.name, REALM))
    else:
        builder.username(user.name)
    offered = changed.get("offered", turn.PASSWORD_ALGORITHMS)
    builder.realm(REALM).nonce(user.nonce).attribute(Attribute.PASSWORD_ALGORITHMS, offered)
    builder.attribute(Attribute.PASSWORD_ALGORITHM, changed.get("chosen", bytes.fromhex("00020000")))
    key = turn.long_term_key(user.name, "wonderland", REALM, PasswordAlgorithm.SHA256)
    return builder.build(Sha256Key(key), fingerprint=True)


def test_users_may_sign_with_sha256_and_are_answered_so() -> None:
    user = User(new_host())
    challenge = user.send(user.allocating().build())
    assert challenge is not None
    assert challenge.password_algorithms == turn.PASSWORD_ALGORITHMS
    user.allocate()

    answer = user.send(signed_by_sha256(user))

    assert code_of(answer) == 0
    assert answer is not None
    assert answer.verify_integrity(
        Sha256Key(turn.long_term_key("alice", "wonderland", REALM, PasswordAlgorithm.SHA256))
    )
    assert not answer.has_integrity


@pytest.mark.parametrize(
    "changed",
    [{"offered": bytes.fromhex("00010000")}, {"chosen": bytes.fromhex("00090000")}, {"chosen": b"\0\2"}],
)
def test_whoever_is_talked_down_to_another_algorithm_is_refused(changed: dict[str, bytes]) -> None:
    user = User(new_host())
    user.allocate()

    assert code_of(user.send(signed_by_sha256(user, changed))) == 400


def test_names_are_hidden_where_all_are_known() -> None:
    user = User(new_host((StaticUsers({"alice": "wonderland"}),)))
    user.allocate()

    assert user.nonce.startswith(b"obMatJos2wAAA")
    assert code_of(user.send(signed_by_sha256(user, hides_name=True))) == 0
    user.name = "mallory"
    assert code_of(user.send(signed_by_sha256(user, hides_name=True))) == 401


def test_a_relay_may_know_devices_and_users_at_once() -> None:
    host = new_host((Devices("ab" * 32), *USERS))
    username = turn.Username(int(EPOCH) + 100, "salt")
    password = turn.password_of(username, "ab" * 32)

    assert User(host, CLIENT, str(username), password).allocate().host == PUBLIC_V4
    assert User(host, OTHER).allocate().host == PUBLIC_V4


def test_a_name_that_an_application_gives_is_no_static_users() -> None:
    host = new_host()
    User(host).allocate()
    name = f"{int(EPOCH) + 100}:alice"
    other = User(host, CLIENT, name, turn.shared_secret_password("north", name))

    assert code_of(other.ask(other.builder(Method.REFRESH).lifetime(0))) == 441


def test_an_allocation_is_its_users_alone() -> None:
    host = new_host()
    alice, bob = User(host), User(host, CLIENT, "bob", "builder")
    alice.allocate()

    assert code_of(bob.ask(bob.builder(Method.REFRESH).lifetime(0))) == 441
    assert bob.bind(0x4000, PEER) == 441
    assert bob.permit(PEER) == 441


# allocate


def test_unknown_attributes_that_must_be_understood_are_listed() -> None:
    user = User(new_host())

    answer = user.ask(user.allocating().attribute(0x7F01, b"x").attribute(0x9F01, b"x").attribute(0x002A, b""))

    assert code_of(answer) == 420
    assert answer.unknown_attributes == (0x7F01, 0x002A)
    stranger = user.send(Builder(Method.BINDING, MessageClass.REQUEST, bytes(12)).attribute(0x7F01, b"").build())
    assert code_of(stranger) == 420
    assert stranger is not None
    assert stranger.unknown_attributes == (0x7F01,)


@pytest.mark.parametrize(("asked", "given"), [(None, 600), (1, 600), (700, 700), (10**6, 3600)])
def test_lifetimes_are_between_ten_minutes_and_an_hour(asked: int | None, given: int) -> None:
    user = User(new_host())
    builder = user.allocating()

    answer = user.ask(builder if asked is None else builder.lifetime(asked))

    assert answer.lifetime_s == given
    assert user.ask(user.builder(Method.REFRESH).lifetime(0)).lifetime_s == 0


def test_an_even_port_is_even_and_the_next_one_is_kept_for_its_token() -> None:
    host = new_host()
    alice, again = User(host), User(host, OTHER)

    answer = alice.ask(alice.allocating().even_port(reserve_next=True))
    port = answer.relayed_addresses[0].port
    assert port % 2 == 0
    assert answer.reservation_token is not None
    bob = User(host, OTHER, "bob", "builder")
    assert code_of(bob.ask(bob.allocating().reservation_token(answer.reservation_token))) == 508
    second = again.ask(again.allocating().reservation_token(answer.reservation_token))

    assert second.relayed_addresses[0].port == port + 1
    third = User(host, SocketAddr("198.51.100.9", 1))
    assert code_of(third.ask(third.allocating().reservation_token(answer.reservation_token))) == 508


def test_a_reserved_port_that_cannot_be_opened_is_not_replaced_by_another() -> None:
    host = new_host()
    alice, again = User(host), User(host, OTHER)
    token = alice.ask(alice.allocating().even_port(reserve_next=True)).reservation_token
    assert token is not None
    host.refuse_ports = True

    assert code_of(again.ask(again.allocating().reservation_token(token))) == 508
    assert sum(isinstance(event, OpenPort) for event in host.events) == 2


def test_a_reserved_port_is_free_again_after_thirty_seconds() -> None:
    host = new_host(lowest_port=50000, highest_port=50001)
    alice, other = User(host), User(host, OTHER)
    token = alice.ask(alice.allocating().even_port(reserve_next=True)).reservation_token
    assert token is not None

    assert code_of(other.ask(other.allocating(), now=29.0)) == 508
    host.time(30.0)
    assert code_of(other.ask(other.allocating().reservation_token(token), now=30.0)) == 508
    assert other.allocate(now=30.0).port == 50001


def test_without_a_pair_of_ports_nothing_is_reserved() -> None:
    user = User(new_host(lowest_port=50000, highest_port=50000))

    assert code_of(user.ask(user.allocating().even_port(reserve_next=True))) == 508
    assert user.ask(user.allocating().even_port(reserve_next=False)).relayed_addresses[0].port == 50000
    odd = User(new_host(lowest_port=50001, highest_port=50001))
    assert code_of(odd.ask(odd.allocating().even_port(reserve_next=False))) == 508


@pytest.mark.parametrize(
    "extra",
    [
        lambda one: one.reservation_token(bytes(8)).even_port(reserve_next=False),
        lambda one: one.reservation_token(bytes(8)).requested_family(V4),
        lambda one: one.reservation_token(bytes(8)).additional_family(V6),
        lambda one: one.even_port(reserve_next=True).additional_family(V6),
        lambda one: one.reservation_token(bytes(7)),
        lambda one: one.attribute(Attribute.EVEN_PORT, b""),
    ],
)
def test_contradictions_are_bad_requests(extra: object) -> None:
    user = User(new_host())

    assert code_of(user.ask(extra(user.allocating()))) == 400  # type: ignore[operator]


def test_a_family_that_is_lacking_is_told_beside_the_one_that_is_given() -> None:
    user = User(new_host(public_ipv6=None))

    answer = user.ask(user.allocating().additional_family(V6))

    assert [one.host for one in answer.relayed_addresses] == [PUBLIC_V4]
    assert [(family, error.code) for family, error in answer.address_errors] == [(V6, 440)]


def test_quotas_of_users_and_of_sources() -> None:
    host = new_host(max_per_user=2, max_per_source=3)

    def allocate(port: int, name: str, password: str, source: str = "198.51.100.7") -> int:
        user = User(host, SocketAddr(source, port), name, password)
        return code_of(user.ask(user.allocating()))

    alice = [allocate(port, "alice", "wonderland") for port in (1, 2, 3)]
    bob = [allocate(port, "bob", "builder") for port in (4, 5)]
    assert (alice, bob) == ([0, 0, 486], [0, 486])
    assert allocate(6, "bob", "builder", "198.51.100.8") == 0
    assert (host.server.counters["quota_user"], host.server.counters["quota_source"]) == (1, 1)
    User(host, SocketAddr("198.51.100.7", 1)).ask(Builder(4, MessageClass.REQUEST, b"x" * 12).lifetime(0))
    assert allocate(3, "alice", "wonderland") == 0


def test_a_draining_relay_serves_what_it_has_and_gives_nothing_new() -> None:
    host = new_host()
    user, late = User(host), User(host, OTHER)
    user.allocate()

    host.server.drain()

    assert code_of(late.ask(late.allocating())) == 508
    assert user.permit(PEER) == 0
    assert len(user.say(PEER, b"still here")) == 1


# refresh


def test_one_family_of_two_can_be_given_back() -> None:
    host = new_host()
    user = User(host)
    port = user.ask(user.allocating().additional_family(V6)).relayed_addresses[0].port
    user.bind(0x4000, PEER)
    user.bind(0x4001, PEER_V6)

    assert code_of(user.ask(user.builder(Method.REFRESH).lifetime(0).requested_family(V6))) == 0

    assert host.events[-3:] == [
        RemoveChannel(CLIENT, 0x4001, port, PEER_V6),
        RemovePermission(CLIENT, port, PEER_V6.host),
        ClosePort(port, (V6,)),
    ]
    assert user.permit(PEER_V6) == 443
    assert user.permit(PEER) == 0
    assert code_of(user.ask(user.builder(Method.REFRESH).requested_family(V6))) == 443
    assert code_of(user.ask(user.builder(Method.REFRESH).lifetime(0))) == 0
    assert (host.server.allocations, host.server.channels, host.server.permissions) == (0, 0, 0)


# permissions and indications


def test_indications_go_both_ways_once_permitted() -> None:
    host = new_host()
    user = User(host)
    relayed = user.allocate()
    assert user.say(PEER, b"early") == []
    assert user.permit(PEER) == 0

    assert user.say(PEER, b"hello") == [Transmit(relayed, PEER, b"hello")]
    host.server.handle_peer_datagram(relayed.port, SocketAddr(PEER.host, 7), b"from any port")
    host.server.handle_peer_datagram(relayed.port, SocketAddr("192.0.2.10", 52625), b"a stranger")

    (told,) = host.drain(0.0)
    assert (told.local, told.remote) == (CONTROL, CLIENT)
    message = stun.decode(told.payload)
    assert (message.method, message.message_class) == (Method.DATA, MessageClass.INDICATION)
    assert (message.peer_addresses, message.data) == ((SocketAddr(PEER.host, 7),), b"from any port")
    assert host.server.counters["dropped_permission"] == 1
    assert host.server.counters["dropped_peer"] == 1


def test_permissions_end_after_five_minutes_unless_renewed() -> None:
    host = new_host()
    user = User(host)
    relayed = user.allocate()
    user.permit(PEER)

    host.time(299.0)
    assert len(user.say(PEER, b"x", now=299.0)) == 1
    user.permit(PEER, now=299.0)
    host.time(598.9)
    assert len(user.say(PEER, b"x", now=598.9)) == 1
    host.time(599.0)

    assert user.say(PEER, b"x", now=599.0) == []
    assert host.events[-1] == RemovePermission(CLIENT, relayed.port, PEER.host)


def test_a_bound_channel_permits_its_peers_host() -> None:
    host = new_host()
    user = User(host)
    relayed = user.allocate()
    user.bind(0x4000, PEER)

    host.server.handle_peer_datagram(relayed.port, PEER, b"channel")
    host.server.handle_peer_datagram(relayed.port, SocketAddr(PEER.host, 7), b"indication")

    first, second = host.drain(0.0)
    assert first.payload == channel_data.encode(0x4000, b"channel")
    assert stun.decode(second.payload).data == b"indication"


def test_many_peers_are_permitted_together_or_none() -> None:
    host = new_host()
    user = User(host)
    user.allocate()

    assert user.permit(PEER, PEER_V6) == 443
    assert user.permit(PEER, SocketAddr("127.0.0.1", 1)) == 403
    assert host.server.permissions == 0
    assert user.permit(PEER, SocketAddr("192.0.2.10", 1)) == 0
    assert host.server.permissions == 2
    assert user.permit() == 400
    assert [one.host for one in host.events if isinstance(one, AddPermission)] == [PEER.host, "192.0.2.10"]


def test_without_an_allocation_there_is_nothing_to_permit() -> None:
    assert User(new_host()).permit(PEER) == 437


def test_too_many_permissions_are_insufficient_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_server, "MAX_PERMISSIONS_PER_ALLOCATION", 2)
    user = User(new_host())
    user.allocate()

    assert [user.permit(SocketAddr(f"192.0.2.{i}", 1)) for i in (1, 2, 3, 2)] == [0, 0, 508, 0]


@pytest.mark.parametrize("part", ["peer", "data", "unknown", "port"])
def test_indications_that_lack_something_are_dropped(part: str) -> None:
    host = new_host()
    user = User(host)
    user.allocate()
    user.permit(PEER)
    builder = user.builder(Method.SEND, MessageClass.INDICATION)
    if part != "peer":
        builder.peer_address(SocketAddr(PEER.host, 0) if part == "port" else PEER)
    if part != "data":
        builder.data(b"x")
    if part == "unknown":
        builder.attribute(0x7F01, b"")

    assert host.datagram(CLIENT, builder.build(), 0.0) == []


def test_a_datagram_may_be_kept_from_fragments_and_may_be_empty() -> None:
    user = User(new_host())
    relayed = user.ask(user.allocating().dont_fragment()).relayed_addresses[0]
    user.permit(PEER)
    builder = user.builder(Method.SEND, MessageClass.INDICATION).peer_address(PEER).dont_fragment().data(b"")

    (transmit,) = user.host.datagram(CLIENT, builder.build(), 0.0)
    assert transmit == WholeTransmit(relayed, PEER, b"")
    assert isinstance(transmit, WholeTransmit)
    assert not isinstance(user.say(PEER, b"")[0], WholeTransmit)


def test_both_ends_on_this_relay_meet_by_indications() -> None:
    host = new_host()
    alice, bob = User(host), User(host, OTHER, "bob", "builder")
    at_alice, at_bob = alice.allocate(), bob.allocate()
    assert alice.permit(at_bob) == 0
    assert bob.permit(at_alice) == 0

    (told,) = alice.say(at_bob, b"hello")

    assert told.remote == OTHER
    message = stun.decode(told.payload)
    assert (message.peer_addresses, message.data) == ((at_alice,), b"hello")
    assert alice.say(SocketAddr(PUBLIC_V4, 22), b"to the host itself") == []
    assert host.server.counters["dropped_own_address"] == 1


def test_a_client_whose_connection_closed_leaves_nothing() -> None:
    host = new_host()
    user = User(host)
    user.allocate()
    user.permit(PEER)

    host.server.handle_client_gone(CLIENT)
    host.server.handle_client_gone(OTHER)

    assert (host.server.allocations, host.server.permissions, host.server.poll_timeout()) == (0, 0, None)
