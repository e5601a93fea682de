"""A small HTTP server for those who watch a process: `/healthz`, `/readyz` and `/metrics`, GET and HEAD alone."""

import asyncio
import os
from collections.abc import Callable

from wardgate import __version__
from wardgate.errors import WardgateError

MAX_CONNECTIONS = 64
REQUEST_TIMEOUT_S = 5.0
MAX_REQUEST = 8192

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PLAIN_TYPE = "text/plain; charset=utf-8"


class ListenError(WardgateError):
    """The address is taken, or none of this host's."""


class HealthServer:
    """Answers health checks of one process.

    Args:
        problem: Why `/readyz` says 503, for people; `None` if it says 200.
        metrics: The text of `/metrics`.
    """

    def __init__(self, problem: Callable[[], str | None], metrics: Callable[[], bytes]) -> None:
        self._problem = problem
        self._metrics = metrics
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self, host: str, port: int) -> None:
        """Starts to listen.

        Raises:
            ListenError: The address cannot be listened on.
        """
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_REQUEST)
        except OSError as error:
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise ListenError(
                f"--health-check-addr: {place} cannot be listened on ({reason}); choose another, or none"
            ) from error

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Stops to listen."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asks badly gets no answer
        finally:
            self._open -= 1
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.split(b"\r\n", 1)[0].partition(b" ")
        path = rest.split(b" ", 1)[0].split(b"?", 1)[0]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"", PLAIN_TYPE, with_body=True)
        status, body, kind = self._page(path)
        return _response(status, body, kind, with_body=method == b"GET")

    def _page(self, path: bytes) -> tuple[str, bytes, str]:
        match path:
            case b"/healthz":
                return "200 OK", b"", PLAIN_TYPE
            case b"/readyz":
                problem = self._problem()
                if problem is None:
                    return "200 OK", __version__.encode(), PLAIN_TYPE
                return "503 Service Unavailable", f"not ready: {problem}\n".encode(), PLAIN_TYPE
            case b"/metrics":
                return "200 OK", self._metrics(), METRICS_TYPE
        return "404 Not Found", b"", PLAIN_TYPE


def _response(status: str, body: bytes, kind: str, *, with_body: bool) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + (body if with_body else b"")
