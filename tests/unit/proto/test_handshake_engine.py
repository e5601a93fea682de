"""Two ends with real handshakes and real engines in virtual time: hours of traffic, silence, loss and death."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from wardgate._fastpath import Engine, OpenedInitiation, SessionUpcall, StaticKey
from wardgate.errors import RemoteProtocolError
from wardgate.proto.handshake import (
    Expired,
    Gate,
    Handshakes,
    KeepaliveDue,
    SessionExpired,
    SessionReady,
    Timers,
    Unanswered,
)
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import udp_packet
from wardgate.wire.wireguard import MessageType, message_type

PEER = 0
DELAY_S = 0.02
PSK = b"\x05" * 32
CLIENT_ADDRESS, GATEWAY_ADDRESS = SocketAddr("203.0.113.21", 52625), SocketAddr("203.0.113.31", 52625)
PACKET = udp_packet(SocketAddr("100.64.0.1", 1000), SocketAddr("10.9.0.2", 2000), b"question")
BOTH = pytest.mark.parametrize("timers", [Timers.ice(), Timers.iceless()], ids=["ice", "iceless"])


@BOTH
def test_an_hour_of_traffic_loses_nothing_and_renews_every_two_minutes(timers: Timers) -> None:
    link = Link(timers)
    link.connect()

    link.run(3600.0, question_every_s=1.0)

    assert link.gateway.received == link.client.sent >= 3598
    assert link.client.received == link.gateway.sent == link.client.sent
    assert link.client.initiations == link.gateway.responses == 30
    assert link.gateway.initiations == 0
    assert not link.client.is_expired
    assert not link.client.unanswered


@BOTH
def test_an_idle_hour_keeps_a_session_all_the_time(timers: Timers) -> None:
    link = Link(timers)
    link.connect()

    for _ in range(3600):
        link.run(1.0)
        assert link.client.engine.seal(PEER, b"", link.now) is not None
        assert link.gateway.engine.seal(PEER, b"", link.now) is not None

    assert link.client.initiations == 22
    assert link.gateway.initiations == 0
    assert not link.gateway.is_expired
    assert link.client.keepalives == link.client.initiations


@BOTH
def test_one_sided_traffic_is_kept_alive_and_starts_no_handshake_early(timers: Timers) -> None:
    link = Link(timers)
    link.gateway.answers = False
    link.connect()

    link.run(110.0, question_every_s=0.5)

    assert link.client.initiations == 1
    assert link.gateway.keepalives >= 110 // (timers.keepalive_s + 1) - 1


@BOTH
def test_dead_gateway_is_noticed_and_given_up(timers: Timers) -> None:
    link = Link(timers)
    link.connect()
    link.run(30.0, question_every_s=0.1)
    died_at = link.now
    link.gateway.is_dead = True

    link.run(200.0, question_every_s=0.1)

    first, second = link.client.initiated_at[1:3]
    assert timers.unanswered_s - 0.2 <= first - died_at <= timers.unanswered_s + 0.6
    assert timers.rekey_timeout_s <= second - first <= timers.rekey_timeout_s + 0.4
    assert link.client.expired_at == pytest.approx(first + timers.attempt_window_s, abs=0.01)
    assert len(link.client.unanswered) == len(link.client.initiated_at) - 2


@BOTH
def test_silent_gateway_of_a_dead_client_starts_a_handshake_only_if_it_has_data(timers: Timers) -> None:
    link = Link(timers)
    link.connect()
    link.run(5.0)
    link.client.is_dead = True
    link.run(100.0)
    assert link.gateway.initiations == 0

    link.gateway.ask(link)
    link.run(timers.unanswered_s + 1.0)

    assert link.gateway.initiations == 1


def test_client_answers_a_handshake_that_the_gateway_starts() -> None:
    link = Link(Timers.iceless())
    link.connect()
    link.run(10.0)
    link.drop = lambda kind: kind is MessageType.TRANSPORT
    link.gateway.ask(link)
    link.run(8.0)
    link.drop = lambda kind: False

    link.run(5.0)

    assert link.gateway.initiations >= 1
    assert link.client.responses >= 1
    before = link.client.received
    link.gateway.ask(link)
    link.run(0.1)
    assert link.client.received == before + 1


@pytest.mark.parametrize("seed", range(4))
def test_lossy_link_recovers_and_agrees(seed: int) -> None:
    random = Random(seed)
    link = Link(Timers.iceless())
    link.drop = lambda kind: random.random() < 0.3
    link.connect(run_s=30.0)
    link.run(900.0, question_every_s=1.0)
    assert not link.client.is_expired

    link.drop = lambda kind: False
    link.run(20.0, question_every_s=1.0)
    asked, answered = link.client.sent, link.client.received
    link.run(300.0, question_every_s=1.0)

    assert link.client.sent - asked == link.client.received - answered > 290


@pytest.mark.parametrize("seed", range(4))
def test_handshakes_started_at_once_by_both_ends_settle(seed: int) -> None:
    link = Link(Timers.ice(), seed)
    link.client.machine.initiate(0.0)
    link.gateway.machine.initiate(0.0)
    link.run(1.0)

    link.run(1000.0, question_every_s=1.0)

    assert link.client.sent == link.client.received
    assert link.client.initiations + link.gateway.initiations < 25


@dataclass
class End:
    """One end of the link."""

    static: StaticKey
    remote: StaticKey
    address: SocketAddr
    timers: Timers
    seed: int
    engine: Engine = field(default_factory=Engine)
    answers: bool = False
    is_dead: bool = False
    sent: int = 0
    received: int = 0
    keepalives: int = 0
    responses: int = 0
    initiated_at: list[float] = field(default_factory=list)
    unanswered: list[float] = field(default_factory=list)
    expired_at: float | None = None

    def __post_init__(self) -> None:
        random = Random(self.seed)
        self.gate = Gate(self.static, random.randbytes)
        self.machine = Handshakes(
            self.static, self.remote.public_key, PSK, self.seed << 8, self.timers, 1_700_000_000.0, random.randbytes
        )

    @property
    def initiations(self) -> int:
        return len(self.initiated_at)

    @property
    def is_expired(self) -> bool:
        return self.expired_at is not None

    def ask(self, link: "Link") -> None:
        """Sends one application packet, if a session can seal it."""
        datagram = self.engine.seal(PEER, PACKET, link.now)
        if datagram is not None:
            self.sent += 1
            link.send(self, datagram)

    def receive(self, link: "Link", source: SocketAddr, datagram: bytes) -> None:
        try:
            match message_type(datagram):
                case MessageType.INITIATION:
                    opened = self.gate.open(source, datagram, link.now)
                    assert isinstance(opened, OpenedInitiation)
                    self.machine.handle_initiation(opened, link.now)
                case MessageType.RESPONSE:
                    self.machine.handle_response(datagram, link.now)
                case _:
                    self.receive_data(link, source, datagram)
        except RemoteProtocolError:
            pass
        self.drain(link)

    def receive_data(self, link: "Link", source: SocketAddr, datagram: bytes) -> None:
        self.engine.handle_datagram(self.address, source, datagram, link.now)
        for upcall in self.engine.poll_upcalls():
            if isinstance(upcall, SessionUpcall):
                self.machine.handle_confirmed(upcall.local_index, link.now)
            else:
                self.received += 1
                if self.answers:
                    self.ask(link)

    def tick(self, link: "Link") -> None:
        self.machine.handle_activity(self.engine.activity(PEER), link.now)
        self.machine.handle_timeout(link.now)
        self.drain(link)

    def drain(self, link: "Link") -> None:
        while (event := self.machine.poll_event()) is not None:
            match event:
                case SessionReady(keypair):
                    self.engine.add_session(PEER, keypair, link.now, self.timers.initiator_stops_s)
                case SessionExpired(local_index):
                    self.engine.remove_session(local_index)
                case KeepaliveDue():
                    self.keepalives += 1
                    datagram = self.engine.seal(PEER, b"", link.now)
                    assert datagram is not None
                    link.send(self, datagram)
                case Unanswered():
                    self.unanswered.append(link.now)
                case Expired():
                    self.expired_at = link.now
        while (datagram := self.machine.poll_transmit_bytes()) is not None:
            if message_type(datagram) is MessageType.INITIATION:
                self.initiated_at.append(link.now)
            else:
                self.responses += 1
            link.send(self, datagram)


class Link:
    """A client and a gateway with a delay between them."""

    def __init__(self, timers: Timers, seed: int = 0) -> None:
        client, gateway = StaticKey.from_bytes(b"\x01" * 32), StaticKey.from_bytes(b"\x02" * 32)
        self.client = End(client, gateway, CLIENT_ADDRESS, timers, seed=2 * seed + 1)
        self.gateway = End(gateway, client, GATEWAY_ADDRESS, timers, seed=2 * seed + 2, answers=True)
        self.now = 0.0
        self.drop: Callable[[MessageType | None], bool] = lambda kind: False
        self._in_flight: list[tuple[float, End, End, bytes]] = []

    def connect(self, run_s: float = 1.0) -> None:
        self.client.machine.initiate(self.now)
        self.client.drain(self)
        self.run(run_s)

    def send(self, sender: End, datagram: bytes) -> None:
        receiver = self.gateway if sender is self.client else self.client
        if not sender.is_dead and not self.drop(message_type(datagram)):
            self._in_flight.append((self.now + DELAY_S, sender, receiver, datagram))

    def run(self, duration_s: float, question_every_s: float | None = None) -> None:
        """Lets time pass, from one thing to the next; the client asks at that interval."""
        end = self.now + duration_s
        ask_at = self.now if question_every_s is not None else None
        tick_at = self.now
        while self.now < end:
            if ask_at is not None and question_every_s is not None and ask_at <= self.now:
                self.client.ask(self)
                ask_at += question_every_s
            if tick_at <= self.now:
                tick_at = self.now + 1.0
            for one in (self.client, self.gateway):
                if not one.is_dead:
                    one.tick(self)
            deadlines = [end, tick_at, *(at for at, *_ in self._in_flight)]
            deadlines += [at for at in (ask_at, *self._timeouts()) if at is not None]
            self.now = max(self.now, min(deadlines))
            self._deliver()

    def _timeouts(self) -> list[float | None]:
        return [one.machine.poll_timeout() for one in (self.client, self.gateway) if not one.is_dead]

    def _deliver(self) -> None:
        arrived = [entry for entry in self._in_flight if entry[0] <= self.now]
        self._in_flight = [entry for entry in self._in_flight if entry[0] > self.now]
        for _, sender, receiver, datagram in arrived:
            if not receiver.is_dead:
                receiver.receive(self, sender.address, datagram)
