"""The names of resources: which resources cover a name, and the proxy IPs that stand for it.

A name keeps its proxy IPs for the life of the process, whatever happens to its resources, so that caches of the host
and long-lived connections go on meaning the same.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal

from wardgate.ids import ResourceId
from wardgate.wire.domain_patterns import DomainPattern
from wardgate.wire.ip import IpAddress
from wardgate.wire.ranges import PROXY_V4, PROXY_V6, SENTINEL_V4, SENTINEL_V6

ADDRESSES_PER_NAME: Final = 4
MAX_NAMES: Final = 65_536
IpStack = Literal["dual", "ipv4_only", "ipv6_only"]


@dataclass(frozen=True, slots=True)
class NamedResource:
    """A DNS resource as far as names go.

    Attributes:
        pattern: Which names it covers.
        ip_stack: Which addresses its names get.
    """

    resource_id: ResourceId
    pattern: DomainPattern
    ip_stack: IpStack = "dual"

    def allows(self, version: int) -> bool:
        """Whether names get addresses of that IP version from this resource."""
        return self.ip_stack == "dual" or self.ip_stack == f"ipv{version}_only"


@dataclass(frozen=True, slots=True)
class Assignment:
    """A name, its proxy IPs, and the resources that cover it now, the most specific first."""

    domain: str
    ipv4s: tuple[IPv4Address, ...]
    ipv6s: tuple[IPv6Address, ...]
    resources: tuple[NamedResource, ...]

    @property
    def proxy_ips(self) -> tuple[IpAddress, ...]:
        """All of them, as they are announced to a gateway."""
        return (*self.ipv4s, *self.ipv6s)

    def addresses(self, version: int) -> tuple[IpAddress, ...]:
        """Those of one IP version, none if no resource allows it."""
        if not any(resource.allows(version) for resource in self.resources):
            return ()
        return self.ipv4s if version == 4 else self.ipv6s


class PatternIndex:
    """Finds the resources that cover a name without trying all: by the literal labels that their patterns end in."""

    def __init__(self, resources: Iterable[NamedResource] = ()) -> None:
        self._by_suffix: dict[tuple[str, ...], list[NamedResource]] = {}
        for resource in resources:
            self._by_suffix.setdefault(_literal_suffix(resource.pattern), []).append(resource)

    def matches(self, name: str) -> tuple[NamedResource, ...]:
        """The resources that cover the name: the most specific pattern first, then the higher id."""
        labels = tuple(name.lower().removesuffix(".").split("."))
        found = [
            resource
            for start in range(len(labels) + 1)
            for resource in self._by_suffix.get(labels[start:], ())
            if resource.pattern.matches(name)
        ]
        return tuple(sorted(found, key=lambda one: (one.pattern.rank, one.resource_id), reverse=True))


def _literal_suffix(pattern: DomainPattern) -> tuple[str, ...]:
    labels = pattern.labels
    literal_from = max((at + 1 for at, label in enumerate(labels) if "*" in label or "?" in label), default=0)
    return labels[literal_from:]


class ProxyIps:
    """Names, their proxy IPs, and their resources; at most `max_names`, as none is ever given up."""

    def __init__(self, max_names: int = MAX_NAMES) -> None:
        self._max_names = max_names
        self._resources: dict[ResourceId, NamedResource] = {}
        self._index = PatternIndex()
        self._by_domain: dict[str, Assignment] = {}
        self._domain_by_ip: dict[IpAddress, str] = {}
        self._free_v4 = proxy_addresses_v4()
        self._free_v6 = proxy_addresses_v6()
        self.refused_names = 0

    def set_resources(self, resources: Iterable[NamedResource]) -> tuple[Assignment, ...]:
        """Takes the resources there are now; gives the names that are covered otherwise than before."""
        wanted = {resource.resource_id: resource for resource in resources}
        if wanted == self._resources:
            return ()
        self._resources = wanted
        self._index = PatternIndex(wanted.values())
        changed = []
        for domain, before in self._by_domain.items():
            matches = self._index.matches(domain)
            if matches != before.resources:
                after = Assignment(domain, before.ipv4s, before.ipv6s, matches)
                self._by_domain[domain] = after
                changed.append(after)
        return tuple(changed)

    def matches(self, name: str) -> tuple[NamedResource, ...]:
        """The resources that cover a name, the most specific first."""
        assignment = self._by_domain.get(name)
        return assignment.resources if assignment is not None else self._index.matches(name)

    def assign(self, name: str) -> Assignment | None:
        """The proxy IPs of a name that a resource covers; `None` if they ran out (counted)."""
        known = self._by_domain.get(name)
        if known is not None:
            return known
        if len(self._by_domain) >= self._max_names:
            self.refused_names += 1
            return None
        ipv4s = tuple(next(self._free_v4) for _ in range(ADDRESSES_PER_NAME))
        ipv6s = tuple(next(self._free_v6) for _ in range(ADDRESSES_PER_NAME))
        assignment = Assignment(name, ipv4s, ipv6s, self._index.matches(name))
        self._by_domain[name] = assignment
        self._domain_by_ip.update(dict.fromkeys(assignment.proxy_ips, name))
        return assignment

    def assignment_of(self, proxy_ip: IpAddress) -> Assignment | None:
        """The name that a proxy IP stands for, with its resources of now."""
        domain = self._domain_by_ip.get(proxy_ip)
        return None if domain is None else self._by_domain[domain]

    def assignments(self) -> tuple[Assignment, ...]:
        """Every name there ever was."""
        return tuple(self._by_domain.values())


def proxy_addresses_v4() -> Iterator[IPv4Address]:
    """From the first host address up, without the sentinels; far more than `MAX_NAMES` need."""
    for value in range(int(PROXY_V4.network_address) + 1, int(PROXY_V4.broadcast_address)):
        address = IPv4Address(value)
        if address not in SENTINEL_V4:
            yield address


def proxy_addresses_v6() -> Iterator[IPv6Address]:
    """From the network's first address up, without the sentinels."""
    for value in range(int(PROXY_V6.network_address), int(PROXY_V6.broadcast_address) + 1):
        address = IPv6Address(value)
        if address not in SENTINEL_V6:
            yield address
