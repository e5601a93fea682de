"""Many deadlines of which only the next matters: each key has at most one, and moving it is cheap.

Moved deadlines leave stale heap entries behind; the heap is rebuilt before these outnumber the live ones, so its size
stays within twice the number of keys.
"""

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
_SLACK = 64


class Deadlines(Generic[Key]):
    """The deadlines of a set of keys, in order of time and then of being set."""

    def __init__(self) -> None:
        self._entry_by_key: dict[Key, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._entry_by_key)

    def set(self, key: Key, at: float) -> None:
        """Gives `key` this deadline in place of its former one."""
        self._sequence += 1
        self._entry_by_key[key] = (at, self._sequence)
        heapq.heappush(self._heap, (at, self._sequence, key))
        if len(self._heap) > 2 * len(self._entry_by_key) + _SLACK:
            self._heap = [(due, sequence, live) for live, (due, sequence) in self._entry_by_key.items()]
            heapq.heapify(self._heap)

    def discard(self, key: Key) -> None:
        """Takes the deadline of `key` away, if it has one."""
        self._entry_by_key.pop(key, None)

    def next_at(self) -> float | None:
        """The earliest deadline."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> Key | None:
        """Takes out the earliest key whose deadline has come."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._entry_by_key[key]
        return key

    def _drop_stale(self) -> None:
        while self._heap and self._entry_by_key.get(self._heap[0][2]) != self._heap[0][:2]:
            heapq.heappop(self._heap)
