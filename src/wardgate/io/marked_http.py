"""HTTP over sockets that carry our mark before they connect.

The library's own `socket_options` are set once a socket is connected, when the first packets have gone wherever
unmarked packets go: into the tunnel.
"""
# ruff: noqa: ASYNC109 - these signatures are the library's

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpcore

OpenSocket = Callable[[socket.AddressFamily], socket.socket]


class MarkedBackend(httpcore.AsyncNetworkBackend):
    """Connects with sockets of ours.

    Args:
        open_socket: Makes one, ready to connect.
    """

    def __init__(self, open_socket: OpenSocket) -> None:
        self._open_socket = open_socket

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connects to a literal address."""
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
            tcp = self._open_socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            try:
                tcp.setblocking(False)
                async with asyncio.timeout(timeout):
                    await asyncio.get_running_loop().sock_connect(tcp, (host, port))
                    return MarkedStream(*await asyncio.open_connection(sock=tcp))
            except BaseException:
                tcp.close()
                raise

    async def sleep(self, seconds: float) -> None:
        """Sleeps."""
        await asyncio.sleep(seconds)


class MarkedStream(httpcore.AsyncNetworkStream):
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come, and waits for it; nothing at the end."""
        with _translated(httpcore.ReadTimeout, httpcore.ReadError):
            async with asyncio.timeout(timeout):
                return await self._reader.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Sends it."""
        with _translated(httpcore.WriteTimeout, httpcore.WriteError):
            async with asyncio.timeout(timeout):
                self._writer.write(buffer)
                await self._writer.drain()

    async def aclose(self) -> None:
        """Closes it, without waiting for the other end."""
        self._writer.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Goes on with TLS."""
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
            async with asyncio.timeout(timeout):
                await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        return self

    def get_extra_info(self, info: str) -> Any:
        """A connection that became readable while nothing was asked was closed by the other end."""
        return self._reader.at_eof() if info == "is_readable" else self._writer.get_extra_info(info)


@contextlib.contextmanager
def _translated(on_timeout: type[Exception], on_error: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise on_timeout("too late") from error
    except OSError as error:
        raise on_error(str(error)) from error
