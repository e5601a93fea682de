"""Handshakes of one peer in virtual time, with the real Noise objects at both ends."""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate._fastpath import Keypair, OpenedInitiation, StaticKey
from wardgate.errors import LocalProtocolError, RemoteProtocolError
from wardgate.proto.cookies import CookieReply, Gate
from wardgate.proto.handshake import (
    Event,
    Expired,
    Handshakes,
    KeepaliveDue,
    SessionExpired,
    SessionReady,
    Timers,
    Unanswered,
)
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.wireguard import MessageType, message_type, sender_index

PSK = b"\x05" * 32
EPOCH = 1_700_000_000.0
SOURCE = SocketAddr("203.0.113.21", 52625)
CLIENT_BASE, GATEWAY_BASE = 0x01020300, 0x0A0B0C00
EXACT = Timers(rekey_timeout_s=5.0, keepalive_s=10.0, attempt_window_s=20.0, max_jitter_s=0.0)


def test_figures_with_and_without_ice() -> None:
    assert (Timers.ice().rekey_on_receive_s, Timers.ice().unanswered_s, Timers.ice().attempt_window_s) == (165, 15, 20)
    assert (Timers.iceless().rekey_on_receive_s, Timers.iceless().unanswered_s) == (173, 7)
    assert Timers.iceless().attempt_window_s == 90
    assert (Timers.ice().initiator_stops_s, Timers.ice().reject_after_s, Timers.ice().expire_after_s) == (170, 180, 540)


def test_handshake_gives_both_ends_a_session_and_the_initiator_speaks_first() -> None:
    client, gateway = pair()

    connect(client, gateway, now=0.0)

    assert [type(event) for event in client.events] == [SessionReady, KeepaliveDue]
    assert [type(event) for event in gateway.events] == [SessionReady]
    ours, theirs = client.keypair(), gateway.keypair()
    assert (ours.local_index, ours.remote_index) == (theirs.remote_index, theirs.local_index)
    assert (ours.local_index >> 8, theirs.local_index >> 8) == (CLIENT_BASE >> 8, GATEWAY_BASE >> 8)
    assert (ours.is_initiator, theirs.is_initiator) == (True, False)


def test_different_preshared_keys_never_agree() -> None:
    client = End(CLIENT, GATEWAY, CLIENT_BASE, EXACT, psk=PSK)
    gateway = End(GATEWAY, CLIENT, GATEWAY_BASE, EXACT, psk=bytes(32))
    client.machine.initiate(0.0)
    gateway.receive(client.sent(), 0.0)

    with pytest.raises(RemoteProtocolError, match="authenticate"):
        client.machine.handle_response(gateway.sent(), 0.0)


def test_replayed_initiation_is_refused_and_an_old_one_too() -> None:
    client, gateway = pair()
    client.machine.initiate(0.0)
    first = client.sent()
    client.machine.initiate(6.0)
    second = client.sent()
    gateway.receive(second, 6.0)
    gateway.drain()

    for replay in (first, second):
        with pytest.raises(RemoteProtocolError, match="replay"):
            gateway.receive(replay, 6.0)
    assert gateway.machine.poll_timeout() == 6.0 + 180.0


def test_timestamps_rise_even_when_time_stands_still() -> None:
    client, _ = pair()
    stamps = []
    for _ in range(3):
        assert client.machine.initiate(0.0, force=True)
        stamps.append(OpenedInitiation.open(GATEWAY, client.sent()).timestamp)
    assert stamps == sorted(set(stamps))


def test_initiation_of_another_peer_is_refused() -> None:
    _, gateway = pair()
    stranger = End(StaticKey.from_bytes(b"\x09" * 32), GATEWAY, CLIENT_BASE, EXACT)
    stranger.machine.initiate(0.0)
    with pytest.raises(RemoteProtocolError, match="another peer"):
        gateway.receive(stranger.sent(), 0.0)


def test_unanswered_initiation_is_repeated_until_the_window_ends() -> None:
    client, _ = pair()
    client.machine.initiate(0.0)

    sent = client.run_until(100.0)

    assert [at for at, _ in sent] == [0.0, 5.0, 10.0, 15.0]
    assert len({sender_index(datagram) for _, datagram in sent}) == 4
    assert client.timed == [(20.0, Expired())]
    assert client.machine.poll_timeout() is None
    assert not client.machine.initiate(101.0)


def test_without_ice_it_is_repeated_every_two_seconds_for_ninety() -> None:
    client, _ = pair(Timers(rekey_timeout_s=2.0, keepalive_s=5.0, attempt_window_s=90.0, max_jitter_s=0.0))
    client.machine.initiate(0.0)
    assert [at for at, _ in client.run_until(200.0)] == [2.0 * n for n in range(45)]
    assert client.timed == [(90.0, Expired())]


