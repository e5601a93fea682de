"""The thread that decides steps back behind the native threads that forward.

Deciding first packets is work that anybody who may send can make, and forwarding is what connections that are there
live on. So when a machine has too little for both, forwarding goes first. It needs no privilege, and takes nothing from
what is done in time: a thread that has waited is still let in soon.
"""

import os
import threading
from typing import Final

import structlog

STEPS_BACK: Final = 10
MAX_NICE: Final = 19

log = structlog.get_logger("io.priority")


class Priority:
    """The priority of the thread that makes this, and that uses it."""

    def __init__(self) -> None:
        self._own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def restore(self) -> None:
        """Has it as it was, for threads that are started next; without the privilege for it nothing changes."""
        self._set(self._own)

    def step_back(self) -> None:
        """Lets other threads of this process go first."""
        self._set(min(self._own + STEPS_BACK, MAX_NICE))

    def _set(self, nice: int) -> None:
        thread = threading.get_native_id()
        if os.getpriority(os.PRIO_PROCESS, thread) == nice:
            return
        try:
            os.setpriority(os.PRIO_PROCESS, thread, nice)
        except OSError as error:
            log.debug("the priority could not be set", nice=nice, error=str(error))
