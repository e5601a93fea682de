"""How lists read their part from the address, and what their heads and feet link to."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from starlette.datastructures import FormData

from wardgate.portal.db.lists import SIZES, Part, Wanted
from wardgate.portal.web.context import Page

MAX_CHOICES: Final = 500
"""Boxes that a form has at most; what it does not show, it does not change."""
_MOST_PAGES: Final = 10_000


def wanted(page: Page, *filters: str, sort: str = "", is_descending: bool = False) -> Wanted:
    """The part of a list that the address asks for; what makes no sense is left out.

    Args:
        sort: The list's own order.
    """
    number = page.query("page")
    size = page.query("size")
    order = page.query("sort")
    return Wanted(
        text=page.query("q"),
        sort=order.lstrip("-") or sort,
        is_descending=order.startswith("-") if order else is_descending,
        page=min(int(number), _MOST_PAGES) if number.isdecimal() and len(number) < 6 else 1,
        size=int(size) if size in {str(one) for one in SIZES} else SIZES[1],
        only={name: value for name in filters if (value := page.query(name))},
    )


def ticked(form: FormData, name: str) -> tuple[list[str], list[str]]:
    """What was ticked in a form and what was unticked, by the boxes as they were shown (`<name>_were`).

    So what others changed meanwhile, and what there was no box for, stays.
    """
    now, were = ({str(one) for one in form.getlist(field)} for field in (name, f"{name}_were"))
    return sorted(now - were), sorted(were - now)


class Links:
    """Addresses of the same list in another order, or at another page."""

    def __init__(self, page: Page, part: Part) -> None:
        self._path = page.request.url.path
        self._given = {name: value for name, value in page.request.query_params.items() if value}
        self._part = part

    def to(self, **changes: Any) -> str:
        """The list with some parameters changed, or without those that are `None`."""
        merged: Mapping[str, Any] = {**self._given, **changes}
        query = urlencode({name: value for name, value in merged.items() if value not in (None, "")})
        return f"{self._path}?{query}" if query else self._path

    def sort(self, name: str) -> str:
        """The list sorted by a column; the other way round if it is already."""
        known = self._part.wanted
        is_same = known.sort == name or (not known.sort and "sort" not in self._given)
        return self.to(
            sort=f"-{name}" if known.sort == name and is_same and not known.is_descending else name, page=None
        )

    def order(self, name: str) -> str | None:
        """How a column is sorted, for `aria-sort`."""
        if self._part.wanted.sort != name:
            return None
        return "descending" if self._part.wanted.is_descending else "ascending"

    def size(self, size: int) -> str:
        """The list with so many rows a page."""
        return self.to(size=size, page=None)

    @property
    def is_filtered(self) -> bool:
        """Whether the list leaves something out."""
        return bool(self._part.wanted.text or self._part.wanted.only)

    @property
    def all(self) -> str:
        """The list without filters."""
        return self._path

    @property
    def next(self) -> str | None:
        """The page behind this one."""
        return self.to(page=self._number + 1) if self._part.has_next else None

    @property
    def previous(self) -> str | None:
        """The page before this one."""
        return self.to(page=self._number - 1) if self._part.first > 1 else None

    @property
    def _number(self) -> int:
        return (self._part.first - 1) // self._part.wanted.size + 1
