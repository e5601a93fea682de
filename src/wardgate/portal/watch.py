"""What a portal looks after for itself every minute, beside the jobs that all portals share."""

import asyncio
from typing import Final

from wardgate.portal.channels.base import log
from wardgate.portal.channels.hub import Hub
from wardgate.portal.db.timing import drift_s

MAX_DRIFT_S: Final = 1.0
_EVERY_S: Final = 60.0


async def watch_clock(hub: Hub) -> None:
    """Compares our clock with the database's until it is cancelled."""
    while True:
        await check_clock(hub)
        await asyncio.sleep(_EVERY_S)


async def check_clock(hub: Hub) -> None:
    """Says if the clocks are more than a second apart: grants would end too early or too late."""
    drift = await drift_s(hub.db, hub.clock.utc_now)
    if drift is None:
        return  # readiness says that the database is away
    hub.metrics.clock_drift.set(drift)
    if abs(drift) > MAX_DRIFT_S:
        log.warning("the database's clock is not ours", ahead_s=round(drift, 3))