def test_repetitions_are_late_by_less_than_the_jitter() -> None:
    client, _ = pair(Timers.ice())
    client.machine.initiate(0.0)
    times = [at for at, _ in client.run_until(19.0)]
    gaps = [after - before for before, after in pairwise(times)]
    assert all(5.0 <= gap <= 5.334 for gap in gaps)
    assert len(set(gaps)) == len(gaps)


def test_late_answer_to_the_repeated_initiation_still_counts() -> None:
    client, gateway = pair()
    client.machine.initiate(0.0)
    gateway.receive(client.sent(), 2.6)
    response = gateway.sent()
    client.machine.handle_timeout(5.0)
    assert message_type(client.sent()) is MessageType.INITIATION

    client.machine.handle_response(response, 5.2)
    client.drain()

    assert client.keypair().remote_index == gateway.keypair().local_index
    assert not client.machine.is_handshaking


def test_initiate_is_spaced_by_the_rekey_timeout_unless_forced() -> None:
    client, _ = pair()
    assert client.machine.initiate(0.0)
    assert not client.machine.initiate(4.9)
    assert client.machine.initiate(4.9, force=True)
    assert client.machine.initiate(9.9)


def test_initiator_renews_after_120_s_if_it_sent_data() -> None:
    client = connected_client()
    client.activity = Figures(last_data_sent_at=30.0, last_sent_at=30.0)
    assert [at for at, _ in client.run_until(121.0)] == [120.0]
    assert client.timed == []


def test_initiator_renews_at_once_when_it_sends_on_an_old_session() -> None:
    client = connected_client()
    client.run_until(150.0)
    client.activity = Figures(last_data_sent_at=150.0, last_sent_at=150.0)
    assert [at for at, _ in client.run_until(151.0)] == [150.0]


@pytest.mark.parametrize(("timers", "at"), [(EXACT, 165.0), (Timers(2.0, 5.0, 90.0, max_jitter_s=0.0), 173.0)])
def test_initiator_renews_before_the_end_if_it_received_data(timers: Timers, at: float) -> None:
    client = connected_client(replace(timers, renew_idle_after_s=180.0))
    client.activity = Figures(last_data_received_at=1.0, last_sent_at=1.5)
    assert [when for when, _ in client.run_until(at + 1)] == [at]


def test_silent_session_is_renewed_before_it_ends() -> None:
    client = connected_client(replace(EXACT, attempt_window_s=90.0))
    index = client.keypair().local_index
    sent = client.run_until(181.0)
    assert [at for at, _ in sent] == [165.0, 170.0, 175.0, 180.0]
    assert (180.0, SessionExpired(index)) in client.timed


def test_responder_never_renews_by_age() -> None:
    gateway = connected_gateway()
    gateway.activity = Figures(last_data_sent_at=30.0, last_sent_at=60.0, last_data_received_at=31.0)
    assert gateway.run_until(539.0) == []


def test_responder_gives_up_without_new_keys_after_540_s() -> None:
    gateway = connected_gateway()
    gateway.run_until(600.0)
    assert gateway.timed[-1] == (540.0, Expired())


@pytest.mark.parametrize("timers", [EXACT, Timers(2.0, 5.0, 90.0, max_jitter_s=0.0)])
def test_either_end_starts_over_when_data_stays_unanswered(timers: Timers) -> None:
    for end in (connected_client(timers), connected_gateway(timers)):
        end.activity = Figures(last_data_sent_at=50.0, last_sent_at=50.0, first_unanswered_at=40.0)
        assert [at for at, _ in end.run_until(40.5 + timers.unanswered_s)] == [40.0 + timers.unanswered_s]


def test_an_answer_in_time_cancels_it() -> None:
    client = connected_client()
    client.activity = Figures(last_data_sent_at=40.0, last_sent_at=40.0, first_unanswered_at=40.0)
    client.run_until(54.0)
    client.activity = Figures(last_data_sent_at=40.0, last_sent_at=40.0)
    assert client.run_until(60.0) == []


def test_unanswered_data_of_an_older_session_does_not_count_again() -> None:
    client, gateway = pair()
    connect(client, gateway, now=0.0)
    client.activity = Figures(last_data_sent_at=40.0, last_sent_at=40.0, first_unanswered_at=40.0)
    client.run_until(55.0)
    gateway.receive(client.last_sent, 55.0)
    client.machine.handle_response(gateway.sent(), 55.0)
    client.drain()

    assert client.run_until(100.0) == []
    client.activity = Figures(last_data_sent_at=100.0, last_sent_at=100.0, first_unanswered_at=40.0)
    assert [at for at, _ in client.run_until(116.0)] == [115.0]


