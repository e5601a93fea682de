"""Sinks' rows as delivery needs them: which are due, what is to be sent, how far it got.

Source: portal-domain-3 B6.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from wardgate.ids import AccountId
from wardgate.portal.db.engine import Database
from wardgate.portal.db.log_tables import LogSink, LogSinkCursor
from wardgate.portal.db.logs import TABLES, AnyLog
from wardgate.portal.db.tables import Account
from wardgate.portal.domain import log_ids, subjects
from wardgate.portal.domain.log_ids import Stream

FEATURE: Final = "log_sinks"
SETTLED: Final = timedelta(seconds=30)
"""After this a row has no older ones that are still to be committed."""
_PASSES: Final = 32
_CLOCKS_DIFFER: Final = timedelta(seconds=1)
"""What was numbered so long after a reading may have been there before it: another portal's clock may be ahead."""


async def due(db: Database) -> list[LogSink]:
    """All sinks that are to deliver: not disabled, of accounts that are not disabled and have the feature."""
    async with db.unscoped() as session:
        query = (
            select(LogSink, Account.features)
            .join(Account, Account.id == LogSink.account_id)
            .where(LogSink.is_disabled.is_(False), Account.is_disabled.is_(False))
            .order_by(LogSink.inserted_at, LogSink.id)
        )
        return [sink for sink, features in (await session.execute(query)).all() if features.get(FEATURE)]


@dataclass(frozen=True, slots=True)
class Cursors:
    """Those of one stream of a sink; only a retroactive one has a backfill."""

    live: LogSinkCursor
    backfill: LogSinkCursor | None


async def cursors(db: Database, sink: LogSink, stream: Stream, at: datetime) -> Cursors:
    """The cursors of a stream, made when it is first delivered: what came before is then the backfill's."""
    async with db.unscoped() as session:
        found = await _find_cursors(session, sink, stream)
    if "live" not in found:
        await _seed(db, sink, stream, at)
        async with db.unscoped() as session:
            found = await _find_cursors(session, sink, stream)
    return Cursors(found["live"], found.get("backfill"))


async def _find_cursors(session: AsyncSession, sink: LogSink, stream: Stream) -> dict[str, LogSinkCursor]:
    query = select(LogSinkCursor).where(*_of_stream(sink, stream))
    return {one.kind: one for one in (await session.scalars(query)).all()}


def _of_stream(sink: LogSink, stream: Stream) -> list[Any]:
    cursor = LogSinkCursor
    return [cursor.account_id == sink.account_id, cursor.sink_id == sink.id, cursor.stream == stream]


async def _seed(db: Database, sink: LogSink, stream: Stream, at: datetime) -> None:
    table: Any = TABLES[stream]
    async with db.unscoped_write() as session:
        newest = select(func.max(table.seq), func.count()).where(table.account_id == sink.account_id)
        last, total = (await session.execute(newest)).one()
        key = {"account_id": sink.account_id, "sink_id": sink.id, "stream": stream, "inserted_at": at}
        session.add(LogSinkCursor(**key, kind="live", cursor=last or 0, passes=[[last or 0, log_ids.seq_at(at)]]))
        if sink.retroactive:
            session.add(
                LogSinkCursor(**key, kind="backfill", cursor=0, until_seq=last or 0, backfill_total=total, passes=[])
            )


async def rows_after(
    db: Database, sink: LogSink, stream: Stream, after: int, until: int, limit: int
) -> Sequence[AnyLog]:
    """The next rows of a stream in their order, `after` < seq <= `until`, with all of the last number."""
    table: Any = TABLES[stream]
    query = select(table).where(table.account_id == sink.account_id, table.seq > after, table.seq <= until)
    async with db.unscoped() as session:
        rows: list[AnyLog] = list((await session.scalars(query.order_by(table.seq).limit(limit))).all())
        if len(rows) == limit:
            last = rows[-1].seq
            same = select(table).where(table.account_id == sink.account_id, table.seq == last)
            rows = [row for row in rows if row.seq != last] + list((await session.scalars(same)).all())
    return rows


async def advance(
    db: Database, cursor: LogSinkCursor, to: int, sent: int, read_at: datetime, at: datetime
) -> LogSinkCursor | None:
    """Moves a cursor after the destination has acknowledged; `None` if another run has moved it meanwhile.

    Args:
        sent: How many events the destination took.
        read_at: When the rows were read.
    """
    passes = [*cursor.passes, [to, log_ids.seq_at(read_at + _CLOCKS_DIFFER)]][-_PASSES:]
    moved = {
        "cursor": to,
        "synced_count": LogSinkCursor.synced_count + sent,
        "passes": passes,
        "last_synced_at": at,
    }
    return await _change(db, cursor, moved)


async def complete(db: Database, cursor: LogSinkCursor, at: datetime) -> None:
    """Marks a backfill as done."""
    await _change(db, cursor, {"completed_at": at})


async def _change(db: Database, cursor: LogSinkCursor, values: dict[str, Any]) -> LogSinkCursor | None:
    table = LogSinkCursor
    same = (
        table.account_id == cursor.account_id,
        table.sink_id == cursor.sink_id,
        table.stream == cursor.stream,
        table.kind == cursor.kind,
        table.cursor == cursor.cursor,
    )
    async with db.unscoped_write() as session:
        statement = update(table).where(*same).values(**values).returning(table.account_id)
        if (await session.execute(statement)).first() is None:
            return None
    key = (cursor.account_id, cursor.sink_id, cursor.stream, cursor.kind)
    async with db.unscoped() as session:
        return await session.get(table, key)


async def note_failure(db: Database, sink: LogSink, message: str, *, disable: bool, reason: str) -> None:
    """Keeps what went wrong, and from when on; disabling is a change that the audit log tells of."""
    async with db.writing(subjects.system(AccountId(sink.account_id))) as unit:
        row = await unit.find(LogSink, sink.id)
        if row is None or row.is_disabled:
            return
        noted: dict[str, Any] = {"error_message": message[:1024], "errored_at": row.errored_at or unit.at}
        if disable:
            await unit.update(row, **noted, is_disabled=True, disabled_reason=reason)
        else:
            await unit.update(row, silent=True, **noted)


async def clear_failure(db: Database, sink: LogSink) -> None:
    """Forgets what went wrong, after a delivery; this enables nothing."""
    async with db.writing(subjects.system(AccountId(sink.account_id))) as unit:
        row = await unit.find(LogSink, sink.id)
        if row is not None and not row.is_disabled:
            await unit.update(row, silent=True, error_message=None, errored_at=None)


async def progress(db: Database, account_id: str) -> list[LogSinkCursor]:
    """How far each stream of an account's sinks is."""
    async with db.unscoped() as session:
        query = select(LogSinkCursor).where(LogSinkCursor.account_id == account_id)
        order = (LogSinkCursor.sink_id, LogSinkCursor.stream, LogSinkCursor.kind)
        return list((await session.scalars(query.order_by(*order))).all())
