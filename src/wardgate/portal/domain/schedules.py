"""When a regular job is due: pure rules on instants, all in UTC.

Source: portal-domain section 8.3.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final, Protocol

_DAY: Final = timedelta(days=1)
_FIRST_RETRY: Final = timedelta(minutes=1)
_LAST_RETRY: Final = timedelta(hours=1)
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Schedule(Protocol):
    """A series of instants."""

    def next_after(self, at: datetime) -> datetime:
        """The first of them that is later than an aware instant."""

    def __str__(self) -> str:
        """How people read it."""


@dataclass(frozen=True, slots=True)
class Every:
    """Each so many minutes of a day, counted from midnight UTC.

    Attributes:
        minutes: A divisor of a day's 1440.
        offset_s: How long after the full minute, so that jobs which touch the same rows do not meet.
    """

    minutes: int
    offset_s: int = 0

    def __post_init__(self) -> None:
        if self.minutes < 1 or 1440 % self.minutes:
            raise ValueError(f"minutes: must divide 1440, this is {self.minutes}")
        if not 0 <= self.offset_s < self.minutes * 60:
            raise ValueError(f"offset_s: must be less than the {self.minutes} minutes, this is {self.offset_s}")

    def next_after(self, at: datetime) -> datetime:
        """The first of them that is later than an aware instant."""
        midnight = datetime.combine(at.astimezone(UTC).date(), time(), UTC) + timedelta(seconds=self.offset_s)
        step = timedelta(minutes=self.minutes)
        return midnight + ((at - midnight) // step + 1) * step

    def __str__(self) -> str:
        text = "every minute" if self.minutes == 1 else f"every {self.minutes} min"
        return f"{text}, at second {self.offset_s}" if self.offset_s else text


@dataclass(frozen=True, slots=True)
class Daily:
    """Once a day."""

    hour: int
    minute: int = 0

    def next_after(self, at: datetime) -> datetime:
        """The first of them that is later than an aware instant."""
        today = datetime.combine(at.astimezone(UTC).date(), time(self.hour, self.minute), UTC)
        return today if today > at else today + _DAY

    def __str__(self) -> str:
        return f"daily at {self.hour:02}:{self.minute:02} UTC"


@dataclass(frozen=True, slots=True)
class Weekly:
    """Once a week.

    Attributes:
        weekday: 0 is Monday.
    """

    weekday: int
    hour: int
    minute: int = 0

    def next_after(self, at: datetime) -> datetime:
        """The first of them that is later than an aware instant."""
        found = Daily(self.hour, self.minute).next_after(at)
        return found + (self.weekday - found.weekday()) % 7 * _DAY

    def __str__(self) -> str:
        return f"{_DAYS[self.weekday]}s at {self.hour:02}:{self.minute:02} UTC"


def next_run(schedule: Schedule, at: datetime, *, failures_in_row: int = 0) -> datetime:
    """When a job that ended just now is due again.

    What was missed while no portal ran is made up for by one run, not by one for each instant missed. A failure is
    tried again after 1, 2, 4 and so on minutes, an hour at most, unless the schedule is quicker.
    """
    regular = schedule.next_after(at)
    if not failures_in_row:
        return regular
    wait: timedelta = min(_LAST_RETRY, _FIRST_RETRY * (1 << min(failures_in_row - 1, 10)))
    return min(regular, at + wait)
