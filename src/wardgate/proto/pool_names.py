"""Names of devices in dynamic pools: the portal knows their addresses, and is asked once for each name.

Sans-IO: after each call, drain `poll_question` and `poll_reply`, then sleep until `poll_timeout`.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from wardgate.ids import ResourceId
from wardgate.proto.proxy_ips import NamedResource, PatternIndex
from wardgate.wire.dns import IN, Query, Rcode, Record, RecordType, address_record
from wardgate.wire.ip import IpAddress

ANSWER_TTL_S: Final = 1
TIMEOUT_S: Final = 5.0
MAX_KNOWN: Final = 4096
MAX_ASKED: Final = 256
MAX_WAITING: Final = 16
"""Queries for one name that wait at the same time."""

_Key = tuple[ResourceId, str]


@dataclass(slots=True)
class _Asked:
    deadline: float
    waiting: list[tuple[object, Query]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PoolReply:
    """What to answer to a query: a code, and the addresses of the family that was asked for.

    Attributes:
        token: What the caller gave with the query.
    """

    token: object
    query: Query
    rcode: Rcode
    addresses: tuple[IpAddress, ...] = ()

    @property
    def records(self) -> list[Record]:
        """The answer section."""
        return [address_record(self.query, one, ANSWER_TTL_S) for one in self.addresses]


class PoolNames:
    """The names of all dynamic pools; what is known of a pool is forgotten with it."""

    def __init__(self) -> None:
        self._pools: dict[ResourceId, NamedResource] = {}
        self._index = PatternIndex()
        self._known: OrderedDict[_Key, tuple[IpAddress, ...]] = OrderedDict()
        self._asked: OrderedDict[_Key, _Asked] = OrderedDict()
        self._questions: deque[_Key] = deque()
        self._replies: deque[PoolReply] = deque()
        self.refused = 0

    def set_pools(self, pools: Iterable[NamedResource]) -> None:
        """Takes the dynamic pools there are now."""
        wanted = {pool.resource_id: pool for pool in pools}
        for key in [key for key in self._known if wanted.get(key[0]) != self._pools.get(key[0])]:
            del self._known[key]
        self._pools = wanted
        self._index = PatternIndex(wanted.values())

    def handle_query(self, token: object, query: Query, now: float) -> bool:
        """Takes a query and returns whether it is about a device of a pool; `poll_reply` has the answer, in time."""
        question = query.question
        matches = self._index.matches(question.name) if question.class_ == IN and question.is_plain else ()
        if not matches:
            return False
        key = (matches[0].resource_id, question.name)
        if question.type not in (RecordType.A, RecordType.AAAA):
            self._replies.append(PoolReply(token, query, Rcode.NOERROR))
        elif key in self._known:
            self._known.move_to_end(key)
            self._reply(token, query, self._known[key])
        else:
            self._wait(key, token, query, now)
        return True

    def _reply(self, token: object, query: Query, addresses: Iterable[IpAddress]) -> None:
        version = 4 if query.question.type == RecordType.A else 6
        fitting = tuple(one for one in addresses if one.version == version)
        self._replies.append(PoolReply(token, query, Rcode.NOERROR, fitting))

    def _wait(self, key: _Key, token: object, query: Query, now: float) -> None:
        asked = self._asked.get(key)
        if asked is None and len(self._asked) < MAX_ASKED:
            asked = self._asked[key] = _Asked(now + TIMEOUT_S)
            self._questions.append(key)
        if asked is None or len(asked.waiting) >= MAX_WAITING:
            self.refused += 1
            self._replies.append(PoolReply(token, query, Rcode.SERVFAIL))
            return
        asked.waiting.append((token, query))

    def handle_resolved(self, resource_id: ResourceId, domain: str, addresses: tuple[IpAddress, ...]) -> bool:
        """Takes the portal's answer, none if there is no such device; returns whether it was asked for."""
        key = (resource_id, domain.lower().rstrip("."))
        asked = self._asked.pop(key, None)
        if asked is None:
            return False
        if addresses and resource_id in self._pools:
            self._known[key] = addresses
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        for token, query in asked.waiting:
            if addresses:
                self._reply(token, query, addresses)
            else:
                self._replies.append(PoolReply(token, query, Rcode.NXDOMAIN))
        return True

    def name_of(self, address: IpAddress) -> str | None:
        """The name that a device's address was found under."""
        return next((domain for (_, domain), addresses in self._known.items() if address in addresses), None)

    def handle_timeout(self, now: float) -> None:
        """What the portal does not answer in time fails."""
        while self._asked and now >= next(iter(self._asked.values())).deadline:
            _, asked = self._asked.popitem(last=False)
            self._replies.extend(PoolReply(token, query, Rcode.SERVFAIL) for token, query in asked.waiting)

    def poll_question(self) -> tuple[ResourceId, str] | None:
        """The next pool and name to ask the portal for."""
        return self._questions.popleft() if self._questions else None

    def poll_reply(self) -> PoolReply | None:
        """The next answer."""
        return self._replies.popleft() if self._replies else None

    def poll_timeout(self) -> float | None:
        """When something is due; the distant past while output is queued."""
        if self._questions or self._replies:
            return 0.0
        return next((asked.deadline for asked in self._asked.values()), None)
