"""Connections through an HTTP proxy."""

import asyncio
import socket
from typing import Final

from wardgate.errors import RemoteProtocolError
from wardgate.proto.http_proxy import Proxy, check_answer, connect_request, place_of

MAX_HEAD_BYTES: Final = 8192
TIMEOUT_S: Final = 10.0


async def connect_through(tcp: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Has the proxy, to which `tcp` is connected and not blocking, connect to a host.

    Raises:
        OSError: It does not; the text says why.
    """
    loop = asyncio.get_running_loop()
    place, name = place_of(host, port), place_of(proxy.host, proxy.port)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await loop.sock_sendall(tcp, connect_request(proxy, place))
            head = b""
            while not head.endswith(b"\r\n\r\n"):  # a byte at a time: what follows is the host's
                received = await loop.sock_recv(tcp, 1)
                head += received
                if not received or len(head) > MAX_HEAD_BYTES:
                    raise ConnectionError(f"the proxy {name} did not answer as one")
        check_answer(head)
    except TimeoutError:
        raise TimeoutError(f"the proxy {name} did not answer within {TIMEOUT_S:g} s") from None
    except RemoteProtocolError as error:
        raise ConnectionError(f"the proxy {name} does not connect to {place}: {error}") from error
