"""What a lab looks like, as plain values: hosts on the wan, sites behind NATs, and the links between them.

Nothing here touches the machine. `plan.py` turns a topology into operations, `lab.py` carries them out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from wardgate.errors import LabError

MAX_NAME = 15  # the kernel's limit for interface names, which are named for the node at their far end
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_ROUTER_SUFFIXES = ("-nat", "-cgn")


class Mapping(StrEnum):
    """How long an endpoint keeps its public port; RFC 4787, section 4.1."""

    ENDPOINT_INDEPENDENT = "eim"
    """Towards everybody."""
    ADDRESS_DEPENDENT = "adm"
    """Towards one address, whatever its ports."""
    ADDRESS_AND_PORT_DEPENDENT = "apdm"
    """Towards one endpoint."""


class Filtering(StrEnum):
    """Who may send to a public port; RFC 4787, section 5."""

    ENDPOINT_INDEPENDENT = "eif"
    """Everybody."""
    ADDRESS_DEPENDENT = "adf"
    """Addresses that the endpoint behind it has sent to."""
    ADDRESS_AND_PORT_DEPENDENT = "apdf"
    """Endpoints that it has sent to."""


class NatKind(StrEnum):
    """How a site's router maps and filters UDP; the names of old, and RFC 4787's for those without one."""

    NONE = "none"
    """A router without translation and without a firewall; hosts have public addresses."""
    FULL_CONE = "full_cone"
    """Endpoint-independent mapping, endpoint-independent filtering; hairpins."""
    ADDRESS_RESTRICTED = "address_restricted"
    """Endpoint-independent mapping, address-dependent filtering; hairpins."""
    PORT_RESTRICTED = "port_restricted"
    """Endpoint-independent mapping, address- and port-dependent filtering; no hairpinning."""
    SYMMETRIC = "symmetric"
    """Address- and port-dependent mapping to random ports, address- and port-dependent filtering."""
    ADM_EIF = "adm_eif"
    """Address-dependent mapping to random ports, endpoint-independent filtering; likewise the others."""
    ADM_ADF = "adm_adf"
    ADM_APDF = "adm_apdf"
    APDM_EIF = "apdm_eif"
    APDM_ADF = "apdm_adf"
    CARRIER_GRADE = "carrier_grade"
    """Two layers: a port-restricted router at the site, behind the carrier's (`Nat.carrier`)."""
    UDP_BLOCKED = "udp_blocked"
    """As `PORT_RESTRICTED` for TCP and ICMP; no UDP in either direction."""

    @property
    def mapping(self) -> Mapping:
        """How it maps; of `CARRIER_GRADE` the router at the site."""
        return _BEHAVIOUR.get(self, _PORT_RESTRICTED)[0]

    @property
    def filtering(self) -> Filtering:
        """How it filters; likewise."""
        return _BEHAVIOUR.get(self, _PORT_RESTRICTED)[1]


_PORT_RESTRICTED = (Mapping.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT)
_BEHAVIOUR = {
    NatKind.FULL_CONE: (Mapping.ENDPOINT_INDEPENDENT, Filtering.ENDPOINT_INDEPENDENT),
    NatKind.ADDRESS_RESTRICTED: (Mapping.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_DEPENDENT),
    NatKind.SYMMETRIC: (Mapping.ADDRESS_AND_PORT_DEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT),
    NatKind.ADM_EIF: (Mapping.ADDRESS_DEPENDENT, Filtering.ENDPOINT_INDEPENDENT),
    NatKind.ADM_ADF: (Mapping.ADDRESS_DEPENDENT, Filtering.ADDRESS_DEPENDENT),
    NatKind.ADM_APDF: (Mapping.ADDRESS_DEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT),
    NatKind.APDM_EIF: (Mapping.ADDRESS_AND_PORT_DEPENDENT, Filtering.ENDPOINT_INDEPENDENT),
    NatKind.APDM_ADF: (Mapping.ADDRESS_AND_PORT_DEPENDENT, Filtering.ADDRESS_DEPENDENT),
}
NINE_KINDS = (
    NatKind.FULL_CONE,
    NatKind.ADDRESS_RESTRICTED,
    NatKind.PORT_RESTRICTED,
    NatKind.ADM_EIF,
    NatKind.ADM_ADF,
    NatKind.ADM_APDF,
    NatKind.APDM_EIF,
    NatKind.APDM_ADF,
    NatKind.SYMMETRIC,
)
"""Each mapping with each filtering."""


