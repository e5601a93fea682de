"""What is seen of every request: an id that all of its log lines carry, one line when it is over, counters and a trace.

The id is the caller's own `x-request-id`, if it has 20 to 200 printable characters, else one of ours; a websocket has a
connection id. Labels of counters are routes as they are declared, never paths. Addresses and paths are in the log at
debug only.
"""

import time
from typing import Final
from uuid import uuid4

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wardgate.portal.channels.base import log
from wardgate.portal.metrics import Metrics
from wardgate.portal.tracing import Tracing

REQUEST_ID: Final = b"x-request-id"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET: Final = ("/healthz", "/readyz", "/metrics")
_SHORTEST, _LONGEST = 20, 200


class Observe:
    """Stands outside of everything else.

    Args:
        tracing: Where traces go, if they do.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            with structlog.contextvars.bound_contextvars(connection_id=uuid4().hex[:16]):
                await self._app(scope, receive, send)
        elif scope["type"] == "http":
            request_id = _with_id(scope)
            with structlog.contextvars.bound_contextvars(request_id=request_id):
                await self._request(scope, receive, send, request_id)
        else:
            await self._app(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if not any(name == REQUEST_ID for name, _ in message["headers"]):
                    message["headers"] = [*message["headers"], (REQUEST_ID, request_id.encode())]
            await send(message)

        began = time.perf_counter()
        self._metrics.http_active.inc()
        try:
            if self._tracing is None:
                await self._app(scope, receive, send_with_id)
            else:
                with self._tracing.request(scope) as span:
                    await self._app(scope, receive, send_with_id)
                    span.end(route_of(scope), status)
        finally:
            self._metrics.http_active.dec()
            self._count(scope, status, time.perf_counter() - began)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route, method = route_of(scope), scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.http_requests.labels(method, route, str(status)).inc()
        self._metrics.http_seconds.labels(route).observe(seconds)
        facts = {"method": method, "route": route, "status": status, "duration_ms": round(seconds * 1000, 1)}
        if route in _QUIET:
            log.debug("request", **facts)
        else:
            log.info("request", **facts)
        peer = scope["client"][0] if scope.get("client") else None
        log.debug("request came", path=scope["path"], peer=peer)


def route_of(scope: Scope) -> str:
    """The path of the route as it is declared; `unmatched` if there is none."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "unmatched"


def _with_id(scope: Scope) -> str:
    """The id of a request; whoever looks at its headers finds the same."""
    given = next((value for name, value in scope["headers"] if name == REQUEST_ID), b"").decode("latin-1")
    if _SHORTEST <= len(given) <= _LONGEST and given.isascii() and given.isprintable():
        return given
    made = str(uuid4())
    others = [(name, value) for name, value in scope["headers"] if name != REQUEST_ID]
    scope["headers"] = [*others, (REQUEST_ID, made.encode())]
    return made
