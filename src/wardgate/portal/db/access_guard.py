"""Looks at every change of access before it is committed, whoever makes it: gives it its place in the order of changes,
and refuses it if it breaks a policy test, unless it is forced with a reason.

A test that is not as it should be already does not stand in the way of other changes: only what a change adds counts.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

from sqlalchemy import update

from wardgate.errors import PolicyTestFailed
from wardgate.portal.db import access_tables, snapshots
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Account
from wardgate.portal.domain.policy_tests import (
    PolicyTest,
    Violations,
    broken_by,
    holds,
    parse_moments,
    parse_origin,
)
from wardgate.portal.domain.reach import touched_by
from wardgate.portal.domain.snapshot import AccessSnapshot

MAX_EXAMPLES: Final = 5
MAX_REASON: Final = 1024


async def check(unit: UnitOfWork, kept: "snapshots.Snapshots") -> None:
    """Checks what a unit of work has changed.

    Raises:
        PolicyTestFailed: A policy test would no longer hold.
    """
    changes = snapshots.as_changes(unit)
    if not changes or not await _take_revision(unit):
        return
    touched = touched_by(changes)
    if not touched:
        return
    rows = await enabled_tests(unit)
    if not rows:
        return
    before = await kept.before(unit)
    after = before.changed(changes)
    broken = {}
    for row in rows:
        wrong = broken_by(spec_of(row), before, after, touched, unit.at)
        if wrong:
            broken[row.id] = (row, wrong)
    if broken and not unit.subject.force_reason:
        raise PolicyTestFailed([failure(row, wrong, before, after) for row, wrong in broken.values()])
    for row in rows:
        if row.id in broken:
            await _mark_broken(unit, row, unit.at)
        elif row.broken_at is not None and holds(spec_of(row), after, unit.at):
            await unit.update(row, broken_at=None, broken_reason=None, broken_by=None)
    revision = unit.revision or 0
    unit.after_commit(lambda: kept.keep(unit.account_id, revision, after))


async def _take_revision(unit: UnitOfWork) -> bool:
    """Counts the account's revision up, which locks it until the commit; whether the account is there."""
    table = access_tables.AccessRevision
    counted = (
        update(table)
        .where(table.account_id == unit.account_id)
        .values(revision=table.revision + 1)
        .returning(table.revision, table.changed_at)
    )
    found = (await unit.session.execute(counted)).one_or_none()
    if found is None:
        if await unit.session.get(Account, unit.account_id) is None:
            return False
        unit.session.add(table(account_id=unit.account_id, revision=1, changed_at=unit.at))
        await unit.session.flush()
        unit.revision = 1
        return True
    unit.revision = found.revision
    unit.at = max(unit.at, found.changed_at)
    await unit.session.execute(update(table).where(table.account_id == unit.account_id).values(changed_at=unit.at))
    return True


async def enabled_tests(unit: Any) -> Sequence["access_tables.PolicyTest"]:
    """The account's tests that are switched on, by name."""
    table = access_tables.PolicyTest
    return list(await unit.all(unit.select(table).where(table.is_enabled.is_(True)).order_by(table.name, table.id)))


async def _mark_broken(unit: UnitOfWork, row: "access_tables.PolicyTest", at: datetime) -> None:
    who = unit.subject.actor_name or unit.subject.kind
    reason = (unit.subject.force_reason or "")[:MAX_REASON]
    await unit.update(row, broken_at=at, broken_reason=reason, broken_by=who)


def spec_of(row: "access_tables.PolicyTest") -> PolicyTest:
    """A test's row as the rules take it."""
    return PolicyTest(
        row.id,
        row.name,
        row.who,
        row.resource,
        row.expectation,  # type: ignore[arg-type]
        parse_moments(row.at),
        parse_origin(row.origin),
    )


def failure(
    row: "access_tables.PolicyTest", wrong: Violations, before: AccessSnapshot, after: AccessSnapshot
) -> dict[str, object]:
    """What a problem says of a broken test; names are those of after the change, or else of before it."""
    pairs = ((actor_id, resource_id) for resource_id in sorted(wrong) for actor_id in sorted(wrong[resource_id]))
    return {
        "id": row.id,
        "name": row.name,
        "expectation": row.expectation,
        "count": sum(map(len, wrong.values())),
        "examples": [_named(*pair, before, after) for pair in islice(pairs, MAX_EXAMPLES)],
    }


def _named(actor_id: str, resource_id: str, before: AccessSnapshot, after: AccessSnapshot) -> dict[str, str | None]:
    actor = after.actors.get(actor_id) or before.actors.get(actor_id)
    resource = after.resources.get(resource_id) or before.resources.get(resource_id)
    return {
        "actor_id": actor_id or None,
        "actor_name": actor.name if actor else None,
        "resource_id": resource_id or None,
        "resource_name": resource.name if resource else None,
    }
