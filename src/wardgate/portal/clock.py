"""The portal's time: one object that sockets, channels and jobs share, so that tests can hold it still."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Timer(Protocol):
    """Something due later."""

    def cancel(self) -> None:
        """Takes it back; harmless when it is over."""


class Clock(Protocol):
    """Where time comes from."""

    def utc_now(self) -> datetime:
        """The aware wall-clock time."""

    def now(self) -> float:
        """Monotonic seconds."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Calls back after a while, in the event loop."""


class SystemClock:
    """The machine's time."""

    def utc_now(self) -> datetime:
        """The aware wall-clock time."""
        return datetime.now(UTC)

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Calls back after a while, in the event loop."""
        return asyncio.get_running_loop().call_later(delay_s, callback)
