"""What strangers are refused, over real sockets; each refusal is counted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.unit.portal.api.conftest import account_with_token
from tests.unit.portal.helpers import SECRET_KEY, Lab, ManualClock, make_lab
from tests.unit.portal.sockets.harness import WAIT_S, PortalUnderTest, Refusal, key, running_portal
from wardgate.portal.bounds import MAX_BODY, Buckets
from wardgate.portal.config import Settings
from wardgate.portal.domain.subjects import Location
from wardgate.portal.guard import Guard

LIMITS: dict[str, Any] = {
    "connect_capacity": 1000,
    "stranger_capacity": 5,
    "stranger_refill_rate": 1,
    "max_strangers": 6,
    "max_strangers_per_address": 4,
    "country_blocklist": "KP,cu",
}
CLIENT: dict[str, Any] = {"external_id": "laptop", "public_key": key("laptop")}


@pytest.fixture
def settings(database_path: Path) -> Settings:
    return Settings(listen="127.0.0.1:0", database=f"sqlite:///{database_path}", secret_key=SECRET_KEY, **LIMITS)


# --- connections ------------------------------------------------------------------------------------------------------


async def test_a_head_that_never_ends_is_given_up(server: PortalUnderTest, clock: ManualClock) -> None:
    async with connection(server) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        await strangers(server, 1)
        clock.advance(14.0)
        writer.write(b"drip ")
        await answered(server)
        clock.advance(2.0)

        answer = await until_closed(reader)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert counted(server, "head_timeout") == 1
    await strangers(server, 0)


async def test_a_body_that_never_comes_is_given_up(server: PortalUnderTest, clock: ManualClock) -> None:
    async with connection(server) as (reader, writer):
        writer.write(b"POST /sites HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
        await strangers(server, 1)
        await answered(server)
        clock.advance(61.0)

        assert await until_closed(reader) == b""
    assert counted(server, "body_timeout") == 1


async def test_one_address_has_so_many_connections_and_devices_do_not_count(server: PortalUnderTest, lab: Lab) -> None:
    await server.client(lab)
    held = [await asyncio.open_connection(*address(server)) for _ in range(4)]
    await strangers(server, 4)

    async with connection(server) as (reader, _):
        answer = await until_closed(reader)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in answer
    assert counted(server, "connections_of_address") == 1

    held[0][1].close()
    await strangers(server, 3)
    assert await status_of(server, "/healthz") == 200
    for _, writer in held:
        writer.close()


async def test_a_trusted_proxy_is_bounded_by_the_sum_alone(database_path: Path, clock: ManualClock) -> None:
    settings = Settings(
        listen="127.0.0.1:0",
        database=f"sqlite:///{database_path}",
        secret_key=SECRET_KEY,
        **{**LIMITS, "trusted_proxies": "127.0.0.1"},
    )
    async with running_portal(settings, clock) as server:
        held = [await asyncio.open_connection(*address(server)) for _ in range(6)]
        await strangers(server, 6)
        async with connection(server) as (reader, _):
            assert (await until_closed(reader)).startswith(b"HTTP/1.1 503 ")
        assert counted(server, "connections") == 1
        for _, writer in held:
            writer.close()


async def test_bytes_that_are_no_http_are_refused(server: PortalUnderTest) -> None:
    async with connection(server) as (reader, writer):
        writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        answer = await until_closed(reader)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert counted(server, "malformed") == 1


# --- heads and bodies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upgrade", ["", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"])
@pytest.mark.parametrize(
    ("target", "headers", "status", "kind"),
    [
        ("/" + "a" * 2048, "", 414, "target"),
        ("/client/v2/websocket?token=" + "a" * 8000, "", 414, "target"),
        ("/healthz", "X-Long: " + "a" * 8001 + "\r\n", 431, "header_length"),
        ("/healthz", "".join(f"X-{number}: 1\r\n" for number in range(101)), 431, "header_count"),
    ],
)
async def test_a_large_head_is_refused(
    server: PortalUnderTest, target: str, headers: str, status: int, kind: str, upgrade: str
) -> None:
    async with connection(server) as (reader, writer):
        if upgrade:
            upgrade += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n{upgrade}{headers}Connection: close\r\n\r\n".encode())
        answer = await until_closed(reader)

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"application/problem+json" in answer
    assert counted(server, kind) == 1


async def test_headers_without_end_are_not_kept(server: PortalUnderTest) -> None:
    async with connection(server) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n" + b"X-More: and more\r\n" * 10_000)
        await until_closed(reader)

    assert counted(server, "malformed") == 1


async def test_a_body_that_says_it_is_too_large_is_refused_unread(server: PortalUnderTest) -> None:
    async with connection(server) as (reader, writer):
        writer.write(f"POST /sites HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n".encode())
        answer = await until_head(reader)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert counted(server, "body") == 1


async def test_a_body_of_unknown_length_is_read_to_its_bound(server: PortalUnderTest) -> None:
    parts = [bytes(2**20)] * (MAX_BODY // 2**20) + [b"!"]
    taken: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            taken.append(message)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        return {"type": "http.request", "body": parts.pop(0), "more_body": True}

    async def send(message: Any) -> None:
        taken.append(message)

    guard = Guard(application, server.bounds, lambda _: None, lambda _: Location())
    await guard({"type": "http", "path": "/", "query_string": b"", "headers": [], "method": "POST"}, receive, send)

    assert [one["status"] for one in taken if "status" in one] == [413]
    assert sum(len(one.get("body", b"")) for one in taken if one["type"] == "http.request") == MAX_BODY
    assert counted(server, "body") == 1


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 20_000, b"[" * 500 + b"]" * 500])
async def test_deep_json_is_the_callers_mistake(server: PortalUnderTest, body: bytes) -> None:
    token = await account_with_token(server.hub.db, "deep")
    async with httpx.AsyncClient(base_url=http_url(server)) as client:
        response = await client.post(
            "/sites", content=body, headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        )

    assert response.status_code in (400, 413, 422)


# --- rates ------------------------------------------------------------------------------------------------------------


async def test_an_address_that_proves_nothing_is_slowed_down_but_not_its_neighbours(
    server: PortalUnderTest, clock: ManualClock
) -> None:
    good = {"Authorization": f"Bearer {await account_with_token(server.hub.db, 'corp')}"}
    async with httpx.AsyncClient(base_url=http_url(server)) as client:
        assert (await client.get("/sites", headers=good)).status_code == 200
        guesses = [(await client.get("/sites", headers=bad(number))).status_code for number in range(7)]
        refused = await client.get("/sites", headers=bad(9))

        assert guesses == [401] * 5 + [429] * 2
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["code"] == "rate_limited"
        assert (await client.get("/sites", headers=good)).status_code == 200
        assert (await client.get("/healthz")).status_code == 200
        assert {(await client.get("/openapi.json", headers=good)).status_code for _ in range(9)} == {200}
        clock.advance(1.0)
        assert (await client.get("/sites", headers=bad(10))).status_code == 401
    assert counted(server, "address_rate") == 3


async def test_devices_without_a_good_token_are_told_to_wait_as_they_understand_it(
    server: PortalUnderTest, lab: Lab
) -> None:
    await server.client(lab)
    refusals = [await refused_connect(server, f"nonsense-{number}") for number in range(6)]

    assert [one.status for one in refusals] == [401] * 5 + [503]
    assert refusals[-1].headers["retry-after"] == "1"
    assert refusals[-1].problem["code"] == "rate_limit"
    assert await server.client(lab)  # it is known


async def test_a_country_can_be_kept_out(database_path: Path, clock: ManualClock) -> None:
    settings = Settings(
        listen="127.0.0.1:0",
        database=f"sqlite:///{database_path}",
        secret_key=SECRET_KEY,
        **{**LIMITS, "trusted_proxies": "127.0.0.1"},
    )
    async with running_portal(settings, clock) as server:
        lab = await make_lab(server.hub.db)
        for region, status in (("CU", 403), ("AT", 200)):
            assert await status_of(server, "/openapi.json", {"X-Geo-Location-Region": region}) == status
        with pytest.raises(Refusal) as caught:
            await server.client(lab, headers={"X-Geo-Location-Region": "KP"})
        assert await server.client(lab, headers={"X-Geo-Location-Region": "AT"})

        assert caught.value.status == 403
        assert counted(server, "country") == 2


# --- sockets that do not join -----------------------------------------------------------------------------------------


async def test_a_socket_that_does_not_join_is_closed(server: PortalUnderTest, lab: Lab, clock: ManualClock) -> None:
    joined = await server.client(lab, "joined")
    silent = await server.connect("client", lab.client_token, **CLIENT)
    clock.advance(31.0)

    await silent.closed()
    await joined.settle()
    assert counted(server, "join_timeout") == 1


@pytest.mark.parametrize(("text", "times"), [("{}", 33), ("a" * 66_000, 1)])
async def test_a_socket_may_say_little_before_it_joins(
    server: PortalUnderTest, lab: Lab, text: str, times: int
) -> None:
    peer = await server.connect("client", lab.client_token, **CLIENT)
    for _ in range(times):
        await peer.send_text(text)

    await peer.closed()
    assert counted(server, "talk_before_join") == 1


def test_buckets_refill_and_forget_nobody_who_is_over(clock: ManualClock) -> None:
    buckets = Buckets(clock, refill_rate=0.5, capacity=2)
    for _ in range(5):
        buckets.take("a")

    assert (buckets.wait_s("a"), buckets.wait_s("b")) == (2.0, 0.0)
    clock.advance(1.0)
    assert buckets.wait_s("a") == 1.0
    clock.advance(100.0)
    buckets.take("a")
    assert buckets.wait_s("a") == 0.0


# --- helpers ----------------------------------------------------------------------------------------------------------


def address(server: PortalUnderTest) -> tuple[str, int]:
    parts = urlsplit(server.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def http_url(server: PortalUnderTest) -> str:
    return server.url.replace("ws://", "http://")


@asynccontextmanager
async def connection(server: PortalUnderTest) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*address(server))
    try:
        yield reader, writer
    finally:
        writer.close()


async def until_head(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(WAIT_S):
        return await reader.readuntil(b"\r\n\r\n")


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(WAIT_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def status_of(server: PortalUnderTest, path: str, headers: dict[str, str] | None = None) -> int:
    async with httpx.AsyncClient(base_url=http_url(server)) as client:
        return (await client.get(path, headers=headers)).status_code


async def answered(server: PortalUnderTest) -> None:
    """A request that came later is answered, so what was sent before has been read."""
    assert await status_of(server, "/healthz") == 200


async def strangers(server: PortalUnderTest, count: int) -> None:
    """The portal has seen connections come or go."""
    bounds = server.bounds
    async with asyncio.timeout(WAIT_S):
        while bounds.strangers != count:  # noqa: ASYNC110 - nothing says when a connection is seen
            await asyncio.sleep(0.005)


async def refused_connect(server: PortalUnderTest, token: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await server.connect("client", token, **CLIENT)
    return caught.value


def bad(number: int) -> dict[str, str]:
    return {"Authorization": f"Bearer .wga_nonsense{number}"}


def counted(server: PortalUnderTest, kind: str) -> float:
    value = server.hub.metrics.registry.get_sample_value("wardgate_portal_refused_requests_total", {"kind": kind})
    return value or 0.0
