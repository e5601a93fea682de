"""The shell of one websocket: a bounded queue out, one message after another in, and a watch over silence."""

import asyncio
from collections import deque
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from wardgate.portal.channels.base import (
    CLOSE_FAILURE,
    CLOSE_PROTOCOL_ERROR,
    CLOSE_TRY_AGAIN,
    Channel,
    log,
)
from wardgate.portal.channels.hub import Hub
from wardgate.portal.clock import Timer
from wardgate.wire.portal import Frame, encode_frame

IDLE_S: Final = 37.0
RELAY_IDLE_S: Final = 41.0
_CLOSE_WAIT_S: Final = 5.0
_MESSAGES_BEFORE_JOIN: Final = 32
_BYTES_BEFORE_JOIN: Final = 64 * 1024


class SocketTransport:
    """Queues frames for a writer task; who does not read is cut off."""

    def __init__(self, hub: Hub, websocket: WebSocket) -> None:
        self._hub = hub
        self._websocket = websocket
        self._queue: deque[Frame] = deque()
        self._has_work = asyncio.Event()
        self._close_code: int | None = None
        self.is_over = asyncio.Event()

    def send(self, frame: Frame) -> None:
        """Queues a frame."""
        if self._close_code is not None:
            return
        if len(self._queue) >= self._hub.settings.send_queue:
            self._hub.metrics.slow_consumers.inc()
            self._queue.clear()
            self.close(CLOSE_TRY_AGAIN)
            return
        self._queue.append(frame)
        self._has_work.set()

    def close(self, code: int) -> None:
        """Sends what is queued, then closes."""
        if self._close_code is None:
            self._close_code = code
            self._has_work.set()

    async def write(self) -> None:
        """Sends until the socket is closed."""
        try:
            while True:
                await self._has_work.wait()
                self._has_work.clear()
                while self._queue:
                    await self._websocket.send_text(encode_frame(self._queue.popleft()))
                if self._close_code is not None:
                    await self._websocket.close(self._close_code)
                    return
        except (WebSocketDisconnect, RuntimeError, OSError):
            return
        finally:
            self._close_code = self._close_code or CLOSE_FAILURE
            self.is_over.set()


class IdleWatch:
    """Closes a socket from which nothing came for a while."""

    def __init__(self, hub: Hub, transport: SocketTransport, idle_s: float) -> None:
        self._clock = hub.clock
        self._transport = transport
        self._idle_s = idle_s
        self._heard_at = hub.clock.now()
        self._timer: Timer = hub.clock.call_later(idle_s, self._check)

    def heard(self) -> None:
        """Something came."""
        self._heard_at = self._clock.now()

    def stop(self) -> None:
        """The socket is gone."""
        self._timer.cancel()

    def _check(self) -> None:
        left_s = self._heard_at + self._idle_s - self._clock.now()
        if left_s <= 0:
            self._transport.close(CLOSE_PROTOCOL_ERROR)
        else:
            self._timer = self._clock.call_later(left_s, self._check)


class JoinWatch:
    """Closes a socket that does not join in time, and one that says much before it has."""

    def __init__(self, hub: Hub, transport: SocketTransport, channel: Channel) -> None:
        self._hub = hub
        self._transport = transport
        self._channel = channel
        self._messages = _MESSAGES_BEFORE_JOIN
        self._bytes = _BYTES_BEFORE_JOIN
        self._timer: Timer = hub.clock.call_later(hub.settings.join_timeout_secs, self._check)

    def allows(self, message: str | bytes) -> bool:
        """Whether a message is to be looked at."""
        if self._channel.is_joined:
            return True
        self._messages -= 1
        self._bytes -= len(message)
        if self._messages >= 0 and self._bytes >= 0:
            return True
        self._refuse("talk_before_join")
        return False

    def stop(self) -> None:
        """The socket is gone."""
        self._timer.cancel()

    def _check(self) -> None:
        if not self._channel.is_joined:
            self._refuse("join_timeout")

    def _refuse(self, kind: str) -> None:
        self._hub.metrics.refused_requests.labels(kind).inc()
        self._transport.close(CLOSE_PROTOCOL_ERROR)


async def serve(hub: Hub, websocket: WebSocket, transport: SocketTransport, channel: Channel, idle_s: float) -> None:
    """Runs a channel on an accepted socket until either end closes it."""
    loop = asyncio.get_running_loop()
    watch = IdleWatch(hub, transport, idle_s)
    join = JoinWatch(hub, transport, channel)
    writer = loop.create_task(transport.write())
    reader = loop.create_task(_read(hub, websocket, transport, channel, watch, join))
    over = loop.create_task(transport.is_over.wait())
    try:
        await asyncio.wait({reader, over}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watch.stop()
        join.stop()
        channel.leave()
        over.cancel()
        transport.close(CLOSE_FAILURE)
        # What is being handled is let finish: half a database transaction helps nobody.
        await asyncio.wait({reader, writer}, timeout=_CLOSE_WAIT_S)
        reader.cancel()
        writer.cancel()


async def _read(
    hub: Hub,
    websocket: WebSocket,
    transport: SocketTransport,
    channel: Channel,
    watch: IdleWatch,
    join: JoinWatch,
) -> None:
    try:
        while websocket.client_state is WebSocketState.CONNECTED:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            watch.heard()
            text = message.get("text")
            content = text if text is not None else message.get("bytes") or b""
            if not join.allows(content):
                return
            await channel.handle_text(content)
    except (WebSocketDisconnect, RuntimeError):
        return
    except Exception:
        hub.metrics.failures.labels("channel").inc()
        log.exception("a channel failed", topic=channel.topic)
        transport.close(CLOSE_FAILURE)
