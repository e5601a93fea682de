"""Resources, device pools and the members of static ones."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Body

from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.lists import NamedPaged, page_of
from wardgate.portal.api.members import Changed, ListedDevices, changed_ids, listed_ids
from wardgate.portal.api.objects import (
    Data,
    DevicePoolNew,
    Id,
    IpStack,
    Page,
    PoolMemberOut,
    PoolMembersChanged,
    ResourceIn,
    ResourceNew,
    ResourceOut,
)
from wardgate.portal.api.problems import BadRequest
from wardgate.portal.api.routing import updates
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Device, Resource, StaticDevicePoolMember
from wardgate.portal.domain.resources import POOL_TYPES
from wardgate.portal.services import resources

router = APIRouter(tags=["Resources"])
FilterableType = Literal["cidr", "ip", "dns", "static_device_pool"]


def _shown(row: Resource) -> ResourceOut:
    return ResourceOut.model_validate(row)


async def _one(scope: Scope, resource_id: Id) -> ResourceOut:
    return _shown(await scope.get(Resource, str(resource_id)))


@router.get("/resources")
async def list_resources(
    caller: Authenticated,
    place: NamedPaged,
    name: str | None = None,
    type: FilterableType | None = None,
    site_id: Id | None = None,
    address: str | None = None,
    ip_stack: IpStack | None = None,
) -> Page[ResourceOut]:
    """Lists resources."""
    only = {"name": name, "type": type, "address": address, "ip_stack": ip_stack, "site_id": site_id}
    async with caller.reading() as scope:
        return await page_of(scope, Resource, place, _shown, equal=only)


@router.get("/resources/{resource_id}")
async def read_resource(caller: Authenticated, resource_id: Id) -> Data[ResourceOut]:
    """Reads a resource."""
    async with caller.reading() as scope:
        return caller.found(await _one(scope, resource_id))


@router.post("/resources", status_code=201)
async def create_resource(
    caller: Authenticated, resource: Annotated[ResourceNew, Body(embed=True)]
) -> Data[ResourceOut]:
    """Makes a resource: names, an address or a network behind a site."""
    async with caller.writing() as unit:
        row = await resources.create_resource(unit, resource.given())
    return caller.created(_shown(row), f"/resources/{row.id}")


@router.post("/device_pools", status_code=201)
async def create_device_pool(
    caller: Authenticated, device_pool: Annotated[DevicePoolNew, Body(embed=True)]
) -> Data[ResourceOut]:
    """Makes a pool of devices, static or dynamic; it is a resource without a site, and is changed as one."""
    async with caller.writing() as unit:
        row = await resources.create_resource(unit, device_pool.given(), POOL_TYPES)
    return caller.created(_shown(row), f"/resources/{row.id}")


@updates(router, "/resources/{resource_id}")
async def update_resource(
    caller: Authenticated, resource_id: Id, resource: Annotated[ResourceIn, Body(embed=True)]
) -> Data[ResourceOut]:
    """Changes a resource; another address, type, IP stack or site ends its grants."""
    async with caller.writing() as unit:
        await caller.expect(lambda: _one(unit, resource_id))
        row = await resources.update_resource(unit, str(resource_id), resource.given())
    return caller.found(_shown(row))


@router.delete("/resources/{resource_id}")
async def delete_resource(caller: Authenticated, resource_id: Id) -> Data[ResourceOut]:
    """Deletes a resource with its policies."""
    async with caller.writing() as unit:
        await caller.expect(lambda: _one(unit, resource_id))
        return Data(data=_shown(await resources.delete_resource(unit, str(resource_id))))


async def _static_pool(scope: Scope, resource_id: Id) -> Resource:
    row = await scope.get(Resource, str(resource_id))
    if row.type != "static_device_pool":
        raise BadRequest("The resource is not a static device pool.", "wrong_kind")
    return row


@router.get("/resources/{resource_id}/pool_members")
async def list_pool_members(caller: Authenticated, resource_id: Id, place: NamedPaged) -> Page[PoolMemberOut]:
    """Lists the devices of a static pool."""
    async with caller.reading() as scope:
        pool = await _static_pool(scope, resource_id)
        table = StaticDevicePoolMember
        members = scope.select(table).where(table.resource_id == pool.id).with_only_columns(table.device_id)
        return await page_of(scope, Device, place, PoolMemberOut.model_validate, where=[Device.id.in_(members)])


@router.put("/resources/{resource_id}/pool_members")
async def set_pool_members(
    caller: Authenticated, resource_id: Id, pool_members: Annotated[ListedDevices, Body(embed=True)]
) -> Data[PoolMembersChanged]:
    """Replaces the devices of a static pool."""
    async with caller.writing() as unit:
        await _static_pool(unit, resource_id)
        wanted = listed_ids(pool_members, "pool_members", "device_id")
        ids = await resources.set_pool_members(unit, str(resource_id), wanted)
    return _members(ids)


@router.patch("/resources/{resource_id}/pool_members")
async def change_pool_members(
    caller: Authenticated, resource_id: Id, pool_members: Annotated[Changed, Body(embed=True)]
) -> Data[PoolMembersChanged]:
    """Adds and removes devices of a static pool."""
    async with caller.writing() as unit:
        await _static_pool(unit, resource_id)
        add, remove = changed_ids(pool_members, "pool_members", is_by_key=True)
        ids = await resources.change_pool_members(unit, str(resource_id), add=add, remove=remove)
    return _members(ids)


def _members(ids: list[str]) -> Data[PoolMembersChanged]:
    return Data(data=PoolMembersChanged(device_ids=[UUID(one) for one in ids]))
