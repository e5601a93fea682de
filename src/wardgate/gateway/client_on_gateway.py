"""What a gateway keeps about one client, and what becomes of the packets that the client sends."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from wardgate.ids import ClientId, ResourceId
from wardgate.tunnel.assignments import Assignments, are_proxy_ips
from wardgate.tunnel.filters import Filters
from wardgate.tunnel.flows import Drop, Forward, Refuse, Verdict, opens_flow
from wardgate.tunnel.nat import NatTable, Side
from wardgate.tunnel.ranges import is_proxy_address, is_public, is_sentinel, is_tunnel_address
from wardgate.tunnel.routing import Route, RoutingTable
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.control import AssignedIps
from wardgate.wire.domain_patterns import DomainPattern
from wardgate.wire.icmp_errors import Unreachable
from wardgate.wire.ip import TCP, UDP, FlowKey, IpAddress, Packet
from wardgate.wire.portal import GatewayCidrResource, GatewayDnsResource, GatewayInternetResource, GatewayResource


@dataclass(frozen=True, slots=True)
class Admitted:
    """A resource that the client may reach.

    Attributes:
        number: What its flows are marked with.
        pattern: Of a DNS resource, the names it covers.
    """

    resource: GatewayResource
    number: int
    filters: Filters
    pattern: DomainPattern | None


class ClientOnGateway:
    """One client: its addresses, what it may reach, the names it announced and its translated flows.

    It outlives the connection, as the client may come back and believe that it still has access.
    """

    def __init__(self, client_id: ClientId, ipv4: IPv4Address, ipv6: IPv6Address) -> None:
        self.client_id = client_id
        self.ipv4 = ipv4
        self.ipv6 = ipv6
        self.nat = NatTable()
        self._names = Assignments()
        self._routes = RoutingTable()
        self._admitted: dict[ResourceId, Admitted] = {}

    @property
    def addresses(self) -> tuple[IpAddress, IpAddress]:
        """The client's tunnel addresses."""
        return self.ipv4, self.ipv6

    @property
    def admitted(self) -> dict[ResourceId, Admitted]:
        """What it may reach, by resource."""
        return dict(sorted(self._admitted.items()))

    def admission(self, resource_id: ResourceId) -> Admitted | None:
        """How it may reach one resource."""
        return self._admitted.get(resource_id)

    def admit(self, resource: GatewayResource, number: int) -> bool:
        """Opens a resource, or changes it; returns whether flows that pass under it have to be decided anew."""
        old = self._admitted.get(resource.id)
        if old is not None and old.resource == resource and old.number == number:
            return False
        filters = Filters(() if isinstance(resource, GatewayInternetResource) else resource.filters)
        pattern = DomainPattern.parse(resource.address) if isinstance(resource, GatewayDnsResource) else None
        self._admitted[resource.id] = Admitted(resource, number, filters, pattern)
        self._reroute(resource, filters, keeps_names=old is not None and old.pattern == pattern)
        return old is not None

    def revoke(self, resource_id: ResourceId) -> None:
        """Closes a resource."""
        self._admitted.pop(resource_id, None)
        self._routes.remove(resource_id)

    # --- names ---------------------------------------------------------------

    def begins_anew(self, announced: AssignedIps) -> bool:
        """Whether the client gave a proxy IP to another name, so that all it announced before is void."""
        return self._may_announce(announced) and self._names.is_renumbered(
            announced.domain.lower(), announced.proxy_ips
        )

    def forget_names(self) -> None:
        """Forgets every name and every translated flow."""
        self.nat.clear()
        self._names.clear()
        self._routes.clear_names()

    def accepts(self, announced: AssignedIps) -> bool:
        """Whether the name may be resolved for this client."""
        admitted = self._admitted.get(announced.resource_id)
        pattern = None if admitted is None else admitted.pattern
        return self._may_announce(announced) and pattern is not None and pattern.matches(announced.domain)

    def assign(self, announced: AssignedIps, resolved: Iterable[IpAddress]) -> bool:
        """Puts real addresses behind announced proxy IPs, if the name is still to be served.

        A name that points into the tunnel, or at the gateway itself, has no address as far as clients are concerned.
        """
        if not self.accepts(announced) or self.begins_anew(announced):
            return False
        domain = announced.domain.lower()
        reachable = [one for one in resolved if _is_reachable(one)]
        if not self._names.assign(domain, announced.proxy_ips, reachable):
            return False
        filters = self._admitted[announced.resource_id].filters
        for proxy_ip in announced.proxy_ips:
            self._routes.add_name(proxy_ip, announced.resource_id, domain, filters)
        return True

    def _may_announce(self, announced: AssignedIps) -> bool:
        admitted = self._admitted.get(announced.resource_id)
        is_name = admitted is not None and isinstance(admitted.resource, GatewayDnsResource)
        return is_name and are_proxy_ips(announced.proxy_ips)

    # --- packets ---------------------------------------------------------------

    def decide(self, packet: Packet, own: tuple[IpAddress, ...], now: float) -> Verdict:
        """What becomes of a packet from this client that no flow knows.

        A `Forward` of a packet that opens a flow holds a place in the NAT table, until `release`.

        Args:
            packet: Not multicast, and not a control packet.
            own: The gateway's tunnel addresses.
        """
        if packet.is_icmp_error:
            return Drop("outbound_icmp_error")
        if packet.source not in self.addresses:
            return Refuse(Unreachable.PROHIBITED, "foreign_source")
        if packet.destination in own:
            return self._translated(packet, packet.destination, None, now)
        if is_tunnel_address(packet.destination):
            return Refuse(Unreachable.PROHIBITED, "tunnel_range")
        route = self._routes.lookup(packet.destination, packet.protocol, packet.destination_port)
        if route is None:
            return Refuse(Unreachable.PROHIBITED, "no_resource")
        if route.is_internet and not is_public(packet.destination):
            return Refuse(Unreachable.NETWORK, "not_public")
        if not route.filters.permits(packet.protocol, packet.destination_port):
            return Refuse(Unreachable.PROHIBITED, "filter")
        if not is_proxy_address(packet.destination):
            return self._translated(packet, packet.destination, route, now)
        real = self._names.real_ip(packet.destination)
        if real is None and self.nat.outside_of(_inside(packet.key)) is None:
            return Refuse(Unreachable.NETWORK, "no_record")
        return self._translated(packet, real or packet.destination, route, now)

    def release(self, inner: FlowKey, now: float, *, linger: bool = False) -> None:
        """A flow that `decide` let through is gone, or could not be installed."""
        self.nat.release(_inside(inner), now, linger=linger)

    def _translated(self, packet: Packet, real: IpAddress, route: Route | None, now: float) -> Verdict:
        inner = host = packet.key
        if opens_flow(packet):
            outside = self.nat.bind(Side(inner.protocol, inner.source.port, packet.destination), real, now)
            if outside is None:
                return Drop("nat_full")
            if outside.address != packet.destination or outside.port != inner.source.port:
                host = _outer(inner, outside)
        elif is_proxy_address(packet.destination):
            return Drop("untranslatable")
        if route is None:
            return Forward(inner, host)
        return Forward(inner, host, self._admitted[route.resource_id].number, route.resource_id)

    def _reroute(self, resource: GatewayResource, filters: Filters, *, keeps_names: bool) -> None:
        if isinstance(resource, GatewayDnsResource) and keeps_names:
            self._routes.refilter(resource.id, filters)
            return
        self._routes.remove(resource.id)
        if isinstance(resource, GatewayCidrResource):
            self._routes.add_network(resource.address, resource.id, filters)
        elif isinstance(resource, GatewayInternetResource):
            self._routes.add_internet(resource.id)


def _is_reachable(address: IpAddress) -> bool:
    hidden = is_tunnel_address(address) or is_proxy_address(address) or is_sentinel(address)
    return not (hidden or address.is_loopback or address.is_multicast or address.is_unspecified)


def _inside(key: FlowKey) -> Side:
    return Side(key.protocol, key.source.port, ip_address(key.destination.host))


def _outer(inner: FlowKey, outside: Side) -> FlowKey:
    """The key on the TUN device; an ICMP echo has its identifier in both ports."""
    destination_port = inner.destination.port if inner.protocol in (TCP, UDP) else outside.port
    return FlowKey(
        inner.protocol,
        SocketAddr(inner.source.host, outside.port),
        SocketAddr(str(outside.address), destination_port),
    )
