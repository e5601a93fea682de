"""Pages of lists that are worked out and not stored: a cursor names a place in them, and what they were made from."""

import base64
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from wardgate.errors import Conflict, InvalidInput
from wardgate.portal.api.lists import Paging
from wardgate.portal.api.objects import Metadata
from wardgate.portal.db.paging import MAX_LIMIT

Item = TypeVar("Item")


def slice_of(items: Sequence[Item], place: Paging, stamp: str) -> tuple[Sequence[Item], Metadata]:
    """One page of a list.

    Args:
        stamp: What the list was made from, such as a revision; pages of another one do not go together.

    Raises:
        InvalidInput: The cursor is not one that an earlier page gave.
        Conflict: The list was made anew since that page.
    """
    limit = max(1, min(MAX_LIMIT, place.limit))
    start = _read(place.cursor, stamp) if place.cursor else 0
    end = min(start + limit, len(items))
    following = _write(end, stamp) if end < len(items) else None
    previous = _write(max(0, start - limit), stamp) if start > 0 else None
    return items[start:end], Metadata(count=len(items), limit=limit, next_page=following, prev_page=previous)


def _write(start: int, stamp: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([start, stamp]).encode()).decode().rstrip("=")


def _read(cursor: str, stamp: str) -> int:
    try:
        text = base64.b64decode(cursor.replace("-", "+").replace("_", "/") + "=" * (-len(cursor) % 4), validate=True)
        found: Any = json.loads(text)
        start, of = found
        if not isinstance(start, int) or start < 0 or not isinstance(of, str):
            raise ValueError(cursor)
    except (ValueError, TypeError, RecursionError):
        raise InvalidInput({"page_cursor": ["is invalid"]}) from None
    if of != stamp:
        raise Conflict("the account changed since the first page: look again")
    return start
