"""Where the demo keeps logs, tokens and databases while it runs, and how it ends in good order.

A run that is killed outright cannot tidy up, so the next one does: a directory belongs to the run that holds its lock,
and the kernel lets go of the lock with the process.
"""

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

PREFIX = "wardgate-demo-"
LOCK = "owner.lock"
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """A signal asked us to end.

    Attributes:
        number: Which one.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def end_on_signals() -> None:
    """Makes the first signal raise `Ended`; further ones cannot interrupt the tidying up."""
    for number in ENDING_SIGNALS:
        signal.signal(number, _end)


@contextmanager
def workplace(*, keep: bool = False) -> Iterator[Path]:
    """A directory of this run's own, gone afterwards.

    Args:
        keep: Leave it behind, also for later runs.
    """
    parent = Path(tempfile.gettempdir())
    remove_stale(parent)
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    lock = -1
    try:
        lock = _lock_new(directory)
        yield directory
    finally:
        if keep:
            (directory / LOCK).unlink(missing_ok=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)
        if lock >= 0:
            os.close(lock)


def remove_stale(parent: Path) -> None:
    """Removes what killed runs of this user left; directories of running ones, and kept ones, stay."""
    for path in parent.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError):
            if path.parent.lstat().st_uid != os.geteuid():
                continue
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent, ignore_errors=True)
            finally:
                os.close(descriptor)


def _lock_new(directory: Path) -> int:
    """Makes the lock file, which nobody sees before it is locked."""
    unlocked = directory / f"{LOCK}.new"
    descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.rename(unlocked, directory / LOCK)
    return descriptor


def _end(number: int, frame: FrameType | None) -> NoReturn:
    for later in ENDING_SIGNALS:
        signal.signal(later, signal.SIG_IGN)
    raise Ended(number)
