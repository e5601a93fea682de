"""The portal link's shell: one task that owns the websocket, with bounded queues both ways.

The task alone reads, writes and keeps the heartbeat, so whoever uses the link can neither delay it nor be flooded by
it: while the reader's queue is full no more frames are read. The host is resolved anew for every attempt, and all of
its addresses are tried at the same time.
"""

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from wardgate.io import clock
from wardgate.io.http_proxy import connect_through
from wardgate.proto import portal_link
from wardgate.proto.http_proxy import Proxies
from wardgate.proto.portal_link import (
    MAX_QUEUED,
    Dial,
    Fatal,
    FatalKind,
    HangUp,
    LinkDown,
    LinkUp,
    Message,
    RetryPolicy,
)
from wardgate.proto.portal_login import Refusal, bearer, read_refusal
from wardgate.wire.portal import Json, Topic

LinkEvent = LinkUp | LinkDown | Message | Fatal
ResolveHost = Callable[[str], Awaitable[list[str]]]
"""Gives the addresses of a host name; raises OSError if there are none."""
OpenSocket = Callable[[socket.AddressFamily], socket.socket]
"""Makes a TCP socket of that family, for a client with the mark that keeps it out of the tunnel."""

TCP_TIMEOUT_S: Final = 5.0
MAX_FRAME_BYTES: Final = 32 * 1024 * 1024
MAX_ADDRESSES: Final = 16
CLOSE_TIMEOUT_S: Final = 1.0


