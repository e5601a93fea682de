"""DNS over TCP to the sentinels: TCP packets in, queries out; answers in, TCP packets out.

Sans-IO: after each call, drain `poll_query` and `poll_packet`, then sleep until `poll_timeout`.
"""

from collections import deque
from typing import Final

from wardgate.proto.stub_resolver import DNS_PORT, Asker
from wardgate.proto.tcp_connection import TcpConnection
from wardgate.wire.addresses import RandomBytes, SocketAddr
from wardgate.wire.ip import ACK, FIN, RST, SYN, TCP, Packet, tcp_header, tcp_packet

MAX_CONNECTIONS: Final = 64

_Key = tuple[SocketAddr, SocketAddr]


class TcpResponder:
    """All TCP connections to the client's resolver.

    Args:
        random_bytes: For initial sequence numbers.
    """

    def __init__(self, random_bytes: RandomBytes) -> None:
        self._random_bytes = random_bytes
        self._connections: dict[_Key, TcpConnection] = {}
        self._queries: deque[tuple[Asker, bytes]] = deque()
        self._packets: deque[bytes] = deque()
        self._now = 0.0
        self.refused = 0

    def handle_packet(self, packet: Packet, now: float) -> None:
        """Takes a TCP packet to a sentinel; one that belongs to no connection is reset, as is a connection too many."""
        self._now = max(self._now, now)
        if packet.protocol != TCP:
            return
        key = (packet.key.source, packet.key.destination)
        connection = self._connections.get(key)
        if connection is None:
            is_syn = packet.tcp_flags & (SYN | ACK | RST | FIN) == SYN
            if not is_syn or packet.destination_port != DNS_PORT or len(self._connections) >= MAX_CONNECTIONS:
                self._reset(packet)
                return
            connection = TcpConnection(packet, int.from_bytes(self._random_bytes(4), "big"), now)
            self._connections[key] = connection
        else:
            connection.handle_packet(packet, now)
        self._collect(key, connection)

    def _reset(self, packet: Packet) -> None:
        if packet.tcp_flags & RST:
            return
        self.refused += 1
        header, source, destination = tcp_header(packet), packet.key.source, packet.key.destination
        if packet.tcp_flags & ACK:
            self._packets.append(tcp_packet(destination, source, RST, sequence=header.acknowledgment, window=0))
            return
        length = len(packet.payload) + bool(packet.tcp_flags & SYN) + bool(packet.tcp_flags & FIN)
        acknowledgment = header.sequence + length
        self._packets.append(tcp_packet(destination, source, RST | ACK, acknowledgment=acknowledgment, window=0))

    def handle_answer(self, asker: Asker, payload: bytes | None, now: float) -> None:
        """Sends the answer to a query of `poll_query`; `None` if there is none to give."""
        self._now = max(self._now, now)
        key = (asker.source, asker.sentinel)
        connection = self._connections.get(key)
        if connection is not None:
            connection.reply(payload, now)
            self._collect(key, connection)

    def handle_timeout(self, now: float) -> None:
        """Does what is due at `now`. Calling it early, late or twice is harmless."""
        self._now = max(self._now, now)
        for key, connection in list(self._connections.items()):
            connection.handle_timeout(now)
            self._collect(key, connection)

    def _collect(self, key: _Key, connection: TcpConnection) -> None:
        self._packets.extend(connection.packets)
        connection.packets.clear()
        while connection.messages:
            self._queries.append((Asker(key[0], key[1], "tcp"), connection.messages.popleft()))
        if connection.is_gone:
            del self._connections[key]

    def poll_query(self) -> tuple[Asker, bytes] | None:
        """The next query; give its answer to `handle_answer`."""
        return self._queries.popleft() if self._queries else None

    def poll_packet(self) -> bytes | None:
        """The next packet for the TUN device."""
        return self._packets.popleft() if self._packets else None

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` has something to do; due now while output is queued."""
        if self._queries or self._packets:
            return self._now
        times = [one.poll_timeout() for one in self._connections.values()]
        return min((at for at in times if at is not None), default=None)

    def __len__(self) -> int:
        return len(self._connections)
