"""The channels of one allocation, as its client keeps them: numbers, peers, and when each has to be bound again.

Source: RFC 8656, section 12. A number rests for five minutes after its channel ended before another peer gets it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from wardgate.wire.addresses import SocketAddr

FIRST_NUMBER = 0x4000
LAST_NUMBER = 0x4FFF
LIFETIME_S = 600.0
REFRESH_AFTER_S = 300.0
REUSE_AFTER_S = 900.0
_SPAN = LAST_NUMBER - FIRST_NUMBER + 1


@dataclass(slots=True)
class Channel:
    """One binding.

    Attributes:
        bound_at: When it was last bound; while the first request is in flight, when that was made.
        confirmed: Whether the relay has agreed; before that we may send on it but not receive.
        received: Whether data has come by it since it was last bound.
        pending: Whether a request for it is in flight.
    """

    number: int
    peer: SocketAddr
    bound_at: float
    confirmed: bool = False
    received: bool = False
    pending: bool = True

    def is_alive(self, now: float) -> bool:
        """Whether the relay still knows it."""
        return now < self.bound_at + LIFETIME_S

    def needs_refresh(self, now: float) -> bool:
        """Whether it is old enough and useful enough to be bound again."""
        old = now >= self.bound_at + REFRESH_AFTER_S
        return self.confirmed and self.received and old and not self.pending and self.is_alive(now)


class Channels:
    """Every channel of an allocation, by number and by peer."""

    def __init__(self) -> None:
        self._by_number: dict[int, Channel] = {}
        self._by_peer: dict[SocketAddr, Channel] = {}
        self._next = FIRST_NUMBER

    def get(self, number: int) -> Channel | None:
        """The channel of that number, alive or not."""
        return self._by_number.get(number)

    def sending_to(self, peer: SocketAddr, now: float) -> Channel | None:
        """The channel on which data for `peer` may leave: bound, or its binding in flight."""
        channel = self._by_peer.get(peer)
        return channel if channel and channel.is_alive(now) else None

    def receiving_on(self, number: int, now: float) -> Channel | None:
        """The channel of that number if data may arrive on it."""
        channel = self._by_number.get(number)
        return channel if channel and channel.confirmed and channel.is_alive(now) else None

    def assign(self, peer: SocketAddr, now: float) -> Channel | None:
        """A channel to bind for a peer that has none alive; `None` if all numbers are taken or resting."""
        known = self._by_peer.get(peer)
        number = known.number if known and now < known.bound_at + REUSE_AFTER_S else self._free_number(now)
        if number is None:
            return None
        self.remove(number)
        if known:
            self.remove(known.number)
        channel = Channel(number, peer, now)
        self._by_number[number] = self._by_peer[peer] = channel
        return channel

    def remove(self, number: int) -> None:
        """Forgets a channel."""
        channel = self._by_number.pop(number, None)
        if channel and self._by_peer.get(channel.peer) is channel:
            del self._by_peer[channel.peer]

    def clear(self) -> list[Channel]:
        """Forgets all, and gives those that were confirmed."""
        confirmed = [channel for channel in self._by_number.values() if channel.confirmed]
        self._by_number.clear()
        self._by_peer.clear()
        return confirmed

    def expire(self, now: float) -> list[Channel]:
        """Ends the channels whose time is over; they keep their numbers while those rest."""
        ended = [channel for channel in self._by_number.values() if channel.confirmed and not channel.is_alive(now)]
        for channel in ended:
            channel.confirmed = False
        return ended

    def due(self, now: float) -> list[Channel]:
        """Those to bind again now."""
        return [channel for channel in self._by_number.values() if channel.needs_refresh(now)]

    def next_change(self) -> float | None:
        """When `due` or `expire` next has something, at the earliest."""
        times = [
            channel.bound_at + (REFRESH_AFTER_S if channel.received and not channel.pending else LIFETIME_S)
            for channel in self._by_number.values()
            if channel.confirmed
        ]
        return min(times, default=None)

    def _free_number(self, now: float) -> int | None:
        """The next number that was never used; when there is none left, one that has rested."""
        number = next((number for number in self._round() if number not in self._by_number), None)
        if number is None:
            rested = (number for number in self._round() if now >= self._by_number[number].bound_at + REUSE_AFTER_S)
            number = next(rested, None)
        if number is not None:
            self._next = FIRST_NUMBER + (number + 1 - FIRST_NUMBER) % _SPAN
        return number

    def _round(self) -> Iterator[int]:
        return (FIRST_NUMBER + (self._next - FIRST_NUMBER + step) % _SPAN for step in range(_SPAN))
