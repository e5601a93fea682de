"""Instructions that processes execute, counted by `perf stat` where the machine can; many virtual ones cannot."""

import shutil
import signal
import subprocess
from collections.abc import Iterable

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


class Counter:
    """Counts from its making until `stop`, in all threads of these processes."""

    def __init__(self, pids: Iterable[int]) -> None:
        words = ["perf", "stat", "-x,", "-e", EVENT, "-p", ",".join(str(pid) for pid in pids)]
        self._perf = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def stop(self) -> int | None:
        """What was counted."""
        self._perf.send_signal(signal.SIGINT)
        _, text = self._perf.communicate()
        return count_of(text)