async def resolve_with_system(host: str) -> list[str]:
    """The host's addresses as the operating system knows them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def open_plain_socket(family: socket.AddressFamily) -> socket.socket:
    """A TCP socket without a mark."""
    return socket.socket(family, socket.SOCK_STREAM)


class PortalLink:
    """The link of one component; iterate over it for its events, of which `Fatal` is the last.

    Args:
        url: Gives the websocket URL, asked before each attempt.
        token: The component's token, sent in a header only.
        topic: The channel.
        join_payload: What the join carries.
        user_agent: See `portal_login.user_agent`.
        policy: How long to wait and to go on.
        resolve: How host names are resolved.
        open_socket: How TCP sockets are made.
        tls: The context for `wss`; the system's trust store if none is given.
        proxies: By which proxy the portal is reached, if by one.

    Raises:
        ValueError: The token cannot be sent.
    """

    def __init__(
        self,
        *,
        url: Callable[[], str],
        token: str,
        topic: Topic,
        join_payload: Json = None,
        user_agent: str,
        policy: RetryPolicy | None = None,
        resolve: ResolveHost = resolve_with_system,
        open_socket: OpenSocket = open_plain_socket,
        tls: ssl.SSLContext | None = None,
        proxies: Proxies | None = None,
    ) -> None:
        self._proxies = proxies or Proxies("none", {})
        self._url = url
        self._headers = {"X-Authorization": bearer(token)}
        self._user_agent = user_agent
        self._resolve = resolve
        self._open_socket = open_socket
        self._tls = tls
        self._link = portal_link.Link(topic, join_payload, policy or RetryPolicy(), os.urandom, clock.monotonic())
        self._inbox: deque[LinkEvent] = deque()
        self._readable = asyncio.Event()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._dial: asyncio.Task[ClientConnection] | None = None
        self._read: asyncio.Task[str | bytes] | None = None
        self._write: asyncio.Task[None] | None = None
        self._socket: ClientConnection | None = None
        self._closing: set[asyncio.Task[None]] = set()

    # --- the user's side ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the task, inside a running event loop."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="portal link")

    def send(self, event: str, payload: Json) -> bool:
        """Queues a message; `False` if there is no connection or 128 wait already, and then it is lost."""
        sent = self._link.send(event, payload)
        self._wake.set()
        return sent

    def reset(self) -> None:
        """Reconnects at once: the network changed, or the URL did."""
        self._link.handle_reset(clock.monotonic())
        self._wake.set()

    def poll_event(self) -> LinkEvent | None:
        """The next event, if there is one."""
        if not self._inbox:
            return None
        event = self._inbox.popleft()
        self._wake.set()
        return event

    async def wait_event(self) -> None:
        """Returns when `poll_event` has something."""
        while not self._inbox:
            self._readable.clear()
            await self._readable.wait()

    async def __aiter__(self) -> AsyncIterator[LinkEvent]:
        while True:
            await self.wait_event()
            event = self.poll_event()
            if event is not None:
                yield event
                if isinstance(event, Fatal):
                    return

    async def close(self) -> None:
        """Closes the websocket with a close frame and ends the task; takes a second at most."""
        self._link.handle_close(clock.monotonic())
        self._drain_events()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        if self._closing:
            await asyncio.wait(self._closing, timeout=2 * CLOSE_TIMEOUT_S)

    def counters(self) -> Mapping[str, int]:
        """What was counted, by name."""
        return dict(self._link.counters)

    @property
    def is_up(self) -> bool:
        """Whether the join is confirmed."""
        return isinstance(self._link.state, portal_link.Joined)

    # --- the task -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while not isinstance(self._link.state, portal_link.Ended):
                self._link.handle_timeout(clock.monotonic())
                self._drain_events()
                self._start_reading()
                self._start_writing()
                await self._wait()
                self._collect_dial()
                self._collect_read()
                self._collect_write()
                self._drain_events()
        except Exception as error:
            self._tell(Fatal(FatalKind.GAVE_UP, f"the portal link failed: {error!r}"))
            raise
        finally:
            self._drop_connection()

    async def _wait(self) -> None:
        deadline = self._link.poll_timeout()
        waits: set[asyncio.Task[object]] = {asyncio.create_task(self._wait_wake())}
        tasks = [task for task in (self._dial, self._read, self._write) if task is not None]
        timeout = None if deadline is None else max(0.0, deadline - clock.monotonic())
        try:
            await asyncio.wait([*waits, *tasks], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    async def _wait_wake(self) -> None:
        await self._wake.wait()
        self._wake.clear()

    def _drain_events(self) -> None:
        while (event := self._link.poll_event()) is not None:
            match event:
                case Dial():
                    self._dial = asyncio.create_task(self._open())
                case HangUp():
                    self._drop_connection()
                case _:
                    self._tell(event)

    def _tell(self, event: LinkEvent) -> None:
        if isinstance(event, LinkDown) and self._inbox and isinstance(self._inbox[-1], LinkDown):
            self._inbox.pop()
        self._inbox.append(event)
        self._readable.set()

    def _start_reading(self) -> None:
        if self._socket is not None and self._read is None and len(self._inbox) < MAX_QUEUED:
            self._read = asyncio.create_task(self._socket.recv())

    def _start_writing(self) -> None:
        if self._socket is None or self._write is not None:
            return
        text = self._link.poll_transmit()
        if text is not None:
            self._write = asyncio.create_task(self._socket.send(text))

    def _collect_dial(self) -> None:
        if self._dial is None or not self._dial.done():
            return
        dial, self._dial = self._dial, None
        now = clock.monotonic()
        try:
            self._socket = dial.result()
        except InvalidStatus as error:
            self._link.handle_refused(_read_refusal(error), now)
        except (OSError, WebSocketException, ValueError, EOFError) as error:
            self._link.handle_lost(_describe(error), now)
        else:
            self._link.handle_connected(now)

    def _collect_read(self) -> None:
        if self._read is None or not self._read.done():
            return
        read, self._read = self._read, None
        try:
            text = read.result()
        except (ConnectionClosed, OSError) as error:
            self._link.handle_lost(_describe(error), clock.monotonic())
        else:
            self._link.handle_text(text, clock.monotonic())

    def _collect_write(self) -> None:
        if self._write is None or not self._write.done():
            return
        write, self._write = self._write, None
        try:
            write.result()
        except (ConnectionClosed, OSError) as error:
            self._link.handle_lost(_describe(error), clock.monotonic())

    def _drop_connection(self) -> None:
        for task in (self._dial, self._read, self._write):
            if task is not None:
                task.add_done_callback(_dispose)
                task.cancel()
        self._dial = self._read = self._write = None
        if self._socket is not None:
            closing = asyncio.create_task(_close(self._socket))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._socket = None

    # --- dialling -------------------------------------------------------------------------------------------------

    async def _open(self) -> ClientConnection:
        url = self._url()
        parts = urlsplit(url)
        host = parts.hostname or ""
        secure = parts.scheme == "wss"
        port = parts.port or (443 if secure else 80)
        proxy = self._proxies.of(host)
        first, first_port = (host, port) if proxy is None else (proxy.host, proxy.port)
        tcp = await self._race(await self._resolve(first), first_port)
        try:
            if proxy is not None:
                await connect_through(tcp, proxy, host, port)
            return await connect(
                url,
                sock=tcp,
                ssl=self._tls_context() if secure else None,
                server_hostname=host if secure else None,
                additional_headers=self._headers,
                user_agent_header=self._user_agent,
                compression=None,
                proxy=None,
                open_timeout=portal_link.CONNECT_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                ping_interval=None,
                max_size=MAX_FRAME_BYTES,
            )
        except BaseException:
            tcp.close()
            raise

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    async def _race(self, hosts: list[str], port: int) -> socket.socket:
        """The first TCP connection that comes about."""
        attempts = [asyncio.create_task(self._connect_tcp(host, port)) for host in hosts[:MAX_ADDRESSES]]
        error: OSError = OSError("the portal's name has no address")
        winner: socket.socket | None = None
        try:
            async with asyncio.timeout(TCP_TIMEOUT_S):
                for attempt in asyncio.as_completed(attempts):
                    try:
                        winner = await attempt
                        return winner
                    except OSError as problem:
                        error = problem
        except TimeoutError:
            error = TimeoutError(f"no TCP connection within {TCP_TIMEOUT_S:g} s")
        finally:
            for each in attempts:
                if not each.cancel() and each.exception() is None and each.result() is not winner:
                    each.result().close()
        raise error

    async def _connect_tcp(self, host: str, port: int) -> socket.socket:
        tcp = self._open_socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            tcp.setblocking(False)
            await asyncio.get_running_loop().sock_connect(tcp, (host, port))
        except BaseException:
            tcp.close()
            raise
        return tcp


def _read_refusal(error: InvalidStatus) -> Refusal:
    response = error.response
    wall_time = clock.monotonic() + clock.epoch()
    return read_refusal(
        response.status_code, bytes(response.body or b""), response.headers.get("Retry-After"), wall_time
    )


def _describe(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _dispose(task: "asyncio.Task[object]") -> None:
    """Takes the outcome of a task that nobody waits for: its error is old news, its websocket is not wanted."""
    if task.cancelled() or task.exception() is not None:
        return
    if isinstance(result := task.result(), ClientConnection):
        result.transport.abort()


async def _close(connection: ClientConnection) -> None:
    try:
        await connection.close()
    except OSError:
        connection.transport.abort()
