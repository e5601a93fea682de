"""Ending what people came in by: identities, client tokens and portal sessions."""

from wardgate.errors import NotFound
from wardgate.portal.db import identities
from wardgate.portal.db.identity_tables import ExternalIdentity
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.tables import Actor


async def end_client_sessions(
    unit: UnitOfWork, *, actor_id: str | None = None, provider_ids: list[str] | None = None
) -> int:
    """Deletes the client tokens of an actor, of providers, or both; says how many."""
    rows = await identities.client_tokens(unit, actor_id=actor_id, provider_ids=provider_ids)
    for row in rows:
        await unit.delete(row)
    return len(rows)


async def end_portal_sessions(
    unit: UnitOfWork, *, actor_id: str | None = None, provider_ids: list[str] | None = None
) -> int:
    """Signs admins out: an actor, whoever came through providers, or both; says how many sessions."""
    rows = await identities.portal_sessions(unit, actor_id=actor_id, provider_ids=provider_ids)
    for row in rows:
        await unit.delete(row)
    return len(rows)


async def get_identity(scope: Scope, actor_id: str, identity_id: str) -> ExternalIdentity:
    """An identity of an actor.

    Raises:
        NotFound: The actor has no such identity, or is none of the account.
    """
    actor = await scope.get(Actor, actor_id)
    row = await scope.get(ExternalIdentity, identity_id)
    if row.actor_id != actor.id:
        raise NotFound("the actor has no such identity")
    return row


async def delete_identity(unit: UnitOfWork, identity: ExternalIdentity) -> None:
    """Removes an identity with the tokens and sessions that its actor got through that issuer."""
    provider_ids = [one.id for one in await identities.providers_of_issuer(unit, identity.issuer)]
    await end_client_sessions(unit, actor_id=identity.actor_id, provider_ids=provider_ids)
    await end_portal_sessions(unit, actor_id=identity.actor_id, provider_ids=provider_ids)
    await unit.delete(identity)
