"""Lists: paging, order and search as the query says it, filters as equality, and the envelope."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import Depends, Query

from wardgate.portal.api.objects import Metadata, Page
from wardgate.portal.api.problems import BadRequest
from wardgate.portal.db import paging
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import TenantRow
from wardgate.portal.domain.checks import is_uuid

Row = TypeVar("Row", bound=TenantRow)
Item = TypeVar("Item")
NOTHING: Mapping[str, Any] = {}
OLDEST_FIRST: Final = paging.Order()
NEWEST_FIRST: Final = paging.Order(is_descending=True)
Sort = Literal["inserted_at", "-inserted_at", "name", "-name"]
SortByTime = Literal["inserted_at", "-inserted_at"]
Limit = Annotated[int, Query(description="1 to 100; other values are clamped.")]
Cursor = Annotated[str | None, Query(description="`next_page` or `prev_page` of an earlier answer of this list.")]


class Paging:
    """Which page of a list."""

    def __init__(self, limit: Limit = paging.DEFAULT_LIMIT, page_cursor: Cursor = None) -> None:
        self.limit = limit
        self.cursor = page_cursor or None
        self.sort: str | None = None
        self.search: str | None = None

    def order(self, own: paging.Order) -> paging.Order:
        """The order that was asked for, or else the list's own."""
        return own if self.sort is None else paging.Order(self.sort.removeprefix("-"), self.sort.startswith("-"))


class SortedPaging(Paging):
    """Which page of a list, in which order."""

    def __init__(
        self,
        limit: Limit = paging.DEFAULT_LIMIT,
        page_cursor: Cursor = None,
        sort: Annotated[SortByTime | None, Query(description="Another order than the list's own.")] = None,
    ) -> None:
        super().__init__(limit, page_cursor)
        self.sort = sort


class NamedPaging(Paging):
    """Which page of a list of things with names."""

    def __init__(
        self,
        limit: Limit = paging.DEFAULT_LIMIT,
        page_cursor: Cursor = None,
        sort: Annotated[Sort | None, Query(description="Another order than the list's own.")] = None,
        search: Annotated[
            str | None, Query(max_length=255, description="Part of the name, in upper or lower case.")
        ] = None,
    ) -> None:
        super().__init__(limit, page_cursor)
        self.sort = sort
        self.search = search


Paged = Annotated[Paging, Depends()]
SortedPaged = Annotated[SortedPaging, Depends()]
NamedPaged = Annotated[NamedPaging, Depends()]


async def page_of(
    scope: Scope,
    table: type[Row],
    place: Paging,
    item: Callable[[Row], Item],
    *,
    order: paging.Order = OLDEST_FIRST,
    where: Sequence[Any] = (),
    equal: Mapping[str, Any] = NOTHING,
) -> Page[Item]:
    """One page of the account's rows, as objects.

    Args:
        order: The list's own.
        where: More conditions of the query.
        equal: Columns that must have these values; `None` asks for anything.
    """
    found = await _found(scope, table, place, order, where, equal)
    return enveloped(found, [item(row) for row in found.rows])


async def shown_page_of(
    scope: Scope,
    table: type[Row],
    place: Paging,
    items: Callable[[Scope, Sequence[Row]], Awaitable[list[Item]]],
    *,
    order: paging.Order = OLDEST_FIRST,
    where: Sequence[Any] = (),
    equal: Mapping[str, Any] = NOTHING,
) -> Page[Item]:
    """As `page_of`, for objects that need more than their rows, which is looked up for all at once."""
    found = await _found(scope, table, place, order, where, equal)
    return enveloped(found, await items(scope, found.rows))


async def _found(
    scope: Scope,
    table: type[Row],
    place: Paging,
    order: paging.Order,
    where: Sequence[Any],
    equal: Mapping[str, Any],
) -> paging.Page[Row]:
    query = scope.select(table).where(*where)
    for name, value in equal.items():
        if value is not None:
            query = query.where(getattr(table, name) == (value if isinstance(value, bool) else str(value)))
    if place.search:
        query = query.where(table.name.icontains(place.search, autoescape=True))  # type: ignore[attr-defined]
    return await paging.page(scope, table, query, limit=place.limit, cursor=place.cursor, order=place.order(order))


def enveloped(found: paging.Page[Any], items: list[Item]) -> Page[Item]:
    """A page's envelope around its items."""
    metadata = Metadata(count=found.count, limit=found.limit, next_page=found.next_page, prev_page=found.prev_page)
    return Page[Item](data=items, metadata=metadata)


def uuid_or_empty(name: str, value: str | None) -> str | None:
    """A filter that is a UUID, or empty for rows that have none.

    Raises:
        BadRequest: It is something else.
    """
    if value in (None, "") or is_uuid(value):
        return value.lower() if value else value
    raise BadRequest(f"{name}: a UUID, or nothing for rows without one", "invalid_parameter")
