"""What a gateway keeps about one client, and what becomes of the packets that the client sends."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from wardgate.ids import ClientId, ResourceId
from wardgate.tunnel.assignments import Assignments, are_proxy_ips
from wardgate.tunnel.filters import Filters
from wardgate.tunnel.flows import Drop, Forward, Refuse, Verdict, opens_flow
from wardgate.tunnel.nat import NatTable, Side, side
from wardgate.tunnel.ranges import is_proxy_address, is_public, is_sentinel, is_tunnel_address
from wardgate.tunnel.routing import RoutingTable
from wardgate.wire.control import AssignedIps
from wardgate.wire.domain_patterns import DomainPattern
from wardgate.wire.icmp_errors import Unreachable
from wardgate.wire.ip import IpAddress, Packet
from wardgate.wire.portal import GatewayCidrResource, GatewayDnsResource, GatewayInternetResource, GatewayResource

MAX_PASSES: Final = 512
TARGET_ADDRESSES: Final = 3
"""Where the addresses begin in a `PacketUpcall.target`."""


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


class Pass(NamedTuple):
    """What holds for every packet to one target that opens a flow.

    Attributes:
        authorization: What its flow is marked with.
        resource_id: The resource it belongs to; `None` for the gateway itself.
        real: The packed address that a proxy IP stands for; `None` if nothing is translated.
    """

    authorization: int
    resource_id: ResourceId | None
    real: bytes | None


class Ends(NamedTuple):
    """What access depends on; the port is the destination's, 0 if there is none."""

    source: IpAddress
    destination: IpAddress
    protocol: int
    port: int


class ClientOnGateway:
    """One client: its addresses, what it may reach, the names it announced and its translated flows.

    It outlives the connection, as the client may come back and believe that it still has access.

    Attributes:
        passes: What was decided of late, by the native module's `PacketUpcall.target`; forgotten with every change.
    """

    def __init__(self, client_id: ClientId, ipv4: IPv4Address, ipv6: IPv6Address) -> None:
        self.client_id = client_id
        self.ipv4 = ipv4
        self.ipv6 = ipv6
        self.nat = NatTable()
        self._names = Assignments()
        self._routes = RoutingTable()
        self._admitted: dict[ResourceId, Admitted] = {}
        self.passes: dict[bytes, Pass] = {}

    def move(self, ipv4: IPv4Address, ipv6: IPv6Address) -> None:
        """The client has other tunnel addresses now."""
        self.ipv4, self.ipv6 = ipv4, ipv6
        self.passes.clear()

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
        self.passes.clear()
        self._admitted[resource.id] = Admitted(resource, number, filters, pattern)
        self._reroute(resource, filters, keeps_names=old is not None and old.pattern == pattern)
        return old is not None

    def revoke(self, resource_id: ResourceId) -> None:
        """Closes a resource."""
        self.passes.clear()
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
        self.passes.clear()
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
        self.passes.clear()
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

        A `Forward` of a packet that opens a flow and is translated holds a place in the NAT table, until `release`.

        Args:
            packet: Not multicast, and not a control packet.
            own: The gateway's tunnel addresses.
        """
        if packet.is_icmp_error:
            return Drop("outbound_icmp_error")
        port = packet.source_port if packet.icmp_id is None else packet.icmp_id
        ends = Ends(packet.source, packet.destination, packet.protocol, packet.destination_port)
        inside = side(packet.protocol, port, packet.destination)
        admission = self._admission_of(ends, inside, own)
        if isinstance(admission, Refuse):
            return admission
        outside = None
        if admission.real is not None:
            if not opens_flow(packet):
                return Drop("untranslatable")
            outside = self.nat.bind(inside, admission.real, now)
            if outside is None:
                return Drop("nat_full")
        return Forward(admission.authorization, admission.resource_id, outside)

    def admit_target(self, target: bytes, inside: Side, own: tuple[IpAddress, ...]) -> Pass | Refuse:
        """Whether packets to this target that open flows pass, and on what terms; remembered in `passes`.

        Args:
            target, inside: Of the native module's `PacketUpcall`.
            own: The gateway's tunnel addresses.
        """
        half = (len(target) - TARGET_ADDRESSES) // 2
        source, destination = ip_address(target[TARGET_ADDRESSES:-half]), ip_address(target[-half:])
        if destination.is_multicast:
            return Refuse(Unreachable.PROHIBITED, "multicast")
        ends = Ends(source, destination, target[0], int.from_bytes(target[1:TARGET_ADDRESSES], "big"))
        admission = self._admission_of(ends, inside, own)
        if isinstance(admission, Pass) and admission.real != destination.packed:
            if len(self.passes) >= MAX_PASSES:
                self.passes.clear()
            self.passes[target] = admission
        return admission

    def release(self, inside: Side, now: float, *, linger: bool = False) -> None:
        """A translated flow that `decide` let through is gone, or could not be installed."""
        self.nat.release(inside, now, linger=linger)

    def _admission_of(self, ends: Ends, inside: Side, own: tuple[IpAddress, ...]) -> Pass | Refuse:
        destination = ends.destination
        if ends.source not in self.addresses:
            return Refuse(Unreachable.PROHIBITED, "foreign_source")
        if destination in own:
            return Pass(0, None, None)
        if is_tunnel_address(destination):
            return Refuse(Unreachable.PROHIBITED, "tunnel_range")
        route = self._routes.lookup(destination, ends.protocol, ends.port)
        if route is None:
            return Refuse(Unreachable.PROHIBITED, "no_resource")
        if route.is_internet and not is_public(destination):
            return Refuse(Unreachable.NETWORK, "not_public")
        if not route.filters.permits(ends.protocol, ends.port):
            return Refuse(Unreachable.PROHIBITED, "filter")
        number = self._admitted[route.resource_id].number
        if not is_proxy_address(destination):
            return Pass(number, route.resource_id, None)
        real = self._names.real_ip(destination)
        if real is None and self.nat.outside_of(inside) is None:
            return Refuse(Unreachable.NETWORK, "no_record")
        # Without a real address it stands for, only the flow that is bound already knows where to go.
        return Pass(number, route.resource_id, (real or destination).packed)

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
