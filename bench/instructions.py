"""Instructions that processes execute, counted by `perf stat` where the machine can; many virtual ones cannot."""

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

EVENT = "instructions"


def can_count() -> bool:
    """Whether this machine counts instructions."""
    if shutil.which("perf") is None:
        return False
    done = subprocess.run(["perf", "stat", "-x,", "-e", EVENT, "true"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and count_of(done.stderr) is not None


def count_of(text: str) -> int | None:
    """The count in the output of `perf stat -x,`; `None` if there is none."""
    for line in text.splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[2].startswith(EVENT) and fields[0].isdigit():
            return int(fields[0])
    return None


@contextmanager
def counted(pids: Sequence[int]) -> Iterator[Callable[[], int | None]]:
    """Counts in all threads of these processes; gives a function that, after the block, has the count.

    There is no count, and no perf is started, without processes.
    """
    if not pids:
        yield lambda: None
        return
    found: list[int | None] = [None]
    words = ["perf", "stat", "-x,", "-e", EVENT, "-p", ",".join(str(pid) for pid in pids)]
    perf = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield lambda: found[0]
    finally:
        perf.send_signal(signal.SIGINT)
        found[0] = count_of(perf.communicate()[1])
