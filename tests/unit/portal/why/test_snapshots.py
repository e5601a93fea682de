"""Snapshots of access: kept ones are led forwards, past ones rebuilt from the change log, and both tell the truth."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.unit.portal.helpers import SECRET_KEY, Lab, ManualClock, make_lab
from tests.unit.portal.why.changing import Operation, open_account, operations
from wardgate.errors import InvalidInput, NotFound
from wardgate.portal.db.access import rules_of_actor
from wardgate.portal.db.engine import Database
from wardgate.portal.db.snapshots import Snapshots, load
from wardgate.portal.db.tables import Actor
from wardgate.portal.domain.snapshot import AccessSnapshot
from wardgate.portal.services import groups, policies

RETENTION = timedelta(days=90)
random_runs = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # an example takes a tenth of a second: shrinking would take minutes
)


@random_runs
@given(some=st.lists(operations, min_size=1, max_size=12), pauses=st.lists(st.integers(0, 2), min_size=12, max_size=12))
def test_the_past_is_rebuilt_as_it_was_and_the_present_is_never_stale(
    migrated: Path, some: list[Operation], pauses: list[int]
) -> None:
    async def run(folder: Path) -> None:
        account = await open_account(migrated, folder)
        taken: dict[datetime, AccessSnapshot] = {}
        try:
            for operation, pause in zip(some, pauses, strict=False):
                account.clock.advance(pause)
                await account.make(operation)
                async with account.db.scoped(account.subject) as scope:
                    truth = await load(scope)
                    assert (await account.db.snapshots.current(scope))[1] == truth
                taken[account.clock.utc_now()] = truth
            account.clock.advance(1)
            for at, truth in taken.items():
                async with account.db.scoped(account.subject) as scope:
                    now = account.clock.utc_now()
                    assert await Snapshots().as_of(scope, at, now, RETENTION) == truth
                    assert await account.db.snapshots.as_of(scope, at, now, RETENTION) == truth
        finally:
            await account.db.close()

    with TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


@random_runs
@given(some=st.lists(operations, max_size=10))
def test_a_snapshot_gives_the_rules_that_decide_about_requests(migrated: Path, some: list[Operation]) -> None:
    async def run(folder: Path) -> None:
        account = await open_account(migrated, folder)
        try:
            for operation in some:
                account.clock.advance(1)
                await account.make(operation)
            async with account.db.scoped(account.subject) as scope:
                _, snapshot = await account.db.snapshots.current(scope)
                for actor in await scope.all(scope.select(Actor)):
                    known = snapshot.actors[actor.id]
                    assert snapshot.rules_of(known) == await rules_of_actor(scope, actor)
                    for resource_id in snapshot.resources:
                        rules = await rules_of_actor(scope, actor, resource_id)
                        assert snapshot.rules_of(known, resource_id) == rules
        finally:
            await account.db.close()

    with TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


async def test_a_change_by_another_process_is_seen(db: Database, database_url: str, clock: ManualClock) -> None:
    lab = await make_lab(db)
    async with db.scoped(lab.subject) as scope:
        revision, before = await db.snapshots.current(scope)
    other = Database(database_url, clock, SECRET_KEY)
    async with other.writing(lab.subject) as unit:
        await groups.change_members(unit, lab.group.id, remove=[lab.actor.id])
    await other.close()

    async with db.scoped(lab.subject) as scope:
        later, after = await db.snapshots.current(scope)

    assert later == revision + 1
    assert lab.actor.id in before.members[lab.group.id]
    assert lab.group.id not in after.members


async def test_a_change_that_is_rolled_back_leaves_no_trace(db: Database) -> None:
    lab = await make_lab(db)
    with pytest.raises(NotFound):
        await delete_twice(db, lab)
    async with db.trial(lab.subject) as unit:
        await groups.delete_group(unit, lab.group.id)

    async with db.scoped(lab.subject) as scope:
        revision, snapshot = await db.snapshots.current(scope)

    assert revision == 2
    assert lab.group.id in snapshot.groups


@pytest.mark.parametrize(
    ("days", "why"), [(1, "in the future"), (-1, "before the account was made"), (-89, "before the account")]
)
async def test_times_without_a_change_log_are_refused(db: Database, clock: ManualClock, days: int, why: str) -> None:
    lab = await make_lab(db)

    async with db.scoped(lab.subject) as scope:
        with pytest.raises(InvalidInput, match=why):
            await db.snapshots.as_of(scope, clock.utc_now() + timedelta(days=days), clock.utc_now(), RETENTION)


async def test_the_past_ends_where_the_change_log_was_cut(db: Database, clock: ManualClock) -> None:
    lab = await make_lab(db)
    made_at = clock.utc_now()
    clock.advance(timedelta(days=100).total_seconds())
    assert lab.policy is not None
    async with db.writing(lab.subject) as unit:
        await policies.delete_policy(unit, lab.policy.id)
    clock.advance(1)

    async with db.scoped(lab.subject) as scope:
        within = await db.snapshots.as_of(scope, made_at + timedelta(days=20), clock.utc_now(), RETENTION)
        with pytest.raises(InvalidInput, match="before the change log begins"):
            await db.snapshots.as_of(scope, made_at + timedelta(days=10), clock.utc_now(), RETENTION)

    assert lab.policy.id in within.policies


async def test_only_so_many_facts_are_kept(db: Database) -> None:
    labs = [await make_lab(db, slug=slug) for slug in ("one", "two", "three")]
    kept = Snapshots(max_facts=20)

    for lab in labs:
        async with db.scoped(lab.subject) as scope:
            _, snapshot = await kept.current(scope)
            assert snapshot.actors

    assert 8 < snapshot.size <= 10
    assert len(kept) == 2


async def delete_twice(db: Database, lab: Lab) -> None:
    async with db.writing(lab.subject) as unit:
        await groups.delete_group(unit, lab.group.id)
        await groups.delete_group(unit, lab.group.id)
