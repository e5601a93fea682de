"""What a peer may reach, until when."""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

MAX_AUTHORIZATIONS: Final = 65_536

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Authorization:
    """One grant that is in force.

    Attributes:
        number: What its flows are marked with in the native table; never used twice, never 0.
        expires_at: Monotonic seconds; `None` for never.
    """

    number: int
    expires_at: float | None


class Authorizations(Generic[K]):
    """Grants by a key of the caller's; each ends by itself, by being revoked, or by not being listed any more."""

    def __init__(self, epoch: float, first_number: int = 1) -> None:
        self._epoch = epoch
        self._by_key: dict[K, Authorization] = {}
        self._expiries: list[tuple[float, int, K]] = []
        self._next_number = first_number
        self.refused = 0

    def __contains__(self, key: K) -> bool:
        return key in self._by_key

    def __iter__(self) -> Iterator[K]:
        return iter(tuple(self._by_key))

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: K) -> Authorization | None:
        """The grant, if there is one; an expired one counts until the next `expire`."""
        return self._by_key.get(key)

    def grant(self, key: K, expires_at_unix: float | None) -> Authorization | None:
        """Grants, or replaces the expiry of what was granted. `None` if there are too many (counted).

        Args:
            expires_at_unix: Wall time in seconds; one in the past ends the grant at the next `expire`.
        """
        old = self._by_key.get(key)
        if old is None and len(self._by_key) >= MAX_AUTHORIZATIONS:
            self.refused += 1
            return None
        number = old.number if old is not None else self._next_number
        if old is None:
            self._next_number += 1
        granted = Authorization(number, None if expires_at_unix is None else expires_at_unix - self._epoch)
        self._by_key[key] = granted
        if granted.expires_at is not None and granted != old:
            heapq.heappush(self._expiries, (granted.expires_at, number, key))
        return granted

    def revoke(self, key: K) -> Authorization | None:
        """Ends a grant; returns what it was."""
        return self._by_key.pop(key, None)

    def retain(self, listed: Mapping[K, float]) -> list[tuple[K, Authorization]]:
        """Keeps what is listed, with its expiry (unix seconds), and ends and returns the rest; creates nothing."""
        ended = self._end(key for key in self._by_key if key not in listed)
        for key in self._by_key:
            self.grant(key, listed[key])
        return ended

    def expire(self, now: float) -> list[tuple[K, Authorization]]:
        """Ends what is due and returns it."""
        ended = []
        while (due := self.poll_timeout()) is not None and now >= due:
            key = heapq.heappop(self._expiries)[2]
            ended.append((key, self._by_key.pop(key)))
        return ended

    def poll_timeout(self) -> float | None:
        """When the next grant ends."""
        while self._expiries:
            expires_at, number, key = self._expiries[0]
            if self._by_key.get(key) == Authorization(number, expires_at):
                return expires_at
            heapq.heappop(self._expiries)
        return None

    def _end(self, keys: Iterable[K]) -> list[tuple[K, Authorization]]:
        return [(key, self._by_key.pop(key)) for key in list(keys)]
