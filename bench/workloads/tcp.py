"""Bulk TCP, by iperf3: the steady part of a run, after a warm-up."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.place import IPERF_PORT
from bench.workloads.base import Task
from wardgate.errors import LabError
from wardgate.lab.process import Process

INTERVAL_S = 0.1
CONGESTION = "cubic"
"""What Linux distributions come with; said to iperf3, because a machine may have another default."""
SEGMENT = 1228
"""The payload of a full packet: the tunnel's MTU less headers and time stamps."""
GRACE_S = 20.0


@dataclass(frozen=True, slots=True)
class Bulk:
    """As much TCP as goes.

    Attributes:
        flows: How many connections.
        down: From the app to the client, else the other way.
        warm_up_s: How much of the start is not looked at.
    """

    flows: int = 1
    down: bool = True
    warm_up_s: float = 0.5

    def run(self, task: Task) -> Mapping[str, float]:
        """Gives `gbit_per_s` of the steady part, and the `bytes` and `packets` that arrived in all."""
        lasts_s = math.ceil(task.seconds + self.warm_up_s)
        done = task.place.client.run(self.words(task.target, lasts_s), timeout_s=lasts_s + GRACE_S)
        return read_result(done.stdout, done.stderr, self.warm_up_s)

    def words(self, target: str, lasts_s: int) -> list[str]:
        """The command that does it."""
        words = ["iperf3", "--client", target, "--port", str(IPERF_PORT), "--json", "--interval", str(INTERVAL_S)]
        words += ["--time", str(lasts_s), "--parallel", str(self.flows), "--connect-timeout", "5000"]
        words += ["--congestion", CONGESTION]
        return [*words, "--reverse"] if self.down else words

    @contextmanager
    def in_background(self, task: Task) -> Iterator[Process]:
        """Runs beside something else, for as long as the block."""
        words = self.words(task.target, math.ceil(task.seconds + self.warm_up_s + GRACE_S))
        process = task.place.start("background", "client", words, fresh_log=True)
        try:
            yield process
        finally:
            process.stop()


def read_result(stdout: str, stderr: str, warm_up_s: float) -> dict[str, float]:
    """What iperf3 measured, from its JSON.

    Raises:
        LabError: It failed, or its text is not what it should be.
    """
    try:
        result = json.loads(stdout)
        if "error" in result:
            raise LabError(f"iperf3: {result['error']}")
        rate = steady_bits_per_s(result["intervals"], warm_up_s)
        received = float(result["end"]["sum_received"]["bytes"])
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"iperf3: {stderr.strip() or error}") from error
    return {"gbit_per_s": rate / 1e9, "bytes": received, "packets": received / SEGMENT}


def steady_bits_per_s(intervals: Sequence[Mapping[str, Any]], warm_up_s: float) -> float:
    """The rate over the intervals that start after the warm-up.

    Raises:
        LabError: There are none.
    """
    sums = [interval["sum"] for interval in intervals if interval["sum"]["start"] >= warm_up_s - INTERVAL_S / 2]
    lasted_s = sum(float(part["seconds"]) for part in sums)
    if lasted_s <= 0:
        raise LabError("iperf3 ended before its warm-up was over")
    return sum(int(part["bytes"]) for part in sums) * 8 / lasted_s
