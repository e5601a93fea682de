"""Transport addresses and datagrams as plain values, the same on both sides of the native seam."""

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

RandomBytes = Callable[[int], bytes]
"""Gives that many random bytes; handed to every state machine that needs randomness."""


@lru_cache(maxsize=1024)  # our own addresses above all
def packed(host: str) -> bytes:
    """The 4 or 16 bytes of an IP address in its canonical text form; `ipaddress` takes ten times as long.

    Raises:
        ValueError: It is none.
    """
    if ":" in host:
        return ip_address(host).packed
    value = bytes(map(int, host.split(".")))
    if len(value) != 4:
        raise ValueError(f"{host!r} is not an IP address")
    return value


class SocketAddr(NamedTuple):
    """An IP address in its canonical text form, and a UDP or TCP port.

    A tuple of `(str, int)`, so the native module takes and gives it as it is.
    """

    host: str
    port: int

    @property
    def ip(self) -> IPv4Address | IPv6Address:
        """The address as a value."""
        return ip_address(self.host)

    @property
    def is_ipv6(self) -> bool:
        """Whether this is an IPv6 address."""
        return ":" in self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "SocketAddr":
        """Reads `198.51.100.4:3478` or `[2001:db8::4]:3478`.

        Raises:
            ValueError: The text is neither.
        """
        host, separator, port = text.rpartition(":")
        if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"{text!r} is not an address with a port")
        bracketed = host.startswith("[") and host.endswith("]")
        address = ip_address(host[1:-1] if bracketed else host)
        if bracketed != (address.version == 6):
            raise ValueError(f"{text!r} is not an address with a port")
        return cls(str(address), int(port))


class Transmit(NamedTuple):
    """A datagram and where it goes.

    Attributes:
        local: The source to send from; `None` leaves it to the host's routing.
        remote: The destination.
        payload: The UDP payload.
    """

    local: SocketAddr | None
    remote: SocketAddr
    payload: bytes


class WholeTransmit(Transmit):
    """A datagram that must not travel in fragments; where it does not fit, it is lost."""

    __slots__ = ()
