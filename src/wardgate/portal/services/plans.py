"""Limits of accounts: set by an operator, and the flags of those that are over."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from wardgate.errors import InvalidInput, NotFound
from wardgate.ids import AccountId
from wardgate.portal.db import plans as rows
from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Account
from wardgate.portal.domain import plans, subjects


async def set_limits(unit: UnitOfWork, limits: Mapping[str, int | None]) -> Account:
    """Sets some limits, `None` for unlimited, and the flags that follow from them.

    Raises:
        InvalidInput: There is no such limit.
    """
    unknown = [name for name in limits if name not in plans.LIMITS]
    if unknown:
        raise InvalidInput({"limits": [f"has no {', '.join(unknown)}"]})
    account = await unit.account()
    await unit.update(account, limits={**account.limits, **limits})
    await recompute(unit)
    return account


async def recompute(unit: UnitOfWork) -> plans.Exceeded:
    """Counts again what the account uses, and sets its flags."""
    account = await unit.account()
    flags = plans.exceeded(account.limits, await rows.usage(unit, unit.at))
    await unit.update(account, **asdict(flags))
    return flags


async def recompute_all(db: Database) -> int:
    """Counts again for every account, each in a transaction of its own; how many are over a limit."""
    count = 0
    for account_id in await rows.account_ids(db):
        async with db.writing(subjects.system(account_id)) as unit:
            try:
                flags = await recompute(unit)
            except NotFound:
                continue  # deleted meanwhile
            count += any(asdict(flags).values())
    return count


async def keeps_clients_out(db: Database, account: Account) -> bool:
    """Whether an account's clients are refused: a flag that is set is counted again first, so that room which was made
    serves at once."""
    if not (account.users_limit_exceeded or account.service_accounts_limit_exceeded):
        return False
    async with db.writing(subjects.system(AccountId(account.id))) as unit:
        return (await recompute(unit)).keeps_clients_out


async def describe(unit: UnitOfWork) -> dict[str, dict[str, Any]]:
    """Each limit with what is used of it; `null` is unlimited, or nothing that can be counted."""
    account = await unit.account()
    used = await rows.usage(unit, unit.at)
    return {name: {"limit": plans.limit_of(account.limits, name), "used": used.of(name)} for name in plans.LIMITS}
