"""UDP and TCP sockets as clients and gateways need them: marked, with large buffers, on the preferred port."""

import contextlib
import errno
import socket
import struct
from dataclasses import dataclass
from typing import Final

import structlog

from wardgate.errors import InterfaceLost

FWMARK: Final = 0xFD002021
"""On every socket of our own; policy routing keeps packets with it out of the tunnel."""
PREFERRED_PORT: Final = 52625
SEND_BUFFER_BYTES: Final = 2 * 1024 * 1024
RECEIVE_BUFFER_BYTES: Final = 16 * 1024 * 1024
LEAST_BUFFER_BYTES: Final = 64 * 1024

_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33

log = structlog.get_logger("io.udp")


@dataclass(frozen=True, slots=True)
class UdpSockets:
    """The sockets that tunnels run over; a family that the host lacks is `None`."""

    v4: socket.socket | None
    v6: socket.socket | None

    @property
    def fds(self) -> tuple[int | None, int | None]:
        """Their descriptors, as the native threads take them."""
        return (self.v4.fileno() if self.v4 else None, self.v6.fileno() if self.v6 else None)

    def close(self) -> None:
        """Closes both."""
        for each in (self.v4, self.v6):
            if each is not None:
                each.close()


def open_udp_sockets(*, port: int = PREFERRED_PORT, must_mark: bool) -> UdpSockets:
    """Opens one socket a family on the port, or on any port if that one is taken.

    Args:
        port: The preferred port, 0 for any.
        must_mark: Whether an unmarked socket would loop, so that failing to mark it is an error.

    Raises:
        InterfaceLost: Neither family works, or a socket could not be marked.
    """
    sockets = UdpSockets(_open(socket.AF_INET, port, must_mark), _open(socket.AF_INET6, port, must_mark))
    if sockets.v4 is None and sockets.v6 is None:
        raise InterfaceLost("neither an IPv4 nor an IPv6 UDP socket can be opened")
    return sockets


def _open(family: socket.AddressFamily, port: int, must_mark: bool) -> socket.socket | None:
    any_address = "::" if family is socket.AF_INET6 else "0.0.0.0"
    try:
        udp = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        log.info("address family not available", family=family.name, error=str(error))
        return None
    try:
        udp.setblocking(False)
        if family is socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        mark(udp, must=must_mark)
        enlarge_buffers(udp)
        if not _bind(udp, any_address, port) and not _bind(udp, any_address, 0):
            udp.close()
            return None
    except BaseException:
        udp.close()
        raise
    return udp


def _bind(udp: socket.socket, address: str, port: int) -> bool:
    try:
        udp.bind((address, port))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise
        return False
    return True


def mark(any_socket: socket.socket, *, must: bool) -> bool:
    """Marks a socket as ours; returns whether it is.

    Raises:
        InterfaceLost: It must be, and this process may not.
    """
    try:
        any_socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", FWMARK))
    except OSError as error:
        if must:
            raise InterfaceLost(f"a socket could not be kept out of the tunnel (SO_MARK: {error.strerror})") from error
        return False
    return True


def enlarge_buffers(udp: socket.socket) -> tuple[int, int]:
    """Asks for the buffers of a 10 Gb/s path, half as much where that is refused; returns what there is now."""
    _enlarge(udp, _SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    _enlarge(udp, _SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    return (
        udp.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
        udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
    )


def _enlarge(udp: socket.socket, forced: int, plain: int, wanted: int) -> None:
    with contextlib.suppress(OSError):
        udp.setsockopt(socket.SOL_SOCKET, forced, wanted)
        return
    while wanted >= LEAST_BUFFER_BYTES:
        try:
            udp.setsockopt(socket.SOL_SOCKET, plain, wanted)
        except OSError:
            wanted //= 2
        else:
            return


def open_marked_tcp(family: socket.AddressFamily) -> socket.socket:
    """A TCP socket that stays out of the tunnel.

    Raises:
        InterfaceLost: It cannot be marked.
    """
    tcp = socket.socket(family, socket.SOCK_STREAM)
    try:
        mark(tcp, must=True)
    except InterfaceLost:
        tcp.close()
        raise
    return tcp
