"""The life of an account: renamed, disabled, locked, deleted after a week of grace.

Source: portal-domain sections 1.2 and 8.5. E-mails about it are not sent: there is no mail yet.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from wardgate.errors import Conflict
from wardgate.portal.db import plans as rows
from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Account
from wardgate.portal.domain import checks, subjects
from wardgate.portal.services.accounts import set_disabled

GRACE: Final = timedelta(days=7)


async def rename(unit: UnitOfWork, fields: Mapping[str, Any]) -> Account:
    """Changes name, legal name or slug.

    Raises:
        InvalidInput: One is not acceptable, or the slug is taken.
    """
    account = await unit.account()
    problems = checks.Problems()
    known = {name: getattr(account, name) for name in ("name", "slug", "legal_name")}
    fields = {**known, **{name: value for name, value in fields.items() if value is not None}}
    values: dict[str, Any] = {
        "name": checks.text(problems, fields, "name", least=3, most=64),
        "slug": checks.slug(problems, fields),
        "legal_name": checks.text(problems, fields, "legal_name", needed=False),
    }
    problems.raise_if_any()
    await unit.update(account, unique="slug", **values)
    return account


async def enable(unit: UnitOfWork) -> Account:
    """Enables an account again.

    Raises:
        Conflict: It is to be deleted: cancel that instead.
    """
    account = await unit.account()
    if account.scheduled_deletion_at is not None:
        raise Conflict("the account is scheduled for deletion: cancel that to enable it")
    return await set_disabled(unit, False)


async def set_locked(unit: UnitOfWork, is_locked: bool) -> Account:
    """Keeps the account's own admins from scheduling its deletion and from cancelling it."""
    account = await unit.account()
    if is_locked is (account.lock_enabled_at is None):
        await unit.update(account, lock_enabled_at=unit.at if is_locked else None)
    return account


async def schedule_deletion(unit: UnitOfWork, *, by_operator: bool = False) -> Account:
    """Disables an account at once and has it deleted in a week.

    Raises:
        Conflict: That is so already, or an operator locked the account.
    """
    account = await unit.account()
    _refuse_if_locked(account, by_operator)
    if account.scheduled_deletion_at is not None:
        raise Conflict(f"the account is scheduled for deletion at {account.scheduled_deletion_at.isoformat()} already")
    await set_disabled(unit, True, account.disabled_reason)
    await unit.update(account, scheduled_deletion_at=unit.at + GRACE)
    return account


async def cancel_deletion(unit: UnitOfWork, *, by_operator: bool = False) -> Account:
    """Lets an account live on, enabled.

    Raises:
        Conflict: It was not to be deleted, or an operator locked it.
    """
    account = await unit.account()
    _refuse_if_locked(account, by_operator)
    if account.scheduled_deletion_at is None:
        raise Conflict("the account is not scheduled for deletion")
    await unit.update(account, scheduled_deletion_at=None)
    return await set_disabled(unit, False)


async def delete_now(unit: UnitOfWork) -> None:
    """Deletes an account with everything in it.

    Raises:
        Conflict: It is not disabled.
    """
    account = await unit.account()
    if not account.is_disabled:
        raise Conflict("only an account that is disabled can be deleted at once")
    await unit.delete_account()


async def sweep(db: Database, at: datetime) -> int:
    """Deletes the accounts whose week is over; how many."""
    count = 0
    for account_id in await rows.due_for_deletion(db, at):
        async with db.writing(subjects.system(account_id)) as unit:
            account = await unit.session.get(Account, account_id)
            due_at = account.scheduled_deletion_at if account is not None else None
            # It may have been cancelled, or deleted by another portal, since the list was made.
            if due_at is not None and due_at <= at:
                await unit.delete_account()
                count += 1
    return count


def _refuse_if_locked(account: Account, by_operator: bool) -> None:
    if account.lock_enabled_at is not None and not by_operator:
        raise Conflict("the account is locked: ask its operator")
