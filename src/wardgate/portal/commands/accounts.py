"""`wardgate portal accounts ...` and `wardgate portal limits`: what an operator does to accounts."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from wardgate.ids import AccountId
from wardgate.portal.commands.base import DatabaseOption, JsonOption, reported, run_on, system_of
from wardgate.portal.db import plans as rows
from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Account
from wardgate.portal.domain import plans as rules
from wardgate.portal.domain import subjects
from wardgate.portal.services import account_life, accounts, plans

app = typer.Typer(help="List, make and end accounts.", no_args_is_help=True, rich_markup_mode=None)

_Which = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's slug or id.")]


@app.command("list")
def list_accounts(database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Show every account, and whether it is in use."""
    with reported():
        found = run_on(database, _list)
    if as_json:
        print(json.dumps(found))
        return
    for one in found:
        print(f"{one['slug']:<24} {one['id']}  {one['users']:>6} users  {one['state']}")


@app.command()
def create(
    slug: Annotated[str, typer.Argument(help="3 to 100 letters, digits and underscores.")],
    name: Annotated[str | None, typer.Option("--name", help="What people see; the slug unless given.")] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an account without people; `wardgate portal setup` makes one with an admin and an API token."""
    fields = {"slug": slug, "name": name} if name else {"slug": slug}
    with reported():
        made = run_on(database, lambda db: _create(db, fields), may_create=True)
    _show(made, as_json, "is made")


@app.command()
def disable(
    account: _Which,
    reason: Annotated[str | None, typer.Option("--reason", help="Kept with the account.")] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """End every session and grant of an account, and let nobody in."""
    done = _do(database, account, lambda unit: accounts.set_disabled(unit, True, reason))
    _show(done, as_json, "is disabled")


@app.command()
def enable(account: _Which, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Let people in again; they sign in anew."""
    _show(_do(database, account, account_life.enable), as_json, "is enabled")


@app.command()
def delete(
    account: _Which,
    now: Annotated[bool, typer.Option("--now", help="At once, which needs an account that is disabled.")] = False,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Disable an account, and delete it with everything in it in 7 days."""
    if now:
        _show(_do(database, account, _delete_now), as_json, "is deleted")
        return
    done = _do(database, account, lambda unit: account_life.schedule_deletion(unit, by_operator=True))
    _show(done, as_json, f"is disabled, and will be deleted at {done['scheduled_deletion_at']}")


@app.command("cancel-deletion")
def cancel_deletion(account: _Which, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Let an account live on that was to be deleted; it is enabled."""
    done = _do(database, account, lambda unit: account_life.cancel_deletion(unit, by_operator=True))
    _show(done, as_json, "is enabled, and will not be deleted")


@app.command()
def lock(account: _Which, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Keep the account's own admins from scheduling its deletion, and from cancelling it."""
    _show(_do(database, account, lambda unit: account_life.set_locked(unit, True)), as_json, "is locked")


@app.command()
def unlock(account: _Which, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Leave the account's deletion to its admins again."""
    _show(_do(database, account, lambda unit: account_life.set_locked(unit, False)), as_json, "is unlocked")


@app.command()
def rename(
    account: _Which,
    name: Annotated[str | None, typer.Option("--name", help="What people see.")] = None,
    slug: Annotated[str | None, typer.Option("--slug", help="What people type to sign in.")] = None,
    legal_name: Annotated[str | None, typer.Option("--legal-name", help="What an invoice would say.")] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change an account's name, slug or legal name."""
    fields = {"name": name, "slug": slug, "legal_name": legal_name}
    done = _do(database, account, lambda unit: account_life.rename(unit, fields))
    _show(done, as_json, f"is {done['name']} now")


def limits(
    account: _Which,
    some: Annotated[
        list[str] | None, typer.Option("--set", help="name=value, or name=unlimited; repeat it for several.")
    ] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what an account may have and what it uses, after setting some limits."""
    with reported():
        wanted = dict(rules.parse_limit(one) for one in some or ())
        shown = run_on(database, lambda db: _limits(db, account, wanted))
    if as_json:
        print(json.dumps(shown))
        return
    for name, one in shown["limits"].items():
        unset = "default" if one["used"] is None else rules.UNLIMITED
        limit = unset if one["limit"] is None else one["limit"]
        print(f"{name:<30} {limit!s:>10}" + ("" if one["used"] is None else f"   {one['used']} used"))
    for name, is_over in shown["exceeded"].items():
        if is_over:
            print(f"wardgate portal: {name.removesuffix('_limit_exceeded')}: over the limit")


async def _list(db: Database) -> list[dict[str, Any]]:
    found = []
    for account in await rows.all_accounts(db):
        async with db.scoped(subjects.system(AccountId(account.id))) as scope:
            users = (await rows.usage(scope, account.updated_at)).users
        found.append({**_facts(account), "users": users})
    return found


async def _create(db: Database, fields: Mapping[str, Any]) -> dict[str, Any]:
    return _facts(await accounts.create_account(db, fields))


async def _delete_now(unit: UnitOfWork) -> Account:
    account = await unit.account()
    await account_life.delete_now(unit)
    return account


async def _limits(db: Database, slug: str, wanted: Mapping[str, int | None]) -> dict[str, Any]:
    async with db.writing(await system_of(db, slug)) as unit:
        await plans.set_limits(unit, wanted)
        return {"limits": await plans.describe(unit), "exceeded": asdict(await plans.recompute(unit))}


def _do(database: str | None, slug: str, change: Callable[[UnitOfWork], Awaitable[Account]]) -> dict[str, Any]:
    async def work(db: Database) -> dict[str, Any]:
        async with db.writing(await system_of(db, slug)) as unit:
            return _facts(await change(unit))

    with reported():
        return run_on(database, work)


def _facts(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "slug": account.slug,
        "key": account.key,
        "name": account.name,
        "legal_name": account.legal_name,
        "state": _state(account),
        "disabled_reason": account.disabled_reason,
        "scheduled_deletion_at": _text(account.scheduled_deletion_at),
        "lock_enabled_at": _text(account.lock_enabled_at),
    }


def _state(account: Account) -> str:
    if account.scheduled_deletion_at is not None:
        return "to be deleted"
    return "disabled" if account.is_disabled else "active"


def _text(at: datetime | None) -> str | None:
    return at.isoformat(timespec="seconds") if at else None


def _show(done: dict[str, Any], as_json: bool, what: str) -> None:
    print(json.dumps(done) if as_json else f"wardgate portal: the account {done['slug']} {what}")
