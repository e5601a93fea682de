"""Ready-made topologies."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from wardgate.lab.topology import Host, Link, Nat, NatKind, Site, Topology

PORTAL = IPv4Address("203.0.113.10")
APP = IPv4Address("10.9.0.2")
NEIGHBOUR = IPv4Address("10.9.0.3")
APP_NAME = "app.corp.example"
PLAIN = Link()


def demo(
    client_nat: Nat | NatKind = NatKind.PORT_RESTRICTED,
    gateway_nat: Nat | NatKind = NatKind.PORT_RESTRICTED,
    *,
    client_link: Link = PLAIN,
    gateway_link: Link = PLAIN,
) -> Topology:
    """The internet of `make demo`.

        client --- client-nat --- [ wan: portal, relay-1, relay-2 ] --- gateway-nat --- gateway-1, gateway-2
                                                                                    |-- app, neighbour

    The gateways know `app.corp.example` from their hosts file, nobody else does. The app's neighbour is there to be
    refused.

    Args:
        client_nat: How the client's router translates.
        gateway_nat: The same for the gateways' router.
        client_link: The wire between the client's router and the wan.
        gateway_link: The same for the gateways' router.
    """
    inside = ((APP_NAME, str(APP)), ("neighbour.corp.example", str(NEIGHBOUR)))
    return Topology(
        hosts=(
            Host("portal", PORTAL, IPv6Address("2001:db8:113::10")),
            Host("relay-1", IPv4Address("203.0.113.3"), IPv6Address("2001:db8:113::3")),
            Host("relay-2", IPv4Address("203.0.113.4"), IPv6Address("2001:db8:113::4")),
        ),
        sites=(
            Site(
                "client",
                IPv4Network("192.168.1.0/24"),
                IPv4Address("203.0.113.21"),
                hosts=(Host("client", IPv4Address("192.168.1.10"), IPv6Address("2001:db8:1::10")),),
                nat=_nat(client_nat),
                ipv6=IPv6Network("2001:db8:1::/64"),
                public_ipv6=IPv6Address("2001:db8:113::21"),
                link=client_link,
            ),
            Site(
                "gateway",
                IPv4Network("10.9.0.0/24"),
                IPv4Address("203.0.113.31"),
                hosts=(
                    Host("gateway-1", IPv4Address("10.9.0.10"), IPv6Address("2001:db8:9::10"), names=inside),
                    Host("gateway-2", IPv4Address("10.9.0.11"), IPv6Address("2001:db8:9::11"), names=inside),
                    Host("app", APP, IPv6Address("2001:db8:9::2")),
                    Host("neighbour", NEIGHBOUR, IPv6Address("2001:db8:9::3")),
                ),
                nat=_nat(gateway_nat),
                ipv6=IPv6Network("2001:db8:9::/64"),
                public_ipv6=IPv6Address("2001:db8:113::31"),
                link=gateway_link,
            ),
        ),
    )


def _nat(value: Nat | NatKind) -> Nat:
    return Nat(value) if isinstance(value, NatKind) else value
