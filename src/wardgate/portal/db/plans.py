"""How much of its plan an account uses."""

from datetime import datetime

from sqlalchemy import func, select

from wardgate.ids import AccountId
from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Account, Actor, Device, Site
from wardgate.portal.domain.plans import MONTH, Usage


async def usage(scope: Scope, at: datetime) -> Usage:
    """What the account has now, and who was active in the month before `at`."""
    by_type = (
        select(Actor.type, func.count())
        .where(Actor.account_id == scope.account_id, Actor.is_disabled.is_(False))
        .group_by(Actor.type)
    )
    counts: dict[str, int] = {row[0]: row[1] for row in await scope.session.execute(by_type)}
    sites = (
        select(func.count()).select_from(Site).where(Site.account_id == scope.account_id, Site.managed_by == "account")
    )
    active = (
        select(func.count(func.distinct(Device.actor_id)))
        .join(Actor, (Actor.account_id == Device.account_id) & (Actor.id == Device.actor_id))
        .where(
            Device.account_id == scope.account_id,
            Device.type == "client",
            Device.last_seen_at > at - MONTH,
            Actor.is_disabled.is_(False),
            Actor.type.in_(("account_user", "account_admin_user")),
        )
    )
    admins = counts.get("account_admin_user", 0)
    return Usage(
        users=counts.get("account_user", 0) + admins,
        monthly_active_users=await scope.session.scalar(active) or 0,
        service_accounts=counts.get("service_account", 0),
        account_admin_users=admins,
        sites=await scope.session.scalar(sites) or 0,
        api_clients=counts.get("api_client", 0),
    )


async def account_ids(db: Database) -> list[AccountId]:
    """Every account."""
    async with db.unscoped() as session:
        return [AccountId(one) for one in (await session.scalars(select(Account.id).order_by(Account.slug))).all()]


async def due_for_deletion(db: Database, at: datetime) -> list[AccountId]:
    """Accounts whose time to be deleted has come."""
    query = select(Account.id).where(Account.scheduled_deletion_at <= at).order_by(Account.scheduled_deletion_at)
    async with db.unscoped() as session:
        return [AccountId(one) for one in (await session.scalars(query)).all()]


async def all_accounts(db: Database) -> list[Account]:
    """Every account's row, by slug."""
    async with db.unscoped() as session:
        return list((await session.scalars(select(Account).order_by(Account.slug))).all())
