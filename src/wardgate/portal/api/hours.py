"""Hours of the week as people read them."""

from collections.abc import Iterable
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field

from wardgate.portal.domain.conditions import Condition
from wardgate.portal.domain.reach import ALWAYS, Hours

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY_S = 24 * 3600


class HoursOut(BaseModel):
    """Some hours of a week."""

    zone: str = Field(description="The time zone: that of the policies if they agree on one, else UTC.")
    windows: list[str] = Field(description="As `Mon 18:00-24:00`; empty is never.")
    is_always: bool


def zone_of(conditions: Iterable[Condition]) -> str:
    """The zone that all time conditions name, or else UTC."""
    values = {value for one in conditions if one.property == "current_utc_datetime" for value in one.values}
    zones = {value.split("/", 2)[2] for value in values if value.count("/") >= 2}
    return zones.pop() if len(zones) == 1 else "UTC"


def hours_out(hours: Hours, monday: datetime, zone_name: str) -> HoursOut:
    """Hours as an answer.

    Args:
        monday: The begin of the week that the hours are of.
    """
    zone = ZoneInfo(zone_name)
    windows: list[tuple[int, int]] = []
    for start_s, end_s in hours:
        start = (monday + timedelta(seconds=start_s)).astimezone(zone)
        end = (monday + timedelta(seconds=end_s)).astimezone(zone)
        while start < end:
            midnight = datetime.combine(start.date() + timedelta(days=1), time(), zone)
            until = min(end, midnight)
            day_s = start.weekday() * _DAY_S
            windows.append((day_s + _second(start), day_s + (_DAY_S if until == midnight else _second(until))))
            start = until
    return HoursOut(zone=zone_name, windows=[_text(*one) for one in _joined(windows)], is_always=hours == ALWAYS)


def _second(at: datetime) -> int:
    return at.hour * 3600 + at.minute * 60 + at.second


def _joined(windows: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Windows of a day that touch each other as one: the week of UTC ends within a day of other zones."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(windows):
        if joined and start <= joined[-1][1] and start % _DAY_S:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _text(start: int, end: int) -> str:
    day = start // _DAY_S
    return f"{_DAYS[day]} {_clock(start - day * _DAY_S)}-{_clock(end - day * _DAY_S)}"


def _clock(second: int) -> str:
    text = f"{second // 3600:02}:{second // 60 % 60:02}"
    return text if second % 60 == 0 else f"{text}:{second % 60:02}"
