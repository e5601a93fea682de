"""A scripted TURN client for the tests of the server."""

from dataclasses import dataclass, field

from wardgate.proto.turn_config import TurnConfig
from wardgate.proto.turn_events import OpenPort, TurnEvent
from wardgate.proto.turn_server import TurnServer
from wardgate.wire import stun, turn
from wardgate.wire.addresses import SocketAddr, Transmit
from wardgate.wire.stun import Builder, MessageClass, Method
from wardgate.wire.turn import Username

EPOCH = 1_700_000_000.0
SECRET = "ab" * 32
PUBLIC_V4 = "203.0.113.3"
PUBLIC_V6 = "2001:db8::3"
CONTROL = SocketAddr(PUBLIC_V4, 3478)


class Counting:
    """Random bytes that never repeat and are the same in every run."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, size: int) -> bytes:
        self._calls += 1
        return (self._calls * 0x9E3779B97F4A7C15).to_bytes(24, "big")[-size:].rjust(size, b"\0")


def new_server(**config: object) -> TurnServer:
    settings: dict[str, object] = {"public_ipv4": PUBLIC_V4} | config
    return TurnServer(TurnConfig(**settings), SECRET, EPOCH, Counting())  # type: ignore[arg-type]


@dataclass
class Host:
    """The program around a server: opens the ports it asks for, and keeps what it says."""

    server: TurnServer
    refuse_ports: bool = False
    events: list[TurnEvent] = field(default_factory=list)

    def datagram(self, source: SocketAddr, payload: bytes, now: float) -> list[Transmit]:
        self.server.handle_datagram(source, payload, now)
        return self.drain(now)

    def drain(self, now: float) -> list[Transmit]:
        while (event := self.server.poll_event()) is not None:
            self.events.append(event)
            if isinstance(event, OpenPort):
                if self.refuse_ports:
                    self.server.handle_port_refused(event.port)
                else:
                    self.server.handle_port_opened(event.port, now)
        transmits = []
        while (transmit := self.server.poll_transmit()) is not None:
            transmits.append(transmit)
        return transmits

    def time(self, now: float) -> list[Transmit]:
        self.server.handle_timeout(now)
        return self.drain(now)


class Client:
    """One client socket with one user's credentials."""

    def __init__(self, host: Host, address: SocketAddr, salt: str = "salt", expires_at: int = 1_800_000_000) -> None:
        self.host = host
        self.address = address
        self.username = str(Username(expires_at, salt))
        self.key = turn.long_term_key(self.username, turn.password_of(Username(expires_at, salt), SECRET))
        self.nonce: bytes | None = None
        self._transactions = 0

    def builder(self, method: int) -> Builder:
        self._transactions += 1
        transaction_id = self._transactions.to_bytes(4, "big") + str(self.address).encode().rjust(8, b"\0")[-8:]
        return Builder(method, MessageClass.REQUEST, transaction_id)

    def signed(self, builder: Builder, nonce: bytes | None = None) -> bytes:
        builder.username(self.username).realm(turn.REALM)
        nonce = nonce or self.nonce
        if nonce is not None:
            builder.nonce(nonce)
        return builder.build(self.key)

    def exchange(self, datagram: bytes, now: float = 0.0) -> stun.Message | None:
        """Sends as it is and returns the answer, if there is one."""
        transmits = self.host.datagram(self.address, datagram, now)
        if not transmits:
            return None
        (transmit,) = transmits
        assert transmit.remote == self.address
        assert transmit.local is not None
        assert transmit.local.port == 3478
        return stun.decode(transmit.payload)

    def ask(self, builder: Builder, now: float = 0.0) -> stun.Message:
        """Sends an authenticated request and checks that its answer is signed."""
        if self.nonce is None:
            challenge = self.exchange(self.signed(self.builder(Method.REFRESH)), now)
            assert challenge is not None
            assert challenge.error is not None
            assert challenge.error.code == 401
            self.nonce = challenge.nonce
        answer = self.exchange(self.signed(builder), now)
        assert answer is not None
        assert answer.verify_integrity(self.key)
        return answer

    def allocate(self, now: float = 0.0, lifetime_s: int | None = None) -> stun.Message:
        builder = self.builder(Method.ALLOCATE).requested_transport(17)
        if lifetime_s is not None:
            builder.lifetime(lifetime_s)
        return self.ask(builder, now)

    def refresh(self, lifetime_s: int, now: float = 0.0) -> stun.Message:
        return self.ask(self.builder(Method.REFRESH).lifetime(lifetime_s), now)

    def bind(self, channel: int, peer: SocketAddr, now: float = 0.0) -> stun.Message:
        return self.ask(self.builder(Method.CHANNEL_BIND).channel_number(channel).peer_address(peer), now)


def code_of(message: stun.Message | None) -> int:
    """The answer's error code; 0 for success."""
    assert message is not None
    return message.error.code if message.error else 0
