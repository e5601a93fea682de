"""Leaving in good order: devices are sent to other portals one after the other, not all at once.

Requests of those that are still here are answered meanwhile; new connections are refused with 503 and `Retry-After`.
"""

import asyncio
from typing import Final

from wardgate.portal.channels.base import CLOSE_RESTART, log
from wardgate.portal.channels.hub import Hub

_STEP_S: Final = 0.05
_LEAVE_S: Final = 2.0


def due_by(elapsed_s: float, channels: int, seconds: float) -> int:
    """How many of so many channels are closed by now: an even share of the time for each, the first at once."""
    if elapsed_s >= seconds:
        return channels
    return min(channels, int(channels * elapsed_s / seconds) + 1)


async def drain(hub: Hub, seconds: float) -> None:
    """Closes every channel within so many seconds, in an order that means nothing, and waits until they are gone."""
    hub.is_draining = True
    channels = hub.shuffled(hub.presence.all_channels())
    log.info("draining", channels=len(channels), seconds=seconds)
    started = hub.clock.now()
    closed = 0
    while closed < len(channels):
        due = due_by(hub.clock.now() - started, len(channels), seconds)
        for channel in channels[closed:due]:
            channel.close(CLOSE_RESTART)
        closed = due
        await asyncio.sleep(_STEP_S)
    ended = hub.clock.now() + _LEAVE_S
    while hub.presence.count() and hub.clock.now() < ended:  # noqa: ASYNC110
        await asyncio.sleep(_STEP_S)
