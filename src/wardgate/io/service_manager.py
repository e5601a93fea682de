"""What a program tells the service manager that started it: systemd's notifications and its watchdog.

Everything here is a datagram to the socket that `NOTIFY_SOCKET` names; without one, nothing happens. The protocol is in
sd_notify(3) and systemd.service(5).
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

from wardgate.io import clock

MAX_STATUS: Final = 500
MIN_WATCHDOG_S: Final = 0.02

Beat = Callable[[], None]


class ServiceManager:
    """Talks to the service manager, if there is one.

    Args:
        environ: The environment that says so.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._watchdog_s = _watchdog_s(environ)
        self._status = ""
        self._is_ready = False
        self.failures = 0

    def ready(self) -> None:
        """The program serves now."""
        self._is_ready = True
        self._send("READY=1")

    def status(self, text: str) -> None:
        """A line for people, shown by `systemctl status`; the same one is not sent twice."""
        line = " ".join(text.split())[:MAX_STATUS]
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def reloading(self) -> None:
        """The program looks at its surroundings anew, and `reloaded` follows; one that never served just goes on."""
        if self._is_ready:
            self._send(f"RELOADING=1\nMONOTONIC_USEC={int(clock.monotonic() * 1_000_000)}")

    def reloaded(self) -> None:
        """It has done so."""
        if self._is_ready:
            self._send("READY=1")

    def stopping(self) -> None:
        """The program is ending."""
        self._send("STOPPING=1")

    def beat(self) -> None:
        """Tells the watchdog that the program lives."""
        self._send("WATCHDOG=1")

    async def watch(self, ask: Callable[[Beat], object]) -> None:
        """Keeps the watchdog content, twice in each of its periods; returns at once if there is none.

        Args:
            ask: Hands `beat` to whatever must be alive, to be called from there: a loop that hangs misses it.
        """
        while self._watchdog_s is not None:
            ask(self.beat)
            await asyncio.sleep(self._watchdog_s / 2)

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.setblocking(False)  # a manager that does not read must not hold anybody up
                notify.sendto(text.encode(), self._address)
        except OSError:
            self.failures += 1


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """The watchdog's period, if it watches this very process."""
    try:
        if int(environ.get("WATCHDOG_PID") or os.getpid()) != os.getpid():
            return None
        period_s = int(environ["WATCHDOG_USEC"]) / 1_000_000
    except (KeyError, ValueError):
        return None
    return max(MIN_WATCHDOG_S, period_s) if period_s > 0 else None
