"""Ways to relays where the network lets no UDP out: TCP or TLS, through a proxy if there is one.

Each connection stands behind a UDP socket on this host's loopback: what the tunnel sends there goes to the relay as a
message on the stream, and what comes on the stream comes to the tunnel from there. So tunnels know datagrams alone.

TLS is here to look like what firewalls let pass, at port 443; who the relay is, TURN's own signatures show, and what it
carries is WireGuard's. Therefore certificates are not looked at: relays are known by address, not by name.
"""

import asyncio
import contextlib
import functools
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from wardgate.ids import RelayId
from wardgate.io.http_proxy import connect_through
from wardgate.io.relay_streams import MAX_BUFFERED, READ_SIZE, FrameError, FrameReader, frame
from wardgate.io.websocket import OpenSocket, ResolveHost
from wardgate.proto.http_proxy import Proxies
from wardgate.wire.addresses import SocketAddr

TLS_PORT: Final = 443
CONNECT_TIMEOUT_S: Final = 10.0
IDLE_S: Final = 60.0  # longer than the tunnel leaves a relay alone that it uses
MAX_CONNECTIONS: Final = 64

OnWay = Callable[[RelayId, SocketAddr, str | None], None]
"""Hears of a way to a relay: the address that stands for it, and `tcp` or `tls`, or `None` once it is closed."""

log = structlog.get_logger("relay_ways")


@dataclass(frozen=True, slots=True)
class _Target:
    """Something to connect to."""

    kind: str
    host: str
    port: int


class RelayWays:
    """All connections to relays of one program.

    Args:
        on_way: Hears of ways that open and close.
        open_socket: Makes TCP sockets that stay out of the tunnel.
        is_tunnel: Whether a port of the loopback is the tunnel's.
        proxies: Which hosts are reached by a proxy.
        resolve: How a proxy's name is resolved.
    """

    def __init__(
        self,
        on_way: OnWay,
        *,
        open_socket: OpenSocket,
        is_tunnel: Callable[[int], bool],
        proxies: Proxies,
        resolve: ResolveHost,
    ) -> None:
        self._on_way = on_way
        self._open_socket = open_socket
        self._is_tunnel = is_tunnel
        self._proxies = proxies
        self._resolve = resolve
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_relay: Counter[RelayId] = Counter()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE
        self.counters: Counter[str] = Counter()

    def seek(self, relay_id: RelayId, servers: tuple[SocketAddr, ...]) -> None:
        """Tries TCP at the relay's own port and TLS at 443, all at the same time, unless that is going on already."""
        if self._by_relay[relay_id]:
            return
        targets = [_Target("tls", server.host, TLS_PORT) for server in servers]
        targets += [_Target("tcp", server.host, server.port) for server in servers]
        for target in targets:
            if len(self._tasks) >= MAX_CONNECTIONS:
                self.counters["refused_full"] += 1
                return
            task = asyncio.create_task(self._run(relay_id, target))
            self._tasks.add(task)
            self._by_relay[relay_id] += 1
            task.add_done_callback(functools.partial(self._ended, relay_id))

    def _ended(self, relay_id: RelayId, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._by_relay[relay_id] -= 1
        if not self._by_relay[relay_id]:
            del self._by_relay[relay_id]

    def reset(self) -> None:
        """Closes everything: this host moved."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Closes everything, and returns once it is."""
        self.reset()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, relay_id: RelayId, target: _Target) -> None:
        self.counters[f"tried_{target.kind}"] += 1
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await self._connect(target)
            try:
                await self._carry(relay_id, target.kind, reader, writer)
            finally:
                writer.transport.abort()
        except (OSError, TimeoutError, FrameError, asyncio.IncompleteReadError) as error:  # ssl.SSLError is an OSError
            self.counters[f"failed_{target.kind}"] += 1
            log.debug("no way to the relay", kind=target.kind, host=target.host, port=target.port, error=str(error))

    async def _connect(self, target: _Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        proxy = self._proxies.of(target.host)
        host, port = (target.host, target.port) if proxy is None else (proxy.host, proxy.port)
        if proxy is not None:
            host = (await self._resolve(host))[0]
        tcp = self._open_socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            tcp.setblocking(False)
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(tcp, (host, port))
            if proxy is not None:
                await connect_through(tcp, proxy, target.host, target.port)
            is_tls = target.kind == "tls"
            return await asyncio.open_connection(
                sock=tcp, ssl=self._tls if is_tls else None, server_hostname=target.host if is_tls else None
            )
        except BaseException:
            tcp.close()
            raise

    async def _carry(
        self, relay_id: RelayId, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        leg = _Leg(writer, self._is_tunnel, self.counters)
        transport, _ = await loop.create_datagram_endpoint(lambda: leg, local_addr=("127.0.0.1", 0))
        alias = SocketAddr(*transport.get_extra_info("sockname")[:2])
        self.counters[f"opened_{kind}"] += 1
        log.info("a relay is connected", kind=kind, relay_id=relay_id)
        self._on_way(relay_id, alias, kind)
        frames = FrameReader()
        try:
            while True:
                received: bytes | None = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_S):
                        received = await reader.read(READ_SIZE)
                if received == b"" or loop.time() > leg.used_at + IDLE_S:
                    return
                for message in frames.feed(received or b""):
                    if leg.tunnel is not None:
                        transport.sendto(message, leg.tunnel)
        finally:
            self._on_way(relay_id, alias, None)
            transport.close()


class _Leg(asyncio.DatagramProtocol):
    """The address that stands for a relay: what the tunnel sends here goes on the stream.

    Attributes:
        tunnel: Where the tunnel sent from last.
        used_at: When it did, on the event loop's clock.
    """

    def __init__(self, writer: asyncio.StreamWriter, is_tunnel: Callable[[int], bool], counters: Counter[str]) -> None:
        self._writer = writer
        self._is_tunnel = is_tunnel
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self.tunnel: tuple[str, int] | None = None
        self.used_at = self._loop.time()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self._is_tunnel(addr[1]):
            self._counters["dropped_stranger"] += 1
            return
        self.tunnel, self.used_at = addr, self._loop.time()
        if self._writer.transport.get_write_buffer_size() > MAX_BUFFERED:
            self._counters["dropped_slow"] += 1
        elif not self._writer.is_closing():
            self._writer.write(frame(data))
