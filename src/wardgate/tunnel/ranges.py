"""The address ranges that have a meaning of their own inside the tunnel, and those that are nobody's internet.

Source: RFC 6890 and its registries for addresses that are not public.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from typing import Final

from wardgate.wire.ip import IpAddress
from wardgate.wire.ranges import PROXY_V4 as PROXY_V4
from wardgate.wire.ranges import PROXY_V6 as PROXY_V6
from wardgate.wire.ranges import SENTINEL_V4 as SENTINEL_V4
from wardgate.wire.ranges import SENTINEL_V6 as SENTINEL_V6
from wardgate.wire.ranges import TUNNEL_V4 as TUNNEL_V4
from wardgate.wire.ranges import TUNNEL_V6 as TUNNEL_V6
from wardgate.wire.ranges import IpNetwork as IpNetwork

CLIENT_ROUTES: Final[tuple[IpNetwork, ...]] = (TUNNEL_V4, TUNNEL_V6, PROXY_V4, PROXY_V6, SENTINEL_V4, SENTINEL_V6)
"""What a client always routes into its TUN device, besides its resources."""
GATEWAY_ROUTES: Final[tuple[IpNetwork, ...]] = (TUNNEL_V4, TUNNEL_V6)
"""What a gateway routes into its TUN device."""
DEFAULT_ROUTES: Final[tuple[IpNetwork, ...]] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))

_NOT_PUBLIC: Final = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "::ffff:0:0/96",
        "fc00::/7",
        "fe80::/10",
        "ff00::/8",
    )
)


def is_tunnel_address(address: IpAddress) -> bool:
    """Whether this may be the address of a client or gateway."""
    return address in TUNNEL_V4 if isinstance(address, IPv4Address) else address in TUNNEL_V6


def is_sentinel(address: IpAddress) -> bool:
    """Whether packets to this address are meant for the client's own resolver."""
    return address in SENTINEL_V4 if isinstance(address, IPv4Address) else address in SENTINEL_V6


def is_proxy_address(address: IpAddress) -> bool:
    """Whether a client may use this address as a stand-in for a name; the sentinels' addresses are not among them."""
    inside = address in PROXY_V4 if isinstance(address, IPv4Address) else address in PROXY_V6
    return inside and not is_sentinel(address)


def is_public(address: IpAddress) -> bool:
    """Whether the Internet resource covers this address."""
    return not any(address.version == one.version and address in one for one in _NOT_PUBLIC)
