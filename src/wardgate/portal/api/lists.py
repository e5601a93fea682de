"""Lists: paging as the query says it, filters as equality, and the envelope."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query

from wardgate.portal.api.objects import Metadata, Page
from wardgate.portal.db import paging
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import TenantRow

Row = TypeVar("Row", bound=TenantRow)
Item = TypeVar("Item")
NOTHING: Mapping[str, str | None] = {}


class Paging:
    """Which page of a list."""

    def __init__(
        self,
        limit: Annotated[int, Query(description="1 to 100; other values are clamped.")] = paging.DEFAULT_LIMIT,
        page_cursor: Annotated[
            str | None, Query(description="`next_page` or `prev_page` of an earlier answer.")
        ] = None,
    ) -> None:
        self.limit = limit
        self.cursor = page_cursor


Paged = Annotated[Paging, Depends()]


async def page_of(
    scope: Scope,
    table: type[Row],
    place: Paging,
    item: Callable[[Row], Item],
    *,
    descending: bool = False,
    where: Sequence[Any] = (),
    equal: Mapping[str, str | None] = NOTHING,
) -> Page[Item]:
    """One page of the account's rows, as objects.

    Args:
        where: More conditions of the query.
        equal: Columns that must have these values; `None` asks for anything.
    """
    query = scope.select(table).where(*where)
    for name, value in equal.items():
        if value is not None:
            query = query.where(getattr(table, name) == value)
    found = await paging.page(scope, table, query, limit=place.limit, cursor=place.cursor, descending=descending)
    return enveloped(found, [item(row) for row in found.rows])


def enveloped(found: paging.Page[Any], items: list[Item]) -> Page[Item]:
    """A page's envelope around its items."""
    metadata = Metadata(count=found.count, limit=found.limit, next_page=found.next_page, prev_page=found.prev_page)
    return Page[Item](data=items, metadata=metadata)
