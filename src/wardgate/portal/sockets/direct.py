"""The server's side of a websocket, without a task or a queue while nothing is said.

ASGI sees the upgrade alone: it decides who is let in. From then on messages go from the protocol to a listener in the
moment they come, and what is sent goes to the socket at once. An idle connection has no coroutine, no queue and no copy
of its request. Frames are read by `websockets` as before; sending a text needs no more than its length before it.
"""

import asyncio
import struct
from typing import Any, Final, Protocol, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import OPEN

EXTENSION: Final = "wardgate.direct"
"""Where a websocket's scope has its protocol."""
_TEXT: Final = 0x81


class Listener(Protocol):
    """Who gets the messages of one websocket; none of these waits."""

    def received(self, text: str | bytes) -> None:
        """One message came."""

    def writable(self) -> None:
        """What was written has drained: more may be sent."""

    def lost(self) -> None:
        """The connection is gone."""


class _Nowhere:
    """Takes the place of the queue of ASGI events once nobody reads them."""

    def put_nowait(self, item: object) -> None:
        """Forgets it."""

    def empty(self) -> bool:
        """There is never anything."""
        return True


_NOWHERE: Final = _Nowhere()


class DirectWebSocket(WebSocketsSansIOProtocol):
    """A websocket that can be taken over from ASGI once it is accepted.

    Attributes:
        is_blocked: Whether the other end does not read: what is written stays in memory.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._listener: Listener | None = None
        self.is_blocked = False

    def take_over(self, listener: Listener) -> None:
        """From now on the listener gets the messages, also those that came before."""
        events: list[Any] = []
        while not self.queue.empty():
            events.append(self.queue.get_nowait())
        self._listener = listener
        self.queue = _NOWHERE  # type: ignore[assignment]
        self.scope = {}  # type: ignore[typeddict-item]
        del self.request, self.response
        self._resume_reading()
        for event in events:
            if event["type"] == "websocket.receive":
                listener.received(event["text"] if "text" in event else event["bytes"])
        if self.disconnected:
            listener.lost()

    # --- from the socket ----------------------------------------------------------------------------------------------

    def handle_connect(self, event: Request) -> None:
        """Starts the application, which finds this protocol in its scope."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[EXTENSION] = self

    async def run_asgi(self) -> None:
        """Runs the application, which may end while the connection lives on."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except BaseException:
            self.logger.exception("Exception in ASGI application\n")
            self.send_500_response()
        else:
            if not self.handshake_complete:
                self.logger.error("ASGI callable returned without completing handshake.")
                self.send_500_response()
        if self._listener is None and self.close_timer is None:
            self.transport.close()

    def send_receive_event_to_app(self) -> None:
        """Hands a whole message on."""
        if self._listener is None:
            super().send_receive_event_to_app()
            return
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.close_sent:
            return
        if self.curr_msg_data_type == "bytes":
            self._listener.received(bytes(data))
            return
        try:
            text = bytes(data).decode()
        except UnicodeDecodeError:
            self.conn.send_close(1007)
            self.handle_parser_exception()
            return
        self._listener.received(text)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells whoever listens."""
        super().connection_lost(exc)
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.lost()

    def pause_writing(self) -> None:
        """The other end does not read."""
        super().pause_writing()
        self.is_blocked = True

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self.is_blocked = False
        if self._listener is not None:
            self._listener.writable()

    # --- to the socket ------------------------------------------------------------------------------------------------

    def send_text(self, data: bytes) -> None:
        """Sends one text message, in UTF-8; nothing once the connection is being closed."""
        if self.close_sent or self.disconnected or self.conn.state is not OPEN:
            return
        length = len(data)
        if length < 126:
            head = bytes((_TEXT, length))
        elif length < 65536:
            head = struct.pack("!BBH", _TEXT, 126, length)
        else:
            head = struct.pack("!BBQ", _TEXT, 127, length)
        self.transport.write(head + data)

    def close(self, code: int) -> None:
        """Sends a close frame; the connection ends when the other end answers it, or soon."""
        if self.close_sent or self.disconnected or self.conn.state is not OPEN:
            return
        self.conn.send_close(code)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)

    def abort(self) -> None:
        """Ends the connection at once, whatever is still to be sent."""
        self.transport.abort()

    def stop_reading(self) -> None:
        """Takes nothing more from the socket until `go_on_reading`."""
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def go_on_reading(self) -> None:
        """Reads again."""
        self._resume_reading()

    def _resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            if not self.is_blocked and not self.transport.is_closing():
                self.transport.resume_reading()

    def keep(self, task: "asyncio.Task[None]") -> None:
        """Has the server wait for a task when it ends."""
        self.tasks.add(task)
        task.add_done_callback(self.on_task_complete)
