"""TURN over TCP and TLS: each connection is a client of its own to the relay, which it reaches over a UDP socket here.

So the forwarder knows datagrams alone, and forwards what comes this way like everything else. On the stream, messages
follow each other: STUN messages say their length, channel data is padded to a multiple of four bytes.
Source: RFC 8489, section 6.2.2; RFC 8656, section 12.5.
"""

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import structlog

from wardgate.io.health import ListenError
from wardgate.proto.turn_allocations import source_of
from wardgate.wire.addresses import SocketAddr

MAX_CONNECTIONS: Final = 4096
MAX_PER_SOURCE: Final = 256  # connections of one IPv4 address or IPv6 /64
MAX_BUFFERED: Final = 1 << 20  # bytes that wait for a client that does not read; more is lost, as datagrams are
IDLE_S: Final = 30.0  # how long a client may be connected without an allocation
HANDSHAKE_S: Final = 10.0
READ_SIZE: Final = 65536
_STUN_HEADER, _CHANNEL_HEADER = 20, 4

log = structlog.get_logger("relay")


class StreamClients(Protocol):
    """Who hears of connections."""

    def handle_stream_opened(self, alias: SocketAddr, client: SocketAddr) -> None: ...
    def handle_stream_closed(self, alias: SocketAddr) -> None: ...
    def has_allocation(self, client: SocketAddr) -> bool: ...


class FrameError(Exception):
    """What was received is neither STUN nor channel data."""


class FrameReader:
    """Takes a stream apart into messages, without the padding of channel data."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Adds what was received and gives every message that is whole now.

        Raises:
            FrameError: It is no such stream; nothing can be read from it any more.
        """
        self._bytes += received
        at = 0
        try:
            while len(self._bytes) - at >= _CHANNEL_HEADER:
                first, length = self._bytes[at], int.from_bytes(self._bytes[at + 2 : at + 4], "big")
                if first <= 0x03:
                    size = padded = _STUN_HEADER + length
                elif 0x40 <= first <= 0x7F:
                    size = _CHANNEL_HEADER + length
                    padded = size + -size % 4
                else:
                    raise FrameError
                if len(self._bytes) - at < padded:
                    return
                frame = bytes(self._bytes[at : at + size])
                at += padded
                yield frame
        finally:
            del self._bytes[:at]


def frame(datagram: bytes) -> bytes:
    """A message as it stands on a stream."""
    return datagram + bytes(-len(datagram) % 4)


class RelayStreams:
    """The listening ports for TCP and TLS, and every connection."""

    def __init__(self, clients: StreamClients, relay: dict[int, SocketAddr], counters: Counter[str]) -> None:
        """Makes a front without ports.

        Args:
            relay: Where the relay listens on this host, by IP version.
            counters: What happened.
        """
        self._clients = clients
        self._relay = relay
        self._counters = counters
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_source: Counter[str] = Counter()

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._tasks)

    async def listen(self, hosts: list[str], port: int, option: str, context: ssl.SSLContext | None = None) -> None:
        """Opens a port; with a context, for TLS.

        Raises:
            ListenError: It cannot be opened.
        """
        try:
            for host in hosts:
                server = await asyncio.start_server(
                    self._serve,
                    host,
                    port,
                    ssl=context,
                    ssl_handshake_timeout=None if context is None else HANDSHAKE_S,
                    limit=READ_SIZE,
                    reuse_address=True,
                )
                self._servers.append(server)
        except OSError as error:
            raise ListenError(f"TCP port {port} ({option}) at {host}: {error}; another program may have it") from error

    async def close(self) -> None:
        """Closes every port and connection."""
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            self._counters["streams_refused_full"] += 1
            writer.transport.abort()
            return
        client = SocketAddr(*writer.get_extra_info("peername")[:2])
        source = source_of(client)
        if self._by_source[source] >= MAX_PER_SOURCE:
            self._counters["streams_refused_source"] += 1
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._by_source[source] += 1
        self._counters["streams_opened"] += 1
        try:
            await self._carry(client, reader, writer)
        except FrameError:
            self._counters["streams_malformed"] += 1
        except TimeoutError:
            self._counters["streams_idle"] += 1
        except (OSError, asyncio.IncompleteReadError):
            self._counters["streams_broken"] += 1
        except asyncio.CancelledError:
            pass  # the relay ends
        finally:
            self._tasks.discard(task)
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]
            writer.transport.abort()

    async def _carry(self, client: SocketAddr, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = self._relay.get(6 if client.is_ipv6 else 4) or next(iter(self._relay.values()))
        loop = asyncio.get_running_loop()
        opened_at = loop.time()
        leg, _ = await loop.create_datagram_endpoint(lambda: _Leg(writer, self._counters), remote_addr=relay)
        alias = SocketAddr(*leg.get_extra_info("sockname")[:2])
        self._clients.handle_stream_opened(alias, client)
        frames = FrameReader()
        try:
            while True:
                received: bytes | None = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_S):
                        received = await reader.read(READ_SIZE)
                if loop.time() >= opened_at + IDLE_S and not self._clients.has_allocation(alias):
                    raise TimeoutError
                if received == b"":
                    return
                for message in frames.feed(received or b""):
                    leg.sendto(message)
        finally:
            self._clients.handle_stream_closed(alias)
            leg.close()


class _Leg(asyncio.DatagramProtocol):
    """What the relay says to one connection."""

    def __init__(self, writer: asyncio.StreamWriter, counters: Counter[str]) -> None:
        self._writer = writer
        self._counters = counters

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self._writer.transport.get_write_buffer_size() > MAX_BUFFERED:
            self._counters["streams_dropped_slow"] += 1
        elif not self._writer.is_closing():
            self._writer.write(frame(data))


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What TLS is served with; call `load_cert_chain` again when the files have changed.

    Raises:
        OSError, ssl.SSLError: A file cannot be read or is no certificate or key.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["stun.turn"])  # RFC 7443
    return context
