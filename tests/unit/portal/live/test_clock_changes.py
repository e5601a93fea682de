"""Time windows on the days when clocks are changed, live."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.portal.helpers import ManualClock
from tests.unit.portal.live.test_changes import DELETED, UPDATED, add_policy, apply
from tests.unit.portal.live.test_never_refused_for_good import hours
from tests.unit.portal.live.world import World

SPRING = datetime(2027, 3, 28, 0, 30, tzinfo=UTC)
AUTUMN = datetime(2026, 10, 25, 0, 15, tzinfo=UTC)


@pytest.fixture
def clock(request: pytest.FixtureRequest) -> ManualClock:
    return ManualClock(request.param)


async def told_at(world: World, *minutes: float) -> list[list[str]]:
    """What Ugo's client is told up to each of these minutes."""
    heard, passed = [], 0.0
    for minute in minutes:
        await world.mark()
        await world.advance((minute - passed) * 60, step=30)
        passed = minute
        heard.append((await world.told()).get("ugo-laptop", []))
    return heard


@pytest.mark.parametrize("clock", [SPRING], indirect=True, ids=["spring"])
async def test_hours_end_and_begin_when_clocks_go_forward(world: World, clock: ManualClock) -> None:
    """In Vienna 02:00 is followed by 03:00, half an hour from the start."""
    await apply(
        world,
        add_policy("finance", "spare", conditions=[hours("U/01:00-02:30/Europe/Vienna")]),
        add_policy("finance", "wiki", conditions=[hours("U/02:30-04:00/Europe/Vienna")]),
    )
    await world.quiesce()

    heard = await told_at(world, 29.99, 30.01)

    assert heard == [[], [f"{DELETED} spare", f"{UPDATED} wiki"]]
    assert clock.utc_now() == SPRING + timedelta(minutes=30.01)


@pytest.mark.parametrize("clock", [AUTUMN], indirect=True, ids=["autumn"])
async def test_hours_that_come_twice_are_open_twice_when_clocks_go_back(world: World, clock: ManualClock) -> None:
    """In Vienna 03:00 is followed by 02:00; it is 02:15 at the start."""
    await apply(world, add_policy("finance", "spare", conditions=[hours("U/01:00-02:30/Europe/Vienna")]))
    await world.quiesce()

    heard = await told_at(world, 14.99, 15.01, 44.99, 45.01, 74.99, 75.01)

    assert heard == [[], [f"{DELETED} spare"], [], [f"{UPDATED} spare"], [], [f"{DELETED} spare"]]
    assert clock.utc_now() == AUTUMN + timedelta(minutes=75.01)
