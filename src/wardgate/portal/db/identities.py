"""Providers, identities, sessions and tokens, found by what they hang on."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import select

from wardgate.portal.db.identity_tables import (
    AuthProvider,
    ExternalIdentity,
    ExternalIdentitySyncState,
    FeatureFlag,
    GroupSyncState,
    PortalSession,
)
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Actor, ClientToken
from wardgate.portal.domain.actors import WaysIn


async def ways_in(scope: Scope, actor: Actor) -> WaysIn:
    """How an actor can sign in, apart from e-mail codes."""
    enabled = await scope.all(scope.select(AuthProvider).where(AuthProvider.is_disabled.is_(False)))
    kinds = {one.type for one in enabled}
    return WaysIn(
        has_email_codes="email_otp" in kinds,
        identity_issuers=[one.issuer for one in await identities_of(scope, actor.id)],
        enabled_issuers=[one.issuer for one in enabled if one.type not in ("email_otp", "userpass")],
        has_password="userpass" in kinds and actor.password_hash is not None,
    )


async def identities_of(scope: Scope, actor_id: str) -> Sequence[ExternalIdentity]:
    """Who the actor is elsewhere."""
    return await scope.all(scope.select(ExternalIdentity).where(ExternalIdentity.actor_id == actor_id))


async def providers_of_issuer(scope: Scope, issuer: str) -> Sequence[AuthProvider]:
    """The account's providers that people of that issuer come through."""
    return await scope.all(scope.select(AuthProvider).where(AuthProvider.issuer == issuer))


async def client_tokens(
    scope: Scope, *, actor_id: str | None = None, provider_ids: Iterable[str] | None = None
) -> Sequence[ClientToken]:
    """The tokens of an actor, of providers, or both."""
    query = scope.select(ClientToken)
    if actor_id is not None:
        query = query.where(ClientToken.actor_id == actor_id)
    if provider_ids is not None:
        query = query.where(ClientToken.auth_provider_id.in_(list(provider_ids)))
    return await scope.all(query)


async def portal_sessions(
    scope: Scope, *, actor_id: str | None = None, provider_ids: Iterable[str] | None = None
) -> Sequence[PortalSession]:
    """The sessions of an actor, of providers, or both."""
    query = scope.select(PortalSession)
    if actor_id is not None:
        query = query.where(PortalSession.actor_id == actor_id)
    if provider_ids is not None:
        query = query.where(PortalSession.auth_provider_id.in_(list(provider_ids)))
    return await scope.all(query)


async def synced_at(
    scope: Scope, table: type[ExternalIdentitySyncState] | type[GroupSyncState], ids: Sequence[str]
) -> dict[str, datetime]:
    """When each of some rows was last seen in its directory."""
    query = select(table.id, table.synced_at).where(table.account_id == scope.account_id, table.id.in_(ids))
    return {row[0]: row[1] for row in await scope.session.execute(query)}


async def is_rolled_out(scope: Scope, feature: str) -> bool:
    """Whether the operator has switched a feature on for everybody."""
    flag = await scope.session.get(FeatureFlag, feature)
    return flag is not None and flag.enabled