def test_unanswered_renewals_are_told_before_each_repetition() -> None:
    client = connected_client()
    client.activity = Figures(last_data_sent_at=10.0, last_sent_at=10.0, first_unanswered_at=10.0)
    client.run_until(36.0)
    assert client.timed == [(30.0, Unanswered()), (35.0, Unanswered())]


def test_received_data_is_acknowledged_by_one_keepalive() -> None:
    client = connected_client()
    client.activity = Figures(last_data_received_at=20.0, last_sent_at=5.0)
    client.run_until(60.0)
    assert client.timed == [(30.0, KeepaliveDue())]


def test_keepalive_counts_from_the_first_data_not_the_last() -> None:
    client = connected_client()
    for second in range(20, 60):
        client.activity = Figures(last_data_received_at=float(second), last_sent_at=5.0)
        client.run_until(second + 0.5)
    assert client.timed[0] == (30.0, KeepaliveDue())


def test_sending_makes_the_keepalive_needless() -> None:
    client = connected_client()
    client.activity = Figures(last_data_received_at=20.0, last_sent_at=5.0)
    client.run_until(25.0)
    client.activity = Figures(last_data_received_at=20.0, last_sent_at=25.0)
    client.run_until(60.0)
    assert client.timed == []


def test_new_initiation_is_answered_at_any_time_and_older_sessions_stay() -> None:
    client, gateway = pair()
    connect(client, gateway, now=0.0)
    connect(client, gateway, now=1.2)
    assert [type(event) for event in gateway.events] == [SessionReady, SessionReady]
    assert len({event.keypair.local_index for event in gateway.events if isinstance(event, SessionReady)}) == 2


def test_ninth_session_pushes_out_the_oldest() -> None:
    client, gateway = pair()
    for n in range(9):
        connect(client, gateway, now=float(n))
    first = gateway.keypair().local_index
    assert [event for event in gateway.events if isinstance(event, SessionExpired)] == [SessionExpired(first)]


def test_indices_never_collide_with_living_sessions() -> None:
    client, gateway = pair()
    for n in range(600):
        connect(client, gateway, now=float(n))
    living: dict[int, None] = {}
    for event in gateway.events:
        if isinstance(event, SessionReady):
            assert event.keypair.local_index not in living
            living[event.keypair.local_index] = None
        elif isinstance(event, SessionExpired):
            del living[event.local_index]
    assert len(living) == 8


def test_crossing_initiations_both_work() -> None:
    client, gateway = pair()
    client.machine.initiate(0.0)
    gateway.machine.initiate(0.0)
    from_client, from_gateway = client.sent(), gateway.sent()
    client.receive(from_gateway, 0.1)
    gateway.receive(from_client, 0.1)
    response_of_client, response_of_gateway = client.sent(), gateway.sent()

    client.machine.handle_response(response_of_gateway, 0.2)
    gateway.machine.handle_response(response_of_client, 0.2)
    client.drain()
    gateway.drain()

    for end in (client, gateway):
        assert [event.keypair.is_initiator for event in end.events if isinstance(event, SessionReady)] == [False, True]


def test_confirmed_session_ends_our_own_attempt() -> None:
    client, gateway = pair()
    client.machine.initiate(0.0)
    client.sent()
    gateway.machine.initiate(0.5)
    client.receive(gateway.sent(), 0.6)
    client.drain()

    client.machine.handle_confirmed(client.keypair().local_index, 0.7)

    assert not client.machine.is_handshaking
    assert client.run_until(100.0) == []
    assert client.machine.last_handshake_at == 0.6


def test_wrong_responses_are_refused_and_change_nothing() -> None:
    client, gateway = pair()
    client.machine.initiate(0.0)
    gateway.receive(client.sent(), 0.0)
    response = gateway.sent()

    for bad in (response[:-1], response[:20] + b"\x00" + response[21:], b"\x04" + response[1:]):
        with pytest.raises(RemoteProtocolError):
            client.machine.handle_response(bad, 0.1)
    client.machine.handle_response(response, 0.2)
    with pytest.raises(RemoteProtocolError, match="no initiation"):
        client.machine.handle_response(response, 0.3)


def test_cookie_under_load_lets_the_next_initiation_in() -> None:
    client, gateway = pair()
    for n in range(100):
        gateway.gate.open(SocketAddr("198.51.100.1", n), initiation_of_a_stranger(n), now=0.0)
    client.machine.initiate(0.0)
    reply = gateway.gate.open(SOURCE, client.sent(), now=0.1)
    assert isinstance(reply, CookieReply)

    client.machine.handle_cookie_reply(reply.datagram, 0.1)
    client.machine.initiate(0.2, force=True)

    opened = gateway.gate.open(SOURCE, client.sent(), now=0.2)
    assert isinstance(opened, OpenedInitiation)


