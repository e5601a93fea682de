"""Ways to relays by TCP and TLS: a relay that is only there, with and without a proxy between."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from wardgate.ids import RelayId
from wardgate.io import relay_ways
from wardgate.io.relay_streams import frame
from wardgate.io.relay_ways import RelayWays
from wardgate.io.websocket import open_plain_socket, resolve_with_system
from wardgate.proto.http_proxy import Proxies
from wardgate.wire import channel_data
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.stun import Builder, MessageClass, Method

RELAY = RelayId("relay")
STUN = Builder(Method.BINDING, MessageClass.REQUEST, bytes(12)).build()
DATA = channel_data.encode(0x4000, b"abcde")


class Ways:
    """What is told of ways, and a socket in the place of the tunnel's."""

    def __init__(self, proxies: Proxies | None = None) -> None:
        self.told: asyncio.Queue[tuple[SocketAddr, str | None]] = asyncio.Queue()
        self.tunnel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.tunnel.bind(("127.0.0.1", 0))
        self.tunnel.setblocking(False)
        port = self.tunnel.getsockname()[1]
        self.ways = RelayWays(
            lambda _, alias, kind: self.told.put_nowait((alias, kind)),
            open_socket=open_plain_socket,
            is_tunnel=lambda other: other == port,
            proxies=proxies or Proxies("none", {}),
            resolve=resolve_with_system,
        )

    async def next(self) -> tuple[SocketAddr, str | None]:
        async with asyncio.timeout(5):
            return await self.told.get()

    async def received(self) -> bytes:
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recv(self.tunnel, 65536)

    def close(self) -> None:
        self.tunnel.close()


@contextlib.asynccontextmanager
async def echo(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A relay that says everything again; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while received := await reader.read(65536):
            writer.write(received)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


@pytest.fixture
def server_context(tmp_path: Path) -> ssl.SSLContext:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=somebody.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def test_datagrams_go_both_ways_by_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_ways, "TLS_PORT", 1)
    ways = Ways()
    async with echo() as port:
        ways.ways.seek(RELAY, (SocketAddr("127.0.0.1", port),))
        ways.ways.seek(RELAY, (SocketAddr("127.0.0.1", port),))  # while that goes on, once is enough
        alias, kind = await ways.next()
        assert kind == "tcp"

        for message in (STUN, DATA):
            ways.tunnel.sendto(message, alias)
            assert await ways.received() == message
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(STUN, alias)
            await asyncio.sleep(0.05)
        await ways.ways.close()

    assert await ways.next() == (alias, None)
    assert ways.ways.counters["opened_tcp"] == 1
    assert ways.ways.counters["dropped_stranger"] == 1
    assert ways.told.empty()
    ways.close()


async def test_tls_needs_no_certificate_of_its_name(
    monkeypatch: pytest.MonkeyPatch, server_context: ssl.SSLContext
) -> None:
    ways = Ways()
    async with echo(server_context) as port:
        monkeypatch.setattr(relay_ways, "TLS_PORT", port)
        ways.ways.seek(RELAY, (SocketAddr("127.0.0.1", 1),))
        alias, kind = await ways.next()
        ways.tunnel.sendto(DATA, alias)

        assert (kind, await ways.received()) == ("tls", DATA)
        await ways.ways.close()
    ways.close()


async def test_a_proxy_is_asked_for_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_ways, "TLS_PORT", 1)
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head)
        allowed = b":3478 " in head
        writer.write(b"HTTP/1.1 200 Fine\r\nVia: x\r\n\r\n" if allowed else b"HTTP/1.1 403 No\r\n\r\n")
        while allowed and (received := await reader.read(65536)):
            writer.write(received)
        writer.close()

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    ways = Ways(Proxies(f"http://u:p@127.0.0.1:{port}", {}))
    ways.ways.seek(RELAY, (SocketAddr("192.0.2.3", 3478),))
    alias, kind = await ways.next()
    ways.tunnel.sendto(STUN, alias)

    assert (kind, await ways.received()) == ("tcp", STUN)
    assert sorted(head.split(b"\r\n")[0] for head in asked) == [
        b"CONNECT 192.0.2.3:1 HTTP/1.1",
        b"CONNECT 192.0.2.3:3478 HTTP/1.1",
    ]
    assert all(b"Proxy-Authorization: Basic dTpw\r\n" in head for head in asked)
    await ways.ways.close()
    proxy.close()
    ways.close()


async def test_a_way_that_breaks_or_is_not_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_ways, "TLS_PORT", 1)
    monkeypatch.setattr(relay_ways, "IDLE_S", 0.1)
    ways = Ways()
    async with echo() as port:
        ways.ways.seek(RELAY, (SocketAddr("127.0.0.1", port),))
        alias, _ = await ways.next()
        assert await ways.next() == (alias, None)  # idle
        await asyncio.sleep(0.05)

        ways.ways.seek(RELAY, (SocketAddr("127.0.0.1", port),))
        alias, _ = await ways.next()
        ways.tunnel.sendto(frame(b"\xff garbage of a relay"), alias)
        assert await ways.next() == (alias, None)
    await ways.ways.close()
    ways.close()
