"""How long the database takes to answer, and whether its clock agrees with ours."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from wardgate.errors import WardgateError

if TYPE_CHECKING:
    from wardgate.portal.db.engine import Database

Seen = Callable[[str, float], None]
_BEGAN: Final = "wardgate_began"


def time_queries(engine: AsyncEngine, seen: Seen) -> None:
    """Calls back with every statement and how many seconds it took."""

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def _begin(_c: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        if context is not None:
            setattr(context, _BEGAN, time.perf_counter())

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def _end(_c: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        began = getattr(context, _BEGAN, None)
        if began is not None:
            seen(statement, time.perf_counter() - began)


async def drift_s(db: "Database", now: Callable[[], datetime]) -> float | None:
    """By how many seconds the database's clock is ahead of ours; half of the way there and back is taken off.

    An SQLite file has no clock of its own: 0. `None` if the database does not answer.
    """
    if db.is_sqlite:
        return 0.0
    try:
        async with db.unscoped() as session:
            await session.execute(select(1))  # the connection is there before the time is taken
            before = now()
            theirs: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
            after = now()
    except (SQLAlchemyError, OSError, WardgateError):
        return None
    return (theirs - (before + (after - before) / 2)).total_seconds()
