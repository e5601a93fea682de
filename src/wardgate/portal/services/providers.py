"""Sign-in providers and directories: what comes in through them ends with them."""

from collections.abc import Mapping
from typing import Any

from wardgate.errors import Conflict
from wardgate.portal.db.identity_tables import AuthProvider, Directory
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.sealing import seal
from wardgate.portal.db.tables import Actor, Group, new_id
from wardgate.portal.domain import checks
from wardgate.portal.domain.actors import ADMIN
from wardgate.portal.domain.providers import PROVIDER_TYPES, check_provider
from wardgate.portal.services import groups, limits, sessions

_FIELDS = ("name", "context", "client_session_lifetime_secs", "portal_session_lifetime_secs", "is_disabled")


async def create_provider(unit: UnitOfWork, kind: str, fields: Mapping[str, Any]) -> AuthProvider:
    """Makes a way to sign in.

    Raises:
        InvalidInput: A field is not acceptable, or there is such a provider already.
        Forbidden: The account is disabled.
    """
    await limits.check_open(unit)
    problems = checks.Problems()
    checks.one_of(problems, {"type": kind}, "type", PROVIDER_TYPES)
    problems.raise_if_any()
    values = check_provider(kind, fields)
    secret = values.pop("secret")
    row = AuthProvider(account_id=unit.account_id, id=new_id(), type=kind, **values)
    if secret is not None:
        row.sealed_secret = _sealed(unit, row, secret)
    if row.is_default:
        await _no_other_default(unit, row.id)
    await unit.insert(row, unique="name")
    return row


async def update_provider(unit: UnitOfWork, provider_id: str, fields: Mapping[str, Any]) -> AuthProvider:
    """Changes a provider; disabling it ends every client token and portal session that came through it.

    Other lifetimes are for sign-ins to come.

    Raises:
        NotFound: There is no such provider.
        InvalidInput: A field is not acceptable, or taken.
    """
    row = await unit.get(AuthProvider, provider_id)
    known = {name: getattr(row, name) for name in (*_FIELDS, "is_default", "issuer", "client_id")}
    had_secret = row.sealed_secret is not None
    values = check_provider(
        row.type, {**known, **row.settings, "client_secret": "kept" if had_secret else None, **fields}
    )
    secret = values.pop("secret")
    if "client_secret" in fields and secret is not None:
        values["sealed_secret"] = _sealed(unit, row, secret)
    was_disabled = row.is_disabled
    if values["is_default"]:
        await _no_other_default(unit, row.id)
    await unit.update(row, unique="name", **values)
    if row.is_disabled and not was_disabled:
        await end_sessions(unit, row)
    return row


async def delete_provider(unit: UnitOfWork, provider_id: str) -> AuthProvider:
    """Removes a provider with every client token and portal session that came through it.

    Raises:
        NotFound: There is no such provider.
    """
    row = await unit.get(AuthProvider, provider_id)
    await unit.delete(row)
    return row


async def end_sessions(unit: UnitOfWork, provider: AuthProvider) -> None:
    """Ends whatever came in through a provider."""
    await sessions.end_client_sessions(unit, provider_ids=[provider.id])
    await sessions.end_portal_sessions(unit, provider_ids=[provider.id])


async def delete_directory(unit: UnitOfWork, directory_id: str) -> Directory:
    """Removes a directory with its identities and groups, and with every actor that it made.

    The policies of its groups stay as orphans.

    Raises:
        NotFound: There is no such directory.
        Conflict: It made all admins, so the account would be left without one.
    """
    row = await unit.get(Directory, directory_id)
    await unit.locked_account()
    admins = await unit.all(unit.select(Actor).where(Actor.type == ADMIN, Actor.is_disabled.is_(False)))
    if admins and all(one.created_by_directory_id == row.id for one in admins):
        raise Conflict("the account would be left without an admin", "last_admin")
    for group in await unit.all(unit.select(Group).where(Group.directory_id == row.id)):
        await groups.remove(unit, group)
    await unit.delete(row)
    return row


async def _no_other_default(unit: UnitOfWork, provider_id: str) -> None:
    query = unit.select(AuthProvider).where(AuthProvider.is_default, AuthProvider.id != provider_id)
    for other in await unit.all(query):
        await unit.update(other, is_default=False)


def _sealed(unit: UnitOfWork, row: AuthProvider, secret: str) -> bytes:
    return seal(unit.keyring, secret.encode(), AuthProvider, "sealed_secret", row.id)
