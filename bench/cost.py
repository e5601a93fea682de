"""What programs have used: processor time, memory, context switches. Read from /proc, from outside the lab."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """What some processes have used so far, all threads and descendants together.

    Attributes:
        cpu_s: Processor time, user and system. The kernel's work on a packet counts where it happens, which is mostly
            the process that sent it.
        switches: Context switches, voluntary and not.
        peak_rss: The sum of the most memory that each has had resident, in bytes.
    """

    cpu_s: float = 0.0
    switches: int = 0
    peak_rss: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.cpu_s + other.cpu_s, self.switches + other.switches, self.peak_rss + other.peak_rss)

    def since(self, earlier: "Usage") -> "Usage":
        """What was used after an earlier reading; the peak stays a peak."""
        return Usage(self.cpu_s - earlier.cpu_s, self.switches - earlier.switches, self.peak_rss)


def usage_of(pids: Iterable[int]) -> Usage:
    """What these processes and their descendants have used."""
    total = Usage()
    for pid in pids:
        total += _usage_of_one(pid)
        total += usage_of(_children(pid))
    return total


def machine_busy_s() -> float:
    """How much processor time the whole machine has used since it started."""
    user, nice, system, _, _, irq, softirq, _ = _machine_ticks()
    return (user + nice + system + irq + softirq) / TICKS_PER_S


def machine_stolen_s() -> float:
    """How much processor time this virtual machine wanted and did not get."""
    return _machine_ticks()[7] / TICKS_PER_S


def _machine_ticks() -> list[int]:
    return [int(word) for word in (PROC / "stat").read_text().split()[1:9]]


def cpu_ticks_of(stat: str) -> int:
    """User and system time in the text of `/proc/<pid>/stat`, in clock ticks."""
    fields = stat.rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def number_of(status: str, key: str) -> int:
    """A number in the text of `/proc/<pid>/status`; 0 if the key is not there."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0])
    return 0


def _usage_of_one(pid: int) -> Usage:
    with suppress(OSError):  # it may end while it is read
        directory = PROC / str(pid)
        cpu_s = cpu_ticks_of((directory / "stat").read_text()) / TICKS_PER_S
        peak = number_of((directory / "status").read_text(), "VmHWM") * 1024
        switches = sum(_switches(task) for task in (directory / "task").iterdir())
        return Usage(cpu_s, switches, peak)
    return Usage()


def _switches(task: Path) -> int:
    with suppress(OSError):
        status = (task / "status").read_text()
        return number_of(status, "voluntary_ctxt_switches") + number_of(status, "nonvoluntary_ctxt_switches")
    return 0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in (PROC / str(pid) / "task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
    return found
