"""DNS over HTTPS against small servers."""

import asyncio
import base64
import contextlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pyroute2 import IPRoute

from tests.unit.io.namespace import bring_loopback_up, in_namespace, in_thread
from wardgate.io.doh import DohClient
from wardgate.io.resolver import HostResolver, HostsFile
from wardgate.io.udp import FWMARK, mark

QUERY = b"\x12\x34" + bytes(range(30))


async def test_query_goes_out_without_its_id_and_comes_back_with_it() -> None:
    heads: list[str] = []
    async with answering(heads, b"200 OK", b"\0\0answer-of-12-bytes") as url:
        client = DohClient(HostResolver(list), open_socket=plain_socket)
        answer = await client.query(url, QUERY)
        await client.close()

    assert answer == b"\x12\x34answer-of-12-bytes"
    path = heads[0].split()[1]
    (encoded,) = parse_qs(urlsplit(path).query)["dns"]
    assert base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)) == b"\0\0" + QUERY[2:]
    assert "accept: application/dns-message" in heads[0].lower()


async def test_failing_server_and_bad_addresses_give_nothing() -> None:
    client = DohClient(HostResolver(list), open_socket=plain_socket)
    async with answering([], b"503 Busy", b"x" * 20) as url:
        assert await client.query(url, QUERY) is None
    async with answering([], b"200 OK", b"short") as url:
        assert await client.query(url, QUERY) is None
    for bad in ("http://127.0.0.1:1/dns-query", "nonsense", "https://[::", "https://unknown.example/"):
        assert await client.query(bad, QUERY) is None
    await client.close()


async def test_too_long_an_answer_is_none() -> None:
    client = DohClient(HostResolver(list), open_socket=plain_socket)
    async with answering([], b"200 OK", b"x" * 65536) as url:
        assert await client.query(url, QUERY) is None
    async with answering([], b"200 OK", b"x" * 65535) as url:
        assert len(await client.query(url, QUERY) or b"") == 65535
    await client.close()


async def test_connection_is_kept_and_a_lost_one_made_again() -> None:
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n" + bytes(12))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    client = DohClient(HostResolver(list), open_socket=plain_socket)
    answers = [await client.query(url, QUERY), await client.query(url, QUERY)]
    kept = len(connections)
    connections[0].close()
    await asyncio.sleep(0)
    answers.append(await client.query(url, QUERY) or await client.query(url, QUERY))
    await client.close()
    server.close()

    assert answers == [QUERY[:2] + bytes(10)] * 3
    assert (kept, len(connections)) == (1, 2)


async def test_server_is_verified_by_its_name(tmp_path: Path) -> None:
    context, authority = certified("dns.example", tmp_path)
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 dns.example other.example\n")
    trusting = ssl.create_default_context(cafile=str(authority))
    client = DohClient(HostResolver(list, hosts=HostsFile(hosts)), open_socket=plain_socket, tls=trusting)
    heads: list[str] = []
    async with answering(heads, b"200 OK", bytes(12), context) as url:
        good = await client.query(url.replace("127.0.0.1", "dns.example"), QUERY)
        other = await client.query(url.replace("127.0.0.1", "other.example"), QUERY)
    await client.close()

    assert good is not None
    assert other is None
    assert len(heads) == 1
    assert "host: dns.example:" in heads[0].lower()


@in_namespace
def test_not_even_the_first_packet_goes_into_the_tunnel() -> None:
    async def body() -> bytes | None:
        async with answering([], b"200 OK", bytes(12), marked=True) as url:
            client = DohClient(HostResolver(list))
            answer = await client.query(url, QUERY)
            await client.close()
            return answer

    bring_loopback_up()
    in_thread(forbid_unmarked_packets)

    assert asyncio.run(body()) is not None


def forbid_unmarked_packets() -> None:
    """Refuses what a client would send into its tunnel, also on the way to this host itself."""
    with IPRoute() as netlink:
        netlink.rule("add", family=socket.AF_INET, table=255, priority=1000)
        netlink.rule("del", family=socket.AF_INET, table=255, priority=0)
        netlink.rule("add", family=socket.AF_INET, priority=100, fwmark=FWMARK, flags=2, action="prohibit")


def plain_socket(family: socket.AddressFamily) -> socket.socket:
    return socket.socket(family, socket.SOCK_STREAM)


def certified(name: str, directory: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context, and the certificate that clients must trust."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    words += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    command = ["openssl", *words, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


@asynccontextmanager
async def answering(
    heads: list[str], status: bytes, body: bytes, tls: ssl.SSLContext | None = None, *, marked: bool = False
) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        except asyncio.IncompleteReadError:
            return
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()
        writer.close()

    listening = plain_socket(socket.AF_INET)
    if marked:
        mark(listening, must=True)
    listening.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(serve, sock=listening, ssl=tls)
    yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/dns-query"
    server.close()
