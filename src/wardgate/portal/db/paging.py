"""Pages of a list in a fixed order (inserted_at, id), with opaque cursors."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from wardgate.errors import InvalidInput
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import TenantRow

_R = TypeVar("_R", bound=TenantRow)
MAX_LIMIT: Final = 100
DEFAULT_LIMIT: Final = 50


@dataclass(frozen=True, slots=True)
class Page(Generic[_R]):
    """Some rows, how many there are in all, and where the neighbours begin."""

    rows: Sequence[_R]
    count: int
    limit: int
    next_page: str | None
    prev_page: str | None


async def page(
    scope: Scope,
    table: type[_R],
    query: Select[_R],
    *,
    limit: int = DEFAULT_LIMIT,
    cursor: str | None = None,
    descending: bool = False,
) -> Page[_R]:
    """One page of the rows of a query.

    Raises:
        InvalidInput: The cursor is not one that an earlier page gave.
    """
    limit = max(1, min(MAX_LIMIT, limit))
    count = await scope.session.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0
    direction, place = _read(cursor) if cursor else ("n", None)
    is_backward = direction == "p"
    ascending = descending if is_backward else not descending
    if place is not None:
        query = query.where(_beyond(table, place, ascending))
    order = (table.inserted_at, table.id) if ascending else (table.inserted_at.desc(), table.id.desc())
    rows = list((await scope.session.scalars(query.order_by(*order).limit(limit + 1))).all())
    has_more = len(rows) > limit
    rows = rows[:limit]
    if is_backward:
        rows.reverse()
    has_next = (is_backward and place is not None) or (not is_backward and has_more)
    has_previous = (is_backward and has_more) or (not is_backward and place is not None)
    return Page(
        rows,
        count,
        limit,
        _write("n", rows[-1]) if rows and has_next else None,
        _write("p", rows[0]) if rows and has_previous else None,
    )


def _beyond(table: type[_R], place: tuple[datetime, str], ascending: bool) -> ColumnElement[bool]:
    at, row_id = place
    if ascending:
        return or_(table.inserted_at > at, and_(table.inserted_at == at, table.id > row_id))
    return or_(table.inserted_at < at, and_(table.inserted_at == at, table.id < row_id))


def _write(direction: str, row: TenantRow) -> str:
    text = json.dumps([direction, row.inserted_at.isoformat(), row.id], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(cursor: str) -> tuple[str, tuple[datetime, str]]:
    try:
        text = base64.b64decode(cursor.replace("-", "+").replace("_", "/") + "=" * (-len(cursor) % 4), validate=True)
        direction, at, row_id = json.loads(text)
        if direction not in ("n", "p") or not isinstance(row_id, str):
            raise ValueError(direction)
        return direction, (datetime.fromisoformat(at), row_id)
    except (ValueError, TypeError, RecursionError):
        raise InvalidInput({"page_cursor": ["is invalid"]}) from None
