"""A websocket after it was taken over from ASGI: what an odd client may send, and what it may not."""

import asyncio
import base64
import json
import os
import struct
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.unit.portal.helpers import Lab, ManualClock, make_lab
from tests.unit.portal.sockets.harness import CLIENT_AGENT, PortalUnderTest, Refusal, key, running_portal
from wardgate.portal.config import Settings
from wardgate.portal.sockets import endpoints
from wardgate.wire import portal

TEXT, CONTINUATION, BINARY, CLOSE, PING = 1, 0, 2, 8, 9
JOIN = b'{"topic":"client","event":"phx_join","payload":null,"ref":0}'
HEARTBEAT = b'{"topic":"phoenix","event":"heartbeat","payload":{},"ref":%d}'


def frame(data: bytes, opcode: int = TEXT, *, is_last: bool = True, mask: bytes | None = None) -> bytes:
    """A client's frame."""
    mask = os.urandom(4) if mask is None else mask
    first = (0x80 if is_last else 0) | opcode
    size = (
        struct.pack("!BB", first, 0x80 | len(data)) if len(data) < 126 else struct.pack("!BBH", first, 0xFE, len(data))
    )
    return size + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))


class RawClient:
    """A websocket client by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        async with asyncio.timeout(20):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def next(self) -> tuple[int, bytes]:
        """The next frame of the server."""
        async with asyncio.timeout(20):
            opcode, length = await self.reader.readexactly(2)
            if length == 126:
                [length] = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                [length] = struct.unpack("!Q", await self.reader.readexactly(8))
            return opcode & 15, await self.reader.readexactly(length)

    async def next_json(self) -> Any:
        opcode, data = await self.next()
        assert opcode == TEXT
        return json.loads(data)


async def dial(server: PortalUnderTest, lab: Lab) -> RawClient:
    """Connects, and joins nothing yet."""
    host, port = urlsplit(server.url).hostname, urlsplit(server.url).port
    reader, writer = await asyncio.open_connection(host, port)
    query = urlencode({"external_id": "raw", "public_key": key("raw")})
    nonce = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /client/v2/websocket?{query} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\nUser-Agent: {CLIENT_AGENT}\r\n"
        f"X-Authorization: Bearer {lab.client_token}\r\n\r\n".encode()
    )
    client = RawClient(reader, writer)
    assert b" 101 " in await client.head()
    return client


async def eventually(is_true: Callable[[], bool]) -> None:
    """Returns once something is so."""
    for _ in range(2000):
        if is_true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")


async def test_a_message_in_pieces_and_a_ping_between_them(server: PortalUnderTest, lab: Lab) -> None:
    client = await dial(server, lab)
    client.writer.write(frame(JOIN[:10], is_last=False) + frame(b"hi", PING) + frame(JOIN[10:], CONTINUATION))

    assert await client.next() == (10, b"hi")
    assert (await client.next_json())["event"] == portal.REPLY
    client.writer.close()


async def test_messages_keep_their_order_while_one_is_handled(server: PortalUnderTest, lab: Lab) -> None:
    client = await dial(server, lab)
    client.writer.write(frame(JOIN) + b"".join(frame(HEARTBEAT % number) for number in range(1, 20)))

    refs = [one["ref"] for one in [await client.next_json() for _ in range(21)] if one["ref"] is not None]
    assert refs == list(range(20))
    client.writer.close()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(b"\xff\xfe", mask=b"mask"), 1007),
        (bytes((0x81, 2)) + b"{}", 1002),  # not masked
        (frame(b"x", 3, mask=b"mask"), 1002),  # no such opcode
        (struct.pack("!BBQ", 0x81, 0xFF, 2**40) + bytes(4), 1009),
    ],
)
async def test_what_is_no_websocket_ends_it_with_a_reason(
    server: PortalUnderTest, lab: Lab, data: bytes, code: int
) -> None:
    client = await dial(server, lab)
    client.writer.write(data)

    opcode, reason = await client.next()

    assert (opcode, struct.unpack("!H", reason[:2])[0]) == (CLOSE, code)
    client.writer.close()
    await eventually(lambda: not server.hub.presence.all_clients())


async def test_a_binary_message_is_counted_and_dropped(server: PortalUnderTest, lab: Lab) -> None:
    client = await dial(server, lab)
    client.writer.write(frame(JOIN, BINARY) + frame(HEARTBEAT % 7))

    assert (await client.next_json())["ref"] == 7
    client.writer.close()


async def test_a_client_that_vanishes_leaves_nothing_behind(server: PortalUnderTest, lab: Lab) -> None:
    client = await dial(server, lab)
    client.writer.write(frame(JOIN))
    await client.next_json()
    client.writer.transport.abort()

    await eventually(lambda: not server.hub.presence.all_clients() and not server.hub.presence.relay_listeners)


async def test_too_many_at_once_are_told_when_to_come_back(
    settings: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "MAX_CONNECTING", 0)
    async with running_portal(settings, clock) as server:
        lab = await make_lab(server.hub.db)

        with pytest.raises(Refusal) as caught:
            await server.client(lab)

        assert caught.value.status == 503
        assert 2 <= int(caught.value.headers["retry-after"]) <= 8
        monkeypatch.setattr(endpoints, "MAX_CONNECTING", 1)
        await (await server.client(lab)).take(portal.ClientInit)
