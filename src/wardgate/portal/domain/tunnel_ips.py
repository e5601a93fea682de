"""Tunnel addresses of devices: which to try for a new one.

Source: portal-protocol section 5; 100.64.0.0/11 and fd00:2021:1111::/107, unique in an account, kept for ever.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from wardgate.portal.domain.addresses import TUNNEL_IPV4, TUNNEL_IPV6

NETWORKS: Final[dict[str, IPv4Network | IPv6Network]] = {"ipv4": TUNNEL_IPV4, "ipv6": TUNNEL_IPV6}
"""Where each of a device's addresses lies, by column."""
_SIZE: Final = 2**21
_FIRST: Final = 1
_LAST: Final = _SIZE - 2


def ipv4_candidates(start: int) -> Iterator[str]:
    """All addresses of the pool, beginning at any number and going round once."""
    base = int(TUNNEL_IPV4.network_address)
    return (str(IPv4Address(base + offset)) for offset in _offsets(start))


def ipv6_candidates(start: int) -> Iterator[str]:
    """The same for IPv6."""
    base = int(TUNNEL_IPV6.network_address)
    return (str(IPv6Address(base + offset)) for offset in _offsets(start))


def _offsets(start: int) -> Iterator[int]:
    count = _LAST - _FIRST + 1
    for step in range(count):
        yield _FIRST + (start + step) % count
