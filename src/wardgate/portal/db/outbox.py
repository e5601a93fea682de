"""The outbox: committed changes, which every portal of a database reads and tells its own channels.

A portal keeps its position in memory and starts at the newest entry: channels that join later get everything with their
init. On SQLite ids are in the order of commits and the position is an id. On PostgreSQL a transaction may commit after
one with a higher number, so the position is a snapshot (`xmin:xmax:running`): new is what a later snapshot sees and the
earlier one did not. That neither skips a commit that was late nor waits for transactions that run long. After a crash
PostgreSQL may use numbers again that it had given to transactions which came to nothing; so whoever reads over a
connection that is younger than the last reading reads the last half minute again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import and_, delete, func, or_, select, text, tuple_, update

from wardgate.portal.db.engine import Database
from wardgate.portal.db.node_tables import OutboxState
from wardgate.portal.db.tables import OutboxEntry

BATCH: Final = 500
RETENTION: Final = timedelta(minutes=10)
_AGAIN: Final = timedelta(seconds=30)
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
        return Batch(entries, has_more=len(entries) >= BATCH or self._position.is_paging)

    def advance(self, batch: Batch) -> None:
        """A batch was told to the channels."""
        self._position.advance(batch)

    async def is_behind(self) -> bool:
        """Whether something is committed that the channels were not told yet."""
        async with self._db.unscoped() as session:
            return await session.scalar(select(OutboxEntry.id).where(*self._position.unread()).limit(1)) is not None


class _ById:
    """A position on SQLite."""

    is_paging = False

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
        self._read_at: datetime | None = None
        self._again_since: datetime | None = None

    @property
    def is_paging(self) -> bool:
        """Whether this is not the first page of a long reading, during which more may have been committed."""
        return self._last != (0, 0)

    async def start(self, session: Any) -> None:
        state = text("SELECT CAST(pg_current_snapshot() AS TEXT), clock_timestamp()")
        self._seen, self._read_at = (await session.execute(state)).one()
        self._target, self._last, self._again_since = "", (0, 0), None

    async def is_cut_off(self, session: Any) -> bool:
        was_seen = _SEES.format(xid="pruned_to", snapshot="seen")
        state = text(
            f"SELECT CAST(pg_current_snapshot() AS TEXT), pruned_to = 0 OR {was_seen}, clock_timestamp(), "
            "(SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid())) FROM outbox_state WHERE id = 1"
        )
        now, is_seen, at, connected_at = (await session.execute(state, {"seen": self._seen})).one()
        self._target = self._target or now
        if self._read_at is not None and (connected_at is None or connected_at > self._read_at):
            self._again_since = self._again_since or self._read_at - _AGAIN
            self._target, self._last = now, (0, 0)
        self._read_at = at
        return not is_seen or _bounds(now)[1] < _bounds(self._seen)[0]  # else it is another, younger server

    def unread(self) -> list[Any]:
        is_new = text(f"NOT {_SEES.format(xid='outbox.transaction_id', snapshot='seen')}").bindparams(seen=self._seen)
        new = and_(OutboxEntry.transaction_id >= _bounds(self._seen)[0], is_new)
        return [new if self._again_since is None else or_(new, OutboxEntry.inserted_at >= self._again_since)]

    async def read(self, session: Any) -> list[OutboxEntry]:
        if self._target == self._seen and self._again_since is None:
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
        if len(batch.entries) >= BATCH:
            self._last = (batch.entries[-1].transaction_id, batch.entries[-1].id)
        else:
            self._seen, self._target, self._last = self._target or self._seen, "", (0, 0)
            self._again_since = None


async def request_refresh(db: Database, account_id: str, pairs: Sequence[tuple[str, str]]) -> None:
    """Has clients, wherever they are connected, ask anew for resources: pairs of client and resource."""
    async with db.unscoped_write() as session:
        for start in range(0, len(pairs), BATCH):
            some = [list(pair) for pair in pairs[start : start + BATCH]]
            session.add(
                OutboxEntry(
                    account_id=account_id,
                    commit_id=str(uuid4()),
                    object="refresh_requests",
                    operation="insert",
                    after={"pairs": some},
                )
            )
    db.notify()


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
