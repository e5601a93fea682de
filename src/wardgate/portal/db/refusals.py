"""Requests that got no access: the last one of each actor for each resource, kept so that Explain can be asked later.

Channels note a refusal in memory, for an offline resource is asked for with every packet; what was noted is written a
moment later, all at once. Both are bounded, and what does not fit is counted.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from wardgate.portal.clock import Clock, Timer
from wardgate.portal.db.access_tables import RefusedRequest
from wardgate.portal.db.engine import Database
from wardgate.portal.db.purge import LOG_RETENTION
from wardgate.portal.db.tables import Account

FLUSH_AFTER_S: Final = 2.0
MAX_NOTED: Final = 10_000
MAX_KEPT: Final = 5_000
"""Rows of one account; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that got no access."""

    account_id: str
    actor_id: str
    resource_id: str
    device_id: str
    reason: str
    violated_properties: tuple[str, ...]
    remote_ip: str | None
    at: datetime
    count: int = 1


class Refusals:
    """What was refused on this node and is not written yet.

    Attributes:
        dropped: How many were not noted, because too many others were.
    """

    def __init__(self, db: Database, clock: Clock, on_error: Callable[[Exception], None]) -> None:
        self._db = db
        self._clock = clock
        self._on_error = on_error
        self._noted: dict[tuple[str, str, str], Refusal] = {}
        self._timer: Timer | None = None
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.dropped = 0

    def note(self, refusal: Refusal) -> None:
        """Remembers a refusal in place of an older one."""
        key = (refusal.account_id, refusal.actor_id, refusal.resource_id)
        older = self._noted.get(key)
        if older is None and len(self._noted) >= MAX_NOTED:
            self.dropped += 1
            return
        self._noted[key] = replace(refusal, count=older.count + 1) if older else refusal
        if self._timer is None:
            self._timer = self._clock.call_later(FLUSH_AFTER_S, self._start)

    def _start(self) -> None:
        task = asyncio.get_running_loop().create_task(self._flush_surely())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _flush_surely(self) -> None:
        try:
            await self.flush()
        except Exception as error:
            self._on_error(error)

    async def wait_written(self) -> None:
        """Returns when what is being written is written."""
        await asyncio.gather(*self._tasks)

    async def flush(self) -> None:
        """Writes what was noted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        async with self._writing:
            noted, self._noted = self._noted, {}
            if not noted:
                return
            async with self._db.unscoped_write() as session:
                for refusal in noted.values():
                    await _write(session, refusal)
                for account_id in dict.fromkeys(one.account_id for one in noted.values()):
                    await _trim(session, account_id, self._clock.utc_now())


async def _write(session: AsyncSession, refusal: Refusal) -> None:
    table = RefusedRequest
    values = {
        "device_id": refusal.device_id,
        "reason": refusal.reason,
        "violated_properties": list(refusal.violated_properties),
        "remote_ip": refusal.remote_ip,
        "at": refusal.at,
    }
    same = update(table).where(
        table.account_id == refusal.account_id,
        table.actor_id == refusal.actor_id,
        table.resource_id == refusal.resource_id,
    )
    counted = same.values(**values, count=table.count + refusal.count).returning(table.count)
    if (await session.execute(counted.execution_options(synchronize_session=False))).first() is not None:
        return
    if await session.get(Account, refusal.account_id) is None:
        return
    keys = {"account_id": refusal.account_id, "actor_id": refusal.actor_id, "resource_id": refusal.resource_id}
    try:
        async with session.begin_nested():
            session.add(table(**keys, **values, count=refusal.count))
    except IntegrityError:  # another node was faster; its refusal is as good
        return


async def _trim(session: AsyncSession, account_id: str, at: datetime) -> None:
    table = RefusedRequest
    newest = select(table.at).where(table.account_id == account_id).order_by(table.at.desc())
    oldest_kept = await session.scalar(newest.offset(MAX_KEPT - 1).limit(1))
    ends = at - LOG_RETENTION
    ends = ends if oldest_kept is None else max(ends, oldest_kept)
    await session.execute(delete(table).where(table.account_id == account_id, table.at < ends))
