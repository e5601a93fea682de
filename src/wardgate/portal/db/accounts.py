"""What of its limits an account uses."""

from sqlalchemy import func, select

from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Actor, Site


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
