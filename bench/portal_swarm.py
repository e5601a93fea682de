"""Ten thousand programs in one process: the least of a client or gateway that a portal can tell from a real one.

Every agent has its own TCP connection and source address, joins, beats every 10 s, and after a loss comes back as
components do (portal-protocol sections 1.4 to 1.6): an attempt may take 15 s, a join 5 s; between attempts 0.5 s, then
half as much again each time up to 60 s, with jitter, or what `Retry-After` says. Messages are counted, not decoded,
except for those that a measure asks about.
"""

import asyncio
import base64
import json
import os
import random
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast
from urllib.parse import urlencode

from bench.portal_fill import AgentSpec

Topic = Literal["client", "gateway"]
HEARTBEAT_S: Final = 10.0
ATTEMPT_S, JOIN_S = 15.0, 5.0
FIRST_BACKOFF_S, BACKOFF_FACTOR, MOST_BACKOFF_S, JITTER = 0.5, 1.5, 60.0, 0.5
USER_AGENTS: Final = {
    "client": "Debian/12.0.0 headless-client/1.5.13 (x86_64; 6.18)",
    "gateway": "Debian/12.0.0 gateway/1.6.0 (x86_64; 6.18)",
}
FATAL_STATUSES: Final = (401,)
START_WITHIN_S: Final = 120.0
_JOIN_REF: Final = 0
_MASK: Final = b"\x00\x00\x00\x00"
"""Masking with zeros is masking by RFC 6455, and costs nothing here."""


@dataclass
class Swarm:
    """All agents, and what happened to them.

    Attributes:
        on_push: Called with an agent and the bytes of each message that is no reply, for whoever measures.
        refused: How many connects were answered with each status; 0 stands for TCP failures.
        fatal: Agents that a real program would not bring back.
    """

    host: str
    port: int
    agents: list["Agent"] = field(default_factory=list)
    refused: dict[int, int] = field(default_factory=dict)
    fatal: list["Agent"] = field(default_factory=list)
    on_push: Callable[["Agent", bytes], None] | None = None
    is_running: bool = True
    timeouts: int = 0
    lost: int = 0

    def add(self, topic: Topic, specs: Sequence[AgentSpec]) -> list["Agent"]:
        """Makes an agent for each."""
        made = [Agent(self, topic, spec, len(self.agents) + number) for number, spec in enumerate(specs)]
        self.agents += made
        return made

    async def start(self, agents: Sequence["Agent"], per_s: float = 400.0) -> None:
        """Connects agents at a steady pace and waits until all have joined."""
        loop = asyncio.get_running_loop()
        for number, agent in enumerate(agents):
            loop.call_later(number / per_s, agent.dial)
        until = time.monotonic() + START_WITHIN_S + len(agents) / per_s
        while not all(agent.joined_at for agent in agents):
            if self.fatal or self.refused.get(500) or time.monotonic() > until:
                seen = next((agent.refusal for agent in self.agents if agent.refusal), b"")
                raise SystemExit(f"not every agent joined: {self.refused}, {self.timeouts} timeouts, {seen[-300:]!r}")
            await asyncio.sleep(0.1)

    async def beat(self) -> None:
        """Sends everybody's heartbeats, spread evenly, until it is cancelled."""
        turn, turns = 0, 100
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            for agent in self.agents[turn % turns :: turns]:
                agent.heartbeat()
            turn += 1
            await asyncio.sleep(max(0.0, began + turn * HEARTBEAT_S / turns - loop.time()))

    def close(self) -> None:
        """Ends all connections for good."""
        self.is_running = False
        for agent in self.agents:
            agent.close()


