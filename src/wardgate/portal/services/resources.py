"""Resources and the members of static device pools."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from wardgate.errors import Forbidden, NotFound, invalid
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Device, PolicyAuthorization, Resource, Site, StaticDevicePoolMember
from wardgate.portal.domain import checks
from wardgate.portal.domain.resources import USER_TYPES, check_resource
from wardgate.portal.services import limits

_FIELDS: Final = ("name", "type", "address", "address_description", "ip_stack", "filters", "site_id")
_BREAKING: Final = ("type", "address", "ip_stack", "site_id")


async def create_resource(
    unit: UnitOfWork, fields: Mapping[str, Any], allowed_types: tuple[str, ...] = USER_TYPES
) -> Resource:
    """Makes a resource.

    Args:
        allowed_types: dns, ip and cidr, as the original's API has them; device pools have a route of their own.

    Raises:
        InvalidInput: A field is not acceptable, or there is no such site.
        Forbidden: The account is disabled.
    """
    await limits.check_open(unit)
    values = check_resource(fields, allowed_types)
    await _check_site(unit, values["site_id"])
    resource = Resource(account_id=unit.account_id, **values)
    await unit.insert(resource)
    return resource


async def update_resource(unit: UnitOfWork, resource_id: str, fields: Mapping[str, Any]) -> Resource:
    """Changes a resource; another type, address, IP stack or site ends its grants.

    A pool may become something else, and loses its members then; nothing becomes a pool.

    Raises:
        NotFound: There is no such resource.
        Forbidden: It is the Internet resource.
        InvalidInput: A field is not acceptable.
    """
    resource = await _editable(unit, resource_id)
    given = {name: fields[name] for name in _FIELDS if name in fields}
    known = {name: getattr(resource, name) for name in _FIELDS}
    allowed = USER_TYPES if resource.type in USER_TYPES else (*USER_TYPES, resource.type)
    values = check_resource({**known, **given}, allowed)
    await _check_site(unit, values["site_id"])
    if any(values[name] != getattr(resource, name) for name in _BREAKING):
        await _end_grants(unit, resource.id)
    if resource.type == "static_device_pool" != values["type"]:
        await _remove_members(unit, resource.id)
    await unit.update(resource, **values)
    return resource


async def delete_resource(unit: UnitOfWork, resource_id: str) -> Resource:
    """Removes a resource with its policies and grants.

    Raises:
        NotFound: There is no such resource.
        Forbidden: It is the Internet resource.
    """
    resource = await _editable(unit, resource_id)
    await unit.delete(resource)
    return resource


async def set_pool_members(unit: UnitOfWork, resource_id: str, device_ids: Iterable[str]) -> list[str]:
    """Replaces the devices of a static pool.

    Returns:
        The ids of all members, sorted.

    Raises:
        NotFound: There is no such pool.
        InvalidInput: An id is not one of a client.
    """
    return await _apply(unit, resource_id, add=list(device_ids), remove=None)


async def change_pool_members(
    unit: UnitOfWork, resource_id: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()
) -> list[str]:
    """Adds and removes devices of a static pool; an id in both stays a member.

    Returns:
        The ids of all members, sorted.

    Raises:
        NotFound: There is no such pool.
        InvalidInput: An id to add is not one of a client.
    """
    return await _apply(unit, resource_id, add=list(add), remove=list(remove))


async def _apply(unit: UnitOfWork, resource_id: str, *, add: list[str], remove: list[str] | None) -> list[str]:
    resource = await unit.get(Resource, resource_id)
    if resource.type != "static_device_pool":
        raise NotFound("the resource is not a static device pool")
    if not all(checks.is_uuid(one) for one in [*add, *(remove or [])]):
        raise invalid("pool_members", "has an id that is not a UUID", "invalid", "UUIDs of clients")
    wanted = {one.lower() for one in add}
    clients = unit.select(Device).where(Device.id.in_(wanted), Device.type == "client")
    known = {device.id for device in await unit.all(clients)}
    if wanted - known:
        raise checks.unknown_ids("pool_members", "client", wanted - known)
    members = unit.select(StaticDevicePoolMember).where(StaticDevicePoolMember.resource_id == resource.id)
    present = {row.device_id: row for row in await unit.all(members)}
    leaving = set(present) if remove is None else {one.lower() for one in remove} & set(present)
    for device_id in sorted(leaving - wanted):
        await _end_grants(unit, resource.id, receiving_device_id=device_id)
        await unit.delete(present[device_id])
    for device_id in sorted(wanted - set(present)):
        row = StaticDevicePoolMember(account_id=unit.account_id, resource_id=resource.id, device_id=device_id)
        await unit.insert(row)
    return sorted((set(present) - leaving) | wanted)


async def _remove_members(unit: UnitOfWork, resource_id: str) -> None:
    members = unit.select(StaticDevicePoolMember).where(StaticDevicePoolMember.resource_id == resource_id)
    for member in await unit.all(members):
        await unit.delete(member)


async def _end_grants(unit: UnitOfWork, resource_id: str, **columns: str) -> None:
    query = unit.select(PolicyAuthorization).filter_by(resource_id=resource_id, **columns)
    for grant in await unit.all(query):
        await unit.delete(grant)


async def _editable(unit: UnitOfWork, resource_id: str) -> Resource:
    resource = await unit.get(Resource, resource_id)
    if resource.type == "internet":
        raise Forbidden("the Internet resource is managed by the system", "system_managed")
    return resource


async def _check_site(unit: UnitOfWork, site_id: str | None) -> None:
    if site_id is None:
        return
    site = await unit.find(Site, site_id)
    if site is None:
        raise invalid("site_id", "does not exist", "unknown_reference", "the id of a site")
    if site.managed_by == "system":
        text = "is the Internet site, which hosts the Internet resource only"
        raise invalid("site_id", text, "not_allowed", "the id of another site")