@dataclass(frozen=True, slots=True)
class Nat:
    """A site's translation.

    Attributes:
        kind: How it maps and filters.
        carrier: What the carrier's layer does; read for `CARRIER_GRADE` alone.
        timeout_s: How long an unused UDP mapping lives; RFC 4787, REQ-5, recommends two minutes at least.
    """

    kind: NatKind = NatKind.PORT_RESTRICTED
    carrier: NatKind = NatKind.PORT_RESTRICTED
    timeout_s: int = 120

    def __post_init__(self) -> None:
        if self.carrier in (NatKind.CARRIER_GRADE, NatKind.NONE):
            raise LabError(f"a carrier's NAT cannot be {self.carrier}")
        if self.timeout_s < 1:
            raise LabError("a mapping must live for one second at least")


@dataclass(frozen=True, slots=True)
class Link:
    """One wire; both directions are alike.

    Attributes:
        delay_ms: One-way delay.
        rate_mbit: The most it carries each way; `None` is as fast as the machine.
        loss: The share of packets that vanish each way, 0 to 1.
        mtu: The largest IP packet it carries.
    """

    delay_ms: float = 0.0
    rate_mbit: float | None = None
    loss: float = 0.0
    mtu: int = 1500

    def __post_init__(self) -> None:
        if not 0 <= self.delay_ms <= 10_000:
            raise LabError(f"a delay of {self.delay_ms} ms is outside 0 to 10000 ms")
        if self.rate_mbit is not None and self.rate_mbit <= 0:
            raise LabError("a rate must be above zero")
        if not 0 <= self.loss <= 1:
            raise LabError(f"a loss of {self.loss} is outside 0 to 1")
        if not 68 <= self.mtu <= 65_535:
            raise LabError(f"an MTU of {self.mtu} is outside 68 to 65535")


@dataclass(frozen=True, slots=True)
class Host:
    """A machine.

    Attributes:
        name: Its node name, host name, and the name of the interface at the other end of its wire.
        ipv4: Its address; on the wan, or in its site's network.
        ipv6: The same for IPv6; `None` for a host without.
        link: Its wire to the wan or to its site's router.
        names: More lines for its `/etc/hosts`: (name, address). Names of hosts on the wan are there anyway.
        resolvers: The name servers in its `/etc/resolv.conf`.
    """

    name: str
    ipv4: IPv4Address
    ipv6: IPv6Address | None = None
    link: Link = Link()
    names: tuple[tuple[str, str], ...] = ()
    resolvers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_name(self.name, MAX_NAME)


