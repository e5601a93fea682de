"""Resources: what may be stored of one, and how each peer sees it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

from wardgate.errors import InvalidInput
from wardgate.ids import ClientId, ResourceId, SiteId
from wardgate.portal.domain import checks, versions
from wardgate.portal.domain.addresses import ADDRESSED_TYPES, IP_STACKS, as_network, canonical_address, older_pattern
from wardgate.portal.domain.filters import parse_filters, wire_filters
from wardgate.wire import portal

USER_TYPES: Final = ("dns", "ip", "cidr")
POOL_TYPES: Final = ("static_device_pool", "dynamic_device_pool")


@dataclass(frozen=True, slots=True)
class PoolMember:
    """A device of a static pool."""

    client_id: ClientId
    ipv4: str
    ipv6: str


@dataclass(frozen=True, slots=True)
class ResourceFacts:
    """A resource with its site and members."""

    id: ResourceId
    type: str
    name: str
    address: str | None
    address_description: str | None
    ip_stack: str | None
    filters: Sequence[Mapping[str, Any]]
    site_id: SiteId | None
    site_name: str | None
    members: tuple[PoolMember, ...] = ()


def check_resource(fields: Mapping[str, Any], allowed_types: tuple[str, ...]) -> dict[str, Any]:
    """The columns of a resource, from what a person gave.

    Raises:
        InvalidInput: A field is missing or wrong.
    """
    problems = checks.Problems()
    values: dict[str, Any] = {"name": checks.text(problems, fields, "name")}
    kind = values["type"] = checks.one_of(problems, fields, "type", allowed_types)
    values["address_description"] = checks.text(problems, fields, "address_description", needed=False)
    values["site_id"] = checks.uuid(problems, fields, "site_id", needed=kind in USER_TYPES)
    values["address"] = _address(problems, fields, kind)
    values["ip_stack"] = _ip_stack(problems, fields, kind)
    try:
        values["filters"] = [one.stored() for one in parse_filters(fields.get("filters") or [])]
    except InvalidInput as error:
        problems.merge(error)
    problems.raise_if_any()
    return values


def _address(problems: checks.Problems, fields: Mapping[str, Any], kind: str | None) -> str | None:
    if kind not in ADDRESSED_TYPES:
        return None
    address = checks.text(problems, fields, "address")
    if address is None:
        return None
    try:
        return canonical_address(kind, address)
    except InvalidInput as error:
        problems.merge(error)
        return None


def _ip_stack(problems: checks.Problems, fields: Mapping[str, Any], kind: str | None) -> str | None:
    if kind != "dns":
        return None
    value = fields.get("ip_stack") or "dual"
    if value not in IP_STACKS:
        problems.add("ip_stack", "is invalid")
        return None
    return str(value)


def client_view(resource: ResourceFacts, user_agent: str, version: str | None) -> portal.ClientResource | None:
    """The resource as that client is told, or `None` if it is hidden from a program that old."""
    return view_for(resource, versions.sight_of(user_agent, version))


def view_for(resource: ResourceFacts, sight: versions.Sight) -> portal.ClientResource | None:
    """The resource as all clients of that sight are told."""
    filters = wire_filters(resource.filters)
    if resource.type in POOL_TYPES:
        return _pool_view(resource, filters) if sight.has_pools else None
    if resource.site_id is None:
        return None
    sites = (portal.Site(id=resource.site_id, name=resource.site_name or ""),)
    if resource.type == "internet":
        return portal.InternetResource(id=resource.id, sites=sites) if sight.has_internet else None
    address = resource.address or ""
    if resource.type == "dns":
        pattern = address if sight.has_new_wildcards else older_pattern(address)
        if pattern is None:
            return None
        return portal.DnsResource.model_validate(
            {
                "id": resource.id,
                "name": resource.name,
                "address": pattern,
                "address_description": resource.address_description,
                "filters": filters,
                "ip_stack": resource.ip_stack,
                "sites": sites,
            }
        )
    return portal.CidrResource(
        id=resource.id,
        name=resource.name,
        address=as_network(resource.type, address),
        address_description=resource.address_description,
        filters=filters,
        sites=sites,
    )


def _pool_view(resource: ResourceFacts, filters: tuple[portal.Filter, ...]) -> portal.ClientResource:
    if resource.type == "dynamic_device_pool":
        return portal.DynamicDevicePool(
            id=resource.id, name=resource.name, address=resource.address or "", filters=filters
        )
    devices = tuple(
        portal.PoolDevice(client_id=one.client_id, ipv4=IPv4Network(one.ipv4), ipv6=IPv6Network(one.ipv6))
        for one in resource.members
    )
    return portal.StaticDevicePool(id=resource.id, name=resource.name, devices=devices, filters=filters)


def gateway_view(resource: ResourceFacts, version: str | None) -> portal.GatewayResource | None:
    """The resource as that gateway is told, or `None` if it cannot serve it."""
    if resource.type == "internet":
        return portal.GatewayInternetResource(id=resource.id)
    filters = wire_filters(resource.filters)
    address = resource.address or ""
    if resource.type == "dns":
        pattern = address if versions.has_new_wildcards(version) else older_pattern(address)
        if pattern is None:
            return None
        return portal.GatewayDnsResource(id=resource.id, address=pattern, name=resource.name, filters=filters)
    if resource.type in ("ip", "cidr"):
        network = as_network(resource.type, address)
        return portal.GatewayCidrResource(id=resource.id, address=network, name=resource.name, filters=filters)
    return None


def matches_pattern(pattern: str, name: str) -> bool:
    """Whether a device's host name is covered by the pattern of a dynamic pool; `**.x` covers `x` as well."""
    return _glob(pattern.lower().split("."), name.lower().rstrip(".").split("."), "**", _label_matches)


def _label_matches(pattern: str, label: str) -> bool:
    return _glob(list(pattern), list(label), "*", lambda one, letter: one in ("?", letter))


def _glob(pattern: list[str], items: list[str], star: str, fits: Callable[[str, str], bool]) -> bool:
    """Whether the items match, where `star` stands for any number of them; goes back to the last star only."""
    at = position = mark = 0
    last_star = -1
    while position < len(items):
        if at < len(pattern) and pattern[at] == star:
            last_star, mark, at = at, position, at + 1
        elif at < len(pattern) and fits(pattern[at], items[position]):
            at, position = at + 1, position + 1
        elif last_star >= 0:
            at, mark = last_star + 1, mark + 1
            position = mark
        else:
            return False
    return all(one == star for one in pattern[at:])
