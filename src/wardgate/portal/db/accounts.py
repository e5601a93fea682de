"""Accounts: found by name, and what of their limits they use."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import and_, func, select

from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Account, Actor, ApiToken, Device, Site
from wardgate.portal.domain.checks import is_uuid

MONTH: Final = timedelta(days=30)
_TYPES: Final = {
    "users": ("account_user", "account_admin_user"),
    "service_accounts": ("service_account",),
    "account_admin_users": ("account_admin_user",),
    "api_clients": ("api_client",),
}
SHOWN_LIMITS: Final = ("users", "monthly_active_users", "service_accounts", "account_admin_users", "sites")


async def used_of_limits(scope: Scope, at: datetime) -> dict[str, int]:
    """How many there are of everything that an account shows of its plan."""
    return {kind: await used_of(scope, kind, at) for kind in SHOWN_LIMITS}


async def used_of(scope: Scope, kind: str, at: datetime, actor_id: str | None = None) -> int:
    """How many of one limited kind there are; disabled actors do not count.

    Args:
        kind: One of `domain.limits.LIMITS`.
        actor_id: Whose tokens, for `api_tokens_per_client`.
    """
    if kind == "sites":
        query = select(func.count()).where(Site.account_id == scope.account_id, Site.managed_by == "account")
    elif kind == "api_tokens_per_client":
        query = select(func.count()).where(ApiToken.account_id == scope.account_id, ApiToken.actor_id == actor_id)
    elif kind == "monthly_active_users":
        query = (
            select(func.count(Device.actor_id.distinct()))
            .join(Actor, and_(Actor.account_id == Device.account_id, Actor.id == Device.actor_id))
            .where(Device.account_id == scope.account_id, Device.last_seen_at > at - MONTH)
            .where(Actor.type.in_(_TYPES["users"]))
        )
    else:
        query = select(func.count()).where(
            Actor.account_id == scope.account_id, Actor.is_disabled.is_(False), Actor.type.in_(_TYPES[kind])
        )
    return await scope.session.scalar(query) or 0


async def count_accounts(db: Database) -> int:
    """How many accounts there are."""
    async with db.unscoped() as session:
        return await session.scalar(select(func.count()).select_from(Account)) or 0


async def find_account(db: Database, slug_or_id: str) -> Account | None:
    """The account with that slug or id."""
    async with db.unscoped() as session:
        if is_uuid(slug_or_id):
            return await session.get(Account, slug_or_id.lower())
        return (await session.scalars(select(Account).where(Account.slug == slug_or_id))).one_or_none()


async def find_actor(scope: Scope, email_or_id: str) -> Actor | None:
    """The actor with that e-mail address or id."""
    if is_uuid(email_or_id):
        return await scope.find(Actor, email_or_id)
    return (await scope.session.scalars(scope.select(Actor).where(Actor.email == email_or_id))).one_or_none()


async def count_other_admins(scope: Scope, actor_id: str) -> int:
    """How many enabled admins there are besides one."""
    query = (
        select(func.count())
        .select_from(Actor)
        .where(
            Actor.account_id == scope.account_id,
            Actor.type == "account_admin_user",
            Actor.is_disabled.is_(False),
            Actor.id != actor_id,
        )
    )
    return await scope.session.scalar(query) or 0
