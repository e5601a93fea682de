"""DNS over HTTPS, here without TLS, against a small server."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

from wardgate.io.doh import DohClient
from wardgate.io.resolver import HostResolver

QUERY = b"\x12\x34" + bytes(range(30))


async def test_query_goes_out_without_its_id_and_comes_back_with_it() -> None:
    heads: list[str] = []
    async with answering(heads, b"200 OK", b"\0\0answer-of-12-bytes") as url:
        client = DohClient(HostResolver(list), marked=False)
        answer = await client.query(url, QUERY)
        await client.close()

    assert answer == b"\x12\x34answer-of-12-bytes"
    path = heads[0].split()[1]
    (encoded,) = parse_qs(urlsplit(path).query)["dns"]
    assert base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)) == b"\0\0" + QUERY[2:]
    assert "accept: application/dns-message" in heads[0].lower()


async def test_failing_server_and_bad_addresses_give_nothing() -> None:
    client = DohClient(HostResolver(list), marked=False)
    async with answering([], b"503 Busy", b"x" * 20) as url:
        assert await client.query(url, QUERY) is None
    async with answering([], b"200 OK", b"short") as url:
        assert await client.query(url, QUERY) is None
    for bad in ("http://127.0.0.1:1/dns-query", "nonsense", "https://[::", "https://unknown.example/"):
        assert await client.query(bad, QUERY) is None
    await client.close()


@asynccontextmanager
async def answering(heads: list[str], status: bytes, body: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/dns-query"
    server.close()
