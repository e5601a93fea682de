"""How much strangers may ask for: connections, headers, paths, and requests that do not say who asks.

A stranger is a connection that has not become a websocket of a device, or a request whose token is not good. Who was
known a moment ago passes without being counted, so that a flood behind one address does not lock its neighbours out.
"""

import hashlib
import math
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from wardgate.portal.clock import Clock
from wardgate.portal.config import Settings
from wardgate.portal.metrics import Metrics

MAX_TARGET: Final = 8000
MAX_PATH: Final = 2048
MAX_HEADERS: Final = 100
MAX_HEADER: Final = 8000
MAX_BODY: Final = 10 * 1024 * 1024
_MAX_REMEMBERED: Final = 50_000


class Buckets:
    """A token bucket for each key; the least recently used are forgotten, and are full then."""

    def __init__(self, clock: Clock, refill_rate: float, capacity: float) -> None:
        self._clock = clock
        self._refill_rate = refill_rate
        self._capacity = capacity
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: Hashable) -> float:
        """In how many seconds the key may take one; 0 is now."""
        return max(0.0, (1.0 - self._level(key)) / self._refill_rate)

    def take(self, key: Hashable) -> None:
        """Takes one; a level may fall to zero, and no lower."""
        self._levels[key] = (max(0.0, self._level(key) - 1.0), self._clock.now())
        self._levels.move_to_end(key)
        while len(self._levels) > _MAX_REMEMBERED:
            self._levels.popitem(last=False)

    def _level(self, key: Hashable) -> float:
        level, at = self._levels.get(key, (self._capacity, 0.0))
        return min(self._capacity, level + (self._clock.now() - at) * self._refill_rate)


class Ticket:
    """One connection of a stranger; released when it is known or gone."""

    def __init__(self, bounds: "Bounds", address: str | None) -> None:
        self._bounds = bounds
        self._address = address
        self._is_held = True

    def release(self) -> None:
        """Does not count any more; harmless to say twice."""
        if self._is_held:
            self._is_held = False
            self._bounds.left(self._address)


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Why a request's head is refused: a status and a word for the counters."""

    status: int
    kind: str
    detail: str


class Bounds:
    """The counts of one portal.

    Attributes:
        strangers: Connections now that nobody has proved to own.
    """

    def __init__(self, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        self.settings = settings
        self.clock = clock
        self.strangers = 0
        self._metrics = metrics
        self._by_address: Counter[str | None] = Counter()
        self._failures = Buckets(clock, settings.stranger_refill_rate, settings.stranger_capacity)
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def refused(self, kind: str) -> None:
        """Counts a refusal."""
        self._metrics.refused_requests.labels(kind).inc()

    # --- connections --------------------------------------------------------------------------------------------------

    def admit(self, peer: str | None) -> Ticket | None:
        """A ticket for a new connection, or none if there are too many.

        Args:
            peer: Who is at the other end of the socket; a trusted proxy stands for many, and only the sum bounds it.
        """
        address = None if peer is None or is_within(peer, self.settings.proxy_networks) else peer
        if self.strangers >= self.settings.max_strangers:
            self.refused("connections")
            return None
        if address is not None and self._by_address[address] >= self.settings.max_strangers_per_address:
            self.refused("connections_of_address")
            return None
        self.strangers += 1
        self._by_address[address] += 1
        return Ticket(self, address)

    def left(self, address: str | None) -> None:
        """A stranger's connection is gone, or is a stranger's no more."""
        self.strangers -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    # --- requests -----------------------------------------------------------------------------------------------------

    def wait_s(self, address: str | None, credential: bytes) -> float:
        """In how many seconds this address may ask; 0 is now."""
        if self._digest(address, credential) in self._known:
            return 0.0
        return self._failures.wait_s(address)

    def failed(self, address: str | None, credential: bytes, *, is_denied: bool) -> None:
        """A request did not say who asks, or not truly; who is known may ask for what everybody may have."""
        digest = self._digest(address, credential)
        if digest in self._known and not is_denied:
            return
        self._known.pop(digest, None)
        self._failures.take(address)

    def succeeded(self, address: str | None, credential: bytes) -> None:
        """A request was of somebody who is known."""
        if not credential:
            return
        digest = self._digest(address, credential)
        self._known[digest] = None
        self._known.move_to_end(digest)
        while len(self._known) > _MAX_REMEMBERED:
            self._known.popitem(last=False)

    @staticmethod
    def _digest(address: str | None, credential: bytes) -> bytes:
        return hashlib.sha256(f"{address} ".encode() + credential).digest()[:16] if credential else b""


def retry_after(seconds: float) -> int:
    """Whole seconds for a `Retry-After` header, at least one."""
    return max(1, math.ceil(seconds))


def too_large(path: bytes, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> TooLarge | None:
    """What is too large about the head of a request."""
    if len(path) > MAX_PATH or len(path) + len(query) > MAX_TARGET:
        detail = f"The path may have {MAX_PATH} bytes, and {MAX_TARGET} together with the query."
        return TooLarge(414, "target", detail)
    count = 0
    for name, value in headers:
        count += 1
        if len(name) + len(value) > MAX_HEADER:
            return TooLarge(431, "header_length", f"A header may have {MAX_HEADER} bytes.")
    if count > MAX_HEADERS:
        return TooLarge(431, "header_count", f"There may be {MAX_HEADERS} headers.")
    return None


def is_within(address: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Whether an address is in one of the networks."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(parsed in network for network in networks)
