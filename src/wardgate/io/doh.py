"""DNS over HTTPS past the tunnel: marked sockets, and the server's name resolved by the host's own nameservers."""

import asyncio
import base64
import ssl
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

from wardgate.errors import InterfaceLost
from wardgate.io.resolver import FORWARD_TIMEOUT_S, HostResolver
from wardgate.io.udp import open_marked_tcp

if TYPE_CHECKING:
    import httpcore

    from wardgate.io.marked_http import OpenSocket

MAX_ANSWER_BYTES: Final = 65535
MAX_CONNECTIONS: Final = 8
_PORTS: Final = {"https": 443, "http": 80}


class DohClient:
    """Asks DoH servers; connections are kept.

    Args:
        resolve: Finds the servers.
        open_socket: Makes a socket that stays out of the tunnel.
        tls: How servers are verified; by the host's own authorities if not given.
    """

    def __init__(
        self, resolve: HostResolver, *, open_socket: "OpenSocket" = open_marked_tcp, tls: ssl.SSLContext | None = None
    ) -> None:
        self._resolve = resolve
        self._open_socket = open_socket
        self._tls = tls
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def query(self, url: str, query: bytes) -> bytes | None:
        """The server's answer with the query's id; `None` if there is none within 5 s."""
        import httpcore

        if len(query) < 12:
            return None
        try:
            parts = urlsplit(url)
            async with asyncio.timeout(FORWARD_TIMEOUT_S):
                hosts = await self._resolve(parts.hostname or "")
                answer = await self._get(parts, hosts[0], b"\0\0" + query[2:])
        except (
            httpcore.NetworkError,
            httpcore.TimeoutException,
            httpcore.ProtocolError,
            httpcore.UnsupportedProtocol,
            InterfaceLost,
            OSError,
            ValueError,
        ):
            return None
        return None if answer is None else query[:2] + answer[2:]

    async def _get(self, parts: SplitResult, host: str, query: bytes) -> bytes | None:
        """What a server says to a question; `None` for anything that is no answer."""
        import httpcore

        encoded = base64.urlsafe_b64encode(query).rstrip(b"=").decode()
        target = f"{parts.path or '/'}?{parts.query + '&' if parts.query else ''}dns={encoded}"
        port = parts.port or _PORTS.get(parts.scheme)
        address = httpcore.URL(scheme=parts.scheme, host=host, port=port, target=target)
        headers = [("host", parts.netloc.rpartition("@")[2]), ("accept", "application/dns-message")]
        names = {"sni_hostname": parts.hostname}
        async with self._connections().stream("GET", address, headers=headers, extensions=names) as response:
            if response.status != 200:
                return None
            answer = b""
            async for chunk in response.aiter_stream():
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES:
                    return None
        return answer if len(answer) >= 12 else None

    def _connections(self) -> "httpcore.AsyncConnectionPool":
        import httpcore

        from wardgate.io.marked_http import MarkedBackend

        if self._pool is None:
            self._pool = httpcore.AsyncConnectionPool(
                ssl_context=self._tls or ssl.create_default_context(),
                max_connections=MAX_CONNECTIONS,
                network_backend=MarkedBackend(self._open_socket),
            )
        return self._pool

    async def close(self) -> None:
        """Closes kept connections."""
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None
