"""Where log lines go: a bounded queue and a thread, so that nobody who logs ever waits for a disk or a terminal.

When the queue is full, lines are lost and counted, and the log says so as soon as it can. One sink serves a process;
`install` replaces it, `drain` waits a moment for what is queued, as before the last words of a program.
"""

import atexit
import os
import queue
import re
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TextIO

QUEUED_LINES: Final = 1024
MAX_LINE: Final = 16384
BATCH_LINES: Final = 256
TICK_S: Final = 30.0
DRAIN_S: Final = 1.0
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")


class Target(Protocol):
    """Takes lines, in the sink's own thread; raises `OSError` if it cannot."""

    def write(self, text: str) -> None: ...
    def tick(self) -> None: ...


class LogSink:
    """A text file for loggers.

    Args:
        targets: Where each line goes.
        describe_loss: The line that tells of so many lost ones.
        limit: How many lines wait at most.
    """

    def __init__(
        self, targets: Sequence[Target], describe_loss: Callable[[int], str], limit: int = QUEUED_LINES
    ) -> None:
        self._targets = targets
        self._describe_loss = describe_loss
        self._limit = limit
        self._queue: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._told = 0
        self.counters: Counter[str] = Counter({"lines_lost": 0, "write_errors": 0})

    def write(self, text: str) -> int:
        """Queues a line; never blocks."""
        if self._queue.qsize() >= self._limit:
            self.counters["lines_lost"] += 1
        else:
            self._queue.put(text if len(text) <= MAX_LINE else text[:MAX_LINE] + " ...\n")
            self._start()
        return len(text)

    def flush(self) -> None:
        """Does nothing: the thread is at it."""

    def drain(self, timeout_s: float = DRAIN_S) -> bool:
        """Waits until what is queued now is written; whether it is."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._queue.put(done)
        return done.wait(timeout_s)

    def close(self) -> None:
        """Drains and ends the thread."""
        self.drain()
        self._queue.put(None)

    def _start(self) -> None:
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        ticks_at = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= ticks_at:
                self._to_all(lambda target: target.tick())
                ticks_at = now + TICK_S
            try:
                first = self._queue.get(timeout=max(0.0, ticks_at - now))
            except queue.Empty:
                continue
            if not self._take(first):
                return

    def _take(self, first: str | threading.Event | None) -> bool:
        """Writes what is there; `False` at the end."""
        lines: list[str] = []
        item = first
        waiting: list[threading.Event] = []
        while True:
            if isinstance(item, str):
                lines.append(item)
            elif item is not None:
                waiting.append(item)
            if item is None or len(lines) >= BATCH_LINES:
                break
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
        lost = self.counters["lines_lost"]
        if lost > self._told:
            lines.append(self._describe_loss(lost - self._told))
            self._told = lost
        text = "".join(lines)
        if text:
            self._to_all(lambda target: target.write(text))
        for each in waiting:
            each.set()
        return item is not None

    def _to_all(self, work: Callable[[Target], None]) -> None:
        for target in self._targets:
            try:
                work(target)
            except (OSError, ValueError):  # a stream may be closed by now
                self.counters["write_errors"] += 1


class Stderr:
    """Standard error, by its descriptor where it has one."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        try:
            self._descriptor: int | None = self._stream.fileno()
        except (OSError, ValueError, AttributeError):
            self._descriptor = None

    def write(self, text: str) -> None:
        """Writes all of it, however long that takes."""
        if self._descriptor is None:
            self._stream.write(text)
            return
        rest = memoryview(text.encode(errors="backslashreplace"))
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [], 1.0)

    def tick(self) -> None:
        """Nothing is due."""


def without_colours(text: str) -> str:
    """The text as a file should have it."""
    return _COLOURS.sub("", text)


_installed: LogSink | None = None


def install(sink: LogSink) -> LogSink:
    """Makes it the process's sink."""
    global _installed
    if _installed is not None:
        _installed.close()
    else:
        atexit.register(drain)
    _installed = sink
    return sink


def drain() -> None:
    """Waits a moment for what the process logged."""
    if _installed is not None:
        _installed.drain()


def counters() -> dict[str, int]:
    """What was lost of the process's log."""
    return dict(_installed.counters) if _installed is not None else {}
