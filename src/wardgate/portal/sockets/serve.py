"""The shell of one websocket: a bounded queue out, one message after another in, and a watch over silence."""

import asyncio
from collections import deque
from typing import Final

from wardgate.portal.channels.base import (
    CLOSE_FAILURE,
    CLOSE_PROTOCOL_ERROR,
    CLOSE_TRY_AGAIN,
    Channel,
    log,
)
from wardgate.portal.channels.hub import Hub
from wardgate.portal.clock import Timer
from wardgate.portal.sockets.direct import DirectWebSocket
from wardgate.wire.portal import Frame, encode_frame

IDLE_S: Final = 37.0
RELAY_IDLE_S: Final = 41.0
_CLOSE_WAIT_S: Final = 5.0
_MESSAGES_BEFORE_JOIN: Final = 32
_BYTES_BEFORE_JOIN: Final = 64 * 1024


class SocketTransport:
    """Sends at once what the socket takes, and queues the rest; who does not read is cut off.

    What is sent before the socket is accepted waits until `open`.
    """

    __slots__ = (
        "_channel",
        "_close_code",
        "_hub",
        "_idle",
        "_idle_s",
        "_inbox",
        "_is_working",
        "_join",
        "_queue",
        "_wire",
    )

    def __init__(self, hub: Hub, wire: DirectWebSocket) -> None:
        self._hub = hub
        self._wire = wire
        self._channel: Channel | None = None
        self._queue: deque[bytes] | None = deque()
        self._inbox: deque[str | bytes] | None = None
        self._is_working = False
        self._close_code: int | None = None
        self._idle: Timer | None = None
        self._idle_s = IDLE_S
        self._join: JoinWatch | None = None

    def open(self, channel: Channel, idle_s: float) -> None:
        """The socket is accepted: the channel has it until either end closes it."""
        self._channel = channel
        self._idle_s = idle_s
        self._idle = self._hub.clock.call_later(idle_s, self._check_idle)
        self._join = JoinWatch(self._hub, self, channel)
        self.writable()
        self._wire.take_over(self)

    def is_gone(self) -> bool:
        """Whether the other end left."""
        return self._wire.disconnected

    # --- out ----------------------------------------------------------------------------------------------------------

    def send(self, frame: Frame) -> None:
        """Sends a frame."""
        self.send_encoded(encode_frame(frame).encode())

    def send_encoded(self, data: bytes) -> None:
        """Sends a frame that is encoded already."""
        if self._close_code is not None:
            return
        if self._channel is not None and not self._wire.is_blocked:
            self._wire.send_text(data)
            return
        if self._queue is None:
            self._queue = deque()
        if len(self._queue) >= self._hub.settings.send_queue:
            self._hub.metrics.slow_consumers.inc()
            self._queue.clear()
            self.close(CLOSE_TRY_AGAIN)
            return
        self._queue.append(data)

    def close(self, code: int) -> None:
        """Sends what is queued, then closes; who takes nothing for a while is cut off."""
        if self._close_code is not None:
            return
        self._close_code = code
        if self._channel is None:
            return
        if self._wire.is_blocked:
            asyncio.get_running_loop().call_later(_CLOSE_WAIT_S, self._wire.abort)
        else:
            self._finish(code)

    def writable(self) -> None:
        """The socket takes data."""
        while self._queue and not self._wire.is_blocked:
            self._wire.send_text(self._queue.popleft())
        if not self._queue:
            self._queue = None
            if self._close_code is not None:
                self._finish(self._close_code)

    def _finish(self, code: int) -> None:
        self._wire.close(code)
        asyncio.get_running_loop().call_soon(self._leave)  # not now: the channel itself may be calling

    def lost(self) -> None:
        """The connection is gone. What is being handled is let finish: half a transaction helps nobody."""
        self._close_code = self._close_code or CLOSE_FAILURE
        self._queue = None
        if self._inbox is not None:
            self._inbox.clear()
        self._leave()

    def _leave(self) -> None:
        for watch in (self._idle, self._join):
            if watch is not None:
                watch.cancel()
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.leave()

    def _check_idle(self) -> None:
        assert self._channel is not None
        left_s = self._channel.heard_at + self._idle_s - self._hub.clock.now()
        if left_s <= 0:
            self.close(CLOSE_PROTOCOL_ERROR)
        else:
            self._idle = self._hub.clock.call_later(left_s, self._check_idle)

    # --- in -----------------------------------------------------------------------------------------------------------

    def received(self, text: str | bytes) -> None:
        """One message came: heartbeats are answered now, everything else in its turn."""
        channel = self._channel
        if channel is None or self._close_code is not None:
            return
        channel.heard_at = self._hub.clock.now()
        if self._join is not None and not self._join.allows(text):
            return
        if self._is_working:
            if self._inbox is None:
                self._inbox = deque()
            self._inbox.append(text)
            self._wire.stop_reading()
        elif not channel.answer_heartbeat(text):
            self._is_working = True
            self._wire.keep(asyncio.get_running_loop().create_task(self._work(channel, text)))

    async def _work(self, channel: Channel, text: str | bytes) -> None:
        try:
            await channel.handle_text(text)
            if self._join is not None and channel.is_joined:
                self._join.cancel()
                self._join = None
            while self._inbox:
                await channel.handle_text(self._inbox.popleft())
        except Exception:
            self._hub.metrics.failures.labels("channel").inc()
            log.exception("a channel failed", topic=channel.topic)
            self.close(CLOSE_FAILURE)
        finally:
            self._is_working = False
            self._inbox = None
            self._wire.go_on_reading()


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

    def cancel(self) -> None:
        """The socket is gone, or has joined."""
        self._timer.cancel()

    def _check(self) -> None:
        if not self._channel.is_joined:
            self._refuse("join_timeout")

    def _refuse(self, kind: str) -> None:
        self._hub.metrics.refused_requests.labels(kind).inc()
        self._transport.close(CLOSE_PROTOCOL_ERROR)
