"""Answers of resolvers, kept as long as they say."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from wardgate.wire.dns import IN, Query, Rcode, Record, Response

MAX_ANSWERS: Final = 4096
MIN_TTL_S: Final = 5
_MAX_RECORDS: Final = 64

_Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Cached:
    records: tuple[Record, ...]
    stored_at: float
    expires_at: float


class DnsCache:
    """Answer sections by name and type; the least recently used goes when it is full."""

    def __init__(self) -> None:
        self._answers: OrderedDict[_Key, _Cached] = OrderedDict()

    def put(self, query: Query, response: Response, now: float) -> None:
        """Keeps an answer that is worth it: whole, not empty, good for five seconds at least."""
        if not _is_cacheable(query) or response.rcode != Rcode.NOERROR or response.is_truncated:
            return
        if not 1 <= len(response.answers) <= _MAX_RECORDS:
            return
        ttl_s = min(record.ttl_s for record in response.answers)
        if ttl_s < MIN_TTL_S:
            return
        key = (query.question.name, query.question.type)
        self._answers[key] = _Cached(response.answers, now, now + ttl_s)
        self._answers.move_to_end(key)
        if len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)

    def get(self, query: Query, now: float) -> tuple[Record, ...] | None:
        """The answer to a query with its lifetimes counted down; `None` if there is none any more."""
        key = (query.question.name, query.question.type)
        cached = self._answers.get(key)
        if cached is None or not _is_cacheable(query):
            return None
        if now >= cached.expires_at:
            del self._answers[key]
            return None
        self._answers.move_to_end(key)
        age_s = int(now - cached.stored_at)
        return tuple(replace(record, ttl_s=record.ttl_s - age_s) for record in cached.records)

    def clear(self) -> None:
        """Forgets all, as another resolver may say otherwise."""
        self._answers.clear()

    def __len__(self) -> int:
        return len(self._answers)


def _is_cacheable(query: Query) -> bool:
    """An asker that wants signatures would miss them."""
    return query.question.class_ == IN and not query.wants_dnssec
