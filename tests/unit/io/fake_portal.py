"""A portal in a few lines: it confirms joins and pushes what the test says."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response


class FakePortal:
    """What it heard, and what it pushes after each join."""

    def __init__(self, *pushes: tuple[str, Any], refusal: tuple[int, bytes] | None = None) -> None:
        self.pushes = pushes
        self.refusal = refusal
        self.requests: list[Request] = []
        self.heard: list[tuple[str, Any]] = []
        self.joins = 0
        self.heartbeats = 0
        self.port = 0
        self.connections: list[ServerConnection] = []

    @property
    def url(self) -> str:
        """Its API URL."""
        return f"ws://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["FakePortal"]:
        """Serves while the context lasts."""
        async with serve(self._talk, "127.0.0.1", 0, process_request=self._on_request) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    def _on_request(self, _: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        if self.refusal is None:
            return None
        status, body = self.refusal
        return Response(status, HTTPStatus(status).phrase, Headers({"Content-Length": str(len(body))}), body)

    async def _talk(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        try:
            async for text in connection:
                await self._hear(connection, json.loads(text))
        except ConnectionClosed:
            pass

    async def _hear(self, connection: ServerConnection, frame: dict[str, Any]) -> None:
        if frame["event"] == "phx_join":
            await self._reply(connection, frame)
            self.joins += 1
            for event, payload in self.pushes:
                text = json.dumps({"topic": frame["topic"], "event": event, "payload": payload, "ref": None})
                await connection.send(text)
        elif frame["event"] == "heartbeat":
            self.heartbeats += 1
            await self._reply(connection, frame)
        else:
            self.heard.append((frame["event"], frame["payload"]))

    async def _reply(self, connection: ServerConnection, frame: dict[str, Any]) -> None:
        payload = {"status": "ok", "response": {}}
        reply = {"topic": frame["topic"], "event": "phx_reply", "ref": frame["ref"], "payload": payload}
        await connection.send(json.dumps(reply))


async def until(condition: Any) -> None:
    """Waits, on the real clock, until something holds; fails after 20 s."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the kernel and other threads
            await asyncio.sleep(0.01)
