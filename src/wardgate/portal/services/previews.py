"""What a change would do to access, before it is made: it is made in a transaction that is rolled back, by the services
that make it for real, and the access of before and after is compared.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import select

from wardgate.portal.db.access_guard import enabled_tests, failure, spec_of
from wardgate.portal.db.access_tables import AccessRevision, PolicyTest
from wardgate.portal.db.engine import Database
from wardgate.portal.db.purge import LOG_RETENTION
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.snapshots import as_changes
from wardgate.portal.domain.policy_tests import broken_by, holds, is_concerned
from wardgate.portal.domain.reach import KINDS, PairChange, Touched, differences, monday_of, touched_by
from wardgate.portal.domain.snapshot import AccessSnapshot
from wardgate.portal.domain.subjects import Subject

MAX_CHANGES: Final = 50
TestState = Literal["holds", "breaks", "stays_broken", "mends"]


@dataclass(frozen=True, slots=True)
class TestEffect:
    """What becomes of a policy test that the change touches.

    Attributes:
        failure: For one that breaks: how many pairs are not as it has them, and some of them.
    """

    id: str
    name: str
    state: TestState
    failure: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """The answer.

    Attributes:
        revision: The account's access revision that it is true of.
        changes: By kind, then by name of actor and resource.
        is_complete: Whether all pairs were looked at; there is a bound.
        ended_authorizations: How many grants end at once.
    """

    revision: int
    week: datetime
    before: AccessSnapshot
    after: AccessSnapshot
    changes: Sequence[PairChange]
    is_complete: bool
    ended_authorizations: int
    tests: Sequence[TestEffect]


async def preview(
    db: Database, subject: Subject, make: Callable[[UnitOfWork], Awaitable[None]], as_of: datetime | None = None
) -> Preview:
    """Works out what a change would do.

    Args:
        make: Makes it; whatever the services refuse is raised from here.
        as_of: The time whose policies the change is put on; it must be possible now, too.

    Raises:
        InvalidInput: The change log does not reach back to `as_of`.
    """
    async with db.trial(subject) as unit:
        # Nobody changes access meanwhile, so what is found is what the change would do at this revision.
        lock = select(AccessRevision).where(AccessRevision.account_id == unit.account_id).with_for_update()
        await unit.session.execute(lock)
        revision, before = await db.snapshots.current(unit)
        if as_of is not None:
            before = await db.snapshots.as_of(unit, as_of, unit.at, LOG_RETENTION)
        rows = await enabled_tests(unit)
        await make(unit)
        changes = as_changes(unit)
        ended = sum(one.object == "policy_authorizations" and one.after is None for one in unit.changes)
        at = as_of or unit.at
    after = before.changed(changes)
    touched = touched_by(changes)
    found, is_complete = differences(before, after, touched, monday_of(at))
    tests = [effect for row in rows if (effect := _effect(row, before, after, touched, at)) is not None]
    ordered = sorted(found, key=lambda one: _place(one, before, after))
    return Preview(revision, monday_of(at), before, after, ordered, is_complete, ended, tests)


def _place(change: PairChange, before: AccessSnapshot, after: AccessSnapshot) -> tuple[int, str, str, str, str]:
    return (
        KINDS.index(change.kind),
        name_of_actor(change.actor_id, after, before),
        name_of_resource(change.resource_id, after, before),
        change.actor_id,
        change.resource_id,
    )


def name_of_actor(actor_id: str, *snapshots: AccessSnapshot) -> str:
    """The actor's name in the first snapshot that has it."""
    return next((one.actors[actor_id].name for one in snapshots if actor_id in one.actors), "")


def name_of_resource(resource_id: str, *snapshots: AccessSnapshot) -> str:
    """The resource's name in the first snapshot that has it."""
    return next((one.resources[resource_id].name for one in snapshots if resource_id in one.resources), "")


def _effect(
    row: PolicyTest, before: AccessSnapshot, after: AccessSnapshot, touched: Touched, at: datetime
) -> TestEffect | None:
    test = spec_of(row)
    if not is_concerned(test, before, after, touched):
        return None
    pairs = broken_by(test, before, after, touched, at)
    if pairs:
        return TestEffect(row.id, row.name, "breaks", failure(row, pairs, before, after))
    if row.broken_at is None:
        return TestEffect(row.id, row.name, "holds")
    return TestEffect(row.id, row.name, "mends" if holds(test, after, at) else "stays_broken")
