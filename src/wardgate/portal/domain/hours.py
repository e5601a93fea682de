"""Hours of the week in a time zone: which instants a wall clock's time stands for, and when such hours begin and end.

On the day when clocks go forward an hour is missing: what would begin or end in it does so when they change. On the
day when they go back an hour comes twice, and hours within it are open twice.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

DAY_S: Final = 24 * 3600
PAST_THE_END: Final = timedelta(milliseconds=1)
"""Ends are included, so hours are over just after."""
_DAYS_AHEAD: Final = 9


@dataclass(frozen=True, slots=True)
class DayHours:
    """Hours of one day of the week.

    Attributes:
        weekday: 0 for Monday.
        ranges: First and last second since midnight, both included; 86400 is the next midnight, excluded.
    """

    weekday: int
    ranges: tuple[tuple[int, int], ...]
    zone: ZoneInfo


def instants(day: date, second: int, zone: ZoneInfo) -> tuple[datetime, ...]:
    """When the clocks of a zone show that second of a day, in UTC: once, twice, or when they jump over it."""
    wall = datetime.combine(day, time()) + timedelta(seconds=second)
    some = sorted({wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)})
    shown = tuple(one for one in some if one.astimezone(zone).replace(tzinfo=None) == wall)
    return shown or (_change_between(some[0], some[-1], zone),)


def _change_between(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """The second at which the zone's offset becomes another one."""
    before = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=int((high - low).total_seconds()) // 2)
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high


def edges(hours: Iterable[DayHours], day: date) -> tuple[datetime, ...]:
    """All instants of the next days at which any of the hours may begin or be over, in order, in UTC."""
    found: set[datetime] = set()
    for one in hours:
        for near in (day + timedelta(days=number) for number in range(-2, _DAYS_AHEAD)):
            found |= _edges_of_day(one, near)
    return tuple(sorted(found))


def _edges_of_day(hours: DayHours, day: date) -> set[datetime]:
    if hours.weekday != day.weekday():
        return set()
    found: set[datetime] = set()
    for start, end in hours.ranges:
        found.update(instants(day, start, hours.zone))
        past = timedelta() if end >= DAY_S else PAST_THE_END
        found.update(one + past for one in instants(day, end, hours.zone))
    midnights = [min(instants(day, second, hours.zone)) for second in (0, DAY_S)]
    offsets = [one.astimezone(hours.zone).utcoffset() for one in midnights]
    if offsets[0] != offsets[1]:
        found.add(_change_between(midnights[0], midnights[1], hours.zone))
    return found


def next_of(some: Sequence[datetime], at: datetime) -> datetime | None:
    """The first of ordered instants that is after `at`."""
    place = bisect_right(some, at)
    return some[place] if place < len(some) else None
