"""Actors: people, service accounts and API clients."""

from collections.abc import Mapping
from typing import Any, Final

from wardgate.portal.db import identities
from wardgate.portal.db.accounts import count_other_admins
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Actor
from wardgate.portal.domain import checks
from wardgate.portal.domain.actors import ActorState, check_actor, check_type_change, guard_change, is_other_email
from wardgate.portal.domain.limits import newly_counted
from wardgate.portal.domain.subjects import ACTOR_TYPES
from wardgate.portal.services import limits, sessions

CREATABLE_TYPES: Final = ("account_user", "account_admin_user", "service_account")


async def create_actor(
    unit: UnitOfWork, fields: Mapping[str, Any], allowed_types: tuple[str, ...] = CREATABLE_TYPES
) -> Actor:
    """Makes an actor.

    Raises:
        InvalidInput: A field is not acceptable, or the e-mail address is taken.
        Forbidden: The account is disabled, or its plan has no room.
    """
    await limits.check_open(unit)
    values = check_actor(fields, allowed_types)
    actor = Actor(account_id=unit.account_id, **values)
    plan = (await unit.account()).limits
    await limits.check_room(unit, newly_counted(None, _state(values, ""), plan))
    await unit.insert(actor, unique="email")
    return actor


async def update_actor(unit: UnitOfWork, actor_id: str, fields: Mapping[str, Any]) -> Actor:
    """Changes an actor; disabling one ends its sessions, another e-mail address drops its identities.

    Raises:
        NotFound: There is no such actor.
        InvalidInput: A field is not acceptable, the e-mail address is taken, or it would have no way in.
        Forbidden: An actor would disable or demote itself, or the plan has no room.
        Conflict: It is the last admin.
    """
    actor = await unit.get(Actor, actor_id)
    known = {name: getattr(actor, name) for name in ("name", "type", "email", "allow_email_otp_sign_in")}
    values = check_actor({**known, **fields}, ACTOR_TYPES)
    check_type_change(actor.type, values["type"])
    problems = checks.Problems()
    values["is_disabled"] = checks.flag(problems, fields, "is_disabled", actor.is_disabled)
    problems.raise_if_any()
    before, after = _state(known | {"is_disabled": actor.is_disabled}, actor.id), _state(values, actor.id)
    await _guard(unit, actor, before, after)
    await limits.check_room(unit, newly_counted(before, after, (await unit.account()).limits))
    await unit.update(actor, unique="email", **values)
    await _end_what_it_had(unit, before, after)
    return actor


async def delete_actor(unit: UnitOfWork, actor_id: str) -> Actor:
    """Removes an actor with its identities, tokens, sessions, devices, memberships and grants.

    Raises:
        NotFound: There is no such actor.
        Forbidden: An actor would delete itself.
        Conflict: It is the last admin.
    """
    actor = await unit.get(Actor, actor_id)
    names = ("type", "is_disabled", "email", "allow_email_otp_sign_in")
    await _guard(unit, actor, _state({name: getattr(actor, name) for name in names}, actor.id), None)
    await unit.delete(actor)
    return actor


async def _guard(unit: UnitOfWork, actor: Actor, before: ActorState, after: ActorState | None) -> None:
    if before.is_acting_admin:
        await unit.locked_account()  # two admins cannot remove each other at a time
    guard_change(
        before,
        after,
        changed_by=unit.subject.actor_id,
        other_admins=await count_other_admins(unit, actor.id),
        ways_in=await identities.ways_in(unit, actor),
    )


async def _end_what_it_had(unit: UnitOfWork, before: ActorState, after: ActorState) -> None:
    if after.is_disabled and not before.is_disabled:
        await sessions.end_client_sessions(unit, actor_id=after.id)
        await sessions.end_portal_sessions(unit, actor_id=after.id)
    elif before.type == "account_admin_user" != after.type:
        await sessions.end_portal_sessions(unit, actor_id=after.id)
    if before.email is not None and is_other_email(before.email, after.email):
        for identity in await identities.identities_of(unit, after.id):
            await sessions.delete_identity(unit, identity)


def _state(values: Mapping[str, Any], actor_id: str) -> ActorState:
    return ActorState(
        actor_id,
        values["type"],
        bool(values.get("is_disabled")),
        values.get("email"),
        values["allow_email_otp_sign_in"],
    )
