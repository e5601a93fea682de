"""A gateway's nameserver for its clients: port 53535 of its tunnel addresses, handing on to the host's own servers."""

import asyncio
import struct
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal, cast

import dns.exception
import dns.message
import dns.rcode
import structlog

from wardgate.errors import RemoteProtocolError
from wardgate.io.resolver import MAX_NAMESERVERS, forward_query, read_nameservers
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.dns import decode_query, decode_response, relay_answer

PORT: Final = 53535
ATTEMPTS: Final = 3
RETRY_S: Final = 0.1
MAX_IN_FLIGHT: Final = 256
SERVER_TIMEOUT_S: Final = 2.0
SUSPECT_S: Final = 60.0
_PLAIN_UDP_RESPONSE: Final = 512

log = structlog.get_logger("io.dns_server")


class DnsServer:
    """Forwards questions and answers as they are; servers that failed lately are asked last.

    Args:
        nameservers: Whom to ask, read for every question.
        port: Where to listen.
        server_port: Where they listen.
    """

    def __init__(
        self,
        nameservers: Callable[[], Sequence[str]] = read_nameservers,
        port: int = PORT,
        server_port: int = 53,
    ) -> None:
        self._nameservers = nameservers
        self._port = port
        self._server_port = server_port
        self._suspect_until: dict[str, float] = {}
        self._datagrams: list[asyncio.DatagramTransport] = []
        self._streams: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.refused = 0

    async def listen(self, addresses: Sequence[str]) -> None:
        """Listens there instead of where it did; an address that cannot be had is logged."""
        self.close()
        for address in addresses:
            for attempt in range(ATTEMPTS):
                try:
                    await self._listen(address)
                    break
                except OSError as error:
                    if attempt == ATTEMPTS - 1:
                        log.warning("nameserver for clients not started", error=str(error))
                    else:
                        await asyncio.sleep(RETRY_S)

    async def _listen(self, address: str) -> None:
        loop = asyncio.get_running_loop()
        stream = await asyncio.start_server(self._serve_stream, address, self._port)
        try:
            port = stream.sockets[0].getsockname()[1]
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(address, port))
        except OSError:
            stream.close()
            raise
        self._streams.append(stream)
        self._datagrams.append(transport)

    @property
    def addresses(self) -> list[SocketAddr]:
        """Where it listens."""
        return [SocketAddr(*stream.sockets[0].getsockname()[:2]) for stream in self._streams]

    def close(self) -> None:
        """Stops to listen."""
        for transport in self._datagrams:
            transport.close()
        for stream in self._streams:
            stream.close()
        for task in self._tasks:
            task.cancel()
        self._datagrams, self._streams = [], []

    def handle_datagram(self, transport: asyncio.DatagramTransport, query: bytes, source: tuple[str, int]) -> None:
        """Takes one question; beyond 256 at the same time they are dropped and counted."""
        if len(self._tasks) >= MAX_IN_FLIGHT:
            self.refused += 1
            return
        task = asyncio.create_task(self._serve_datagram(transport, query, source))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_datagram(
        self, transport: asyncio.DatagramTransport, query: bytes, source: tuple[str, int]
    ) -> None:
        answer = await self._ask(query, "udp")
        if answer is not None and not transport.is_closing():
            transport.sendto(_shortened(query, answer), source)

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ATTEMPTS * SERVER_TIMEOUT_S):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                answer = await self._ask(await reader.readexactly(length), "tcp")
                if answer is not None:
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # whoever asks badly gets no answer
        finally:
            writer.close()

    async def _ask(self, query: bytes, transport: Literal["udp", "tcp"]) -> bytes | None:
        """The first server's answer, or SERVFAIL if none has one; `None` for what is no question."""
        if len(query) < 12 or query[2] & 0x80:
            return None
        now = time.monotonic()
        servers = sorted(
            list(self._nameservers())[:MAX_NAMESERVERS], key=lambda each: self._suspect_until.get(each, 0.0) > now
        )
        for server in servers:
            address = SocketAddr(server, self._server_port)
            answer = await forward_query(address, query, transport, timeout_s=SERVER_TIMEOUT_S)
            if answer is not None:
                self._suspect_until.pop(server, None)
                return answer
            self._suspect_until[server] = now + SUSPECT_S
        return _servfail(query)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._server.handle_datagram(self._transport, data, addr)


def _shortened(query: bytes, answer: bytes) -> bytes:
    """The answer as it fits through the tunnel in one packet, which cannot be fragmented: truncated if it is long."""
    if len(answer) <= _PLAIN_UDP_RESPONSE:
        return answer
    try:
        asked = decode_query(query)
        return relay_answer(asked, decode_response(answer), asked.udp_size)
    except RemoteProtocolError:
        return answer


def _servfail(query: bytes) -> bytes | None:
    """The question as a failed answer; `None` if it cannot be read."""
    try:
        response = dns.message.make_response(dns.message.from_wire(query))
    except (dns.exception.DNSException, ValueError):
        return None
    response.set_rcode(dns.rcode.SERVFAIL)
    return response.to_wire()
