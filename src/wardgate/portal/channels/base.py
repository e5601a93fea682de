"""What every channel does: join, heartbeats, replies by reference, and refusing what makes no sense."""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import structlog

from wardgate.errors import DatabaseUnavailable, RemoteProtocolError
from wardgate.ids import TokenId
from wardgate.portal.channels.hub import Hub
from wardgate.wire import portal
from wardgate.wire.portal import ApiVersion, Frame, Message, Topic

log = structlog.get_logger("wardgate.portal")

CLOSE_NORMAL = 1000
CLOSE_PROTOCOL_ERROR = 1002
CLOSE_FAILURE = 1011
CLOSE_RESTART = 1012
CLOSE_TRY_AGAIN = 1013
MAX_HEARTBEAT = 256


class Transport(Protocol):
    """The socket under a channel: neither call waits."""

    def send(self, frame: Frame) -> None:
        """Queues a frame; a socket that does not read is closed."""

    def send_encoded(self, data: bytes) -> None:
        """The same for a frame that is encoded already."""

    def close(self, code: int) -> None:
        """Sends what is queued, then closes."""


class Channel(ABC):
    """One conversation. `handle_text` is called for one message after another.

    Attributes:
        heard_at: When the other end last said anything.
        order: Which connection it is, among all of its device; given by presence.
        replaces: The order of the connection whose place it took on another portal.
    """

    topic: ClassVar[Topic]
    token_id: TokenId

    def __init__(self, hub: Hub, transport: Transport, version: ApiVersion) -> None:
        self.hub = hub
        self.version = version
        self.is_joined = False
        self.heard_at = hub.clock.now()
        self.order = 0
        self.replaces: int | None = None
        self._transport = transport

    def answer_heartbeat(self, text: str | bytes) -> bool:
        """Answers a message if it is a heartbeat, without waiting for anything; whether it was one."""
        if len(text) > MAX_HEARTBEAT or not isinstance(text, str) or portal.HEARTBEAT_TOPIC not in text:
            return False
        try:
            frame = portal.decode_frame(text, complete=True)
        except RemoteProtocolError:
            return False
        if frame.topic != portal.HEARTBEAT_TOPIC:
            return False
        self.hub.metrics.messages.labels(self.topic).inc()
        self._transport.send(portal.reply_ok(frame.topic, frame.ref))
        return True

    async def handle_text(self, text: str | bytes) -> None:
        """Takes one websocket message; what is malformed is counted and dropped."""
        self.heard_at = self.hub.clock.now()
        self.hub.metrics.messages.labels(self.topic).inc()
        try:
            frame = portal.decode_frame(text, complete=True)
        except RemoteProtocolError:
            self.hub.metrics.ignored.labels("malformed_frame").inc()
            return
        if self.hub.tracing is None or frame.topic == portal.HEARTBEAT_TOPIC:
            await self._take(frame)
            return
        with self.hub.tracing.message(self.topic, frame.event if len(frame.event) < 64 else "unknown"):
            await self._take(frame)

    async def _take(self, frame: Frame) -> None:
        if frame.topic == portal.HEARTBEAT_TOPIC:
            self._transport.send(portal.reply_ok(frame.topic, frame.ref))
        elif frame.topic != self.topic or (not self.is_joined and frame.event != portal.JOIN):
            self._transport.send(portal.reply_error(frame.topic, frame.ref, portal.UNMATCHED_TOPIC))
        elif frame.event == portal.JOIN:
            await self._handle_join(frame)
        elif frame.event == portal.LEAVE:
            self._transport.send(portal.reply_ok(frame.topic, frame.ref))
            self.close()
        else:
            await self._handle_frame(frame)

    async def _handle_frame(self, frame: Frame) -> None:
        try:
            is_known = await self.handle_message(frame)
        except RemoteProtocolError as error:
            log.info("malformed message", topic=self.topic, event_name=frame.event, problem=str(error))
            is_known = False
        except DatabaseUnavailable:
            self.hub.metrics.failures.labels("database").inc()
            self.reply_error(frame, "unavailable")
            return
        if not is_known:
            self.hub.metrics.ignored.labels("unknown_message").inc()
            self.reply_error(frame, portal.UNKNOWN_MESSAGE)

    async def _handle_join(self, frame: Frame) -> None:
        try:
            await self.join(frame)
        except RemoteProtocolError:
            self.hub.metrics.ignored.labels("malformed_join").inc()
            self.reply_error(frame, "invalid_payload")
        except DatabaseUnavailable as error:
            log.warning("a join found the database unavailable", topic=self.topic, why=str(error))
            self._transport.close(CLOSE_TRY_AGAIN)

    @abstractmethod
    async def join(self, frame: Frame) -> None:
        """Confirms the join and sends the init; a repeated join starts the conversation afresh."""

    @abstractmethod
    async def handle_message(self, frame: Frame) -> bool:
        """Handles an event; false if there is no such event."""

    @abstractmethod
    def leave(self) -> None:
        """The socket is gone: forgets timers and presence."""

    def push(self, message: Message, *, old_client: bool = False) -> None:
        """Sends a message, if the channel stands."""
        if self.is_joined:
            self._transport.send(portal.push(self.topic, message, self.version, old_client=old_client))

    def reply_ok(self, frame: Frame) -> None:
        """Confirms a frame."""
        self._transport.send(portal.reply_ok(self.topic, frame.ref))

    def reply_error(self, frame: Frame, reason: str) -> None:
        """Refuses a frame."""
        self._transport.send(portal.reply_error(self.topic, frame.ref, reason))

    def close(self, code: int = CLOSE_NORMAL) -> None:
        """Ends the connection; the component comes back by itself."""
        self._transport.send(portal.closed(self.topic))
        self._transport.close(code)

    def disconnect(self) -> None:
        """Ends the session: the token is revoked or over."""
        self._transport.send(portal.push(self.topic, portal.Disconnect(reason=portal.TOKEN_EXPIRED), self.version))
        self.close()
