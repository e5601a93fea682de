"""What a client's or gateway's state asks of the program around it."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from wardgate.tunnel.connections_events import RelaySilent
from wardgate.tunnel.ranges import IpNetwork
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import IpAddress
from wardgate.wire.portal import Message


@dataclass(frozen=True, slots=True)
class SendPortal:
    """Send this to the portal; dropped while it is away."""

    message: Message


@dataclass(frozen=True, slots=True)
class ConfigureTun:
    """Give the TUN device these addresses and routes, and the host these resolvers; replaces what was there.

    Attributes:
        routes: Sorted; host routes and networks, and the default routes while the Internet resource is active.
        dns_servers: Addresses inside the tunnel that the host is to ask; none leaves its resolvers alone.
    """

    ipv4: IPv4Address
    ipv6: IPv6Address
    routes: tuple[IpNetwork, ...]
    dns_servers: tuple[IpAddress, ...] = ()
    search_domain: str | None = None


@dataclass(frozen=True, slots=True)
class ForwardQuery:
    """Ask a resolver outside the tunnel; `handle_query_response(query_id, payload | None, now)` takes the answer.

    Attributes:
        server: The resolver: an address, or the URL of a DoH server.
    """

    query_id: int
    server: SocketAddr | str
    payload: bytes
    transport: Literal["udp", "tcp", "https"]


@dataclass(frozen=True, slots=True)
class Resolve:
    """Look up A and AAAA of a name as the host does; `handle_resolved(request_id, ...)` takes the answer."""

    request_id: int
    name: str


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The portal ended this session for good: the token is no longer accepted. Nothing else follows."""

    reason: str


ClientEvent = SendPortal | ConfigureTun | ForwardQuery | RelaySilent | SessionEnded
GatewayEvent = SendPortal | ConfigureTun | Resolve | RelaySilent | SessionEnded
