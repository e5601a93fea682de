"""A real `wardgate gateway` process in a lab of two hosts, with a portal and clients that the benchmark plays.

    outside (203.0.113.10: portal, clients) --- wan --- gateway (203.0.113.31)

What clients send into their tunnels is decided by the gateway and given to its host, which drops it: nothing behind the
gateway is part of the measurement.
"""

import asyncio
import base64
import json
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bench.light_clients import DOMAIN, REAL_IP, init
from wardgate.lab import Lab
from wardgate.lab.node import Node
from wardgate.lab.process import Process
from wardgate.lab.topology import Host, Topology
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.portal import ApiVersion, Message

OUTSIDE, GATEWAY_HOST = IPv4Address("203.0.113.10"), IPv4Address("203.0.113.31")
PORTAL_PORT, WIREGUARD_PORT, HEALTH_PORT = 8000, 52625, 8080
GATEWAY = SocketAddr(str(GATEWAY_HOST), WIREGUARD_PORT)
PROGRAM = str(Path(sys.executable).with_name("wardgate"))
READY_TIMEOUT_S = 30.0


class StagePortal:
    """The portal's side of the gateway's link.

    Attributes:
        gateway_public: The WireGuard key that the gateway joined with.
        heard: Everything the gateway said, but for heartbeats.
        heartbeats: When each heartbeat came; monotonic seconds.
        acknowledged_at: When each grant was acknowledged, by its reference; monotonic seconds.
    """

    def __init__(self) -> None:
        self.gateway_public = b""
        self.heard: list[tuple[str, Any]] = []
        self.heartbeats: list[float] = []
        self.acknowledged_at: dict[str, float] = {}
        self._connection: ServerConnection | None = None
        self._joined = asyncio.Event()

    @asynccontextmanager
    async def listening(self, host: Node) -> AsyncIterator["StagePortal"]:
        """Serves on a node while the context lasts."""
        listener = host.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(OUTSIDE), PORTAL_PORT))
        async with serve(self._talk, sock=listener):
            yield self

    async def wait_joined(self) -> None:
        """Waits until the gateway has joined and was told its addresses."""
        async with asyncio.timeout(READY_TIMEOUT_S):
            await self._joined.wait()

    async def push(self, message: Message) -> None:
        """Sends the gateway a message."""
        assert self._connection is not None, "the gateway has joined"
        name = message.event_names(ApiVersion.V2)[0]
        frame = {"topic": "gateway", "event": name, "payload": message.payload(), "ref": None}
        await self._connection.send(json.dumps(frame))

    async def _talk(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        query = parse_qs(urlsplit(connection.request.path).query)
        self.gateway_public = base64.b64decode(query["public_key"][0])
        self._connection = connection
        try:
            async for text in connection:
                await self._hear(connection, json.loads(text))
        except ConnectionClosed:
            pass

    async def _hear(self, connection: ServerConnection, frame: dict[str, Any]) -> None:
        now = time.monotonic()
        if frame["event"] in ("phx_join", "heartbeat"):
            payload = {"status": "ok", "response": {}}
            answer = {"topic": frame["topic"], "event": "phx_reply", "ref": frame["ref"], "payload": payload}
            await connection.send(json.dumps(answer))
        if frame["event"] == "phx_join":
            await self.push(init())
            self._joined.set()
        elif frame["event"] == "heartbeat":
            self.heartbeats.append(now)
        else:
            self.heard.append((frame["event"], frame["payload"]))
            if isinstance(frame["payload"], dict) and "ref" in frame["payload"]:
                self.acknowledged_at[frame["payload"]["ref"]] = now


class Stage:
    """The running gateway and its surroundings."""

    def __init__(self, lab: Lab, portal: StagePortal, process: Process) -> None:
        self.lab = lab
        self.portal = portal
        self.process = process

    @property
    def outside(self) -> Node:
        """Where clients are."""
        return self.lab.node("outside")

    def udp_socket(self, port: int) -> socket.socket:
        """A client's socket."""
        made = self.outside.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((str(OUTSIDE), port))
        made.setblocking(False)
        return made

    async def metrics(self) -> dict[str, float]:
        """The gateway's `/metrics`, by name."""
        return await asyncio.to_thread(self._metrics)

    def _metrics(self) -> dict[str, float]:
        connection = self.outside.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.settimeout(READY_TIMEOUT_S)
        with connection:
            connection.connect((str(GATEWAY_HOST), HEALTH_PORT))
            connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            text = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()
        lines = [line for line in text.partition("\r\n\r\n")[2].splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def memory(self) -> dict[str, int]:
        """What the gateway's process takes, in bytes: `VmRSS`, its greatest value `VmHWM`, and the rest of them."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        pairs = (line.split() for line in lines if line.startswith(("Vm", "Rss")))
        return {name.rstrip(":"): int(value) * 1024 for name, value, *_ in pairs}


@asynccontextmanager
async def stage(*arguments: str) -> AsyncIterator[Stage]:
    """Builds the lab, starts the portal and a gateway with these arguments, and takes all of it down again."""
    gateway = Host("gateway", GATEWAY_HOST, names=((DOMAIN, str(REAL_IP)),))
    topology = Topology(hosts=(Host("outside", OUTSIDE), gateway))
    place = {"WARDGATE_HEALTH_CHECK_ADDR": f"{GATEWAY_HOST}:{HEALTH_PORT}"}
    portal_url = f"ws://{OUTSIDE}:{PORTAL_PORT}"
    with Lab(topology) as lab, TemporaryDirectory() as directory:
        async with StagePortal().listening(lab.node("outside")) as portal:
            process = lab.node("gateway").spawn(
                [PROGRAM, "gateway", "--no-masquerade", *arguments],
                env={
                    **place,
                    "WARDGATE_TOKEN": "bench",
                    "WARDGATE_API_URL": portal_url,
                    "WARDGATE_STATE_DIR": directory,
                },
                log_path=Path(directory, "gateway.log"),
            )
            try:
                await portal.wait_joined()
            except TimeoutError:
                raise SystemExit(f"the gateway did not join:\n{process.log()}") from None
            yield Stage(lab, portal, process)
