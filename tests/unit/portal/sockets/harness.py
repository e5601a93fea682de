"""A portal on loopback and peers that speak to it over real websockets."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlencode

import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.unit.portal.helpers import Lab, ManualClock
from wardgate.portal.app import create_app, uvicorn_options
from wardgate.portal.bounds import Bounds
from wardgate.portal.channels.hub import Hub
from wardgate.portal.cluster.bus import Bus
from wardgate.portal.config import Settings
from wardgate.portal.services import tokens
from wardgate.wire import portal
from wardgate.wire.portal import ApiVersion, Frame, Json, Message, Topic

V1, V2 = ApiVersion.V1, ApiVersion.V2
WAIT_S = 20.0
CLIENT_AGENT = "Debian/12.0.0 headless-client/1.5.11 (x86_64; 6.18)"
GATEWAY_AGENT = "Debian/12.0.0 gateway/1.5.3 (x86_64; 6.18)"
RELAY_AGENT = "Debian/12.0.0 relay/0.1.0 (x86_64; 6.18)"


def key(name: str) -> str:
    """A public key for a name."""
    return base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()


class Refusal(AssertionError):
    """The portal answered with a status instead of a websocket."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(f"{status}: {body!r}")
        self.status = status
        self.headers = headers
        self.problem: dict[str, Any] = json.loads(body) if body.startswith(b"{") else {}