class Agent(asyncio.Protocol):
    """One program.

    Attributes:
        joined_at: When its init came, monotonic; 0 while it is not joined.
        pushes: Messages of the portal that are no replies, since somebody set it to zero.
        push_bytes: Their payload.
    """

    __slots__ = (
        "_attempt", "_backoff_s", "_buffer", "_is_open", "_missed", "_ref", "_timer", "_transport", "joined_at",
        "number", "push_bytes", "pushed_at", "pushes", "refusal", "spec", "swarm", "topic",
    )  # fmt: skip

    def __init__(self, swarm: Swarm, topic: Topic, spec: AgentSpec, number: int) -> None:
        self.swarm = swarm
        self.topic: Topic = topic
        self.spec = spec
        self.number = number
        self.joined_at = self.pushed_at = 0.0
        self.pushes = self.push_bytes = 0
        self.refusal = b""
        self._attempt = 0
        self._backoff_s = FIRST_BACKOFF_S
        self._buffer = b""
        self._is_open = False
        self._missed = 0
        self._ref = _JOIN_REF
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    # --- connecting ---------------------------------------------------------------------------------------------------

    def dial(self) -> None:
        """Begins an attempt."""
        self._attempt += 1
        self._set_timer(ATTEMPT_S, self._give_up)
        asyncio.get_running_loop().create_task(self._connect(self._attempt))

    async def _connect(self, attempt: int) -> None:
        source = (f"127.{1 + (self.number >> 16)}.{self.number >> 8 & 255}.{self.number & 255}", 0)
        loop = asyncio.get_running_loop()

        def still_wanted() -> "Agent":
            if attempt != self._attempt:
                raise ConnectionAbortedError("a later attempt runs")
            return self

        try:
            await loop.create_connection(still_wanted, self.swarm.host, self.swarm.port, local_addr=source)
        except OSError:
            if attempt == self._attempt:
                self.swarm.refused[0] = self.swarm.refused.get(0, 0) + 1
                self._retry()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._transport, self._buffer, self._is_open, self._missed, self._ref = transport, b"", False, 0, _JOIN_REF
        spec = self.spec
        query = urlencode({"external_id": spec.external_id, "name": spec.external_id, "public_key": spec.public_key})
        nonce = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /{self.topic}/v2/websocket?{query} HTTP/1.1\r\nHost: {self.swarm.host}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\n"
            f"User-Agent: {USER_AGENTS[self.topic]}\r\nX-Authorization: Bearer {spec.token}\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        if self.joined_at:
            self.swarm.lost += 1
        self.joined_at = 0.0
        if self._transport is not None:
            self._transport = None
            self._retry()

    def _give_up(self) -> None:
        """The upgrade, or the join, took too long."""
        self.swarm.timeouts += 1
        self._drop()
        self._retry()

    def _drop(self) -> None:
        transport, self._transport, self.joined_at = self._transport, None, 0.0
        if transport is not None:
            transport.abort()

    def _retry(self, after_s: float | None = None) -> None:
        if not self.swarm.is_running:
            return
        self._attempt += 1
        if after_s is None:
            after_s = self._backoff_s * random.uniform(1 - JITTER, 1 + JITTER)
            self._backoff_s = min(MOST_BACKOFF_S, self._backoff_s * BACKOFF_FACTOR)
        self._set_timer(after_s, self.dial)

    def _set_timer(self, delay_s: float, callback: Callable[[], None] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, callback) if callback else None

    def close(self) -> None:
        """Ends the connection and does not come back."""
        self._set_timer(0.0, None)
        self._drop()

    # --- reading ------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        buffer = self._buffer + data if self._buffer else data
        if not self._is_open:
            head, separator, buffer_left = buffer.partition(b"\r\n\r\n")
            if not separator:
                self._buffer = buffer
                return
            buffer = buffer_left
            if not self._upgraded(head):
                self.refusal = head + b" " + buffer
                return
        self._buffer = self._read_frames(buffer)

    def _upgraded(self, head: bytes) -> bool:
        status = int(head[9:12])
        if status == 101:
            self._is_open = True
            self._set_timer(JOIN_S, self._give_up)
            self._send({"topic": self.topic, "event": "phx_join", "payload": None, "ref": self._next_ref()})
            return True
        self.swarm.refused[status] = self.swarm.refused.get(status, 0) + 1
        self._drop()
        if status in FATAL_STATUSES:
            self._set_timer(0.0, None)
            self.swarm.fatal.append(self)
            return False
        after = [line for line in head.lower().split(b"\r\n") if line.startswith(b"retry-after:")]
        self._retry(float(after[0].partition(b":")[2]) if after else None)
        return False

    def _read_frames(self, buffer: bytes) -> bytes:
        at, end = 0, len(buffer)
        while end - at >= 2:
            length, start = buffer[at + 1], at + 2
            if length == 126:
                if end - at < 4:
                    break
                length, start = struct.unpack_from("!H", buffer, start)[0], start + 2
            elif length == 127:
                if end - at < 10:
                    break
                length, start = struct.unpack_from("!Q", buffer, start)[0], start + 8
            if end - start < length:
                break
            opcode = buffer[at] & 15
            at = start + length
            if opcode == 1:
                self._take(buffer[start:at])
            elif opcode == 8:
                self._drop()
                self._retry()
                return b""
        return buffer[at:]

    def _take(self, text: bytes) -> None:
        if text.startswith(b'{"topic":"phoenix"'):
            self._missed = 0
            return
        head = text[:80]
        if b'"phx_reply"' in head:
            if not self.joined_at:
                self._set_timer(0.0, None)  # the join is confirmed; the init may take its time
            return
        if not self.joined_at and b'"init"' in head:
            self.joined_at = time.monotonic()
            self._backoff_s = FIRST_BACKOFF_S
            self._set_timer(0.0, None)
        self.pushes += 1
        self.push_bytes += len(text)
        self.pushed_at = time.monotonic()
        if self.topic == "gateway" and b'"create_authorization"' in head:
            ref = json.loads(text)["payload"]["ref"]
            self._push("authorization_created", {"ref": ref})
        if self.swarm.on_push is not None:
            self.swarm.on_push(self, text)

    # --- sending ------------------------------------------------------------------------------------------------------

    def heartbeat(self) -> None:
        """Sends a heartbeat, or gives up a connection that answered none of the last three."""
        if not self.joined_at or self._transport is None:
            return
        if self._missed > 3:
            self.swarm.timeouts += 1
            self._drop()
            self._retry()
            return
        self._missed += 1
        self._send({"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": self._next_ref()})

    def ask(self, resource_id: str) -> None:
        """Asks for access to a resource."""
        self._push("request_authorization", {"resource_id": resource_id, "connected_gateway_ids": []})

    def _push(self, event: str, payload: object) -> None:
        self._send({"topic": self.topic, "event": event, "payload": payload, "ref": self._next_ref()})

    def _next_ref(self) -> int:
        self._ref += 1
        return self._ref - 1

    def _send(self, frame: object) -> None:
        if self._transport is None:
            return
        text = json.dumps(frame, separators=(",", ":")).encode()
        head = bytes((0x81, 0x80 | len(text))) if len(text) < 126 else struct.pack("!BBH", 0x81, 0xFE, len(text))
        self._transport.write(head + _MASK + text)
