"""When regular jobs are due."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from wardgate.portal.domain.schedules import Daily, Every, Schedule, Weekly, next_run


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "now", "due"),
    [
        (Every(1), "2026-11-28T12:00:00", "2026-11-28T12:01:00"),
        (Every(1), "2026-11-28T12:00:59.999", "2026-11-28T12:01:00"),
        (Every(1, offset_s=30), "2026-11-28T12:00:29", "2026-11-28T12:00:30"),
        (Every(1, offset_s=30), "2026-11-28T12:00:30", "2026-11-28T12:01:30"),
        (Every(5), "2026-11-28T12:04:59", "2026-11-28T12:05:00"),
        (Every(30), "2026-11-28T23:30:00", "2026-11-29T00:00:00"),
        (Every(5, offset_s=60), "2026-11-28T00:00:30", "2026-11-28T00:01:00"),
        (Every(1440), "2026-11-28T00:00:00", "2026-11-29T00:00:00"),
        (Daily(3, 30), "2026-11-28T03:29:59", "2026-11-28T03:30:00"),
        (Daily(3, 30), "2026-11-28T03:30:00", "2026-11-29T03:30:00"),
        (Daily(3, 30), "2026-12-31T12:00:00", "2027-01-01T03:30:00"),
        (Weekly(6, 9), "2026-11-28T12:00:00", "2026-11-29T09:00:00"),
        (Weekly(6, 9), "2026-11-29T09:00:00", "2026-12-06T09:00:00"),
        (Weekly(0, 9), "2026-11-28T12:00:00", "2026-11-30T09:00:00"),
        (Weekly(5, 9), "2026-11-28T12:00:00", "2026-12-05T09:00:00"),
    ],
)
def test_a_schedule_gives_its_next_instant(schedule: Schedule, now: str, due: str) -> None:
    assert schedule.next_after(at(now)) == at(due)


def test_schedules_count_in_utc_whatever_zone_they_are_asked_in() -> None:
    vienna = timezone(timedelta(hours=1))

    assert Daily(3, 30).next_after(datetime(2026, 11, 28, 4, 0, tzinfo=vienna)) == at("2026-11-28T03:30:00")


def test_what_was_missed_is_made_up_for_by_one_run() -> None:
    ended = at("2026-11-30T10:00:07")  # was due two days ago and has just run

    assert next_run(Every(5), ended) == at("2026-11-30T10:05:00")


@pytest.mark.parametrize(("failures", "minutes"), [(1, 1), (2, 2), (3, 4), (4, 8), (7, 60), (50, 60)])
def test_a_failure_is_tried_again_ever_later(failures: int, minutes: int) -> None:
    now = at("2026-11-28T12:00:00")

    assert next_run(Weekly(0, 9), now, failures_in_row=failures) == now + timedelta(minutes=minutes)


def test_a_failure_does_not_wait_longer_than_its_schedule() -> None:
    now = at("2026-11-28T12:00:10")

    assert next_run(Every(1), now, failures_in_row=9) == at("2026-11-28T12:01:00")


@pytest.mark.parametrize(("minutes", "offset_s"), [(0, 0), (7, 0), (-5, 0), (1, 60), (5, -1)])
def test_a_schedule_that_does_not_fit_a_day_is_refused(minutes: int, offset_s: int) -> None:
    with pytest.raises(ValueError, match="must"):
        Every(minutes, offset_s)
