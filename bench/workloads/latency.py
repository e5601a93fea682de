"""Round trips: ICMP echo every few milliseconds, with nothing else to carry or beside a TCP flow at full speed."""

import re
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

from bench.statistics import percentile
from bench.workloads.base import Task
from bench.workloads.tcp import Bulk
from wardgate.errors import LabError

INTERVAL_S = 0.004
ENOUGH = 0.5
"""The share of echoes that has to come back for the figures to mean anything."""
GRACE_S = 15.0
_REPLY = re.compile(r"icmp_seq=(\d+) .*time=([0-9.]+) ms")
_SUMMARY = re.compile(r"(\d+) packets transmitted, (\d+) received")


@dataclass(frozen=True, slots=True)
class Latency:
    """Echoes, answered by the app's kernel, timed by the client's.

    Attributes:
        beside: The load meanwhile.
    """

    beside: Bulk | None = None

    def run(self, task: Task) -> Mapping[str, float]:
        """Gives `p50_ms`, `p99_ms` and `max_ms`, and `lost_pct`."""
        count = max(10, round(task.seconds / INTERVAL_S))
        words = ["ping", "-n", "-i", f"{INTERVAL_S:g}", "-c", str(count), "-W", "1", task.target]
        beside = self.beside.in_background(task) if self.beside else nullcontext()
        with beside as process:
            if self.beside is not None:
                time.sleep(self.beside.warm_up_s)
            done = task.place.client.run(words, timeout_s=task.seconds + GRACE_S)
            if process is not None and not process.running:
                raise LabError(f"the load ended before the echoes: {process.log(5)}")
        return read_pings(done.stdout)


def read_pings(text: str) -> dict[str, float]:
    """What ping printed. Duplicates count once; what did not come back is in `lost_pct` alone.

    Raises:
        LabError: It is no output of ping, or too few came back.
    """
    summary = _SUMMARY.search(text)
    by_sequence = {int(sequence): float(took) for sequence, took in reversed(_REPLY.findall(text))}
    if summary is None or not by_sequence:
        raise LabError(f"ping: nothing came back: {text[-300:]!r}")
    sent = int(summary[1])
    if len(by_sequence) < ENOUGH * sent:
        raise LabError(f"ping: only {len(by_sequence)} of {sent} came back")
    took = list(by_sequence.values())
    return {
        "p50_ms": percentile(took, 0.5),
        "p99_ms": percentile(took, 0.99),
        "max_ms": max(took),
        "lost_pct": 100 * (1 - len(took) / sent),
    }
