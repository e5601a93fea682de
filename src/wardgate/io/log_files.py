"""Log files of one process in a directory: `<base>.<UTC time>.log`, and `<base>.latest` that leads to the newest.

A new file is begun when one is full, and the oldest go when all in the directory are too large together, so the log of
a program that runs for a year needs no other program to keep it small.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from wardgate.errors import SettingError
from wardgate.io.log_sink import without_colours

MAX_FILE_BYTES: Final = 10_000_000
MAX_BYTES: Final = 100_000_000
CLEANUP_INTERVAL_S: Final = 3600.0
PROTECTED_S: Final = 300.0
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+\.\d{4}(-\d{2}){5}\.log")


class LogFiles:
    """Writes to the newest file of its directory.

    Args:
        directory: Made if it is not there.
        base: How the files' names begin.
        max_file_bytes: A larger one is followed by a new one.
        max_bytes: All log files of the directory together, also of other programs of ours.
        now: The wall clock, in unix seconds.
    """

    def __init__(
        self,
        directory: Path,
        base: str,
        *,
        max_file_bytes: int = MAX_FILE_BYTES,
        max_bytes: int = MAX_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._base = base
        self._max_file_bytes = max_file_bytes
        self._max_bytes = max_bytes
        self._now = now
        self._path: Path | None = None
        self._descriptor: int | None = None
        self._written = 0
        self._cleaned_at: float | None = None

    def prepare(self) -> None:
        """Makes the directory and the first file.

        Raises:
            SettingError: It cannot be done.
        """
        try:
            self._open()
        except OSError as error:
            raise SettingError(f"--log-dir: {self._directory} cannot be written ({error.strerror})") from error

    def write(self, text: str) -> None:
        """Appends to the newest file, which is made again if somebody removed it.

        Raises:
            OSError: It cannot be written; the next call tries anew.
        """
        data = without_colours(text).encode(errors="backslashreplace")
        try:
            descriptor = self._open()
            while data:
                count = os.write(descriptor, data)
                data = data[count:]
                self._written += count
        except OSError:
            self._close()
            raise

    def tick(self) -> None:
        """Removes what is too much, once an hour."""
        now = self._now()
        if self._cleaned_at is None or not 0 <= now - self._cleaned_at < CLEANUP_INTERVAL_S:
            self._cleaned_at = now
            self.clean_up()

    def clean_up(self) -> int:
        """Removes the oldest files until the rest is small enough, but none that was written lately; says how many."""
        files: list[tuple[float, int, Path]] = []
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._directory):
                if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    files.append((status.st_mtime, status.st_size, Path(entry.path)))
        total = sum(size for _, size, _ in files)
        removed = 0
        for changed_at, size, path in sorted(files):
            if total <= self._max_bytes or self._now() - changed_at < PROTECTED_S:
                break
            if path != self._path:
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed += 1
                    total -= size
        return removed

    def _open(self) -> int:
        """The newest file's descriptor."""
        if self._descriptor is not None and self._path is not None:
            if not _is_still_there(self._path, self._descriptor):
                self._close()
            elif self._written >= self._max_file_bytes and self._new_path() != self._path:
                self._close()
                self._path = None
                self.clean_up()
        if self._descriptor is None:
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._path = self._path or self._new_path()
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self._written = os.fstat(self._descriptor).st_size
            self._point_latest(self._path.name)
        return self._descriptor

    def _new_path(self) -> Path:
        moment = time.strftime("%Y-%m-%d-%H-%M-%S", time.gmtime(self._now()))
        return self._directory / f"{self._base}.{moment}.log"

    def _point_latest(self, name: str) -> None:
        latest = self._directory / f"{self._base}.latest"
        temporary = latest.with_name(latest.name + ".new")
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(name)
            os.replace(temporary, latest)

    def _close(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


def _is_still_there(path: Path, descriptor: int) -> bool:
    try:
        there = os.stat(path)
    except OSError:
        return False
    own = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)
