"""The resources a client was given, and the routes they make."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from wardgate.ids import ResourceId, SiteId
from wardgate.tunnel.filters import ALLOW_ALL, Filters
from wardgate.tunnel.ranges import CLIENT_ROUTES, DEFAULT_ROUTES, IpNetwork
from wardgate.tunnel.routing import RoutingTable
from wardgate.wire.domain_patterns import DomainPattern
from wardgate.wire.ip import IpAddress
from wardgate.wire.portal import (
    CidrResource,
    ClientResource,
    DnsResource,
    DynamicDevicePool,
    InternetResource,
    StaticDevicePool,
)

MAX_RESOURCES: Final = 65_536
SITE_OFFLINE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Change:
    """What a message changed: a resource that is in both lists is another one now, under the same id.

    Attributes:
        removed: As they were.
    """

    removed: tuple[ClientResource, ...] = ()
    added: tuple[ResourceId, ...] = ()


class Resources:
    """Every resource by id, with the routing table made of them.

    A changed address, IP stack, site or filter is a removal and an addition; a changed name is neither.
    """

    def __init__(self, *, is_internet_active: bool = False) -> None:
        self._by_id: dict[ResourceId, ClientResource] = {}
        self._patterns: dict[ResourceId, DomainPattern] = {}
        self._filters: dict[ResourceId, Filters] = {}
        self._is_internet_active = is_internet_active
        self.routes = RoutingTable()
        self.refused = 0

    def __contains__(self, resource_id: ResourceId) -> bool:
        return resource_id in self._by_id

    def get(self, resource_id: ResourceId) -> ClientResource | None:
        """One resource."""
        return self._by_id.get(resource_id)

    def all(self) -> tuple[ClientResource, ...]:
        """Every resource, by id."""
        return tuple(self._by_id[resource_id] for resource_id in sorted(self._by_id))

    def replace(self, resources: Iterable[ClientResource]) -> Change:
        """Has these and no others."""
        listed = {resource.id: resource for resource in resources}
        removed = [self.remove(resource_id) for resource_id in sorted(self._by_id.keys() - listed.keys())]
        changed = [self.upsert(resource) for resource in listed.values()]
        return Change(
            tuple(one for change in (*removed, *changed) for one in change.removed),
            tuple(one for change in changed for one in change.added),
        )

    def upsert(self, resource: ClientResource) -> Change:
        """Has this one too, or instead of the one with its id."""
        old = self._by_id.get(resource.id)
        if old is None and len(self._by_id) >= MAX_RESOURCES:
            self.refused += 1
            return Change()
        self._by_id[resource.id] = resource
        if old is not None and _essence(old) == _essence(resource):
            return Change()
        self._unroute(resource.id)
        self._route(resource)
        return Change(() if old is None else (old,), (resource.id,))

    def remove(self, resource_id: ResourceId) -> Change:
        """Has this one no more."""
        old = self._by_id.pop(resource_id, None)
        if old is None:
            return Change()
        self._unroute(resource_id)
        return Change(removed=(old,))

    def set_internet_active(self, is_active: bool) -> Change:
        """Uses the Internet resource, or stops to."""
        if is_active == self._is_internet_active:
            return Change()
        self._is_internet_active = is_active
        internet = tuple(one for one in self.all() if isinstance(one, InternetResource))
        for one in internet:
            self._unroute(one.id)
            self._route(one)
        return Change(added=tuple(one.id for one in internet)) if is_active else Change(removed=internet)

    def tun_routes(self, lingering: Iterable[IpNetwork] = ()) -> tuple[IpNetwork, ...]:
        """What the host has to send into the tunnel, sorted."""
        routes = set(CLIENT_ROUTES) | set(lingering)
        routes.update(one.address for one in self._by_id.values() if isinstance(one, CidrResource))
        if self.routes.has_internet():
            routes.update(DEFAULT_ROUTES)
        return tuple(sorted(routes, key=lambda one: (one.version, int(one.network_address), one.prefixlen)))

    def add_name(self, domain: str, proxy_ips: Iterable[IpAddress], resource_ids: Iterable[ResourceId]) -> None:
        """Routes a name's proxy IPs to those of the resources that cover it and allow the family."""
        for resource_id in resource_ids:
            resource = self._by_id.get(resource_id)
            pattern = self._patterns.get(resource_id)
            if isinstance(resource, DnsResource) and pattern is not None and pattern.matches(domain):
                for address in proxy_ips:
                    if allows_family(resource, address):
                        filters = self._filters[resource_id]
                        self.routes.add_name(address, resource_id, domain, filters, pattern.rank)

    def add_device(self, resource_id: ResourceId, addresses: Iterable[IpAddress]) -> None:
        """Routes a device that a dynamic pool was found to have, for as long as the pool is there."""
        if isinstance(self._by_id.get(resource_id), DynamicDevicePool):
            for address in addresses:
                self.routes.add_network(ip_network(address), resource_id, self._filters[resource_id])

    def _route(self, resource: ClientResource) -> None:
        filters = ALLOW_ALL if isinstance(resource, InternetResource) else Filters(resource.filters)
        self._filters[resource.id] = filters
        if isinstance(resource, CidrResource):
            self.routes.add_network(resource.address, resource.id, filters)
        elif isinstance(resource, InternetResource) and self._is_internet_active:
            self.routes.add_internet(resource.id)
        elif isinstance(resource, DnsResource):
            pattern = DomainPattern.parse(resource.address)
            if pattern is not None:
                self._patterns[resource.id] = pattern
        elif isinstance(resource, StaticDevicePool):
            for device in resource.devices:
                self.routes.add_network(device.ipv4, resource.id, filters)
                self.routes.add_network(device.ipv6, resource.id, filters)

    def _unroute(self, resource_id: ResourceId) -> None:
        self.routes.remove(resource_id)
        self._patterns.pop(resource_id, None)
        self._filters.pop(resource_id, None)


def allows_family(resource: DnsResource, address: IpAddress) -> bool:
    """Whether a DNS resource may be reached by addresses of this family."""
    return resource.ip_stack != ("ipv6_only" if address.version == 4 else "ipv4_only")


def _essence(resource: ClientResource) -> tuple[object, ...]:
    return (
        resource.type,
        getattr(resource, "address", None),
        getattr(resource, "ip_stack", None),
        getattr(resource, "filters", ()),
        tuple(site.id for site in getattr(resource, "sites", ())),
        getattr(resource, "devices", ()),
    )


class SiteStatus:
    """Which sites have a gateway for us, as far as is known: online, offline (for a while), unknown."""

    def __init__(self) -> None:
        self._online: dict[SiteId, int] = {}
        self._offline_until: dict[SiteId, float] = {}

    def connected(self, site_id: SiteId) -> None:
        """A gateway of the site is connected."""
        self._online[site_id] = self._online.get(site_id, 0) + 1
        self._offline_until.pop(site_id, None)

    def disconnected(self, site_id: SiteId) -> None:
        """One of them no longer is."""
        left = self._online.pop(site_id, 1) - 1
        if left > 0:
            self._online[site_id] = left

    def offline(self, site_id: SiteId, now: float) -> None:
        """The portal knows no gateway of the site."""
        self._offline_until[site_id] = now + SITE_OFFLINE_S

    def of(self, site_id: SiteId, now: float) -> str:
        """`online`, `offline` or `unknown`."""
        if site_id in self._online:
            return "online"
        return "offline" if self._offline_until.get(site_id, now) > now else "unknown"