def test_queued_output_is_due_now() -> None:
    client, _ = pair()
    client.machine.initiate(3.0)
    assert client.machine.poll_timeout() == 3.0


def test_queue_is_bounded_and_counts() -> None:
    client, _ = pair()
    for n in range(20):
        client.machine.initiate(float(n), force=True)
    assert client.machine.not_queued == 4


def test_index_base_must_leave_room() -> None:
    with pytest.raises(LocalProtocolError):
        End(CLIENT, GATEWAY, 0x01020301, EXACT)


@given(st.binary(max_size=160))
def test_any_response_or_cookie_is_refused(data: bytes) -> None:
    client, _ = pair()
    client.machine.initiate(0.0)
    index = sender_index(client.sent()).to_bytes(4, "little")
    response = b"\x02\0\0\0aaaa" + index + data[:80].ljust(80, b"x")
    for datagram in (data, response):
        with pytest.raises(RemoteProtocolError):
            client.machine.handle_response(datagram, 0.0)
        with pytest.raises(RemoteProtocolError):
            client.machine.handle_cookie_reply(datagram, 0.0)
    assert client.machine.is_handshaking


CLIENT = StaticKey.from_bytes(b"\x01" * 32)
GATEWAY = StaticKey.from_bytes(b"\x02" * 32)


@dataclass
class Figures:
    """What an engine would say of the peer's traffic."""

    last_data_sent_at: float = 0.0
    last_data_received_at: float = 0.0
    last_sent_at: float = 0.0
    first_unanswered_at: float = 0.0


@dataclass
class End:
    """One end: its handshakes, its gate, and what came out of them."""

    static: StaticKey
    remote: StaticKey
    base: int
    timers: Timers
    psk: bytes = PSK
    events: list[Event] = field(default_factory=list)
    timed: list[tuple[float, Event]] = field(default_factory=list)
    activity: Figures = field(default_factory=Figures)
    last_sent: bytes = b""

    def __post_init__(self) -> None:
        random = Random(self.base)
        self.gate = Gate(self.static, random.randbytes)
        self.machine = Handshakes(
            self.static, self.remote.public_key, self.psk, self.base, self.timers, EPOCH, random.randbytes
        )

    def receive(self, initiation: bytes, now: float) -> None:
        opened = self.gate.open(SOURCE, initiation, now)
        assert isinstance(opened, OpenedInitiation)
        self.machine.handle_initiation(opened, now)

    def sent(self) -> bytes:
        datagram = self.machine.poll_transmit_bytes()
        assert datagram is not None
        self.drain()
        return datagram

    def drain(self) -> list[bytes]:
        while (event := self.machine.poll_event()) is not None:
            self.events.append(event)
        datagrams = []
        while (datagram := self.machine.poll_transmit_bytes()) is not None:
            datagrams.append(datagram)
        return datagrams

    def keypair(self) -> Keypair:
        return next(event.keypair for event in self.events if isinstance(event, SessionReady))

    def run_until(self, end: float) -> list[tuple[float, bytes]]:
        """Sleeps from deadline to deadline, a second at most, and gives what was sent when."""
        out: list[tuple[float, bytes]] = []
        now = self.machine._now
        while now <= end:
            self.machine.handle_activity(self.activity, now)
            self.machine.handle_timeout(now)
            while (event := self.machine.poll_event()) is not None:
                self.timed.append((now, event))
            while (datagram := self.machine.poll_transmit_bytes()) is not None:
                self.last_sent = datagram
                out.append((now, datagram))
            due = self.machine.poll_timeout()
            assert due is None or due > now
            now = min(now + 1.0, due if due is not None else now + 1.0)
        return out


def pair(timers: Timers = EXACT) -> tuple[End, End]:
    return End(CLIENT, GATEWAY, CLIENT_BASE, timers), End(GATEWAY, CLIENT, GATEWAY_BASE, timers)


def connect(client: End, gateway: End, now: float) -> None:
    client.machine.initiate(now, force=True)
    gateway.receive(client.sent(), now)
    client.machine.handle_response(gateway.sent(), now)
    client.drain()
    for event in gateway.events[-1:]:
        if isinstance(event, SessionReady):
            gateway.machine.handle_confirmed(event.keypair.local_index, now)


def connected_client(timers: Timers = EXACT) -> End:
    client, gateway = pair(timers)
    connect(client, gateway, now=0.0)
    return client


def connected_gateway(timers: Timers = EXACT) -> End:
    client, gateway = pair(timers)
    connect(client, gateway, now=0.0)
    return gateway


def initiation_of_a_stranger(number: int) -> bytes:
    key = StaticKey.from_bytes(number.to_bytes(32, "little"))
    stranger = End(key, GATEWAY, CLIENT_BASE, EXACT)
    stranger.machine.initiate(0.0)
    return stranger.sent()
