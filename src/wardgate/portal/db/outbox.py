"""The outbox: committed changes, which every portal of a database reads and tells its own channels.

A portal keeps its position in memory and starts at the newest entry: channels that join later get everything with their
init. On SQLite ids are in the order of commits and the position is an id. On PostgreSQL a transaction may commit after
one with a higher number, so the position is a snapshot (`xmin:xmax:running`): new is what a later snapshot sees and the
earlier one did not. That neither skips a commit that was late nor waits for transactions that run long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, func, select, text, tuple_, update

from wardgate.portal.db.engine import Database
from wardgate.portal.db.node_tables import OutboxState
from wardgate.portal.db.tables import OutboxEntry

BATCH: Final = 500
RETENTION: Final = timedelta(minutes=10)
_SEES: Final = (
    "pg_visible_in_snapshot(CAST(CAST({xid} AS TEXT) AS xid8), CAST(CAST(:{snapshot} AS TEXT) AS pg_snapshot))"
)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a portal has to tell its channels.

    Attributes:
        entries: In the order of commits as far as they depend on each other, none of a commit left out.
        is_cut_off: Whether entries were removed before this portal read them; it starts again at the newest one.
        has_more: Whether there is more to read at once.
    """

    entries: Sequence[OutboxEntry] = ()
    is_cut_off: bool = False
    has_more: bool = False


class Reader:
    """One portal's place in the outbox."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._position: _ById | _BySnapshot = _ById() if db.is_sqlite else _BySnapshot()

    async def start(self) -> None:
        """Goes to the newest entry."""
        async with self._db.unscoped() as session:
            await self._position.start(session)

    async def read(self) -> Batch:
        """The next entries; they count as read when `advance` is called."""
        async with self._db.unscoped() as session:
            if await self._position.is_cut_off(session):
                await self._position.start(session)
                return Batch(is_cut_off=True)
            entries = await self._position.read(session)
        return Batch(entries, has_more=len(entries) >= BATCH)

    def advance(self, batch: Batch) -> None:
        """A batch was told to the channels."""
        self._position.advance(batch)

    async def is_behind(self) -> bool:
        """Whether something is committed that the channels were not told yet."""
        async with self._db.unscoped() as session:
            return await session.scalar(select(OutboxEntry.id).where(*self._position.unread()).limit(1)) is not None


class _ById:
    """A position on SQLite."""

    def __init__(self) -> None:
        self._last = 0

    async def start(self, session: Any) -> None:
        self._last = await session.scalar(select(func.max(OutboxEntry.id))) or 0

    async def is_cut_off(self, session: Any) -> bool:
        pruned_to = await session.scalar(select(OutboxState.pruned_to).where(OutboxState.id == 1)) or 0
        if pruned_to > self._last:
            return True
        newest = await session.scalar(select(func.max(OutboxEntry.id))) or 0
        return bool(newest < self._last)  # somebody emptied the table, and ids start again

    def unread(self) -> list[Any]:
        return [OutboxEntry.id > self._last]

    async def read(self, session: Any) -> list[OutboxEntry]:
        query = select(OutboxEntry).where(OutboxEntry.id > self._last).order_by(OutboxEntry.id).limit(BATCH)
        entries = list((await session.scalars(query)).all())
        if len(entries) == BATCH:
            last = entries[-1]
            rest = select(OutboxEntry).where(OutboxEntry.commit_id == last.commit_id, OutboxEntry.id > last.id)
            entries += (await session.scalars(rest.order_by(OutboxEntry.id))).all()
        return entries

    def advance(self, batch: Batch) -> None:
        if batch.entries:
            self._last = batch.entries[-1].id


class _BySnapshot:
    """A position on PostgreSQL: everything that `_seen` sees was read, and of what `_target` sees all up to `_last`."""

    def __init__(self) -> None:
        self._seen = ""
        self._target = ""
        self._last = (0, 0)

    async def start(self, session: Any) -> None:
        self._seen = await session.scalar(text("SELECT CAST(pg_current_snapshot() AS TEXT)"))
        self._target, self._last = "", (0, 0)

    async def is_cut_off(self, session: Any) -> bool:
        was_seen = _SEES.format(xid="pruned_to", snapshot="seen")
        state = text(
            f"SELECT CAST(pg_current_snapshot() AS TEXT), pruned_to = 0 OR {was_seen} FROM outbox_state WHERE id = 1"
        )
        now, is_seen = (await session.execute(state, {"seen": self._seen})).one()
        self._target = self._target or now
        return not is_seen or _bounds(now)[1] < _bounds(self._seen)[0]  # else it is another, younger server

    def unread(self) -> list[Any]:
        is_seen = text(f"NOT {_SEES.format(xid='outbox.transaction_id', snapshot='seen')}").bindparams(seen=self._seen)
        return [OutboxEntry.transaction_id >= _bounds(self._seen)[0], is_seen]

    async def read(self, session: Any) -> list[OutboxEntry]:
        if self._target == self._seen:
            return []
        new = select(OutboxEntry).where(
            *self.unread(),
            OutboxEntry.transaction_id < _bounds(self._target)[1],
            text(_SEES.format(xid="outbox.transaction_id", snapshot="target")).bindparams(target=self._target),
        )
        place = tuple_(OutboxEntry.transaction_id, OutboxEntry.id)
        page = new.where(place > self._last).order_by(OutboxEntry.transaction_id, OutboxEntry.id).limit(BATCH)
        entries = list((await session.scalars(page)).all())
        if len(entries) == BATCH:
            last = entries[-1]
            rest = new.where(OutboxEntry.transaction_id == last.transaction_id, OutboxEntry.id > last.id)
            entries += (await session.scalars(rest.order_by(OutboxEntry.id))).all()
        return entries

    def advance(self, batch: Batch) -> None:
        if batch.has_more:
            self._last = (batch.entries[-1].transaction_id, batch.entries[-1].id)
        else:
            self._seen, self._target, self._last = self._target or self._seen, "", (0, 0)


def _bounds(snapshot: str) -> tuple[int, int]:
    """The oldest transaction that was still running, and the first that had not begun."""
    xmin, xmax, _ = snapshot.split(":")
    return int(xmin), int(xmax)


async def prune(db: Database, before: datetime) -> None:
    """Removes entries older than an instant and notes it, so that a portal that did not read them knows.

    The newest stays, since SQLite would give its id again.
    """
    async with db.unscoped_write() as session:
        newest = await session.scalar(select(func.max(OutboxEntry.id)))
        is_old = (OutboxEntry.inserted_at < before) & (OutboxEntry.id < (newest or 0))
        place = OutboxEntry.id if db.is_sqlite else OutboxEntry.transaction_id
        pruned_to = await session.scalar(select(func.max(place)).where(is_old))
        if pruned_to is None:
            return
        await session.execute(delete(OutboxEntry).where(is_old))
        await session.execute(
            update(OutboxState)
            .where(OutboxState.id == 1, OutboxState.pruned_to < pruned_to)
            .values(pruned_to=pruned_to)
        )
