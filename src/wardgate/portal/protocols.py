"""Uvicorn's HTTP and websocket protocols with bounds: on connections, on heads that are large, and on those that never
end.

The bounds lie at `state.bounds` of the application. A connection has a while for each head and for each body; one that
is refused or too slow is answered, where that is possible, and closed.
"""

import json
from http import HTTPStatus
from typing import Any, Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from wardgate.portal.bounds import Bounds, Ticket, too_large
from wardgate.portal.clock import Timer
from wardgate.portal.sockets.direct import DirectWebSocket

_LINGER_S: Final = 5.0
_PHASES: Final = {h11.IDLE: "head_timeout", h11.SEND_BODY: "body_timeout"}


class BoundedHttp(H11Protocol):
    """HTTP/1.1 of strangers."""

    _bounds: Bounds
    _ticket: Ticket | None = None
    _timer: Timer | None = None
    _phase: str | None = None

    def connection_made(self, transport: Any) -> None:
        """Counts the connection, or turns it away."""
        super().connection_made(transport)
        self._bounds = cast(Any, self.config.app).state.bounds
        self._ticket = self._bounds.admit(self.client[0] if self.client else None)
        if self._ticket is None:
            self._turn_away(503, "There are too many connections.", retry_after_s=1)
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Counts it no more."""
        self._cancel_timer()
        if self._ticket is not None:
            self._ticket.release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes bytes, unless the connection is being closed."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.transport.get_protocol() is self:
            self._watch()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hands the connection over; it stays a stranger's until the portal accepts the websocket."""
        path, _, query = event.target.partition(b"?")
        refused = too_large(path, query, self.headers)
        self._cancel_timer()
        if refused is not None:
            self._bounds.refused(refused.kind)
            self._turn_away(refused.status, refused.detail)
            return
        super().handle_websocket_upgrade(event)
        protocol = self.transport.get_protocol()
        if isinstance(protocol, BoundedWebSocket):
            protocol.ticket = self._ticket

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP."""
        self._bounds.refused("malformed")
        self._turn_away(400, msg)

    def timeout_keep_alive_handler(self) -> None:
        """Closes a connection that is not used, also if its other end does not read."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(_LINGER_S, self.transport.abort)

    def _watch(self) -> None:
        """A time limit for the head, then one for the body; none while the portal works."""
        phase = _PHASES.get(self.conn.their_state)
        if self.transport.is_closing():
            phase = None
        if phase == self._phase and (phase is None or self._timer is not None):
            return
        self._cancel_timer()
        self._phase = phase
        if phase is not None:
            settings = self._bounds.settings
            limit_s = settings.head_timeout_secs if phase == "head_timeout" else settings.body_timeout_secs
            self._timer = self._bounds.clock.call_later(limit_s, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        self._bounds.refused(self._phase or "head_timeout")
        if self._phase == "head_timeout" and self.conn.our_state is h11.IDLE:
            self._turn_away(408, "The request took too long.")
        else:
            self.transport.abort()  # the application is reading: it learns that nobody is there

    def _turn_away(self, status: int, detail: str, retry_after_s: int | None = None) -> None:
        phrase = HTTPStatus(status).phrase
        body = json.dumps({"type": "about:blank", "title": phrase, "status": status, "detail": detail}).encode()
        retry = f"retry-after: {retry_after_s}\r\n" if retry_after_s is not None else ""
        head = (
            f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/problem+json\r\n{retry}"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
        self.loop.call_later(_LINGER_S, self.transport.abort)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class BoundedWebSocket(DirectWebSocket):
    """A websocket: a stranger's until it is accepted, and read no faster than the other end reads."""

    ticket: Ticket | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Counts it no more."""
        self._release()
        super().connection_lost(exc)

    async def send(self, message: Any) -> None:
        """Sends a message; accepting makes the other end known."""
        if message["type"] == "websocket.accept":
            self._release()
        await super().send(message)

    def pause_writing(self) -> None:
        """Pongs are answered below the application: who sends pings and reads nothing is not read either."""
        super().pause_writing()
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Reads again, unless the application has enough to do."""
        super().resume_writing()
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    async def receive(self) -> Any:
        """The next message."""
        message = await super().receive()
        if not self.writable.is_set() and not self.transport.is_closing():
            self.transport.pause_reading()
        return message

    def _release(self) -> None:
        if self.ticket is not None:
            self.ticket.release()
