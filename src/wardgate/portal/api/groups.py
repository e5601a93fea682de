"""Groups and who is in them."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Response
from pydantic import BaseModel

from wardgate.errors import NotFound
from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.lists import Paged, page_of
from wardgate.portal.api.objects import Data, GroupIn, GroupOut, MemberOut, MembersChanged, Page
from wardgate.portal.db.access import EVERYONE
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Actor, Group, Membership
from wardgate.portal.services import groups

router = APIRouter(tags=["Groups"])
GroupBody = Annotated[GroupIn, Body(embed=True)]


async def _visible(scope: Scope, group_id: UUID) -> Group:
    """A group that is not Everyone, which the API does not show.

    Raises:
        NotFound: There is none.
    """
    row = await scope.get(Group, str(group_id))
    if row.type == EVERYONE:
        raise NotFound(f"there is no group {group_id}")
    return row


@router.get("/groups")
async def list_groups(
    caller: Authenticated,
    place: Paged,
    name: str | None = None,
    directory_id: str | None = None,
    entity_type: Literal["group", "org_unit"] | None = None,
) -> Page[GroupOut]:
    """Lists groups; an empty `directory_id` asks for those that are not synced."""
    where = [Group.type != EVERYONE]
    if directory_id == "":
        where.append(Group.directory_id.is_(None))
    only = {"name": name, "directory_id": directory_id or None, "entity_type": entity_type}
    async with caller.db.scoped(caller.subject) as scope:
        return await page_of(scope, Group, place, GroupOut.model_validate, where=where, equal=only)


@router.get("/groups/{group_id}")
async def read_group(caller: Authenticated, group_id: UUID) -> Data[GroupOut]:
    """Reads a group."""
    async with caller.db.scoped(caller.subject) as scope:
        return Data(data=GroupOut.model_validate(await _visible(scope, group_id)))


@router.post("/groups", status_code=201)
async def create_group(caller: Authenticated, group: GroupBody, response: Response) -> Data[GroupOut]:
    """Makes a group."""
    async with caller.db.writing(caller.subject) as unit:
        row = await groups.create_group(unit, group.given())
    response.headers["Location"] = f"/groups/{row.id}"
    return Data(data=GroupOut.model_validate(row))


@router.patch("/groups/{group_id}")
@router.put("/groups/{group_id}", include_in_schema=False)
async def update_group(caller: Authenticated, group_id: UUID, group: GroupBody) -> Data[GroupOut]:
    """Renames a group."""
    async with caller.db.writing(caller.subject) as unit:
        await _visible(unit, group_id)
        return Data(data=GroupOut.model_validate(await groups.update_group(unit, str(group_id), group.given())))


@router.delete("/groups/{group_id}")
async def delete_group(caller: Authenticated, group_id: UUID) -> Data[GroupOut]:
    """Deletes a group; its policies stay, but grant nothing."""
    async with caller.db.writing(caller.subject) as unit:
        await _visible(unit, group_id)
        return Data(data=GroupOut.model_validate(await groups.delete_group(unit, str(group_id))))


class MembershipChange(BaseModel):
    """Actors to add and to remove."""

    add: list[str] = []
    remove: list[str] = []


class NewMember(BaseModel):
    """One actor of a replacement list."""

    actor_id: str


@router.get("/groups/{group_id}/memberships")
async def list_members(caller: Authenticated, group_id: UUID, place: Paged) -> Page[MemberOut]:
    """Lists who is in a group."""
    async with caller.db.scoped(caller.subject) as scope:
        group = await _visible(scope, group_id)
        members = scope.select(Membership).where(Membership.group_id == group.id).with_only_columns(Membership.actor_id)
        return await page_of(scope, Actor, place, MemberOut.model_validate, where=[Actor.id.in_(members)])


@router.put("/groups/{group_id}/memberships")
async def set_members(
    caller: Authenticated, group_id: UUID, memberships: Annotated[list[NewMember], Body(embed=True)]
) -> Data[MembersChanged]:
    """Replaces who is in a group; who stays keeps their grants."""
    async with caller.db.writing(caller.subject) as unit:
        await _visible(unit, group_id)
        ids = await groups.set_members(unit, str(group_id), [one.actor_id for one in memberships])
    return Data(data=MembersChanged(actor_ids=[UUID(one) for one in ids]))


@router.patch("/groups/{group_id}/memberships")
async def change_members(
    caller: Authenticated, group_id: UUID, memberships: Annotated[MembershipChange, Body(embed=True)]
) -> Data[MembersChanged]:
    """Puts people into a group and takes people out; an id in both lists stays."""
    async with caller.db.writing(caller.subject) as unit:
        await _visible(unit, group_id)
        ids = await groups.change_members(unit, str(group_id), add=memberships.add, remove=memberships.remove)
    return Data(data=MembersChanged(actor_ids=[UUID(one) for one in ids]))
