"""Actors: people, service accounts and API clients."""

from collections.abc import Mapping
from typing import Any, Final

from wardgate.errors import Conflict, Forbidden, InvalidInput
from wardgate.portal.db.accounts import count_other_admins
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Actor, ClientToken
from wardgate.portal.domain import checks
from wardgate.portal.domain.subjects import ACTOR_TYPES, USER_TYPES

CREATABLE_TYPES: Final = ("account_user", "account_admin_user", "service_account")


async def create_actor(
    unit: UnitOfWork, fields: Mapping[str, Any], allowed_types: tuple[str, ...] = CREATABLE_TYPES
) -> Actor:
    """Makes an actor.

    Raises:
        InvalidInput: A field is not acceptable, or the e-mail address is taken.
    """
    values = _check(fields, allowed_types)
    actor = Actor(account_id=unit.account_id, **values)
    await unit.insert(actor, unique="email")
    return actor


async def update_actor(unit: UnitOfWork, actor_id: str, fields: Mapping[str, Any]) -> Actor:
    """Changes an actor; disabling one ends its sessions.

    Raises:
        NotFound: There is no such actor.
        InvalidInput: A field is not acceptable, or the e-mail address is taken.
        Forbidden: An actor would disable itself.
        Conflict: It is the last admin.
    """
    actor = await unit.get(Actor, actor_id)
    known = {name: getattr(actor, name) for name in ("name", "type", "email", "allow_email_otp_sign_in")}
    values = _check({**known, **fields}, ACTOR_TYPES)
    _check_type_change(actor.type, values["type"])
    problems = checks.Problems()
    values["is_disabled"] = checks.flag(problems, fields, "is_disabled", actor.is_disabled)
    problems.raise_if_any()
    loses_admin = values["is_disabled"] or values["type"] != "account_admin_user"
    if actor.type == "account_admin_user" and not actor.is_disabled and loses_admin:
        await _refuse_last_admin(unit, actor)
    if values["is_disabled"] and actor.id == unit.subject.actor_id:
        raise Forbidden("an actor cannot disable itself")
    is_newly_disabled = values["is_disabled"] and not actor.is_disabled
    await unit.update(actor, unique="email", **values)
    if is_newly_disabled:
        for token in await unit.all(unit.select(ClientToken).where(ClientToken.actor_id == actor.id)):
            await unit.delete(token)
    return actor


async def delete_actor(unit: UnitOfWork, actor_id: str) -> Actor:
    """Removes an actor with its tokens, devices, memberships and grants.

    Raises:
        NotFound: There is no such actor.
        Forbidden: An actor would delete itself.
        Conflict: It is the last admin.
    """
    actor = await unit.get(Actor, actor_id)
    if actor.id == unit.subject.actor_id:
        raise Forbidden("an actor cannot delete itself")
    if actor.type == "account_admin_user" and not actor.is_disabled:
        await _refuse_last_admin(unit, actor)
    await unit.delete(actor)
    return actor


async def _refuse_last_admin(unit: UnitOfWork, actor: Actor) -> None:
    if not await count_other_admins(unit, actor.id):
        raise Conflict("the account would be left without an admin")


def _check(fields: Mapping[str, Any], allowed_types: tuple[str, ...]) -> dict[str, Any]:
    problems = checks.Problems()
    values: dict[str, Any] = {
        "name": checks.text(problems, fields, "name"),
        "type": checks.one_of(problems, fields, "type", allowed_types),
        "allow_email_otp_sign_in": checks.flag(problems, fields, "allow_email_otp_sign_in", False),
        "email": None,
    }
    if values["type"] in USER_TYPES:
        values["email"] = checks.email(problems, fields)
    elif fields.get("email"):
        problems.add("email", "is for people only")
    problems.raise_if_any()
    return values


def _check_type_change(old: str, new: str) -> None:
    if old != new and not (old in USER_TYPES and new in USER_TYPES):
        raise InvalidInput({"type": ["cannot be changed"]})
