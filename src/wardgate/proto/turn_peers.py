"""Which hosts a relay sends to: never itself nor what only its own link reaches, private networks if it is told so.

A relay that sends anywhere is a way into the network that it stands in. Addresses that hold an IPv4 address (mapped,
compatible, NAT64, 6to4) are judged by that one as well.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Ip = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NEVER: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",  # reserved, and the broadcast address
        "::/128",
        "::1/128",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
_PRIVATE: tuple[Network, ...] = tuple(
    ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")


class PeerRules:
    """Judges peers by their address alone."""

    def __init__(
        self,
        *,
        public: Iterable[str],
        own: Iterable[str] = (),
        allowed: Iterable[str] = (),
        private: bool | None = None,
    ) -> None:
        """Takes the relay's settings.

        Args:
            public: The addresses that clients and peers know, at which other allocations of this relay are reached.
            own: Other addresses of this host.
            allowed: Networks that are relayed to whatever else is said here, as `192.0.2.0/24`.
            private: Whether private networks are; `None` means that they are if a public address is private itself.
        """
        self._public = frozenset(ip_address(host) for host in public)
        self._own = frozenset(ip_address(host) for host in own) - self._public
        self._allowed = tuple(ip_network(text) for text in allowed)
        self._is_on_loopback = any(ip.is_loopback for ip in self._public)
        self._is_private = any(is_private(ip) for ip in self._public) or self._is_on_loopback
        if private is not None:
            self._is_private = private

    def is_this_host(self, host: str) -> bool:
        """Whether that is this relay, where only ports of allocations are peers."""
        ip = ip_address(host)
        return ip in self._public and not ip.is_loopback and not _is_in(ip, self._allowed)

    def problem(self, host: str) -> str | None:
        """Why nothing is relayed to `host`; `None` if it may be."""
        ip = ip_address(host)
        if ip in self._public or _is_in(ip, self._allowed):
            return None
        forms = (ip, *_inner_forms(ip))
        if any(one in self._own or one in self._public for one in forms):
            return "it is an address of the relay itself"
        if any(one.is_loopback for one in forms) and self._is_on_loopback:
            return None
        if any(_is_in(one, _NEVER) for one in forms):
            return "it is no host's address beyond this link"
        if not self._is_private and any(is_private(one) for one in forms):
            return "it is private and this relay is public"
        return None


def is_private(ip: Ip) -> bool:
    """Whether the address is one of networks that are not routed between sites."""
    return _is_in(ip, _PRIVATE)


def _is_in(ip: Ip, networks: Iterable[Network]) -> bool:
    return any(ip.version == network.version and ip in network for network in networks)


def _inner_forms(ip: Ip) -> tuple[Ip, ...]:
    """The IPv4 address that an IPv6 address holds."""
    if isinstance(ip, IPv4Address):
        return ()
    if ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped,)
    if ip.sixtofour is not None:
        return (ip.sixtofour,)
    if ip in _NAT64 or ip in _COMPATIBLE:
        return (IPv4Address(int(ip) & 0xFFFFFFFF),)
    return ()
