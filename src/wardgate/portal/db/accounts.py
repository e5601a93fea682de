"""Accounts: found by name, and what of their limits they use."""

from sqlalchemy import func, select

from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Account, Actor, Site
from wardgate.portal.domain.checks import is_uuid


async def used_of_limits(scope: Scope) -> dict[str, int]:
    """How many there are of everything that a plan may limit."""
    query = (
        select(Actor.type, func.count())
        .where(Actor.account_id == scope.account_id, Actor.is_disabled.is_(False))
        .group_by(Actor.type)
    )
    counts: dict[str, int] = {row[0]: row[1] for row in await scope.session.execute(query)}
    sites = select(func.count()).where(Site.account_id == scope.account_id, Site.managed_by == "account")
    return {
        "users": counts.get("account_user", 0) + counts.get("account_admin_user", 0),
        "service_accounts": counts.get("service_account", 0),
        "account_admin_users": counts.get("account_admin_user", 0),
        "sites": await scope.session.scalar(sites) or 0,
    }


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
