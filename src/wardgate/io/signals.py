"""The signals that end a program: the first in good order, the second at once."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Final

ENDING: Final = (signal.SIGTERM, signal.SIGINT)


def end_on_signals(stop: Callable[[], object], at_once: Callable[[], object] = lambda: None) -> None:
    """Sets the handlers of the running event loop.

    Args:
        stop: Begins an end in good order, at the first signal.
        at_once: What must not wait even then, done before the second signal ends the process; must not block.
    """
    loop = asyncio.get_running_loop()
    seen: list[int] = []

    def on_signal(number: int) -> None:
        seen.append(number)
        if len(seen) == 1:
            stop()
            return
        with contextlib.suppress(Exception):  # whatever goes wrong, whoever asked twice wants an end
            at_once()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in ENDING:
        loop.add_signal_handler(number, on_signal, number)