@dataclass(frozen=True, slots=True)
class Site:
    """A local network behind a router; the router is the node `<name>-nat`, a carrier's is `<name>-cgn`.

    Attributes:
        name: At most 11 characters.
        ipv4: The local network; the router has its first address.
        public_ipv4: The address it has on the wan.
        hosts: The machines on the local network.
        nat: How the router translates.
        ipv6: The local network; never translated, and filtered by state unless the kind is `NONE`.
        public_ipv6: The router's address on the wan, needed for `ipv6`.
        link: The wire between the router and the wan.
    """

    name: str
    ipv4: IPv4Network
    public_ipv4: IPv4Address
    hosts: tuple[Host, ...]
    nat: Nat = Nat()
    ipv6: IPv6Network | None = None
    public_ipv6: IPv6Address | None = None
    link: Link = Link()

    def __post_init__(self) -> None:
        _check_name(self.name, MAX_NAME - len(_ROUTER_SUFFIXES[0]))
        if (self.ipv6 is None) != (self.public_ipv6 is None):
            raise LabError(f"site {self.name} needs both an IPv6 network and an IPv6 address on the wan, or neither")
        for host in self.hosts:
            if host.ipv4 not in self.ipv4:
                raise LabError(f"{host.name} at {host.ipv4} is outside its site's {self.ipv4}")
            if host.ipv6 is not None and (self.ipv6 is None or host.ipv6 not in self.ipv6):
                raise LabError(f"{host.name} at {host.ipv6} is outside its site's {self.ipv6}")

    @property
    def router(self) -> str:
        """The node name of the router that the hosts see."""
        return self.name + "-nat"

    @property
    def carrier(self) -> str | None:
        """The node name of the carrier's router, where there is one."""
        return self.name + "-cgn" if self.nat.kind is NatKind.CARRIER_GRADE else None

    @property
    def edge(self) -> str:
        """The node name of the router that touches the wan."""
        return self.carrier or self.router

    @property
    def gateway_ipv4(self) -> IPv4Address:
        """The router's local address."""
        return self.ipv4[1]

    @property
    def gateway_ipv6(self) -> IPv6Address | None:
        """The router's local IPv6 address."""
        return None if self.ipv6 is None else self.ipv6[1]


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole small internet.

    Attributes:
        hosts: Machines directly on the wan.
        sites: Networks behind routers.
        names: Names that every node knows, as a public name server would tell them: (name, address).
        resolvers: The name servers of every host that names none of its own.
        wan_ipv4: The address of the router in the middle, node `wan`.
        wan_ipv6: The same for IPv6.
    """

    hosts: tuple[Host, ...] = ()
    sites: tuple[Site, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    resolvers: tuple[str, ...] = ()
    wan_ipv4: IPv4Address = field(default_factory=lambda: IPv4Address("203.0.113.1"))
    wan_ipv6: IPv6Address = field(default_factory=lambda: IPv6Address("2001:db8:113::1"))

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for name in self.nodes():
            if name in seen:
                raise LabError(f"two nodes are called {name}")
            seen.add(name)

    def site(self, name: str) -> Site:
        """The site of that name.

        Raises:
            LabError: There is none.
        """
        for site in self.sites:
            if site.name == name:
                return site
        raise LabError(f"there is no site {name!r}")

    def host(self, name: str) -> tuple[Host, Site | None]:
        """The host of that name, and the site it is at; `None` on the wan.

        Raises:
            LabError: There is none.
        """
        for site in (None, *self.sites):
            for host in self.hosts if site is None else site.hosts:
                if host.name == name:
                    return host, site
        raise LabError(f"there is no host {name!r}")

    def with_site(self, changed: Site) -> "Topology":
        """The same with another value for the site of that name."""
        return replace(self, sites=tuple(changed if site.name == changed.name else site for site in self.sites))

    def with_host(self, changed: Host, site_name: str | None) -> "Topology":
        """The same with this host at that site, or on the wan, and the host of its name nowhere else."""

        def rest(hosts: tuple[Host, ...]) -> tuple[Host, ...]:
            return tuple(host for host in hosts if host.name != changed.name)

        hosts = (*rest(self.hosts), changed) if site_name is None else rest(self.hosts)
        sites = (
            replace(site, hosts=(*rest(site.hosts), changed) if site.name == site_name else rest(site.hosts))
            for site in self.sites
        )
        return replace(self, hosts=hosts, sites=tuple(sites))

    def nodes(self) -> Iterator[str]:
        """Every node's name, in the order they are made."""
        yield "wan"
        yield from (host.name for host in self.hosts)
        for site in self.sites:
            if site.carrier is not None:
                yield site.carrier
            yield site.router
            yield from (host.name for host in site.hosts)


def _check_name(name: str, longest: int) -> None:
    if not _NAME.fullmatch(name) or len(name) > longest:
        raise LabError(f"{name!r} is not a name of at most {longest} lower-case letters, digits and hyphens")
