"""Who runs which regular job: leases by compare-and-set, the same on SQLite and on PostgreSQL."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast
from uuid import uuid4

from sqlalchemy import CursorResult, or_, select, update
from sqlalchemy.exc import IntegrityError

from wardgate.portal.db.engine import Database
from wardgate.portal.db.node_tables import JobRow

_MAX_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a job until a time."""

    name: str
    id: str
    failures_in_row: int


async def all_jobs(db: Database) -> Sequence[JobRow]:
    """Every job that any portal has known, by name."""
    async with db.unscoped() as session:
        return (await session.scalars(select(JobRow).order_by(JobRow.name))).all()


async def ensure(db: Database, due: Iterable[tuple[str, datetime]]) -> None:
    """Makes rows for jobs that have none yet; those that are there stay as they are."""
    known = {row.name for row in await all_jobs(db)}
    for name, due_at in due:
        if name in known:
            continue
        try:
            async with db.unscoped_write() as session:
                session.add(JobRow(name=name, due_at=due_at))
                await session.flush()
        except IntegrityError:
            continue  # another portal was quicker


async def claim(
    db: Database, name: str, *, holder: str, at: datetime, until: datetime, is_forced: bool = False
) -> Lease | None:
    """Takes a job that is due and that nobody runs.

    Args:
        holder: The portal's name, for people to read.
        until: When others may take it over, unless it is renewed.
        is_forced: Whether it need not be due.
    """
    lease = uuid4().hex
    free = [JobRow.name == name, or_(JobRow.lease.is_(None), JobRow.lease_until <= at)]
    if not is_forced:
        free.append(JobRow.due_at <= at)
    values = {"lease": lease, "holder": holder, "lease_until": until, "started_at": at}
    if not await _set(db, free, values):
        return None
    async with db.unscoped() as session:
        row = await session.get(JobRow, name)
        return Lease(name, lease, row.failures_in_row if row else 0)


async def renew(db: Database, lease: Lease, until: datetime) -> bool:
    """Keeps a job for longer; false if another portal has it now."""
    return await _set(db, [JobRow.name == lease.name, JobRow.lease == lease.id], {"lease_until": until})


async def release(db: Database, lease: Lease) -> None:
    """Gives a job back unfinished: it stays due."""
    values = {"lease": None, "holder": None, "lease_until": None}
    await _set(db, [JobRow.name == lease.name, JobRow.lease == lease.id], values)


async def finish(
    db: Database, lease: Lease, *, at: datetime, duration_s: float, due_at: datetime, error: str | None
) -> bool:
    """Notes how a run went and when the next is due; false if another portal has the job now."""
    failed = error is not None
    values: dict[str, Any] = {
        "lease": None,
        "lease_until": None,
        "finished_at": at,
        "duration_s": duration_s,
        "due_at": due_at,
        "last_result": "failed" if failed else "ok",
        "last_error": error[:_MAX_ERROR] if error else None,
        "runs": JobRow.runs + 1,
        "failures": JobRow.failures + int(failed),
        "failures_in_row": JobRow.failures_in_row + 1 if failed else 0,
    }
    return await _set(db, [JobRow.name == lease.name, JobRow.lease == lease.id], values)


async def _set(db: Database, conditions: Iterable[Any], values: dict[str, Any]) -> bool:
    async with db.unscoped_write() as session:
        done = await session.execute(update(JobRow).where(*conditions).values(values))
        return cast("CursorResult[Any]", done).rowcount == 1
