"""Groups and who is in them."""

from collections.abc import Iterable, Mapping
from typing import Any

from wardgate.errors import Forbidden, invalid
from wardgate.portal.db.access import EVERYONE
from wardgate.portal.db.authorizations import grants_where
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Actor, Group, Membership, Policy
from wardgate.portal.domain import checks
from wardgate.portal.services import limits
from wardgate.portal.services.grants import redecide


async def create_group(unit: UnitOfWork, fields: Mapping[str, Any]) -> Group:
    """Makes an empty group.

    Raises:
        InvalidInput: The name is not acceptable or taken.
    """
    await limits.check_open(unit)
    problems = checks.Problems()
    name = checks.text(problems, fields, "name")
    problems.raise_if_any()
    group = Group(account_id=unit.account_id, name=name)
    await unit.insert(group, unique="name")
    return group


async def update_group(unit: UnitOfWork, group_id: str, fields: Mapping[str, Any]) -> Group:
    """Renames a group.

    Raises:
        NotFound: There is no such group.
        Forbidden: It is synced or managed.
        InvalidInput: The name is not acceptable or taken.
    """
    group = await _editable(unit, group_id)
    problems = checks.Problems()
    name = checks.text(problems, {"name": group.name, **fields}, "name")
    problems.raise_if_any()
    await unit.update(group, unique="name", name=name)
    return group


async def delete_group(unit: UnitOfWork, group_id: str) -> Group:
    """Removes a group; its policies stay as orphans that allow nothing, and grants if another policy allows them.

    Raises:
        NotFound: There is no such group.
        Forbidden: It is synced or managed.
    """
    group = await _editable(unit, group_id)
    await remove(unit, group)
    return group


async def remove(unit: UnitOfWork, group: Group) -> None:
    """Deletes a group, synced or not; its policies remember who it was, for the case that it comes back."""
    for policy in await unit.all(unit.select(Policy).where(Policy.group_id == group.id)):
        await unit.update(policy, group_id=None, group_idp_id=group.idp_id)
        await redecide(unit, await grants_where(unit, policy_id=policy.id))
    await unit.delete(group)


async def set_members(unit: UnitOfWork, group_id: str, actor_ids: Iterable[str]) -> list[str]:
    """Replaces the members; who stays keeps their membership and grants.

    Returns:
        The ids of all members, sorted.

    Raises:
        NotFound: There is no such group.
        Forbidden: It is synced or managed.
        InvalidInput: An id is not one of an actor.
    """
    return await _apply(unit, group_id, add=list(actor_ids), remove=None)


async def change_members(
    unit: UnitOfWork, group_id: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()
) -> list[str]:
    """Adds and removes members; an id in both stays one. Unknown ids in `remove` are ignored.

    Returns:
        The ids of all members, sorted.

    Raises:
        NotFound: There is no such group.
        Forbidden: It is synced or managed.
        InvalidInput: An id to add is not one of an actor.
    """
    return await _apply(unit, group_id, add=list(add), remove=list(remove))


async def _apply(unit: UnitOfWork, group_id: str, *, add: list[str], remove: list[str] | None) -> list[str]:
    group = await _editable(unit, group_id)
    if not all(checks.is_uuid(one) for one in [*add, *(remove or [])]):
        raise invalid("memberships", "has an id that is not a UUID", "invalid", "UUIDs of actors")
    wanted = {one.lower() for one in add}
    known = {actor.id for actor in await unit.all(unit.select(Actor).where(Actor.id.in_(wanted)))}
    if wanted - known:
        raise checks.unknown_ids("memberships", "actor", wanted - known)
    rows = await unit.all(unit.select(Membership).where(Membership.group_id == group.id))
    present = {row.actor_id: row for row in rows}
    leaving = set(present) if remove is None else {one.lower() for one in remove} & set(present)
    gone = [present[actor_id] for actor_id in sorted(leaving - wanted)]
    for membership in gone:
        grants = await grants_where(unit, membership_id=membership.id)
        await redecide(unit, grants, without_memberships=[membership.id])
        await unit.delete(membership)
    for actor_id in sorted(wanted - set(present)):
        await unit.insert(Membership(account_id=unit.account_id, actor_id=actor_id, group_id=group.id))
    return sorted((set(present) - leaving) | wanted)


async def _editable(unit: UnitOfWork, group_id: str) -> Group:
    group = await unit.get(Group, group_id)
    if group.type == EVERYONE:
        raise Forbidden("the group Everyone is managed by the system", "system_managed")
    if group.directory_id is not None:
        raise Forbidden("the group is synced from a directory", "synced_group")
    return group
