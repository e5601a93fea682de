"""How portals read the outbox: every commit once, also a late one, and none is missed in silence."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text

from tests.unit.portal.helpers import SECRET_KEY, Lab, ManualClock, make_lab
from wardgate.portal.clock import SystemClock
from wardgate.portal.db import outbox
from wardgate.portal.db.engine import Database
from wardgate.portal.db.outbox import Reader
from wardgate.portal.services import groups


async def change(db: Database, lab: Lab, name: str) -> None:
    async with db.writing(lab.subject) as unit:
        await groups.create_group(unit, {"name": name})


async def names(reader: Reader) -> list[str]:
    """The names of all groups that were made since."""
    found: list[str] = []
    while True:
        batch = await reader.read()
        assert not batch.is_cut_off
        found += [(entry.after or {})["name"] for entry in batch.entries if entry.object == "groups"]
        reader.advance(batch)
        if not batch.has_more:
            return found


@pytest.fixture
async def lab(db: Database) -> Lab:
    return await make_lab(db)


@pytest.fixture
async def reader(db: Database, lab: Lab) -> Reader:
    reader = Reader(db)
    await reader.start()
    return reader


async def test_a_portal_reads_what_is_committed_after_its_start_in_order(
    db: Database, lab: Lab, reader: Reader
) -> None:
    await change(db, lab, "one")
    await change(db, lab, "two")

    assert await reader.is_behind()
    assert await names(reader) == ["one", "two"]
    assert await names(reader) == []
    assert not await reader.is_behind()


async def test_every_portal_reads_everything(db: Database, lab: Lab, reader: Reader) -> None:
    other = Reader(db)
    await other.start()
    await change(db, lab, "one")

    assert await names(reader) == ["one"]
    assert await names(other) == ["one"]


async def test_what_was_not_told_is_read_again(db: Database, lab: Lab, reader: Reader) -> None:
    await change(db, lab, "one")
    await reader.read()

    assert await names(reader) == ["one"]


async def test_a_commit_larger_than_a_batch_is_not_torn(
    db: Database, lab: Lab, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BATCH", 3)
    async with db.writing(lab.subject) as unit:
        for number in range(8):
            await groups.create_group(unit, {"name": f"first {number}"})
    for number in range(4):
        await change(db, lab, f"second {number}")

    sizes = []
    while (batch := await reader.read()).entries:
        sizes.append(len(batch.entries))
        reader.advance(batch)

    assert sizes == [8, 3, 1]


async def test_an_entry_of_a_transaction_that_is_still_open_is_not_read(db: Database, lab: Lab, reader: Reader) -> None:
    async with db.writing(lab.subject) as unit:
        await groups.create_group(unit, {"name": "open"})
        await unit.record()
        assert await names(reader) == []

    assert await names(reader) == ["open", "open"], "it was recorded twice, above and on leaving"


async def test_a_transaction_that_commits_late_is_neither_skipped_nor_waited_for(
    db: Database, lab: Lab, reader: Reader
) -> None:
    if db.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    quick = await make_lab(db, slug="quick")  # changes of one account wait for each other
    await names(reader)
    may_commit, has_written = asyncio.Event(), asyncio.Event()

    async def late() -> None:
        async with db.writing(lab.subject) as unit:
            await groups.create_group(unit, {"name": "late"})
            await unit.record()
            has_written.set()
            await may_commit.wait()

    writing = asyncio.create_task(late())
    await has_written.wait()
    await change(db, quick, "one")
    await change(db, quick, "two")
    assert await names(reader) == ["one", "two"], "quick ones do not wait for a slow one"
    await change(db, quick, "three")
    may_commit.set()
    await writing

    found = await names(reader)

    assert sorted(set(found)) == ["late", "three"]
    assert await names(reader) == []


async def test_a_commit_in_the_middle_of_a_long_reading_is_read_after_it(
    db: Database, lab: Lab, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BATCH", 2)
    for number in range(5):
        await change(db, lab, f"before {number}")
    batch = await reader.read()
    reader.advance(batch)
    await change(db, lab, "between")

    assert await names(reader) == ["before 2", "before 3", "before 4", "between"]


async def test_after_a_crash_of_the_server_the_last_moments_are_read_again(
    db: Database, lab: Lab, database_url: str, reader: Reader
) -> None:
    if db.is_sqlite:
        pytest.skip("there is no server")
    others = Database(database_url, SystemClock(), SECRET_KEY)  # entries bear the time of their portal
    await change(others, lab, "one")
    assert await names(reader) == ["one"]

    async with others.unscoped() as session:
        mine = "datname = current_database() AND pid <> pg_backend_pid()"
        await session.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}"))

    assert await names(reader) == ["one"], "again"
    assert await names(reader) == []
    await change(others, lab, "two")
    assert await names(reader) == ["two"]
    await others.close()


async def test_old_entries_go_and_nobody_who_read_them_minds(
    db: Database, lab: Lab, reader: Reader, clock: ManualClock
) -> None:
    await change(db, lab, "old")
    assert await names(reader) == ["old"]
    clock.advance(outbox.RETENTION.total_seconds() + 1)
    await change(db, lab, "new")

    await outbox.prune(db, clock.utc_now() - outbox.RETENTION)

    assert await names(reader) == ["new"]
    await change(db, lab, "newer")
    assert await names(reader) == ["newer"]


async def test_a_portal_that_missed_entries_knows(db: Database, lab: Lab, reader: Reader, clock: ManualClock) -> None:
    await change(db, lab, "missed")
    clock.advance(1)
    await change(db, lab, "also missed")
    clock.advance(outbox.RETENTION.total_seconds())
    await change(db, lab, "new")
    await outbox.prune(db, clock.utc_now() - timedelta(minutes=1))

    assert (await reader.read()).is_cut_off
    assert await names(reader) == [], "it starts again at the newest"
    await change(db, lab, "newer")
    assert await names(reader) == ["newer"]


async def test_the_newest_entry_stays_so_that_no_id_comes_twice(
    db: Database, lab: Lab, reader: Reader, clock: ManualClock
) -> None:
    await change(db, lab, "one")
    assert await names(reader) == ["one"]
    clock.advance(3600)
    await outbox.prune(db, clock.utc_now())
    await outbox.prune(db, clock.utc_now())

    await change(db, lab, "two")

    assert await names(reader) == ["two"]


async def test_clients_elsewhere_are_asked_to_refresh_through_the_outbox(
    db: Database, lab: Lab, reader: Reader
) -> None:
    pairs = [(f"client {number}", "resource") for number in range(outbox.BATCH + 1)]

    await outbox.request_refresh(db, lab.account.id, pairs)

    batch = await reader.read()
    assert [len((entry.after or {})["pairs"]) for entry in batch.entries] == [outbox.BATCH, 1]
