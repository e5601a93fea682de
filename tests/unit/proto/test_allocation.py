"""The TURN client: against the real server, and against a relay that says what it should not."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from tests.unit.proto.turn_client import CONTROL, EPOCH, PUBLIC_V6, SECRET, Counting, Host, new_server
from wardgate.ids import RelayId
from wardgate.proto.allocation import BINDING_GAPS_S, KEEPALIVE_S, MAX_WAITING_BINDS, REQUEST_GAPS_S, Allocation
from wardgate.proto.allocation_events import (
    CandidateFound,
    CandidateLost,
    ChannelBound,
    ChannelLost,
    Event,
    Silent,
    Unreachable,
)
from wardgate.proto.allocation_requests import MAX_NONCE_ROUNDS
from wardgate.proto.channels import FIRST_NUMBER, LIFETIME_S, REFRESH_AFTER_S
from wardgate.wire import channel_data, stun, turn
from wardgate.wire.addresses import SocketAddr, Transmit
from wardgate.wire.candidates import Candidate, Kind
from wardgate.wire.stun import Builder, Message, MessageClass, Method
from wardgate.wire.turn import Username

HOST = SocketAddr("192.168.1.2", 52625)
MAPPED = SocketAddr("198.51.100.7", 40000)
PEER = SocketAddr("203.0.113.31", 52625)
LOOPBACK = SocketAddr("127.0.0.1", 52625)
WAY = SocketAddr("127.0.0.1", 40001)
STREAM = SocketAddr("198.51.100.7", 50000)
CONTROL_V6 = SocketAddr(PUBLIC_V6, 3478)
USERNAME = str(Username(1_800_000_000, "salt"))
PASSWORD = turn.password_of(Username(1_800_000_000, "salt"), SECRET)
KEY = turn.long_term_key(USERNAME, PASSWORD)


@dataclass
class World:
    """An allocation, the relay, and the NAT between them; datagrams arrive at once."""

    allocation: Allocation
    relay: Host
    mapped: SocketAddr = MAPPED
    silent: bool = False
    way: SocketAddr | None = None  # reaches the relay even so, from where it sees us at `STREAM`
    now: float = 0.0
    sent: list[tuple[float, Message]] = field(default_factory=list)
    tamper: Callable[[Message], bytes | None] | None = None

    def settle(self) -> list[Event]:
        """Carries datagrams until nobody has one; gives the events."""
        events: list[Event] = []
        while True:
            transmit = self.allocation.poll_transmit()
            if transmit is None:
                break
            self._carry(transmit)
        while (event := self.allocation.poll_event()) is not None:
            events.append(event)
        return events

    def _carry(self, transmit: Transmit) -> None:
        if channel_data.is_channel_data(transmit.payload):
            return
        request = stun.decode(transmit.payload)
        self.sent.append((self.now, request))
        is_way = transmit.remote == self.way
        if (self.silent and not is_way) or transmit.remote.is_ipv6:
            return
        answer = self.tamper(request) if self.tamper else None
        mapped = STREAM if is_way else self.mapped
        answers = [answer] if answer else [t.payload for t in self.relay.datagram(mapped, transmit.payload, self.now)]
        for payload in answers:
            local = LOOPBACK if is_way else HOST
            if self.allocation.handle_input(local, transmit.remote, stun.decode(payload), self.now):
                self.sent += []

    def advance(self, until: float) -> list[Event]:
        """Lets time pass."""
        events = self.settle()
        while (at := self.allocation.poll_timeout()) is not None and at <= until:
            self.now = max(self.now, at)
            self.relay.time(self.now)
            self.allocation.handle_timeout(self.now)
            events += self.settle()
        self.now = until
        self.relay.time(until)
        self.allocation.handle_timeout(until)
        return events + self.settle()

    def requests(self, method: Method) -> list[tuple[float, Message]]:
        return [(at, message) for at, message in self.sent if message.method == method]


def test_candidates_come_from_the_relays_answers() -> None:
    world = new_world()

    events = world.settle()

    relayed = only_relayed(events)
    assert events == [
        CandidateFound(Candidate.host(HOST)),
        CandidateFound(Candidate(Kind.SRFLX, MAPPED, HOST)),
        CandidateFound(Candidate(Kind.RELAY, relayed, HOST)),
    ]
    assert world.allocation.relay_candidates() == [Candidate(Kind.RELAY, relayed, HOST)]


def test_no_reflexive_candidate_without_a_nat() -> None:
    world = new_world(mapped=HOST)

    kinds = [event.candidate.kind for event in world.settle() if isinstance(event, CandidateFound)]

    assert kinds == [Kind.HOST, Kind.RELAY]


def test_first_allocate_is_signed_but_has_no_nonce_and_the_second_has() -> None:
    world = new_world()
    world.settle()

    first, second = [message for _, message in world.requests(Method.ALLOCATE)]
    assert (first.username, first.realm, first.nonce) == (USERNAME, "firezone", None)
    assert first.verify_integrity(KEY)
    assert (first.requested_transport, first.additional_family) == (17, stun.AddressFamily.IPV6)
    assert second.nonce is not None
    assert first.transaction_id != second.transaction_id


def test_stale_nonce_is_replaced() -> None:
    world = new_world()
    world.settle()

    def tamper(request: Message) -> bytes:
        if request.nonce == b"new nonce":
            return Builder(Method.REFRESH, MessageClass.SUCCESS, request.transaction_id).lifetime(600).build(KEY)
        return Answers(438, nonce=b"new nonce")(request) or b""

    world.tamper = tamper
    world.allocation.probe(1.0)
    assert world.settle() == []

    assert world.requests(Method.REFRESH)[-1][1].nonce == b"new nonce"
    assert world.allocation.is_usable


def test_refused_credentials_end_it_and_are_not_tried_again() -> None:
    world = new_world(password="wrong")
    world.tamper = Answers(401, nonce=b"nonce", key=turn.long_term_key(USERNAME, "wrong"), method=Method.ALLOCATE)

    events = world.advance(100.0)

    assert [event for event in events if isinstance(event, Unreachable)] == [
        Unreachable("the relay refuses our credentials")
    ]
    assert len(world.requests(Method.ALLOCATE)) == 2
    assert not world.allocation.is_usable


def test_foreign_realm_is_refused() -> None:
    world = new_world()
    world.tamper = Answers(401, nonce=b"nonce", realm="example.org", method=Method.ALLOCATE)

    assert any(isinstance(event, Unreachable) for event in world.settle())


def test_unauthentic_answers_are_ignored_and_do_not_use_up_the_request() -> None:
    world = new_world()
    world.tamper = Answers(437, key=b"somebody else's", method=Method.ALLOCATE, times=1)

    world.settle()
    assert not world.allocation.is_usable
    assert world.allocation.counts["unauthentic answers"] == 1
    events = world.advance(1.0)

    assert only_relayed(events)


def test_relays_that_want_no_credentials_at_first_are_asked_without() -> None:
    """As coturn has it: 400 for credentials without a nonce, 401 for none; neither is signed."""
    world = new_world()
    strict = Strict()
    world.tamper = strict

    events = world.settle()

    assert only_relayed(events)
    first, second, third = [message for _, message in world.requests(Method.ALLOCATE)]
    assert (first.has_integrity, first.nonce) == (True, None)
    assert (second.has_integrity, second.username, second.realm) == (False, None, None)
    assert (third.has_integrity, third.nonce) == (True, strict.nonce)


def test_unsigned_stale_nonce_is_replaced() -> None:
    world = new_world()
    strict = Strict()
    world.tamper = strict
    world.settle()
    strict.nonce = b"another nonce"

    world.allocation.probe(1.0)

    assert world.settle() == []
    assert [message.nonce for _, message in world.requests(Method.REFRESH)] == [b"nonce", b"another nonce"]
    assert world.allocation.is_usable


@pytest.mark.parametrize("code", [400, 401, 403, 437, 441, 486, 508])
def test_unsigned_refusals_of_signed_requests_are_ignored(code: int) -> None:
    world = new_world()
    world.settle()
    world.tamper = Answers(code, nonce=b"nonce", key=None, times=1)

    world.allocation.probe(1.0)

    assert world.settle() == []
    assert world.allocation.counts["unauthentic answers"] == 1
    assert world.advance(2.0) == []
    assert world.allocation.is_usable


def test_unsigned_requests_for_other_nonces_are_believed_a_few_times_and_end_nothing_for_good() -> None:
    world = new_world()
    world.settle()
    world.tamper = Answers(438, method=Method.REFRESH, nonce=b"again", key=None)

    world.allocation.probe(0.0)
    world.settle()
    assert len(world.requests(Method.REFRESH)) == 1 + MAX_NONCE_ROUNDS
    world.advance(100.0)
    world.tamper = None

    assert only_relayed(world.advance(200.0))


def test_unsigned_answers_of_another_realm_end_nothing_for_good() -> None:
    world = new_world()
    world.tamper = Answers(401, nonce=b"nonce", realm="example.org", key=None, method=Method.ALLOCATE)
    world.advance(100.0)
    assert not world.allocation.is_usable

    world.tamper = None

    assert only_relayed(world.advance(200.0))


def test_an_allocation_left_behind_is_deleted_even_if_the_first_refusal_is_unsigned() -> None:
    world = new_world()
    world.tamper = Answers(437, method=Method.ALLOCATE, key=None, times=1)

    events = world.settle()

    assert [message.lifetime_s for _, message in world.requests(Method.REFRESH)][-1] == 0
    assert only_relayed(events)


@pytest.mark.parametrize("code", [300, 400, 401, 438, 500])
def test_a_relay_that_refuses_bindings_is_tried_again(code: int) -> None:
    world = new_world()
    world.tamper = Answers(code, method=Method.BINDING, nonce=b"nonce", key=None, times=3)

    assert world.settle() == [Unreachable(f"the relay answered {code}")]

    assert only_relayed(world.advance(20.0))


def test_binding_is_repeated_and_given_up() -> None:
    world = new_world(silent=True)

    events = world.advance(7.9)
    assert events == [Silent()]
    events = world.advance(8.1)

    times = [at for at, _ in world.requests(Method.BINDING)]
    assert [round(b - a, 6) for a, b in pairwise(times)] == list(BINDING_GAPS_S[:-1])
    assert events == [Unreachable("the relay does not answer")]


def test_where_udp_is_silent_another_way_serves_and_gives_no_candidates_of_its_own() -> None:
    world = new_world(silent=True)
    assert world.advance(0.69) == []
    assert world.advance(0.71) == [Silent()]

    world.way = WAY
    world.allocation.add_way(WAY, "tls", world.now)
    events = world.settle()

    assert [event.candidate.kind for event in events if isinstance(event, CandidateFound)] == [Kind.RELAY]
    assert world.allocation.reflexive_candidates() == []
    assert (world.allocation.active_server, world.allocation.way) == (WAY, "tls")
    assert world.allocation.address == CONTROL
    world.allocation.bind_channel(PEER, world.now)
    assert [type(event) for event in world.settle()] == [ChannelBound]
    assert world.allocation.channel_to(PEER, world.now) == (WAY, FIRST_NUMBER)


def test_a_lost_way_is_looked_for_again() -> None:
    world = new_world(silent=True)
    world.advance(0.71)
    world.way = WAY
    world.allocation.add_way(WAY, "tcp", world.now)
    world.settle()

    world.way = None
    world.allocation.lose_way(WAY, world.now)
    world.allocation.lose_way(WAY, world.now)
    events = world.advance(1.6)

    assert [type(event) for event in events] == [CandidateLost, Silent]
    assert not world.allocation.is_usable
    assert world.allocation.servers == (CONTROL,)


def test_udp_is_taken_again_once_it_answers() -> None:
    world = new_world(silent=True)
    world.advance(0.71)
    world.way = WAY
    world.allocation.add_way(WAY, "tcp", world.now)
    world.settle()
    world.silent = False

    events = world.advance(30.0)

    assert (world.allocation.active_server, world.allocation.way) == (CONTROL, "udp")
    kinds = [event.candidate.kind for event in events if isinstance(event, CandidateFound)]
    assert kinds == [Kind.HOST, Kind.SRFLX, Kind.RELAY]
    assert world.relay.server.allocations == 1


def test_another_network_is_tried_by_udp_first() -> None:
    world = new_world(silent=True)
    world.advance(0.71)
    world.way = WAY
    world.allocation.add_way(WAY, "tcp", world.now)
    world.settle()

    world.allocation.reset(world.now)

    assert world.allocation.ways == ()
    assert world.allocation.active_server is None


def test_what_a_relay_refuses_to_reach_is_not_asked_for_again() -> None:
    world = new_world()
    world.settle()
    private = SocketAddr("192.168.7.7", 52625)

    for _ in range(3):
        world.allocation.send(private, b"x", world.now)
        world.settle()

    assert len(world.requests(Method.CHANNEL_BIND)) == 1
    assert world.allocation.counts["errors 403"] == 1
    world.allocation.bind_channel(PEER, world.now)
    assert [type(event) for event in world.settle()] == [ChannelBound]


def test_requests_are_repeated_with_new_transaction_ids_and_given_up() -> None:
    world = new_world()
    world.settle()
    world.silent = True
    world.sent.clear()

    world.allocation.probe(0.0)
    events = world.advance(8.1)

    requests = world.requests(Method.REFRESH)
    assert [round(b[0] - a[0], 6) for a, b in pairwise(requests)] == list(REQUEST_GAPS_S[:-1])
    assert len({message.transaction_id for _, message in requests}) == len(requests)
    assert [type(event) for event in events] == [CandidateLost, Unreachable]


def test_relay_that_comes_back_is_found_again() -> None:
    world = new_world()
    world.settle()
    world.silent = True
    world.allocation.probe(0.0)
    world.advance(20.0)

    world.silent = False

    assert only_relayed(world.advance(40.0))


def test_refresh_comes_at_half_life_and_once() -> None:
    world = new_world()
    world.settle()

    world.advance(299.0)
    assert world.requests(Method.REFRESH) == []
    world.advance(305.0)

    assert [at for at, _ in world.requests(Method.REFRESH)] == [300.0]
    assert world.allocation.is_usable


def test_allocation_unknown_to_the_relay_is_made_anew_with_its_channels() -> None:
    world = with_channel()
    world.relay = Host(new_server())

    events = world.advance(305.0)

    assert ChannelLost(FIRST_NUMBER, PEER) in events
    assert any(isinstance(event, CandidateLost) for event in events)
    assert only_relayed(events)
    assert isinstance(events[-1], ChannelBound)


def test_mismatch_on_allocate_deletes_the_old_one_first() -> None:
    world = new_world()
    world.settle()
    again = Allocation(RelayId("r"), CONTROL, None, USERNAME, PASSWORD, Counting(), 1.0)
    other = World(again, world.relay, now=1.0)
    other.tamper = Answers(437, method=Method.ALLOCATE, times=1, only_with_nonce=True)

    events = other.settle()

    assert next(message.lifetime_s for _, message in other.requests(Method.REFRESH)) == 0
    assert only_relayed(events)


def test_expired_allocation_is_withdrawn() -> None:
    world = new_world()
    world.tamper = Grants(lifetime_s=2)
    world.settle()
    world.silent = True

    events = world.advance(2.5)

    assert any(isinstance(event, CandidateLost) for event in events)
    assert not world.allocation.is_usable


def test_keepalive_asks_the_active_server_whatever_else_is_sent() -> None:
    world = with_channel(ipv6=CONTROL_V6)
    world.advance(10.0)
    before = len(world.requests(Method.BINDING))

    for second in range(11, 62, 2):
        world.advance(float(second))
        world.allocation.send(PEER, b"data", world.now)

    assert [at for at, _ in world.requests(Method.BINDING)[before:]] == [KEEPALIVE_S, 2 * KEEPALIVE_S]


def test_lost_keepalives_alone_do_not_lose_the_allocation() -> None:
    world = new_world()
    world.settle()
    world.tamper = Answers(0, method=Method.BINDING)

    world.advance(200.0)

    assert world.allocation.is_usable


def test_changed_mapping_is_noticed_and_a_new_allocation_made() -> None:
    world = with_channel()
    moved = SocketAddr("198.51.100.7", 41111)
    world.mapped = moved

    events = world.advance(KEEPALIVE_S)

    assert CandidateFound(Candidate(Kind.SRFLX, moved, HOST)) in events
    assert any(isinstance(event, CandidateLost) for event in events)
    assert only_relayed(events)
    assert isinstance(events[-1], ChannelBound)


def test_check_asks_at_once_but_not_ever_again() -> None:
    world = new_world()
    world.settle()
    before = len(world.requests(Method.BINDING))

    world.allocation.check(5.0)
    world.settle()
    world.allocation.check(5.5)
    world.settle()

    assert len(world.requests(Method.BINDING)) == before + 1


def test_first_answer_decides_the_server_and_every_answer_gives_candidates() -> None:
    host6, mapped6 = SocketAddr("2001:db8:1::2", 52625), SocketAddr("2001:db8:1::2", 52625)
    allocation = Allocation(RelayId("r"), CONTROL, CONTROL_V6, USERNAME, PASSWORD, Counting(), 0.0)
    requests = {t.remote: stun.decode(t.payload) for t in iter(allocation.poll_transmit, None)}

    for server, local, mapped in ((CONTROL_V6, host6, mapped6), (CONTROL, HOST, MAPPED)):
        answer = Builder(Method.BINDING, MessageClass.SUCCESS, requests[server].transaction_id).mapped_address(mapped)
        assert allocation.handle_input(local, server, stun.decode(answer.build()), 0.01)

    assert allocation.active_server == CONTROL_V6
    found = [event.candidate for event in iter(allocation.poll_event, None) if isinstance(event, CandidateFound)]
    assert found == [Candidate.host(host6), Candidate.host(HOST), Candidate(Kind.SRFLX, MAPPED, HOST)]


def test_binds_wait_for_the_allocation_once_each() -> None:
    world = new_world()
    world.allocation.bind_channel(PEER, 0.0)
    world.allocation.bind_channel(PEER, 0.0)

    events = world.settle()

    assert events[-1] == ChannelBound(FIRST_NUMBER, PEER)
    assert len(world.requests(Method.CHANNEL_BIND)) == 1


def test_waiting_binds_are_bounded() -> None:
    world = new_world()
    for port in range(1, MAX_WAITING_BINDS + 10):
        world.allocation.bind_channel(SocketAddr("203.0.113.31", port), 0.0)

    world.settle()

    assert len(world.requests(Method.CHANNEL_BIND)) == MAX_WAITING_BINDS
    assert world.allocation.counts["binds refused"] == 9


def test_no_channel_for_a_family_without_a_relayed_address() -> None:
    world = new_world()
    world.settle()

    world.allocation.bind_channel(SocketAddr("2001:db8::9", 1), 0.0)
    world.settle()

    assert world.requests(Method.CHANNEL_BIND) == []


def test_data_leaves_on_channels_in_flight_and_an_unbound_peer_gets_one() -> None:
    world = new_world()
    world.settle()

    assert not world.allocation.send(PEER, b"lost", 0.0)
    assert world.allocation.send(PEER, b"sent", 0.0)

    sent = [t for t in iter(world.allocation.poll_transmit, None) if channel_data.is_channel_data(t.payload)]
    assert sent == [Transmit(None, CONTROL, channel_data.encode(FIRST_NUMBER, b"sent"))]


def test_data_arrives_on_bound_channels_only() -> None:
    world = with_channel()

    arrived = world.allocation.peer_of(FIRST_NUMBER, world.now)

    assert arrived == (world.allocation.relay_candidates()[0].address, PEER)
    assert world.allocation.peer_of(FIRST_NUMBER + 1, world.now) is None


def test_channel_in_use_is_bound_again_and_an_unused_one_ends() -> None:
    used = with_channel()
    used.allocation.note_received(PEER, 100.0)
    used.advance(REFRESH_AFTER_S + 1)
    assert len(used.requests(Method.CHANNEL_BIND)) == 2

    unused = with_channel()
    events = unused.advance(LIFETIME_S + 1)
    assert ChannelLost(FIRST_NUMBER, PEER) in events
    assert len(unused.requests(Method.CHANNEL_BIND)) == 1


def test_round_trip_time_is_smoothed() -> None:
    allocation = Allocation(RelayId("r"), CONTROL, None, USERNAME, PASSWORD, Counting(), 0.0)
    answer_binding(allocation, at=0.080)
    assert allocation.rtt_s == pytest.approx(0.080)

    allocation.handle_timeout(0.58)
    answers = [stun.decode(t.payload) for t in iter(allocation.poll_transmit, None)]
    reply = Builder(Method.ALLOCATE, MessageClass.ERROR, answers[-1].transaction_id)
    reply.error_code(500, "").attribute(stun.Attribute.SOFTWARE, b"")
    allocation.handle_input(HOST, CONTROL, stun.decode(reply.build(KEY)), 0.74)

    assert allocation.rtt_s == pytest.approx(0.080 * 7 / 8 + 0.160 / 8)


def test_reset_finds_the_relay_again_from_the_new_address() -> None:
    world = with_channel()

    world.allocation.reset(50.0)
    world.now, world.mapped = 50.0, SocketAddr("198.51.100.99", 5)
    events = world.settle()

    assert ChannelLost(FIRST_NUMBER, PEER) in events
    assert CandidateFound(Candidate(Kind.SRFLX, world.mapped, HOST)) in events
    assert only_relayed(events)


def test_close_gives_the_allocation_back() -> None:
    world = new_world()
    world.settle()

    world.allocation.close(1.0)
    world.settle()

    assert world.relay.server.allocations == 0
    assert world.allocation.poll_timeout() is None


def test_answers_of_others_are_not_ours() -> None:
    world = new_world()
    world.settle()
    message = stun.decode(Builder(Method.BINDING, MessageClass.SUCCESS, bytes(12)).build())

    assert not world.allocation.handle_input(HOST, CONTROL, message, 0.0)


class Answers:
    """A relay that answers requests of one method with this error, a number of times."""

    def __init__(
        self,
        code: int,
        *,
        method: Method | None = None,
        nonce: bytes | None = None,
        realm: str = "firezone",
        key: bytes | None = KEY,
        times: int = 1000,
        only_with_nonce: bool = False,
    ) -> None:
        self._code, self._method, self._nonce, self._realm = code, method, nonce, realm
        self._key, self._times, self._only_with_nonce = key, times, only_with_nonce

    def __call__(self, request: Message) -> bytes | None:
        skipped = self._method not in (None, request.method) or (self._only_with_nonce and request.nonce is None)
        if skipped or self._times == 0:
            return None
        self._times -= 1
        if self._code == 0:
            return Builder(Method.BINDING, MessageClass.INDICATION, request.transaction_id).build()
        builder = Builder(request.method, MessageClass.ERROR, request.transaction_id).error_code(self._code, "")
        if self._nonce is not None:
            builder.realm(self._realm).nonce(self._nonce)
        return builder.build(self._key)


class Strict:
    """A relay that takes no credentials without its nonce, and signs for nobody who has not shown them."""

    def __init__(self) -> None:
        self.nonce = b"nonce"

    def __call__(self, request: Message) -> bytes | None:
        if request.method == Method.BINDING:
            return None
        if request.nonce == self.nonce and request.verify_integrity(KEY):
            builder = Builder(request.method, MessageClass.SUCCESS, request.transaction_id).lifetime(600)
            return builder.relayed_address(SocketAddr("203.0.113.3", 50000)).build(KEY)
        code = 438 if request.nonce else 400 if request.has_integrity else 401
        return Answers(code, nonce=None if code == 400 else self.nonce, key=None)(request)


class Grants:
    """A relay that grants allocations of this lifetime."""

    def __init__(self, lifetime_s: int) -> None:
        self._lifetime_s = lifetime_s

    def __call__(self, request: Message) -> bytes | None:
        if request.method != Method.ALLOCATE:
            return None
        builder = Builder(Method.ALLOCATE, MessageClass.SUCCESS, request.transaction_id)
        builder.relayed_address(SocketAddr("203.0.113.3", 50000)).lifetime(self._lifetime_s)
        return builder.build(KEY)


def new_world(
    *, mapped: SocketAddr = MAPPED, silent: bool = False, password: str = PASSWORD, ipv6: SocketAddr | None = None
) -> World:
    assert EPOCH < 1_800_000_000
    allocation = Allocation(RelayId("r"), CONTROL, ipv6, USERNAME, password, Counting(), 0.0)
    return World(allocation, Host(new_server()), mapped, silent)


def with_channel(ipv6: SocketAddr | None = None) -> World:
    """A world with one confirmed channel to `PEER`."""
    world = new_world(ipv6=ipv6)
    world.allocation.bind_channel(PEER, 0.0)
    assert ChannelBound(FIRST_NUMBER, PEER) in world.settle()
    return world


def answer_binding(allocation: Allocation, at: float) -> None:
    request = allocation.poll_transmit()
    assert request
    transaction_id = stun.decode(request.payload).transaction_id
    answer = Builder(Method.BINDING, MessageClass.SUCCESS, transaction_id).mapped_address(MAPPED).build()
    assert allocation.handle_input(HOST, CONTROL, stun.decode(answer), at)


def only_relayed(events: list[Event]) -> SocketAddr:
    """The address of the only relay candidate found."""
    found = [e.candidate.address for e in events if isinstance(e, CandidateFound) and e.candidate.kind is Kind.RELAY]
    assert len(found) == 1
    return found[0]
