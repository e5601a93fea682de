"""A map that finds values by other things than their key, too, in time proportional to what is found."""

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class Index(Generic[_K, _V]):
    """Values by key, and by each of some groups that they belong to for as long as they are here."""

    def __init__(self, *groups: Callable[[_V], Hashable]) -> None:
        self._values: dict[_K, _V] = {}
        self._groups = groups
        self._members: tuple[dict[Hashable, dict[_K, _V]], ...] = tuple({} for _ in groups)

    def get(self, key: _K) -> _V | None:
        """The value of a key."""
        return self._values.get(key)

    def put(self, key: _K, value: _V) -> _V | None:
        """Adds a value as the last one and gives the one whose place it takes."""
        older = self.remove(key)
        self._values[key] = value
        for group, members in zip(self._groups, self._members, strict=True):
            members.setdefault(group(value), {})[key] = value
        return older

    def remove(self, key: _K) -> _V | None:
        """Takes a value out and gives it."""
        value = self._values.pop(key, None)
        if value is not None:
            for group, members in zip(self._groups, self._members, strict=True):
                name = group(value)
                of_group = members[name]
                del of_group[key]
                if not of_group:
                    del members[name]
        return value

    def of(self, group: int, name: Hashable) -> list[_V]:
        """The values of one group, in the order in which they came.

        Args:
            group: Which of the groupings, by its number.
        """
        return list(self._members[group].get(name, {}).values())

    def items(self) -> list[tuple[_K, _V]]:
        """All keys and values, in the order in which they came."""
        return list(self._values.items())

    def values(self) -> list[_V]:
        """All values, in the order in which they came."""
        return list(self._values.values())

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[_K]:
        return iter(self._values)
