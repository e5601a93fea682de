"""From a topology to the operations that build it. Pure: what a lab will do can be read without root.

The wan is a router with one wire to each host and each site's edge, so a link's MTU, delay or loss concerns that node
alone and a packet that is too big is answered with an ICMP error. A site's router holds the switch of its network.
"""

from ipaddress import IPv4Network, IPv6Network, ip_network

from wardgate.errors import LabError
from wardgate.lab import operations as ops
from wardgate.lab.messages import Message
from wardgate.lab.nat import LOCAL, UPLINK, RouterRules
from wardgate.lab.topology import Host, Link, NatKind, Site, Topology

WAN = "wan"
HOST_INTERFACE = "eth0"
ANY_IPV4 = IPv4Network("0.0.0.0/0")
ANY_IPV6 = IPv6Network("::/0")
CARRIER_NETWORKS = IPv4Network("100.127.0.0/16")
"""Where carriers' inner networks come from: shared space (RFC 6598) that no tunnel address of ours is in."""


def plan(topology: Topology, *, ipv6: bool = True) -> list[Message]:
    """Everything that is to be done once the nodes exist, in order.

    Args:
        topology: What to build.
        ipv6: Whether this machine has IPv6 at all; without it, IPv6 addresses are left out.
    """
    made = router_settings(WAN, ipv6)
    for host in topology.hosts:
        made += wan_host(topology, host, ipv6)
    for index, site in enumerate(topology.sites):
        made += _site(topology, index, site, ipv6)
    return made


def wan_host(topology: Topology, host: Host, ipv6: bool) -> list[Message]:
    """Wires a host to the wan."""
    made = ops.wire(host.name, HOST_INTERFACE, WAN, host.name, host.link)
    return made + _join_wan(topology, host.name, HOST_INTERFACE, [host.ipv4, host.ipv6 if ipv6 else None])


def site_host(site: Site, host: Host, ipv6: bool) -> list[Message]:
    """Wires a host to its site's router."""
    node, router = host.name, site.router
    made = [
        *ops.wire(node, HOST_INTERFACE, router, node, host.link),
        ops.attach(router, node, LOCAL),
        ops.up(router, node),
        ops.up(node, HOST_INTERFACE),
        ops.address(node, HOST_INTERFACE, host.ipv4, site.ipv4.prefixlen),
        ops.route(node, ANY_IPV4, HOST_INTERFACE, site.gateway_ipv4),
    ]
    if ipv6 and host.ipv6 is not None and site.ipv6 is not None:
        made += [
            ops.address(node, HOST_INTERFACE, host.ipv6, site.ipv6.prefixlen),
            ops.route(node, ANY_IPV6, HOST_INTERFACE, site.gateway_ipv6),
        ]
    return made


def router_settings(node: str, ipv6: bool) -> list[Message]:
    """Makes a node forward."""
    made = [
        ops.sysctl(node, "net/ipv4/ip_forward", 1),
        ops.sysctl(node, "net/ipv4/conf/all/send_redirects", 0),
        ops.sysctl(node, "net/ipv4/conf/default/send_redirects", 0),
    ]
    return made + ([ops.sysctl(node, "net/ipv6/conf/all/forwarding", 1)] if ipv6 else [])


def nat_rules(site: Site) -> list[Message]:
    """The rules of a site's router, or of both where its carrier has one; any mapping they had is gone."""
    nat, made = site.nat, []
    inner, inner_public = nat.kind, site.public_ipv4
    if site.carrier is not None:
        outer = RouterRules(nat.carrier, str(site.public_ipv4), nat.timeout_s)
        made += [*_timeouts(site.carrier, nat.timeout_s), ops.rules(site.carrier, outer.script())]
        inner, inner_public = NatKind.PORT_RESTRICTED, _carrier_network(site)[2]
    made += _timeouts(site.router, nat.timeout_s)
    return [*made, ops.rules(site.router, RouterRules(inner, str(inner_public), nat.timeout_s).script())]


def new_nat_rules(site: Site) -> list[Message]:
    """As `nat_rules`, for a site that is running: its routers forget every flow as well."""
    routers = [site.router] if site.carrier is None else [site.carrier, site.router]
    return [*nat_rules(site), *(ops.forget_flows(router) for router in routers)]


def new_public_address(topology: Topology, before: Site, after: Site, ipv6: bool) -> list[Message]:
    """Gives a running site's edge other addresses on the wan; routes to the old ones go."""
    gone = [ip_network(address) for address in (before.public_ipv4, before.public_ipv6 if ipv6 else None) if address]
    made = [ops.delete_route(WAN, old, before.edge) for old in gone]
    made += [ops.flush_addresses(before.edge, UPLINK), ops.flush_addresses(WAN, before.edge)]
    return [*made, *join_edge(topology, after, ipv6), *new_nat_rules(after)]


