"""A program that runs in the lab, seen from outside: wait for it, signal it, read what it wrote."""

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wardgate.errors import LabError

StatusOf = Callable[[int], int | None]
"""Asks the supervisor for a program's exit status, once it has ended."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What became of a program that ran to its end.

    Attributes:
        argv: What was run.
        returncode: Its exit status, or minus the signal that ended it.
        stdout: What it wrote, as text; bytes that are no UTF-8 are shown as backslash escapes.
        stderr: The same for its messages.
        elapsed_s: How long it took.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    elapsed_s: float

    def check(self) -> "Completed":
        """Itself, if the program succeeded.

        Raises:
            LabError: It did not; the text has the end of what it said.
        """
        if self.returncode != 0:
            said = (self.stderr or self.stdout).strip()[-2000:]
            raise LabError(f"{' '.join(self.argv)} ended with {self.returncode}: {said}")
        return self


class Process:
    """A program in the lab. It ends with the lab at the latest.

    Attributes:
        node: The name of the node that it runs on.
        argv: What was started.
        log_path: Where its output goes, if it goes to a file.
    """

    def __init__(
        self, node: str, argv: Sequence[str], log_path: Path | None, pidfd: int, token: int, status_of: StatusOf
    ) -> None:
        self.node = node
        self.argv = tuple(argv)
        self.log_path = log_path
        self._pidfd = pidfd
        self._token = token
        self._status_of = status_of
        self._pid = outer_pid(pidfd)
        self._returncode: int | None = None

    def __repr__(self) -> str:
        return f"<Process {self.argv[0]} on {self.node}, pid {self._pid}>"

    def __del__(self) -> None:
        descriptor, self._pidfd = self._pidfd, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def pid(self) -> int:
        """Its process id on this machine, outside the lab."""
        return self._pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, minus the signal that ended it, or `None` while it runs."""
        if self._returncode is None and self._has_ended(0.0):
            self._returncode = self._ask_status()
        return self._returncode

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.returncode is None

    def fileno(self) -> int:
        """A descriptor that becomes readable when it ends, for `select` and event loops."""
        return self._pidfd

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit status, once it has ended.

        Raises:
            TimeoutError: It still runs after that time.
        """
        if self._returncode is None:
            if not self._has_ended(timeout_s):
                raise TimeoutError(f"{' '.join(self.argv)} on {self.node} still runs after {timeout_s} s")
            self._returncode = self._ask_status()
        return self._returncode

    def send_signal(self, number: int) -> None:
        """Signals the program and whatever it started; harmless after its end."""
        if self._returncode is None and not self._has_ended(0.0):
            try:
                os.killpg(self._pid, number)
            except ProcessLookupError:
                return

    def terminate(self) -> None:
        """Asks it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it."""
        self.send_signal(signal.SIGKILL)

    def stop(self, grace_s: float = 3.0) -> int:
        """Asks it to end, ends it after that time, and gives its exit status."""
        self.terminate()
        try:
            return self.wait(grace_s)
        except TimeoutError:
            self.kill()
            return self.wait()

    def log(self, lines: int | None = None) -> str:
        """What it has written so far, or its last lines."""
        if self.log_path is None:
            return ""
        text = self.log_path.read_text(encoding="utf-8", errors="backslashreplace")
        return text if lines is None else "\n".join(text.splitlines()[-lines:])

    def _has_ended(self, timeout_s: float | None) -> bool:
        waiting = select.poll()
        waiting.register(self._pidfd, select.POLLIN)
        return bool(waiting.poll(None if timeout_s is None else max(0.0, timeout_s * 1000)))

    def _ask_status(self) -> int:
        status = self._status_of(self._token)
        return -signal.SIGKILL if status is None else status


def outer_pid(pidfd: int) -> int:
    """The process id, in this process's PID namespace, of the process a pidfd stands for; 0 if it is gone."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pid:"):
                return max(0, int(line.split()[1]))
    return 0


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str, poll_s: float = 0.02) -> float:
    """Waits for a condition and gives how many seconds that took.

    Raises:
        TimeoutError: It did not come true in time; the text names `what`.
    """
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > timeout_s:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(poll_s)
    return time.monotonic() - start
