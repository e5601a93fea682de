"""What stands before every door: the size of a request, the country it comes from, and how often its address asks.

Only whoever the portal does not know is counted: a request is charged to its address when it is over and turned out to
be nobody's. Websockets are refused with 503, since older devices give up on 429 (portal-protocol, section 1.6).
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from wardgate.portal.bounds import MAX_BODY, Bounds, retry_after, too_large
from wardgate.portal.domain.subjects import Location
from wardgate.portal.sockets import refusal

KNOWN: Final = "is_known"
"""Set in the state of a request whose caller is known."""
_UNCOUNTED: Final = ("/healthz",)
_DENIED: Final = (401, 403)
_CREDENTIALS: Final = (b"authorization", b"x-authorization", b"cookie")


class Guard:
    """Stands before the application.

    Args:
        trusted_ip: Gives the address a request came from, behind trusted proxies.
        locate: Gives its place.
    """

    def __init__(
        self,
        app: ASGIApp,
        bounds: Bounds,
        trusted_ip: Callable[[HTTPConnection], str | None],
        locate: Callable[[HTTPConnection], Location],
    ) -> None:
        self._app = app
        self._bounds = bounds
        self._trusted_ip = trusted_ip
        self._locate = locate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        address, credential = self._trusted_ip(request), _credential(scope)
        refused = self._refusal(scope, request, address, credential)
        if refused is not None:
            await _answer(refused, scope, receive, send)
            return
        watch = _Watch(send, lambda: self._bounds.succeeded(address, credential))
        try:
            await self._app(scope, self._bounded(scope, receive, watch), watch)
        except Exception:
            if not watch.is_overflown:
                raise
        if watch.is_overflown:
            self._bounds.refused("body")
            await _problem(413, f"A body may have {MAX_BODY} bytes.")(scope, receive, send)
        if scope.get("state", {}).get(KNOWN):
            self._bounds.succeeded(address, credential)
        elif not watch.is_accepted and scope["path"] not in _UNCOUNTED and watch.status < 500:
            self._bounds.failed(address, credential, is_denied=watch.status in _DENIED)

    def _refusal(
        self, scope: Scope, request: HTTPConnection, address: str | None, credential: bytes
    ) -> Response | None:
        large = too_large(scope.get("raw_path") or scope["path"].encode(), scope["query_string"], scope["headers"])
        if large is not None:
            self._bounds.refused(large.kind)
            return _problem(large.status, large.detail)
        if _declared_length(request) > MAX_BODY:
            self._bounds.refused("body")
            return _problem(413, f"A body may have {MAX_BODY} bytes.")
        blocked = self._bounds.settings.country_blocklist
        if blocked and (self._locate(request).region or "").upper() in blocked:
            self._bounds.refused("country")
            return PlainTextResponse("Forbidden", 403)
        wait_s = 0.0 if scope["path"] in _UNCOUNTED else self._bounds.wait_s(address, credential)
        if wait_s > 0:
            self._bounds.refused("address_rate")
            if scope["type"] == "websocket":
                return refusal.rate_limited().response()
            return _problem(429, "This address makes too many requests.", retry_after_s=retry_after(wait_s))
        return None

    def _bounded(self, scope: Scope, receive: Receive, watch: "_Watch") -> Receive:
        if scope["type"] != "http":
            return receive
        left = MAX_BODY

        async def receive_some() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                watch.is_overflown = not watch.has_started
                return {"type": "http.disconnect"}
            return message

        return receive_some


async def _answer(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await response(scope, receive, send)


class _Watch:
    """Sees how a request ends."""

    def __init__(self, send: Send, accepted: Callable[[], None]) -> None:
        self._send = send
        self._accepted = accepted
        self.is_accepted = False
        self.status = 0
        self.is_overflown = False
        self.has_started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            self.is_accepted = True
            self._accepted()
        elif message["type"] in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
        if not self.is_overflown:
            self.has_started = True
            await self._send(message)


def _credential(scope: Scope) -> bytes:
    """What a request says to prove who asks."""
    found = [value for name, value in scope["headers"] if name in _CREDENTIALS]
    return b" ".join(found) or (scope["query_string"] if scope["type"] == "websocket" else b"")


def _declared_length(request: HTTPConnection) -> int:
    text = request.headers.get("content-length", "0")
    return int(text[:19]) if text.isascii() and text.isdigit() else 0


def _problem(status: int, detail: str, retry_after_s: int | None = None) -> Response:
    codes = {413: "body_too_large", 414: "target_too_long", 429: "rate_limited", 431: "headers_too_large"}
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s is not None else None
    return JSONResponse({**body, "code": codes[status]}, status, headers, "application/problem+json")
