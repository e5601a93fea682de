"""Destination -> resource: which of the resources a packet belongs to.

Three tables that do not unite: names (by proxy IP), networks, and the Internet resource. Within a table the best entry
is the one whose filter permits the packet, then the one with the more specific name pattern, then the longer prefix,
then the higher resource id. An entry is returned even if its filter denies, so that the caller can refuse the packet.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from wardgate.ids import ResourceId
from wardgate.tunnel.filters import ALLOW_ALL, Filters
from wardgate.tunnel.ranges import IpNetwork, is_proxy_address, is_tunnel_address
from wardgate.wire.ip import IpAddress

MAX_NAME_ROUTES: Final = 262_144


@dataclass(frozen=True, slots=True)
class Route:
    """Packets to an address belong to this resource.

    Attributes:
        filters: What the resource allows.
        domain: The name behind a proxy IP; `None` for networks and the internet.
        rank: How specific the name pattern is: greater wins.
        is_internet: Whether it is there for everything else.
    """

    resource_id: ResourceId
    filters: Filters
    domain: str | None = None
    rank: tuple[int, ...] = ()
    is_internet: bool = False


class _PrefixTable(NamedTuple):
    """Networks of one prefix length, by the bits that they have in common."""

    shift: int
    by_base: dict[int, dict[ResourceId, Route]]


def _shift(table: _PrefixTable) -> int:
    return table.shift


class RoutingTable:
    """The routes of one client, or of one client on a gateway."""

    def __init__(self) -> None:
        self._names: dict[IpAddress, dict[tuple[ResourceId, str], Route]] = {}
        self._name_count = 0
        self._tables: dict[int, list[_PrefixTable]] = {4: [], 6: []}
        self._internet: dict[ResourceId, Route] = {}
        self._networks_of: dict[ResourceId, dict[IpNetwork, None]] = {}
        self._names_of: dict[ResourceId, dict[tuple[IpAddress, str], None]] = {}
        self.refused_name_routes = 0

    def add_network(self, network: IpNetwork, resource_id: ResourceId, filters: Filters) -> None:
        """Routes a network to a resource."""
        tables, shift = self._tables[network.version], network.max_prefixlen - network.prefixlen
        at = bisect_left(tables, shift, key=_shift)
        if at == len(tables) or tables[at].shift != shift:
            tables.insert(at, _PrefixTable(shift, {}))
        entries = tables[at].by_base.setdefault(int(network.network_address) >> shift, {})
        entries[resource_id] = Route(resource_id, filters)
        self._networks_of.setdefault(resource_id, {})[network] = None

    def add_name(
        self, address: IpAddress, resource_id: ResourceId, domain: str, filters: Filters, rank: tuple[int, ...] = ()
    ) -> None:
        """Routes a proxy IP to a resource; several resources may share one."""
        entries = self._names.setdefault(address, {})
        if (resource_id, domain) not in entries:
            if self._name_count >= MAX_NAME_ROUTES:
                self.refused_name_routes += 1
                return
            self._name_count += 1
        entries[resource_id, domain] = Route(resource_id, filters, domain, rank)
        self._names_of.setdefault(resource_id, {})[address, domain] = None

    def add_internet(self, resource_id: ResourceId) -> None:
        """Routes everything that no other resource covers to this one."""
        self._internet[resource_id] = Route(resource_id, ALLOW_ALL, is_internet=True)

    def remove(self, resource_id: ResourceId) -> None:
        """Forgets every route of a resource."""
        for network in self._networks_of.pop(resource_id, {}):
            tables, shift = self._tables[network.version], network.max_prefixlen - network.prefixlen
            at = bisect_left(tables, shift, key=_shift)
            by_base, base = tables[at].by_base, int(network.network_address) >> shift
            del by_base[base][resource_id]
            if not by_base[base]:
                del by_base[base]
            if not by_base:
                del tables[at]
        for address, domain in self._names_of.pop(resource_id, {}):
            del self._names[address][resource_id, domain]
            self._name_count -= 1
            if not self._names[address]:
                del self._names[address]
        self._internet.pop(resource_id, None)

    def clear_names(self) -> None:
        """Forgets what stands behind every proxy IP."""
        self._names.clear()
        self._names_of.clear()
        self._name_count = 0

    def refilter(self, resource_id: ResourceId, filters: Filters) -> None:
        """Gives the names of a resource other filters."""
        for address, domain in self._names_of.get(resource_id, {}):
            entries = self._names[address]
            entries[resource_id, domain] = replace(entries[resource_id, domain], filters=filters)

    def has_internet(self) -> bool:
        """Whether an Internet resource is among the routes."""
        return bool(self._internet)

    def lookup(self, destination: IpAddress, protocol: int, port: int) -> Route | None:
        """The resource that a packet belongs to, be it permitted or not; `None` if there is none.

        Args:
            protocol: The IP protocol number.
            port: The destination port, 0 for protocols without.
        """
        names = self._names.get(destination)
        if names:
            return max(
                names.values(),
                key=lambda one: (one.filters.permits(protocol, port), one.rank, one.resource_id),
            )
        denying = None
        for by_resource in self._networks_around(destination):
            permitting = [one for one in by_resource if one.filters.permits(protocol, port)]
            if permitting:
                return max(permitting, key=_resource_id)
            denying = denying or max(by_resource, key=_resource_id)
        if denying is not None:
            return denying
        if self._internet and not is_tunnel_address(destination) and not is_proxy_address(destination):
            return self._internet[max(self._internet)]
        return None

    def covers(self, resource_ids: Iterable[ResourceId], address: IpAddress) -> bool:
        """Whether the address is one of these resources', whatever its ports."""
        wanted = set(resource_ids)
        if any(route.resource_id in wanted for route in self._names.get(address, {}).values()):
            return True
        if any(route.resource_id in wanted for routes in self._networks_around(address) for route in routes):
            return True
        return bool(wanted & self._internet.keys()) and not is_tunnel_address(address) and not is_proxy_address(address)

    def name_routes(self, address: IpAddress) -> tuple[Route, ...]:
        """Every route behind a proxy IP."""
        return tuple(self._names.get(address, {}).values())

    def _networks_around(self, address: IpAddress) -> Iterator[Collection[Route]]:
        """The routes of each network that has the address, the longest prefix first."""
        value = int(address)
        for shift, by_base in self._tables[address.version]:
            found = by_base.get(value >> shift)
            if found:
                yield found.values()


def _resource_id(route: Route) -> ResourceId:
    return route.resource_id
