"""The relay's TURN server under any datagrams, which are signed for it as its user would sign them."""

from contextlib import suppress
from typing import Final

from wardgate.errors import RemoteProtocolError
from wardgate.io.relay_streams import FrameError, FrameReader, frame
from wardgate.proto.turn_auth import StaticUsers
from wardgate.proto.turn_config import TurnConfig
from wardgate.proto.turn_events import AddChannel, AddPermission, ClosePort, OpenPort, RemoveChannel, RemovePermission
from wardgate.proto.turn_server import TurnServer
from wardgate.wire import stun, turn
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.stun import Attribute, Builder, MessageClass

REALM: Final = "fuzz"
KEY: Final = turn.long_term_key("a", "b", REALM)
CLIENTS: Final = (SocketAddr("198.51.100.1", 4000), SocketAddr("2001:db8::1", 4000))
PEERS: Final = (SocketAddr("192.0.2.9", 9), SocketAddr("203.0.113.3", 50000))
MAX_STEPS: Final = 24
MAX_ANSWER: Final = 200


class Relay:
    """A relay with two ports, and what it was told to open."""

    def __init__(self) -> None:
        self._draws = 0
        config = TurnConfig("203.0.113.3", "2001:db8::3", realm=REALM, lowest_port=50000, highest_port=50001)
        self.server = TurnServer(config, (StaticUsers({"a": "b"}),), 1e9, self._random)
        self.now = 0.0
        self.open: dict[int, set[int]] = {}
        self.installed: set[object] = set()

    def _random(self, size: int) -> bytes:
        self._draws += 1
        return (self._draws * 0x9E3779B97F4A7C15).to_bytes(24, "big")[-size:].rjust(size, b"\0")

    def signed(self, client: SocketAddr, message: stun.Message) -> bytes:
        """The request as its user sends it."""
        challenge = Builder(stun.Method.REFRESH, MessageClass.REQUEST, bytes(12)).build()
        nonce = next((one.nonce for one in self.take(client, challenge) if one.nonce is not None), b"")
        builder = Builder(message.method, message.message_class, message.transaction_id)
        body = message.raw[stun.HEADER_SIZE :]
        at = 0
        while at + 4 <= len(body):
            kind, size = int.from_bytes(body[at : at + 2], "big"), int.from_bytes(body[at + 2 : at + 4], "big")
            if kind in (Attribute.MESSAGE_INTEGRITY, Attribute.FINGERPRINT, Attribute.MESSAGE_INTEGRITY_SHA256):
                break
            builder.attribute(kind, body[at + 4 : at + 4 + size])
            at += 4 + (size + 3) // 4 * 4
        return builder.username("a").realm(REALM).nonce(nonce).build(KEY)

    def take(self, client: SocketAddr, datagram: bytes) -> list[stun.Message]:
        """Gives a datagram to the server, does what it asks, and gives what it says to clients."""
        self.server.handle_datagram(client, datagram, self.now)
        return self.settle()

    def settle(self) -> list[stun.Message]:
        while (event := self.server.poll_event()) is not None:
            self._do(event)
        told = []
        while (transmit := self.server.poll_transmit()) is not None:
            assert transmit.local is not None
            if transmit.local.port == 3478 and transmit.payload[:1] in (b"\0", b"\1"):
                message = stun.decode(transmit.payload)
                assert message.data is not None or len(transmit.payload) <= MAX_ANSWER
                told.append(message)
            else:
                assert transmit.local.port == 3478 or transmit.local.port in self.open
        return told

    def _do(self, event: object) -> None:
        match event:
            case OpenPort(port, families):
                assert port not in self.open
                self.open[port] = set(families)
                self.server.handle_port_opened(port, self.now)
            case ClosePort(port, families):
                self.open[port] -= set(families)
                if not self.open[port]:
                    del self.open[port]
            case AddChannel(client, channel, port, peer):
                assert port in self.open
                self.installed.add((client, channel, port, peer))
            case RemoveChannel(client, channel, port, peer):
                self.installed.remove((client, channel, port, peer))
            case AddPermission(client, port, host):
                assert port in self.open
                self.installed.add((client, port, host))
            case RemovePermission(client, port, host):
                self.installed.remove((client, port, host))


def check_turn_server(data: bytes) -> None:
    """Steps: a byte that says what happens and to whom, a length, and a datagram."""
    relay, at = Relay(), 0
    for _ in range(MAX_STEPS):
        if at + 2 > len(data):
            break
        step, size = data[at], data[at + 1]
        datagram = data[at + 2 : at + 2 + size]
        at += 2 + size
        client = CLIENTS[step & 1]
        match step >> 1 & 3:
            case 0:
                relay.take(client, datagram)
            case 1:
                relay.server.handle_peer_datagram(50000 + (step >> 3 & 1), PEERS[step >> 4 & 1], datagram)
                relay.settle()
            case 2:
                relay.now += size * 4.0
                relay.server.handle_timeout(relay.now)
                relay.settle()
            case _:
                with suppress(RemoteProtocolError):
                    relay.take(client, relay.signed(client, stun.decode(datagram)))
        assert relay.server.allocations == len(relay.open) <= 2
    for _ in range(3):
        relay.now += 10_000.0
        relay.server.handle_timeout(relay.now)
        relay.settle()
    assert (relay.open, relay.installed, relay.server.channels, relay.server.permissions) == ({}, set(), 0, 0)
    assert relay.server.poll_timeout() is None


def check_turn_stream(data: bytes) -> None:
    """TURN over TCP: however it is cut, the same messages come out, and they make the stream again."""
    whole, cut = FrameReader(), FrameReader()
    one: list[bytes] = []
    other: list[bytes] = []
    with suppress(FrameError):
        one.extend(whole.feed(data))
    with suppress(FrameError):
        for index in range(0, len(data), 3):
            other.extend(cut.feed(data[index : index + 3]))
    assert one == other
    assert sum(len(frame(message)) for message in one) <= len(data)
