"""How messages travel between the suite and a server: UDP, TCP or TLS, and the suite's own UDP peers."""

import contextlib
import select
import socket
import ssl
import time
from typing import ClassVar, Protocol

from conformance.wire import HEADER_SIZE, Address

CONNECT_TIMEOUT_S = 2.0
MAX_REJECTED = 64


class Unreachable(Exception):
    """Nothing answers where the server should be."""


class Link(Protocol):
    """One 5-tuple between the suite and the server."""

    reliable: bool
    local: Address

    def send(self, data: bytes) -> None: ...

    def receive(self, timeout_s: float) -> bytes | None:
        """The next message, or `None` when there is none in time or the server closed the connection."""
        ...

    def close(self) -> None: ...


def open_link(transport: str, server: Address) -> Link:
    """A fresh 5-tuple.

    Raises:
        Unreachable: The server refuses connections.
    """
    if transport == "udp":
        return UdpLink(server)
    return StreamLink(server, tls=transport == "tls")


class UdpLink:
    """An unconnected socket would also hear strangers; a connected one proves where answers come from."""

    reliable = False
    _used: ClassVar[set[Address]] = set()

    def __init__(self, server: Address) -> None:
        self._socket = self._fresh_socket(server)
        self.local = Address(*self._socket.getsockname()[:2])

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionRefusedError):
            self._socket.send(data)

    def receive(self, timeout_s: float) -> bytes | None:
        self._socket.settimeout(max(timeout_s, 0.001))
        try:
            return self._socket.recv(65536)
        except TimeoutError:
            return None
        except ConnectionRefusedError:
            return None

    def close(self) -> None:
        self._socket.close()

    @classmethod
    def _fresh_socket(cls, server: Address) -> socket.socket:
        """A socket on a port that no earlier client had: the server may still remember that one for a while."""
        rejected: list[socket.socket] = []
        try:
            while True:
                one = socket.socket(_family(server.host), socket.SOCK_DGRAM)
                one.connect((server.host, server.port))
                local = Address(*one.getsockname()[:2])
                if local not in cls._used or len(rejected) == MAX_REJECTED:
                    cls._used.add(local)
                    return one
                rejected.append(one)
        finally:
            for each in rejected:
                each.close()


class StreamLink:
    """TCP or TLS; finds the borders of STUN messages and padded channel data."""

    reliable = True

    def __init__(self, server: Address, *, tls: bool) -> None:
        try:
            plain = socket.create_connection((server.host, server.port), CONNECT_TIMEOUT_S)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = _trusting_context().wrap_socket(plain) if tls else plain
        except OSError as error:
            raise Unreachable(f"{server} does not take {'TLS' if tls else 'TCP'} connections: {error}") from error
        self.local = Address(*self._socket.getsockname()[:2])
        self.closed = False
        self._buffer = b""

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(data)

    def receive(self, timeout_s: float) -> bytes | None:
        deadline = time.monotonic() + timeout_s
        while (message := self._take()) is None:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or self.closed:
                return None
            self._socket.settimeout(remaining)
            try:
                more = self._socket.recv(65536)
            except TimeoutError:
                return None
            except OSError:
                more = b""
            self.closed = not more
            self._buffer += more
        return message

    def close(self) -> None:
        self._socket.close()

    def _take(self) -> bytes | None:
        """The first whole message of the buffer; channel data keeps its padding."""
        if len(self._buffer) < 4:
            return None
        length = int.from_bytes(self._buffer[2:4], "big")
        size = HEADER_SIZE + length if self._buffer[0] < 0x40 else (4 + length + 3) // 4 * 4
        if len(self._buffer) < size:
            return None
        message, self._buffer = self._buffer[:size], self._buffer[size:]
        return message


class Peer:
    """A host that the relay talks to: a UDP socket of ours."""

    def __init__(self, host: str) -> None:
        self._socket = socket.socket(_family(host), socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self.address = Address(*self._socket.getsockname()[:2])

    def send(self, payload: bytes, to: Address) -> None:
        with contextlib.suppress(ConnectionRefusedError):
            self._socket.sendto(payload, (to.host, to.port))

    def receive(self, timeout_s: float) -> tuple[bytes, Address] | None:
        """The next datagram and who sent it, or `None`."""
        deadline = time.monotonic() + timeout_s
        while True:
            remaining = deadline - time.monotonic()
            if not select.select([self._socket], [], [], max(remaining, 0))[0]:
                return None
            with contextlib.suppress(ConnectionRefusedError):
                payload, source = self._socket.recvfrom(65536)
                return payload, Address(source[0], source[1])

    def close(self) -> None:
        self._socket.close()


def local_address_toward(server: Address) -> str:
    """Which of this host's addresses the server would see."""
    with socket.socket(_family(server.host), socket.SOCK_DGRAM) as probe:
        probe.connect((server.host, server.port))
        return str(probe.getsockname()[0])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _trusting_context() -> ssl.SSLContext:
    """Certificates are not what is tested here."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
