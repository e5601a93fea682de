"""TURN over TCP and TLS: each connection is a client of its own to the relay, which it reaches over a UDP socket here.

So the forwarder knows datagrams alone, and forwards what comes this way like everything else. On the stream, messages
follow each other: STUN messages say their length, channel data is padded to a multiple of four bytes.
Source: RFC 8489, section 6.2.2; RFC 8656, section 12.5.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from functools import partial
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
BACKLOG: Final = 1024
ACCEPT_PAUSE_S: Final = 0.1
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
        self._listening: list[socket.socket] = []
        self._acceptors: list[asyncio.Task[None]] = []
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
        loop = asyncio.get_running_loop()
        try:
            for host in hosts:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
                listening.setblocking(False)
                self._listening.append(listening)
                self._acceptors.append(loop.create_task(self._accept(listening, context)))
        except OSError as error:
            raise ListenError(f"TCP port {port} ({option}) at {host}: {error}; another program may have it") from error

    async def close(self) -> None:
        """Closes every port and connection."""
        tasks = [*self._acceptors, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listening in self._listening:
            listening.close()

    async def _accept(self, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        """Counts connections before anything is read from them: TLS handshakes are among those that are limited."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listening)
            except OSError:  # no file is left, or the client has gone already
                self._counters["streams_refused_full"] += 1
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            client = SocketAddr(*peer[:2])
            source = source_of(client)
            if len(self._tasks) >= MAX_CONNECTIONS:
                self._counters["streams_refused_full"] += 1
                connection.close()
            elif self._by_source[source] >= MAX_PER_SOURCE:
                self._counters["streams_refused_source"] += 1
                connection.close()
            else:
                self._by_source[source] += 1
                task = loop.create_task(self._serve(connection, client, context))
                self._tasks.add(task)
                task.add_done_callback(partial(self._closed, source))

    def _closed(self, source: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._counters["streams_failed"] += 1
            log.error("a connection failed", exc_info=failure)
        self._tasks.discard(task)
        self._by_source[source] -= 1
        if not self._by_source[source]:
            del self._by_source[source]

    async def _serve(self, connection: socket.socket, client: SocketAddr, context: ssl.SSLContext | None) -> None:
        try:
            reader, writer = await _open(connection, context)
        except (OSError, TimeoutError):  # of TLS errors, too
            self._counters["streams_no_handshake"] += 1
            connection.close()
            return
        self._counters["streams_opened"] += 1
        try:
            await self._carry(client, reader, writer)
        except FrameError:
            self._counters["streams_malformed"] += 1
        except TimeoutError:
            self._counters["streams_idle"] += 1
        except (OSError, asyncio.IncompleteReadError):
            self._counters["streams_broken"] += 1
        finally:
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


async def _open(
    connection: socket.socket, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The streams of an accepted connection, after its TLS handshake if it has one."""
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    reader = asyncio.StreamReader(READ_SIZE, loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    handshake_s = None if context is None else HANDSHAKE_S
    transport, _ = await loop.connect_accepted_socket(
        lambda: protocol, connection, ssl=context, ssl_handshake_timeout=handshake_s
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


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
