"""Real portal processes on one PostgreSQL and one NATS server, and agents that come back by themselves.

Used by tests and by `bench.nodes`. Everything that is started here is ended by its process id.
"""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlencode

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from tests.nats_server import NatsServer
from tests.unit.portal.helpers import SECRET_KEY, Lab, make_lab
from tests.unit.portal.sockets.harness import CLIENT_AGENT, GATEWAY_AGENT, key
from wardgate.errors import RemoteProtocolError
from wardgate.ids import ResourceId
from wardgate.portal.clock import SystemClock
from wardgate.portal.db.engine import Database
from wardgate.portal.db.tables import Device
from wardgate.portal.services import actors, policies, tokens
from wardgate.wire import portal

START_S: Final = 60.0
ROOT: Final = Path(__file__).parents[4]


class Node:
    """One `wardgate portal serve`."""

    def __init__(self, database: str, nats_url: str, directory: Path, name: str, **environment: str) -> None:
        self._log = directory / f"{name}.log"
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "WARDGATE_LISTEN": "127.0.0.1:0",
            "WARDGATE_DATABASE": database,
            "WARDGATE_SECRET_KEY": SECRET_KEY,
            "WARDGATE_NATS_URL": nats_url,
            "WARDGATE_CONNECT_CAPACITY": "100000",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Runs it, and waits until it listens."""
        begin = self._spawn()
        async with asyncio.timeout(START_S):
            while True:
                text = self._log.read_bytes()[begin:].decode(errors="replace")
                if found := re.search(r"listening on http(://[0-9.:]+)", text):
                    self.url = f"ws{found[1]}"
                    return
                assert self.is_running, text
                await asyncio.sleep(0.02)

    def _spawn(self) -> int:
        """Where in the log this run begins."""
        begin = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "wardgate.cli", "portal", "serve"],
                cwd=self._log.parent,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return begin

    def signal(self, number: int) -> None:
        """Sends a signal to this process alone."""
        if self.is_running:
            os.kill(self.pid, number)

    async def wait_ended(self, within_s: float = 30.0) -> int:
        """The exit status."""
        async with asyncio.timeout(within_s):
            while self.is_running:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert self._process is not None
        return int(self._process.returncode)

    def end(self) -> None:
        """Ends it for certain."""
        if self._process is not None and self.is_running:
            self._process.kill()
            self._process.wait(timeout=10)

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of a path."""
        url = self.url.replace("ws:", "http:", 1) + path

        def fetch() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        return await asyncio.to_thread(fetch)

    async def metric(self, name: str) -> float:
        """A counter or gauge without labels, or the sum over them."""
        _, text = await self.get("/metrics")
        found = re.findall(rf"^wardgate_portal_{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)
        return sum(float(value) for value in found)

    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text(errors="replace")


@dataclass
class Agent:
    """A client or gateway that stays connected, to any of several portals, and remembers what it was told.

    Attributes:
        urls: Where portals are now; one is chosen for each attempt, as a load balancer would.
        joined_at: When it joined last, in monotonic seconds; `None` while it is not joined.
        gaps: How long each gap between two joins was, in seconds.
        grants: What a gateway holds: client and resource.
        resources: What a client lists.
        granted: Resources for which a client was told a gateway, since they were last withdrawn.
    """

    topic: Literal["client", "gateway"]
    token: str
    name: str
    urls: Callable[[], Sequence[str]]
    public_key: str = ""
    is_acknowledging: bool = True
    joined_at: float | None = None
    joins: int = 0
    gaps: list[float] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    events: list[tuple[float, str, Any]] = field(default_factory=list)
    grants: set[tuple[str, str]] = field(default_factory=set)
    resources: set[str] = field(default_factory=set)
    granted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.public_key = self.public_key or key(self.name)
        self.url = ""
        self._socket: ClientConnection | None = None
        self._ref = 0
        self._left_at: float | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def wait(self, condition: Callable[[], object], within_s: float = 30.0) -> float:
        """Waits for something to be so and gives the seconds that took."""
        started = time.monotonic()
        async with asyncio.timeout(within_s):
            while not condition():
                assert not self._task.done(), self._task.result()
                await asyncio.sleep(0.002)
        return time.monotonic() - started

    async def wait_joined(self) -> "Agent":
        """Returns once it has its init."""
        await self.wait(lambda: self.joined_at is not None)
        return self

    async def send(self, message: portal.Message) -> None:
        """Says something, if it is connected."""
        self._ref += 1
        if self._socket is not None:
            frame = portal.push(self.topic, message, ref=self._ref)
            await self._socket.send(portal.encode_frame(frame))

    async def ask(self, resource_id: str) -> None:
        """A client asks for access."""
        await self.send(portal.RequestAuthorization(resource_id=ResourceId(resource_id)))

    def saw(self, event: str, since: float = 0.0) -> list[Any]:
        """The payloads of an event, since a monotonic time."""
        return [payload for at, name, payload in self.events if name == event and at >= since]

    async def close(self) -> None:
        """Leaves for good."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        backoff_s = 0.1
        while True:
            joins = self.joins
            try:
                await self._converse(random.choice(list(self.urls())))
            except InvalidStatus as error:
                self.refusals.append(error.response.status_code)
            except (OSError, WebSocketException, TimeoutError, EOFError, IndexError):
                pass
            if self.joined_at is not None:
                self.joined_at, self._left_at = None, time.monotonic()
            backoff_s = 0.1 if self.joins > joins else min(1.0, backoff_s * 1.5)
            await asyncio.sleep(backoff_s * (0.5 + random.random()))

    async def _converse(self, url: str) -> None:
        query = urlencode({"external_id": self.name, "public_key": self.public_key, "name": self.name})
        async with connect(
            f"{url}/{self.topic}/v2/websocket?{query}",
            additional_headers={"X-Authorization": f"Bearer {self.token}"},
            user_agent_header=CLIENT_AGENT if self.topic == "client" else GATEWAY_AGENT,
            compression=None,
            ping_interval=None,
            proxy=None,
            open_timeout=10,
            close_timeout=1,
        ) as socket:
            self._socket, self.url = socket, url
            beat = asyncio.get_running_loop().create_task(self._beat(socket))
            try:
                await socket.send(portal.encode_frame(portal.join(self.topic, 0)))
                async for text in socket:
                    await self._take(portal.decode_frame(text))
            finally:
                beat.cancel()
                self._socket = None

    async def _beat(self, socket: ClientConnection) -> None:
        while True:
            await asyncio.sleep(10)
            self._ref += 1
            await socket.send(portal.encode_frame(portal.heartbeat(self._ref)))

    async def _take(self, frame: portal.Frame) -> None:
        now = time.monotonic()
        self.events.append((now, frame.event, frame.payload))
        if frame.event in (portal.REPLY, portal.CLOSE):
            return
        try:
            decode = portal.decode_to_client if self.topic == "client" else portal.decode_to_gateway
            message = decode(frame.event, frame.payload)
        except RemoteProtocolError as error:
            raise AssertionError(f"{self.name} got what no component understands: {error}") from None
        match message:
            case portal.ClientInit() | portal.GatewayInit():
                self._joined(message, now)
            case portal.CreateAuthorization():
                self.grants.add((message.client.id, message.resource.id))
                if self.is_acknowledging:
                    await self.send(portal.AuthorizationAcknowledged(ref=message.ref))
            case portal.RejectAccess():
                self.grants.discard((message.client_id, message.resource_id))
            case portal.ResourceCreatedOrUpdated():
                self.resources.add(message.resource.id)
            case portal.ResourceDeleted():
                self.resources.discard(message.resource_id)
                self.granted.discard(message.resource_id)
            case portal.AuthorizationCreated():
                self.granted.add(message.resource_id)

    def _joined(self, message: portal.ClientInit | portal.GatewayInit, now: float) -> None:
        if self._left_at is not None:
            self.gaps.append(now - self._left_at)
            self._left_at = None
        self.joined_at = now
        self.joins += 1
        if isinstance(message, portal.GatewayInit):
            self.grants = {(one.client_id, one.resource_id) for one in message.authorizations}
        else:
            self.resources = {one.id for one in message.resources}
            self.granted &= self.resources


@dataclass
class Installation:
    """PostgreSQL, NATS, and portals that are started when a test wants them."""

    database_url: str
    nats: NatsServer
    directory: Path
    db: Database
    lab: Lab
    nodes: list[Node] = field(default_factory=list)
    agents: list[Agent] = field(default_factory=list)
    api_token: str = ""

    async def node(self, **environment: str) -> Node:
        """One more portal."""
        node = Node(self.database_url, self.nats.url, self.directory, f"node{len(self.nodes)}", **environment)
        self.nodes.append(node)
        await node.start()
        return node

    def urls(self) -> list[str]:
        """Portals that have not ended."""
        return [node.url for node in self.nodes if node.is_running]

    def client(self, *nodes: Node, name: str = "laptop") -> Agent:
        return self._agent(Agent("client", self.lab.client_token, name, lambda: [node.url for node in nodes]))

    def gateway(self, *nodes: Node, name: str = "gw") -> Agent:
        return self._agent(Agent("gateway", self.lab.site_token, name, lambda: [node.url for node in nodes]))

    def _agent(self, agent: Agent) -> Agent:
        self.agents.append(agent)
        return agent

    async def device_id(self, name: str) -> str:
        """The id of a device that has connected."""
        async with self.db.scoped(self.lab.subject) as scope:
            found = await scope.all(scope.select(Device).where(Device.firezone_id == name))
        return found[0].id

    async def revoke(self) -> float:
        """Deletes the policy; when that was committed."""
        assert self.lab.policy
        async with self.db.writing(self.lab.subject) as unit:
            await policies.delete_policy(unit, self.lab.policy.id)
        return time.monotonic()

    async def revoke_through(self, node: Node) -> float:
        """The same through a portal's REST API, which wakes the others; when it had answered."""
        assert self.lab.policy
        if not self.api_token:
            async with self.db.writing(self.lab.subject) as unit:
                client = await actors.create_actor(unit, {"name": "Bench", "type": "api_client"}, ("api_client",))
                self.api_token = (await tokens.create_api_token(unit, client.id, {"name": "bench"})).text
        async with httpx.AsyncClient(base_url=node.url.replace("ws:", "http:", 1)) as http:
            headers = {"Authorization": f"Bearer {self.api_token}"}
            answer = await http.delete(f"/policies/{self.lab.policy.id}", headers=headers)
        assert answer.is_success, answer.text
        return time.monotonic()

    async def allow(self) -> float:
        """Makes a policy again."""
        async with self.db.writing(self.lab.subject) as unit:
            fields = {"group_id": self.lab.group.id, "resource_id": self.lab.resource.id}
            self.lab.policy = await policies.create_policy(unit, fields)
        return time.monotonic()

    async def granted(self, client: Agent, gateway: Agent) -> None:
        """Asks until there is access: portals need a moment to hear of each other."""
        await client.wait_joined()
        await gateway.wait_joined()
        async with asyncio.timeout(30):
            while self.lab.resource.id not in client.granted:
                await client.ask(self.lab.resource.id)
                await asyncio.sleep(0.1)
        assert gateway.grants

    async def close(self) -> None:
        for agent in self.agents:
            await agent.close()
        for node in self.nodes:
            node.end()
        await self.db.close()


async def installation(database_url: str, nats: NatsServer, directory: Path) -> Installation:
    db = Database(database_url, SystemClock(), SECRET_KEY)
    return Installation(database_url, nats, directory, db, await make_lab(db))


def is_draining(answer: tuple[int, str]) -> bool:
    """Whether `/readyz` said so."""
    status, body = answer
    return status == 503 and json.loads(body)["status"] == "draining"


TERMINATE: Final = signal.SIGTERM
KILL: Final = signal.SIGKILL
