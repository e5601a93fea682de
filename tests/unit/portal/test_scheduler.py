"""Regular jobs: one portal at a time runs each, and what fails or is killed is run again."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tests.unit.portal.helpers import ManualClock
from wardgate.errors import Conflict, NotFound
from wardgate.portal.channels.hub import Hub
from wardgate.portal.config import Settings
from wardgate.portal.db import jobs as leases
from wardgate.portal.db.engine import Database
from wardgate.portal.db.node_tables import JobRow
from wardgate.portal.domain.schedules import Daily, Every
from wardgate.portal.scheduler import LEASE, Job, Scheduler

Work = Callable[[Hub], Awaitable[None]]


class Counting:
    """A job that counts its runs, fails as told, and waits as told."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.problem: Exception | None = None
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.has_begun = asyncio.Event()

    async def __call__(self, hub: Hub) -> None:
        self.runs.append(hub.node_id)
        self.has_begun.set()
        await self.may_end.wait()
        if self.problem:
            raise self.problem


def hub_of(db: Database, clock: ManualClock) -> Hub:
    return Hub(Settings(), db, clock)


def scheduler_of(db: Database, clock: ManualClock, *jobs: Job) -> Scheduler:
    return Scheduler(hub_of(db, clock), jobs)


async def row_of(db: Database, name: str) -> JobRow:
    return next(row for row in await leases.all_jobs(db) if row.name == name)


async def pass_time(scheduler: Scheduler, clock: ManualClock, seconds: float) -> None:
    await scheduler.start_due()
    clock.advance(seconds)
    await scheduler.start_due()
    await scheduler.wait_idle()


async def test_a_job_runs_when_it_is_due_and_not_before(db: Database, clock: ManualClock) -> None:
    work = Counting()
    scheduler = scheduler_of(db, clock, Job("count", Every(5), work))

    await pass_time(scheduler, clock, 299)
    assert work.runs == []

    await pass_time(scheduler, clock, 1)
    row = await row_of(db, "count")
    assert len(work.runs) == 1
    assert (row.last_result, row.runs, row.lease, row.due_at - clock.utc_now()) == ("ok", 1, None, timedelta(minutes=5))


async def test_a_job_may_run_at_the_first_start(db: Database, clock: ManualClock) -> None:
    work = Counting()
    scheduler = scheduler_of(db, clock, Job("count", Daily(3), work, starts_at_once=True))

    await pass_time(scheduler, clock, 0)

    assert len(work.runs) == 1


async def test_it_says_when_to_look_again(db: Database, clock: ManualClock) -> None:
    scheduler = scheduler_of(db, clock, Job("count", Every(1, offset_s=10), Counting()))

    assert await scheduler.start_due() == pytest.approx(10)


async def test_of_many_portals_one_runs_a_job(db: Database, clock: ManualClock) -> None:
    work = Counting()
    job = Job("count", Every(1), work)
    schedulers = [scheduler_of(db, clock, job) for _ in range(4)]
    await asyncio.gather(*(one.start_due() for one in schedulers))

    for _ in range(5):
        clock.advance(60)
        await asyncio.gather(*(one.start_due() for one in schedulers))
        await asyncio.gather(*(one.wait_idle() for one in schedulers))

    assert len(work.runs) == 5


async def test_a_portal_that_was_down_for_days_runs_a_job_once(db: Database, clock: ManualClock) -> None:
    work = Counting()
    scheduler = scheduler_of(db, clock, Job("count", Every(5), work))
    await scheduler.start_due()
    clock.advance(3 * 24 * 3600)

    for _ in range(3):
        await scheduler.start_due()
        await scheduler.wait_idle()

    assert len(work.runs) == 1


async def test_a_failure_is_noted_tried_again_and_stops_no_other(db: Database, clock: ManualClock) -> None:
    bad, good = Counting(), Counting()
    bad.problem = RuntimeError("the disk is full" + "!" * 1000)
    scheduler = scheduler_of(db, clock, Job("bad", Daily(12, 1), bad), Job("good", Daily(12, 1), good))

    await pass_time(scheduler, clock, 60)

    row = await row_of(db, "bad")
    assert (len(bad.runs), len(good.runs)) == (1, 1)
    assert (row.last_result, row.failures, row.failures_in_row) == ("failed", 1, 1)
    assert row.last_error
    assert row.last_error.startswith("RuntimeError: the disk is full")
    assert len(row.last_error) <= 500
    bad.problem = None
    await pass_time(scheduler, clock, 60)
    row = await row_of(db, "bad")
    assert (len(bad.runs), row.last_result, row.failures, row.failures_in_row) == (2, "ok", 1, 0)


async def test_a_job_that_takes_too_long_is_ended(db: Database, clock: ManualClock) -> None:
    work = Counting()
    work.may_end.clear()
    scheduler = scheduler_of(db, clock, Job("slow", Every(1), work, timeout_s=0.05))

    await pass_time(scheduler, clock, 60)

    assert (await row_of(db, "slow")).last_error == "TimeoutError: "


async def test_a_killed_portals_job_is_taken_over_after_its_lease(db: Database, clock: ManualClock) -> None:
    killed, other = Counting(), Counting()
    killed.may_end.clear()
    first, second = (
        scheduler_of(db, clock, Job("j", Every(1), killed)),
        scheduler_of(db, clock, Job("j", Every(1), other)),
    )
    await first.start_due()
    clock.advance(60)
    await first.start_due()
    await killed.has_begun.wait()

    await second.start_due()
    await second.wait_idle()
    assert other.runs == []
    clock.advance(LEASE.total_seconds())
    await second.start_due()
    await second.wait_idle()

    assert len(other.runs) == 1
    killed.may_end.set()
    await first.wait_idle()
    assert (await row_of(db, "j")).runs == 1, "what the first portal did late does not count"


async def test_a_portal_that_stops_gives_its_job_back(db: Database, clock: ManualClock) -> None:
    stopped, other = Counting(), Counting()
    stopped.may_end.clear()
    first = scheduler_of(db, clock, Job("j", Every(1), stopped, starts_at_once=True))
    running = asyncio.create_task(first.run())
    await stopped.has_begun.wait()

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    second = scheduler_of(db, clock, Job("j", Every(1), other))
    await second.start_due()
    await second.wait_idle()

    assert len(other.runs) == 1


async def test_a_job_can_be_run_by_hand_but_not_twice_at_once(db: Database, clock: ManualClock) -> None:
    work = Counting()
    scheduler = scheduler_of(db, clock, Job("count", Daily(3), work))
    assert await scheduler.run_now("count") is None
    work.may_end.clear()
    work.has_begun.clear()
    running = asyncio.create_task(scheduler.run_now("count"))
    await work.has_begun.wait()

    with pytest.raises(Conflict, match="runs already"):
        await scheduler_of(db, clock, Job("count", Daily(3), work)).run_now("count")
    with pytest.raises(NotFound, match="there are count"):
        await scheduler.run_now("other")

    work.may_end.set()
    assert await running is None
    assert len(work.runs) == 2


def test_two_jobs_of_one_name_are_a_mistake(db: Database, clock: ManualClock) -> None:
    with pytest.raises(ValueError, match="same name"):
        scheduler_of(db, clock, Job("a", Every(1), Counting()), Job("a", Every(5), Counting()))
