"""The clock: monotonic seconds for every deadline, and what turns them into wall time."""

import time


def monotonic() -> float:
    """Seconds of CLOCK_MONOTONIC, the `now` of every state machine and of the native module."""
    return time.monotonic()


def epoch() -> float:
    """Unix seconds at monotonic 0: wall time is `now + epoch()`."""
    return time.time() - time.monotonic()