class Peer:
    """One end of a websocket, as a component would be; everything that comes is kept in order."""

    def __init__(self, socket: ClientConnection, topic: Topic, version: ApiVersion) -> None:
        self.topic = topic
        self.version = version
        self.seen: list[Frame] = []
        self.unread: list[Frame] = []
        self.bytes_of_events = 0
        self._socket = socket
        self._ref = 0
        self._arrived = asyncio.Event()
        self.is_closed = asyncio.Event()
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        try:
            async for text in self._socket:
                frame = portal.decode_frame(text, complete=True)
                self.bytes_of_events += len(text) if frame.topic == self.topic else 0
                self.seen.append(frame)
                self.unread.append(frame)
                self._arrived.set()
        except ConnectionClosed:
            pass
        self.is_closed.set()
        self._arrived.set()

    async def join(self, payload: Json = None) -> "Peer":
        """Joins, and waits until the portal has confirmed."""
        frame = portal.join(self.topic, self._next_ref(), payload)
        await self.send_frame(frame)
        reply = await self.next(portal.REPLY)
        assert reply == portal.reply_ok(self.topic, frame.ref)
        return self

    def _next_ref(self) -> int:
        self._ref += 1
        return self._ref - 1

    async def send_frame(self, frame: Frame) -> None:
        await self._socket.send(portal.encode_frame(frame))

    async def send_text(self, text: str | bytes) -> None:
        await self._socket.send(text)

    async def send(self, message: Message) -> int:
        """Sends a message and gives its reference."""
        ref = self._next_ref()
        await self.send_frame(portal.push(self.topic, message, self.version, ref=ref))
        return ref

    async def send_event(self, event: str, payload: Json) -> int:
        """Sends an event as it is."""
        ref = self._next_ref()
        await self.send_frame(Frame(self.topic, event, payload, ref))
        return ref

    async def next(self, event: str | None = None) -> Frame:
        """The next frame, or the next of that event, leaving the others."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for frame in self.unread:
                    if event is None or frame.event == event:
                        self.unread.remove(frame)
                        return frame
                assert not self.is_closed.is_set(), f"closed while waiting for {event}; saw {self.events()}"
                self._arrived.clear()
                await self._arrived.wait()

    async def take(self, kind: type[Message]) -> Any:
        """The next message of a kind, decoded as a real component does."""
        frame = await self.next(kind.event_names(self.version)[0])
        decode = {"client": portal.decode_to_client, "gateway": portal.decode_to_gateway}.get(self.topic)
        message = (
            decode(frame.event, frame.payload, self.version)
            if decode
            else portal.decode_to_relay(frame.event, frame.payload)
        )
        assert isinstance(message, kind), frame
        return message

    def events(self) -> list[str]:
        return [frame.event for frame in self.unread]

    async def settle(self) -> list[str]:
        """Everything that the portal had queued has come; the events that are unread."""
        ref = self._next_ref()
        await self.send_frame(portal.heartbeat(ref))
        async with asyncio.timeout(WAIT_S):
            while True:
                for frame in self.unread:
                    if frame.topic == portal.HEARTBEAT_TOPIC and frame.ref == ref:
                        self.unread.remove(frame)
                        return self.events()
                self._arrived.clear()
                await self._arrived.wait()

    async def closed(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.is_closed.wait()

    async def close(self) -> None:
        await self._socket.close()
        self._reader.cancel()


class PortalUnderTest:
    """A running portal; peers that connect through it are closed with it."""

    bounds: Bounds

    def __init__(self, url: str, hub: Hub, clock: ManualClock) -> None:
        self.url = url
        self.hub = hub
        self.clock = clock
        self._peers: list[Peer] = []

    async def connect(
        self,
        topic: Topic,
        token: str | None,
        *,
        version: ApiVersion = V2,
        agent: str | None = None,
        path: str | None = None,
        headers: dict[str, str] | None = None,
        **query: str | None,
    ) -> Peer:
        """Dials; a refusal is raised."""
        agents = {"client": CLIENT_AGENT, "gateway": GATEWAY_AGENT, "relay": RELAY_AGENT}
        suffix = "/v2" if version is V2 and topic != "relay" else ""
        given = {name: value for name, value in query.items() if value is not None}
        url = f"{self.url}{path or f'/{topic}{suffix}/websocket'}?{urlencode(given)}"
        try:
            socket = await connect(
                url,
                additional_headers={**({"X-Authorization": f"Bearer {token}"} if token else {}), **(headers or {})},
                user_agent_header=agents[topic] if agent is None else agent,
                compression=None,
                ping_interval=None,
                proxy=None,
            )
        except InvalidStatus as error:
            response = error.response
            raise Refusal(response.status_code, dict(response.headers.items()), bytes(response.body or b"")) from None
        peer = Peer(socket, topic, version)
        self._peers.append(peer)
        return peer

    async def client(
        self, lab: Lab, name: str = "laptop", *, version: ApiVersion = V2, public_key: str | None = None, **options: Any
    ) -> Peer:
        """A client that has joined; its init is the next message."""
        options = {"token": lab.client_token, "external_id": name, "public_key": public_key or key(name), **options}
        return await (await self.connect("client", version=version, **options)).join()

    async def gateway(
        self, lab: Lab, name: str = "gw", *, version: ApiVersion = V2, public_key: str | None = None, **options: Any
    ) -> Peer:
        """A gateway that has joined; its init is the next message."""
        options = {"token": lab.site_token, "external_id": name, "public_key": public_key or key(name), **options}
        return await (await self.connect("gateway", version=version, **options)).join()

    async def relay(self, secret: str = "ab" * 32, **query: str) -> Peer:
        """A relay that has joined."""
        issued = await tokens.create_relay_token(self.hub.db)
        options: dict[str, Any] = {"ipv4": "203.0.113.3", **query}
        peer = await self.connect("relay", issued.text, **options)
        return await peer.join({"stamp_secret": secret})

    async def refreshed(self) -> None:
        """No client's list of resources waits to be computed again, and what changed was sent."""
        async with asyncio.timeout(WAIT_S):
            for client in self.hub.presence.all_clients():
                await client.wait_refreshed()

    async def close(self) -> None:
        for peer in self._peers:
            await peer.close()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Any:
        yield


def _without_chance(hub: Hub) -> None:
    hub.shuffled = list
    hub.jobs = ()


@asynccontextmanager
async def running_portal(
    settings: Settings, clock: ManualClock, bus: Callable[[Hub], Bus] | None = None
) -> AsyncIterator[PortalUnderTest]:
    """Serves a portal on a free port; `bus` connects it with others."""

    def configure(hub: Hub) -> None:
        _without_chance(hub)
        hub.bus = bus(hub) if bus else None

    app = create_app(settings, clock=clock, configure=configure)
    server = _Server(uvicorn.Config(app, **{**uvicorn_options(settings), "timeout_graceful_shutdown": 1}))
    task = asyncio.get_running_loop().create_task(server.serve())
    try:
        async with asyncio.timeout(WAIT_S):
            while not server.started:
                assert not task.done(), task.result()
                await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        under_test = PortalUnderTest(f"ws://127.0.0.1:{port}", app.state.hub, clock)
        under_test.bounds = app.state.bounds
        yield under_test
        await under_test.close()
    finally:
        server.should_exit = True
        await task
