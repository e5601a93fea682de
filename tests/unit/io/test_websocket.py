"""The portal link's shell against a real websocket server on loopback."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from wardgate.io.websocket import LinkEvent, PortalLink
from wardgate.proto.portal_link import Fatal, LinkDown, LinkUp, Message, RetryPolicy

Talk = Callable[[ServerConnection], Awaitable[None]]


async def test_link_joins_and_carries_messages_both_ways() -> None:
    heard: asyncio.Queue[object] = asyncio.Queue()

    async def portal(connection: ServerConnection) -> None:
        await confirm_join(connection)
        await connection.send(json.dumps({"topic": "client", "event": "init", "payload": {"x": 1}, "ref": None}))
        heard.put_nowait(json.loads(await connection.recv()))

    async with listening(portal) as (port, _), linked(port) as link:
        up, init = await take(link, 2)
        sent = link.send("no_relays", {})

        assert (up, init) == (LinkUp(), Message("init", {"x": 1}))
        assert sent
        assert await heard.get() == {"topic": "client", "event": "no_relays", "payload": {}, "ref": 1}


async def test_request_carries_the_token_in_its_header_and_neither_origin_nor_extensions() -> None:
    async with listening(confirm_join) as (port, requests), linked(port, token=" se cret\n") as link:
        await take(link, 1)

    (request,) = requests
    assert request.headers["X-Authorization"] == "Bearer secret"
    assert request.headers["User-Agent"] == "Debian/12 headless-client/1.5.12"
    assert "Origin" not in request.headers
    assert "Sec-WebSocket-Extensions" not in request.headers
    assert "secret" not in request.path


async def test_refused_token_is_fatal_with_the_portals_words() -> None:
    body = json.dumps({"code": "invalid_token", "detail": "The token is revoked."}).encode()

    async with listening(confirm_join, refusal=(401, body)) as (port, _), linked(port) as link:
        (fatal,) = await take(link, 1)

    assert isinstance(fatal, Fatal)
    assert fatal.requires_sign_in
    assert "The token is revoked." in fatal.reason


async def test_retry_after_is_taken_from_the_answer() -> None:
    async with listening(confirm_join, refusal=(503, b"")) as (port, _), linked(port) as link:
        (down,) = await take(link, 1)

    assert isinstance(down, LinkDown)
    assert down.retry_in_s == 7.0


async def test_lost_connection_is_dialled_again() -> None:
    async def portal(connection: ServerConnection) -> None:
        await confirm_join(connection)
        await connection.close(1012)

    async with listening(portal) as (port, _), linked(port) as link:
        first, down, second = await take(link, 3)

    assert (first, second) == (LinkUp(), LinkUp())
    assert isinstance(down, LinkDown)


async def test_dead_address_does_not_hold_up_a_live_one() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.9", 0))  # bound and not listening: refused

        async def resolve(host: str) -> list[str]:
            assert host == "portal.test"
            return ["127.0.0.9", "127.0.0.1"]

        async with listening(confirm_join) as (port, _):
            link = new_link(f"ws://portal.test:{port}/client/v2/websocket")
            link._resolve = resolve
            link.start()
            assert await take(link, 1) == [LinkUp()]
            await link.close()


async def test_flood_of_pushes_waits_in_the_network_and_none_is_lost() -> None:
    sent_all = asyncio.Event()

    async def portal(connection: ServerConnection) -> None:
        await confirm_join(connection)
        for number in range(1000):
            await connection.send(json.dumps({"topic": "client", "event": "n", "payload": number, "ref": None}))
        sent_all.set()

    async with listening(portal) as (port, _), linked(port) as link:
        await take(link, 1)
        await sent_all.wait()
        for _ in range(1000):
            await asyncio.sleep(0)
        held = len(link._inbox)
        numbers = [event.payload for event in await take(link, 1000) if isinstance(event, Message)]

    assert held == 128
    assert numbers == list(range(1000))


async def test_network_change_reconnects_with_the_url_of_now() -> None:
    async with listening(confirm_join) as (port, requests):
        paths = iter(["one", "two"])
        link = new_link("")
        link._url = lambda: f"ws://127.0.0.1:{port}/{next(paths)}"
        link.start()
        await take(link, 1)

        link.reset()
        down, up = await take(link, 2)
        await link.close()

    assert isinstance(down, LinkDown)
    assert up == LinkUp()
    assert [request.path for request in requests] == ["/one", "/two"]


async def test_closing_says_goodbye_to_the_portal() -> None:
    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def portal(connection: ServerConnection) -> None:
        await confirm_join(connection)
        await connection.wait_closed()
        codes.put_nowait(connection.close_code)

    async with listening(portal) as (port, _), linked(port) as link:
        await take(link, 1)
        await link.close()

        assert await codes.get() == 1000


async def confirm_join(connection: ServerConnection) -> None:
    join = json.loads(await connection.recv())
    assert join == {"topic": "client", "event": "phx_join", "payload": None, "ref": 0}
    payload = {"status": "ok", "response": {}}
    await connection.send(json.dumps({"topic": "client", "event": "phx_reply", "ref": 0, "payload": payload}))


@asynccontextmanager
async def listening(talk: Talk, refusal: tuple[int, bytes] | None = None) -> AsyncIterator[tuple[int, list[Request]]]:
    requests: list[Request] = []

    def on_request(_: ServerConnection, request: Request) -> Response | None:
        requests.append(request)
        if refusal is None:
            return None
        status, body = refusal
        headers = Headers({"Retry-After": "7", "Content-Length": str(len(body))})
        return Response(status, HTTPStatus(status).phrase, headers, body)

    async def handler(connection: ServerConnection) -> None:
        await talk(connection)
        await connection.wait_closed()

    async with serve(handler, "127.0.0.1", 0, process_request=on_request) as server:
        (listener,) = server.sockets
        yield listener.getsockname()[1], requests


@asynccontextmanager
async def linked(port: int, token: str = "t") -> AsyncIterator[PortalLink]:
    link = new_link(f"ws://127.0.0.1:{port}/client/v2/websocket", token)
    link.start()
    yield link
    await link.close()


def new_link(url: str, token: str = "t") -> PortalLink:
    return PortalLink(
        url=lambda: url,
        token=token,
        topic="client",
        user_agent="Debian/12 headless-client/1.5.12",
        policy=RetryPolicy(initial_s=0.01),
    )


async def take(link: PortalLink, count: int) -> list[LinkEvent]:
    found: list[LinkEvent] = []
    async for event in link:
        found.append(event)
        if len(found) == count:
            break
    return found
