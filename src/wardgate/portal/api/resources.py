"""Resources and the members of static device pools."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Response
from pydantic import BaseModel

from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.lists import Paged, page_of
from wardgate.portal.api.objects import Data, Page, PoolMemberOut, PoolMembersChanged, ResourceIn, ResourceOut
from wardgate.portal.api.problems import BadRequest
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Device, Resource, StaticDevicePoolMember
from wardgate.portal.services import resources

router = APIRouter(tags=["Resources"])
ResourceBody = Annotated[ResourceIn, Body(embed=True)]
FilterableType = Literal["cidr", "ip", "dns", "static_device_pool"]


def _shown(row: Resource) -> ResourceOut:
    return ResourceOut.model_validate(row)


@router.get("/resources", response_model_exclude_none=False)
async def list_resources(
    caller: Authenticated,
    place: Paged,
    name: str | None = None,
    type: FilterableType | None = None,
    site_id: UUID | None = None,
    address: str | None = None,
    ip_stack: str | None = None,
) -> Page[ResourceOut]:
    """Lists resources."""
    site = str(site_id) if site_id else None
    only = {"name": name, "type": type, "address": address, "ip_stack": ip_stack, "site_id": site}
    async with caller.db.scoped(caller.subject) as scope:
        return await page_of(scope, Resource, place, _shown, equal=only)


@router.get("/resources/{resource_id}")
async def read_resource(caller: Authenticated, resource_id: UUID) -> Data[ResourceOut]:
    """Reads a resource."""
    async with caller.db.scoped(caller.subject) as scope:
        return Data(data=_shown(await scope.get(Resource, str(resource_id))))


@router.post("/resources", status_code=201)
async def create_resource(caller: Authenticated, resource: ResourceBody, response: Response) -> Data[ResourceOut]:
    """Makes a resource."""
    async with caller.db.writing(caller.subject) as unit:
        row = await resources.create_resource(unit, resource.given())
    response.headers["Location"] = f"/resources/{row.id}"
    return Data(data=_shown(row))


@router.patch("/resources/{resource_id}")
@router.put("/resources/{resource_id}", include_in_schema=False)
async def update_resource(caller: Authenticated, resource_id: UUID, resource: ResourceBody) -> Data[ResourceOut]:
    """Changes a resource; another address, type, IP stack or site ends its grants."""
    async with caller.db.writing(caller.subject) as unit:
        return Data(data=_shown(await resources.update_resource(unit, str(resource_id), resource.given())))


@router.delete("/resources/{resource_id}")
async def delete_resource(caller: Authenticated, resource_id: UUID) -> Data[ResourceOut]:
    """Deletes a resource with its policies."""
    async with caller.db.writing(caller.subject) as unit:
        return Data(data=_shown(await resources.delete_resource(unit, str(resource_id))))


class PoolMember(BaseModel):
    """One device of a replacement list."""

    device_id: UUID


class PoolChange(BaseModel):
    """Devices to add and to remove."""

    add: list[UUID] = []
    remove: list[UUID] = []


async def _static_pool(scope: Scope, resource_id: UUID) -> Resource:
    row = await scope.get(Resource, str(resource_id))
    if row.type != "static_device_pool":
        raise BadRequest("the resource is not a static device pool")
    return row


@router.get("/resources/{resource_id}/pool_members")
async def list_pool_members(caller: Authenticated, resource_id: UUID, place: Paged) -> Page[PoolMemberOut]:
    """Lists the devices of a static pool."""
    async with caller.db.scoped(caller.subject) as scope:
        pool = await _static_pool(scope, resource_id)
        members = scope.select(StaticDevicePoolMember).where(StaticDevicePoolMember.resource_id == pool.id)
        device_ids = [member.device_id for member in await scope.all(members)]
        return await page_of(scope, Device, place, PoolMemberOut.model_validate, where=[Device.id.in_(device_ids)])


@router.put("/resources/{resource_id}/pool_members")
async def set_pool_members(
    caller: Authenticated, resource_id: UUID, pool_members: Annotated[list[PoolMember], Body(embed=True)]
) -> Data[PoolMembersChanged]:
    """Replaces the devices of a static pool."""
    async with caller.db.writing(caller.subject) as unit:
        await _static_pool(unit, resource_id)
        ids = await resources.set_pool_members(unit, str(resource_id), [str(one.device_id) for one in pool_members])
    return _members(ids)


@router.patch("/resources/{resource_id}/pool_members")
async def change_pool_members(
    caller: Authenticated, resource_id: UUID, pool_members: Annotated[PoolChange, Body(embed=True)]
) -> Data[PoolMembersChanged]:
    """Adds and removes devices of a static pool."""
    async with caller.db.writing(caller.subject) as unit:
        await _static_pool(unit, resource_id)
        add, remove = (list(map(str, ids)) for ids in (pool_members.add, pool_members.remove))
        ids = await resources.change_pool_members(unit, str(resource_id), add=add, remove=remove)
    return _members(ids)


def _members(ids: list[str]) -> Data[PoolMembersChanged]:
    return Data(data=PoolMembersChanged(device_ids=[UUID(one) for one in ids]))
