"""Groups and who is in them."""

from collections.abc import Sequence
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Body

from wardgate.errors import NotFound
from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.lists import NamedPaged, page_of, shown_page_of, uuid_or_empty
from wardgate.portal.api.members import Changed, ListedActors, changed_ids, listed_ids
from wardgate.portal.api.objects import (
    Data,
    GroupIn,
    GroupNew,
    GroupOut,
    Id,
    MemberOut,
    MembersChanged,
    Page,
)
from wardgate.portal.api.routing import updates
from wardgate.portal.db.access import EVERYONE
from wardgate.portal.db.identities import synced_at
from wardgate.portal.db.identity_tables import GroupSyncState
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Actor, Group, Membership
from wardgate.portal.services import groups

router = APIRouter(tags=["Groups"])


async def _visible(scope: Scope, group_id: Id) -> Group:
    """A group that is not Everyone, which the API does not show.

    Raises:
        NotFound: There is none.
    """
    row = await scope.get(Group, str(group_id))
    if row.type == EVERYONE:
        raise NotFound(f"there is no group {group_id}")
    return row


async def _shown(scope: Scope, rows: Sequence[Group]) -> list[GroupOut]:
    at = await synced_at(scope, GroupSyncState, [row.id for row in rows])
    names = [name for name in GroupOut.model_fields if name != "synced_at"]
    values = [{name: getattr(row, name) for name in names} for row in rows]
    return [GroupOut.model_validate({**one, "synced_at": at.get(str(one["id"]))}) for one in values]


async def _one(scope: Scope, group_id: Id) -> GroupOut:
    return (await _shown(scope, [await _visible(scope, group_id)]))[0]


@router.get("/groups")
async def list_groups(
    caller: Authenticated,
    place: NamedPaged,
    name: str | None = None,
    directory_id: str | None = None,
    entity_type: Literal["group", "org_unit"] | None = None,
) -> Page[GroupOut]:
    """Lists groups; an empty `directory_id` asks for those that are not synced."""
    directory = uuid_or_empty("directory_id", directory_id)
    where = [Group.type != EVERYONE]
    if directory == "":
        where.append(Group.directory_id.is_(None))
    only = {"name": name, "directory_id": directory or None, "entity_type": entity_type}
    async with caller.reading() as scope:
        return await shown_page_of(scope, Group, place, _shown, where=where, equal=only)


@router.get("/groups/{group_id}")
async def read_group(caller: Authenticated, group_id: Id) -> Data[GroupOut]:
    """Reads a group."""
    async with caller.reading() as scope:
        return caller.found(await _one(scope, group_id))


@router.post("/groups", status_code=201)
async def create_group(caller: Authenticated, group: Annotated[GroupNew, Body(embed=True)]) -> Data[GroupOut]:
    """Makes a group."""
    async with caller.writing() as unit:
        row = await groups.create_group(unit, group.given())
    return caller.created(GroupOut.model_validate(row), f"/groups/{row.id}")


@updates(router, "/groups/{group_id}")
async def update_group(
    caller: Authenticated, group_id: Id, group: Annotated[GroupIn, Body(embed=True)]
) -> Data[GroupOut]:
    """Renames a group."""
    async with caller.writing() as unit:
        await caller.expect(lambda: _one(unit, group_id))
        await _visible(unit, group_id)
        await groups.update_group(unit, str(group_id), group.given())
        shown = await _one(unit, group_id)
    return caller.found(shown)


@router.delete("/groups/{group_id}")
async def delete_group(caller: Authenticated, group_id: Id) -> Data[GroupOut]:
    """Deletes a group; its policies stay, but grant nothing."""
    async with caller.writing() as unit:
        await caller.expect(lambda: _one(unit, group_id))
        shown = await _one(unit, group_id)
        await groups.delete_group(unit, str(group_id))
    return Data(data=shown)


@router.get("/groups/{group_id}/memberships")
async def list_members(caller: Authenticated, group_id: Id, place: NamedPaged) -> Page[MemberOut]:
    """Lists who is in a group."""
    async with caller.reading() as scope:
        group = await _visible(scope, group_id)
        members = scope.select(Membership).where(Membership.group_id == group.id).with_only_columns(Membership.actor_id)
        return await page_of(scope, Actor, place, MemberOut.model_validate, where=[Actor.id.in_(members)])


@router.put("/groups/{group_id}/memberships")
async def set_members(
    caller: Authenticated, group_id: Id, memberships: Annotated[ListedActors, Body(embed=True)]
) -> Data[MembersChanged]:
    """Replaces who is in a group; who stays keeps their grants."""
    async with caller.writing() as unit:
        await _visible(unit, group_id)
        ids = listed_ids(memberships, "memberships", "actor_id")
        members = await groups.set_members(unit, str(group_id), ids)
    return _changed(members)


@router.patch("/groups/{group_id}/memberships")
async def change_members(
    caller: Authenticated, group_id: Id, memberships: Annotated[Changed, Body(embed=True)]
) -> Data[MembersChanged]:
    """Puts people into a group and takes people out; an id in both lists stays."""
    async with caller.writing() as unit:
        await _visible(unit, group_id)
        add, remove = changed_ids(memberships, "memberships")
        members = await groups.change_members(unit, str(group_id), add=add, remove=remove)
    return _changed(members)


def _changed(ids: list[str]) -> Data[MembersChanged]:
    return Data(data=MembersChanged(actor_ids=[UUID(one) for one in ids]))
