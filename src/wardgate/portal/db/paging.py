"""Pages of a list in a stable order, with opaque cursors.

The order is that of one column and then the id; a cursor names the order, a direction and the row where it goes on, so
it stays right while rows come and go.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from wardgate.errors import DomainError
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import TenantRow
from wardgate.portal.domain.checks import is_storable, is_uuid

_R = TypeVar("_R", bound=TenantRow)
MAX_LIMIT: Final = 100
DEFAULT_LIMIT: Final = 50
_MAX_CURSOR: Final = 4096


class BadCursor(DomainError):
    """A cursor that no page of this list, in this order, gave."""

    code = "invalid_cursor"

    def __init__(self) -> None:
        super().__init__("page_cursor is none that an earlier page of this list gave")


@dataclass(frozen=True, slots=True)
class Order:
    """A list's order: by a column that is never null, then by id."""

    column: str = "inserted_at"
    is_descending: bool = False

    def text(self) -> str:
        """As the query says it."""
        return f"-{self.column}" if self.is_descending else self.column


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
    order: Order = Order(),
) -> Page[_R]:
    """One page of the rows of a query.

    Raises:
        BadCursor: The cursor is not one that an earlier page gave.
    """
    limit = max(1, min(MAX_LIMIT, limit))
    direction, place = _read(cursor, order) if cursor else ("n", None)
    count = await scope.session.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0
    is_backward = direction == "p"
    ascending = order.is_descending if is_backward else not order.is_descending
    if place is not None:
        query = query.where(_beyond(table, order, place, ascending))
    column = getattr(table, order.column)
    by = (column, table.id) if ascending else (column.desc(), table.id.desc())
    rows = list((await scope.session.scalars(query.order_by(*by).limit(limit + 1))).all())
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
        _write("n", order, rows[-1]) if rows and has_next else None,
        _write("p", order, rows[0]) if rows and has_previous else None,
    )


def _beyond(table: type[_R], order: Order, place: tuple[Any, str], ascending: bool) -> ColumnElement[bool]:
    value, row_id = place
    column = getattr(table, order.column)
    if ascending:
        return or_(column > value, and_(column == value, table.id > row_id))
    return or_(column < value, and_(column == value, table.id < row_id))


def _write(direction: str, order: Order, row: TenantRow) -> str:
    value = getattr(row, order.column)
    shown = value.isoformat() if isinstance(value, datetime) else value
    text = json.dumps([direction, order.text(), shown, row.id], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(cursor: str, order: Order) -> tuple[str, tuple[Any, str]]:
    try:
        if len(cursor) > _MAX_CURSOR:
            raise ValueError(len(cursor))
        text = base64.b64decode(cursor.replace("-", "+").replace("_", "/") + "=" * (-len(cursor) % 4), validate=True)
        direction, by, value, row_id = json.loads(text)
        if direction not in ("n", "p") or by != order.text() or not is_uuid(row_id) or not isinstance(value, str):
            raise ValueError(direction)
        if order.column.endswith("_at"):
            return direction, (_instant(value), row_id)
        if not is_storable(value):
            raise ValueError(value)
        return direction, (value, row_id)
    except (ValueError, TypeError, RecursionError, OverflowError):
        raise BadCursor from None


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(text)
    return at.astimezone(UTC)
