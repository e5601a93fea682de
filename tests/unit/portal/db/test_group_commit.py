"""Many pieces of work in one transaction: done when durable, and failing alone."""

import asyncio
from functools import partial

import pytest
from sqlalchemy import event, select

from tests.unit.portal.helpers import Lab, make_lab
from wardgate.ids import AccountId
from wardgate.portal.db.engine import Database
from wardgate.portal.db.group_commit import GroupCommit
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Actor, Group, Membership, OutboxEntry, Site, new_id
from wardgate.portal.domain import subjects


class Broken(Exception):
    """What a piece of work may raise."""


async def add_group(unit: UnitOfWork, name: str) -> str:
    await unit.insert(Group(account_id=unit.account_id, name=name))
    return name


async def names(db: Database, lab: Lab) -> set[str]:
    async with db.scoped(lab.subject) as scope:
        return {group.name for group in await scope.all(scope.select(Group))} - {"Everyone", "Engineering"}


async def test_pieces_that_come_together_share_a_transaction_and_all_are_there(db: Database) -> None:
    lab, writes, commits = await make_lab(db), GroupCommit(db), 0

    def count(connection: object) -> None:
        nonlocal commits
        commits += 1

    event.listen(db._engine.sync_engine, "commit", count)
    done = await asyncio.gather(*(writes.run(lab.subject, partial(add_group, name=f"group {n}")) for n in range(10)))

    assert done == [f"group {n}" for n in range(10)]
    assert await names(db, lab) == set(done)
    assert commits == 1


async def test_a_piece_that_fails_fails_alone(db: Database) -> None:
    lab, writes = await make_lab(db), GroupCommit(db)

    async def work(unit: UnitOfWork, number: int) -> str:
        name = await add_group(unit, f"group {number}")
        if number == 3:
            raise Broken
        return name

    results = await asyncio.gather(
        *(writes.run(lab.subject, partial(work, number=n)) for n in range(6)), return_exceptions=True
    )

    assert isinstance(results[3], Broken)
    assert await names(db, lab) == {f"group {n}" for n in range(6) if n != 3}


async def test_what_cannot_be_written_at_the_end_is_never_said_to_be_done(db: Database) -> None:
    lab, writes = await make_lab(db), GroupCommit(db)
    told: list[int] = []
    nobody = "00000000-0000-4000-8000-000000000000"

    async def work(unit: UnitOfWork, number: int) -> int:
        actor = nobody if number == 2 else (await unit.get(Actor, lab.actor.id)).id
        group = Group(account_id=unit.account_id, name=f"group {number}")
        await unit.insert(group)
        await unit.insert(Membership(account_id=unit.account_id, actor_id=actor, group_id=group.id), silent=True)
        unit.after_commit(lambda: told.append(number))
        return number

    results = await asyncio.gather(
        *(writes.run(lab.subject, partial(work, number=n), needs={Actor: lab.actor.id}) for n in range(4)),
        return_exceptions=True,
    )

    assert [one for one in results if isinstance(one, int)] == [0, 1, 3]
    assert isinstance(results[2], Exception)
    assert told == [0, 1, 3]
    assert await names(db, lab) == {"group 0", "group 1", "group 3"}


async def test_each_piece_is_its_own_commit_to_whoever_reads_the_outbox(db: Database) -> None:
    lab, writes = await make_lab(db), GroupCommit(db)
    woken: list[None] = []
    db.commit_listeners.append(lambda: woken.append(None))

    await asyncio.gather(*(writes.run(lab.subject, partial(add_group, name=f"group {n}")) for n in range(4)))

    async with db.unscoped() as session:
        rows = (await session.scalars(select(OutboxEntry).where(OutboxEntry.object == "groups"))).all()
    ours = [row for row in rows if (row.after or {})["name"].startswith("group ")]
    assert len({row.commit_id for row in ours}) == 4
    assert woken


async def test_rows_are_read_once_for_all(db: Database) -> None:
    lab, writes = await make_lab(db), GroupCommit(db)
    asked: list[str] = []

    async def work(unit: UnitOfWork) -> str:
        return (await unit.get(Site, lab.site.id)).name

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        if "FROM sites" in statement:
            asked.append(statement)

    event.listen(db._engine.sync_engine, "before_cursor_execute", note)
    found = await asyncio.gather(*(writes.run(lab.subject, work, needs={Site: lab.site.id}) for _ in range(20)))

    assert found == ["Vienna"] * 20
    assert len(asked) == 1


async def test_an_account_that_is_gone_is_said_to_each(db: Database) -> None:
    nobodys, writes = subjects.system(AccountId(new_id())), GroupCommit(db)

    async def work(unit: UnitOfWork) -> str:
        return (await unit.account()).slug

    results = await asyncio.gather(*(writes.run(nobodys, work) for _ in range(3)), return_exceptions=True)

    assert [type(one).__name__ for one in results] == ["NotFound"] * 3


@pytest.mark.parametrize("count", [1, 250])
async def test_any_number_is_done_in_the_order_in_which_it_came(db: Database, count: int) -> None:
    lab, writes = await make_lab(db), GroupCommit(db)
    order: list[int] = []

    async def work(unit: UnitOfWork, number: int) -> None:
        unit.after_commit(lambda: order.append(number))

    await asyncio.gather(*(writes.run(lab.subject, partial(work, number=n)) for n in range(count)))

    assert order == list(range(count))