def wire_ends(topology: Topology, name: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Both ends, (node, interface), of a host's wire, or of that of a site's edge towards the wan.

    Raises:
        LabError: No host and no edge is called that.
    """
    if any(host.name == name for host in topology.hosts):
        return (name, HOST_INTERFACE), (WAN, name)
    for site in topology.sites:
        if site.edge == name:
            return (site.edge, UPLINK), (WAN, site.edge)
        if any(host.name == name for host in site.hosts):
            return (name, HOST_INTERFACE), (site.router, name)
    raise LabError(f"neither a host nor a router at the wan is called {name!r}")


def _site(topology: Topology, index: int, site: Site, ipv6: bool) -> list[Message]:
    made: list[Message] = []
    has_ipv6 = ipv6 and site.ipv6 is not None
    if site.carrier is not None:
        made += _carrier(site, has_ipv6)
    made += router_settings(site.router, ipv6)
    made += [ops.bridge(site.router, LOCAL), ops.up(site.router, LOCAL)]
    made.append(ops.address(site.router, LOCAL, site.gateway_ipv4, site.ipv4.prefixlen))
    if has_ipv6 and site.ipv6 is not None and site.gateway_ipv6 is not None:
        made.append(ops.address(site.router, LOCAL, site.gateway_ipv6, site.ipv6.prefixlen))
    made += ops.wire(site.edge, UPLINK, WAN, site.edge, site.link)
    made += join_edge(topology, site, ipv6)
    made += nat_rules(site)
    for host in site.hosts:
        made += site_host(site, host, ipv6)
    return made


def join_edge(topology: Topology, site: Site, ipv6: bool) -> list[Message]:
    """Gives a site's edge router its public addresses, and the wan its routes to them and to what is behind."""
    addresses = [site.public_ipv4, site.public_ipv6 if ipv6 else None]
    made = _join_wan(topology, site.edge, UPLINK, addresses)
    if site.nat.kind is NatKind.NONE:
        made.append(ops.route(WAN, site.ipv4, site.edge, site.public_ipv4))
    if ipv6 and site.ipv6 is not None:
        made.append(ops.route(WAN, site.ipv6, site.edge, site.public_ipv6))
    return made


def _join_wan(topology: Topology, node: str, interface: str, addresses: list[ops.Address | None]) -> list[Message]:
    made = [ops.up(node, interface), ops.up(WAN, node)]
    for value in addresses:
        if value is None:
            continue
        middle: ops.Address = topology.wan_ipv4 if value.version == 4 else topology.wan_ipv6
        alone = ip_network(value)
        made += [
            ops.address(node, interface, value, alone.prefixlen),
            ops.route(node, ANY_IPV4 if value.version == 4 else ANY_IPV6, interface, middle),
            ops.address(WAN, node, middle, alone.prefixlen),
            ops.route(WAN, alone, node),
        ]
    return made


def _carrier(site: Site, ipv6: bool) -> list[Message]:
    carrier, router = site.edge, site.router
    network = _carrier_network(site)
    made = [
        *router_settings(carrier, ipv6),
        *ops.wire(router, UPLINK, carrier, LOCAL, Link(mtu=site.link.mtu)),
        ops.up(router, UPLINK),
        ops.up(carrier, LOCAL),
        ops.address(carrier, LOCAL, network[1], network.prefixlen),
        ops.address(router, UPLINK, network[2], network.prefixlen),
        ops.route(router, ANY_IPV4, UPLINK, network[1]),
    ]
    if ipv6 and site.ipv6 is not None and site.gateway_ipv6 is not None:
        # Between the two routers there are only the addresses that the outer sides have anyway.
        near, far = site.ipv6[-2], site.ipv6[-1]
        made += [
            ops.address(carrier, LOCAL, near, 128),
            ops.address(router, UPLINK, far, 128),
            ops.route(carrier, ip_network(far), LOCAL),
            ops.route(carrier, site.ipv6, LOCAL, far),
            ops.route(router, ip_network(near), UPLINK),
            ops.route(router, ANY_IPV6, UPLINK, near),
        ]
    return made


def _carrier_network(site: Site) -> IPv4Network:
    """One network for each public address, so that no state is needed to keep them apart."""
    last = int(site.public_ipv4) & 0xFF
    return IPv4Network((int(CARRIER_NETWORKS.network_address) + (last << 8), 24))


def _timeouts(node: str, seconds: int) -> list[Message]:
    return [
        ops.sysctl(node, "net/netfilter/nf_conntrack_udp_timeout", seconds),
        ops.sysctl(node, "net/netfilter/nf_conntrack_udp_timeout_stream", seconds),
    ]
