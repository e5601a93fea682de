"""The bus over NATS: one connection, opened anew for as long as it takes.

Each connection is a new client object, so that nothing which was queued for an old one is sent late: a grant that
arrives minutes after it was made could be one that has been revoked.
"""

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from wardgate.errors import SettingError
from wardgate.portal.channels.base import log
from wardgate.portal.cluster.bus import ALL, MAX_MESSAGE, Received
from wardgate.portal.config import Settings
from wardgate.portal.metrics import Metrics

MAX_QUEUED: Final = 20_000
_CONNECT_S: Final = 3
_PING_S: Final = 2
_RETRY_S: Final = (0.1, 0.2, 0.5, 1.0)
_FLUSH_S: Final = 1.0
_PENDING_MESSAGES: Final = 100_000
_PENDING_BYTES: Final = 128 * 1024 * 1024


def nats_bus(settings: Settings, node_id: str, metrics: Metrics) -> "NatsBus":
    """The bus that the settings name.

    Raises:
        SettingError: The certificates cannot be read.
    """
    tls: ssl.SSLContext | None = None
    if settings.nats_ca is not None:
        try:
            tls = ssl.create_default_context(cafile=settings.nats_ca)
        except (OSError, ssl.SSLError) as error:
            raise SettingError(f"nats_ca: {settings.nats_ca} cannot be used: {error}") from None
    return NatsBus(node_id, settings.nats_urls, metrics, subject=settings.nats_subject, tls=tls)


class NatsBus:
    """One portal's connection to a NATS server, or to one of several."""

    def __init__(
        self,
        node_id: str,
        urls: Sequence[str],
        metrics: Metrics,
        *,
        subject: str = "wardgate",
        tls: ssl.SSLContext | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Takes the settings; nothing is opened yet.

        Args:
            urls: `nats://` or `tls://`, with user and password or a token where the server wants them.
            subject: What subjects of this installation begin with, where several share a server.
        """
        self._node_id = node_id
        self._urls = list(urls)
        self._metrics = metrics
        self._subject = subject
        self._tls = tls
        self._jitter = jitter
        self._client: Client | None = None
        self._queue: deque[tuple[str, bytes]] = deque()
        self._has_work = asyncio.Event()
        self._is_lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._received: Received = lambda target, message: None
        self._connected: Callable[[], None] = lambda: None

    @property
    def is_connected(self) -> bool:
        """Whether a message that is sent now has a chance."""
        return self._client is not None and self._client.is_connected

    def listen(self, received: Received, connected: Callable[[], None]) -> None:
        """Says who takes messages, and who is told that the connection stands (again)."""
        self._received, self._connected = received, connected

    async def start(self) -> None:
        """Begins to connect, for as long as it takes."""
        self._task = asyncio.create_task(self._run())

    def send(self, target: str, message: bytes) -> bool:
        """Sends to one portal, or to `ALL` others; false if that is not possible now."""
        if not self.is_connected:
            self._metrics.bus_dropped.labels("not_connected").inc()
            return False
        if len(message) > MAX_MESSAGE or len(self._queue) >= MAX_QUEUED:
            self._metrics.bus_dropped.labels("too_large" if len(message) > MAX_MESSAGE else "queue_full").inc()
            return False
        self._queue.append((target, message))
        self._has_work.set()
        return True

    async def close(self) -> None:
        """Sends what is queued, then leaves."""
        client = self._client
        if client is not None:
            with suppress(Exception):
                async with asyncio.timeout(_FLUSH_S):
                    await self._write_queued(client)
                    await client.flush(timeout=1)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        attempt = 0
        while True:
            try:
                client = await self._connect()
            except (OSError, NatsError, TimeoutError, ValueError) as error:
                if attempt == 0:
                    log.warning("the bus cannot be reached; trying again until it can", problem=str(error))
                wait_s = _RETRY_S[min(attempt, len(_RETRY_S) - 1)]
                attempt += 1
                await asyncio.sleep(wait_s * (0.5 + self._jitter()))
                continue
            attempt = 0
            try:
                await self._use(client)
            finally:
                self._client = None
                self._queue.clear()
                self._metrics.bus_connected.set(0)
                with suppress(Exception):
                    await client.close()
            log.warning("the connection to the bus is lost")

    async def _connect(self) -> Client:
        self._is_lost.clear()
        client = Client()
        try:
            await client.connect(
                random.sample(self._urls, len(self._urls)),
                name=f"wardgate portal {self._node_id}",
                allow_reconnect=False,
                connect_timeout=_CONNECT_S,
                ping_interval=_PING_S,
                no_echo=True,
                tls=self._tls,
                error_cb=self._failed,
                closed_cb=self._closed,
                disconnected_cb=self._closed,
            )
            for target in (ALL, self._node_id):
                await client.subscribe(
                    f"{self._subject}.{target}",
                    cb=self._take,
                    pending_msgs_limit=_PENDING_MESSAGES,
                    pending_bytes_limit=_PENDING_BYTES,
                )
            await client.flush(timeout=_CONNECT_S)
        except BaseException:
            with suppress(Exception):
                await client.close()
            raise
        return client

    async def _use(self, client: Client) -> None:
        self._client = client
        self._metrics.bus_connected.set(1)
        log.info("the bus is connected")
        self._connected()
        lost = asyncio.create_task(self._is_lost.wait())
        writer = asyncio.create_task(self._write(client))
        try:
            await asyncio.wait({lost, writer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            writer.cancel()
            await asyncio.gather(lost, writer, return_exceptions=True)

    async def _write(self, client: Client) -> None:
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            await self._write_queued(client)

    async def _write_queued(self, client: Client) -> None:
        while self._queue:
            target, message = self._queue.popleft()
            await client.publish(f"{self._subject}.{target}", message)
            self._metrics.bus_messages.labels("sent").inc()

    async def _take(self, message: Msg) -> None:
        self._metrics.bus_messages.labels("received").inc()
        try:
            self._received(message.subject.removeprefix(f"{self._subject}."), message.data)
        except Exception:
            self._metrics.failures.labels("bus").inc()
            log.exception("a message of another portal could not be handled")

    async def _failed(self, error: Exception) -> None:
        self._metrics.bus_dropped.labels(type(error).__name__).inc()

    async def _closed(self) -> None:
        self._is_lost.set()
