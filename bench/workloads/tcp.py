"""Bulk TCP, by iperf3: the steady part of a run, after a warm-up."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wardgate.errors import LabError

from bench.place import IPERF_PORT, Place

INTERVAL_S = 0.1
CONGESTION = "cubic"
"""What Linux distributions come with; said to iperf3, because a machine may have another default."""
GRACE_S = 15.0


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

    def run(self, place: Place, target: str, seconds: float) -> Mapping[str, float]:
        """Gives `gbit_per_s` of the steady part, and `bytes` that arrived in all."""
        words = client_words(target, seconds + self.warm_up_s, self.flows, self.down)
        done = place.client.run(words, timeout_s=seconds + self.warm_up_s + GRACE_S)
        result = json.loads(done.stdout or "{}")
        if done.returncode != 0 or "error" in result:
            raise LabError(f"iperf3 to {target}: {result.get('error', done.stderr.strip())}")
        rate = steady_bits_per_s(result["intervals"], self.warm_up_s)
        return {"gbit_per_s": rate / 1e9, "bytes": float(result["end"]["sum_received"]["bytes"])}


def client_words(target: str, seconds: float, flows: int, down: bool) -> list[str]:
    """The command that runs so many seconds; iperf3 itself takes whole ones."""
    words = ["iperf3", "--client", target, "--port", str(IPERF_PORT), "--json", "--interval", str(INTERVAL_S)]
    words += ["--time", str(max(1, round(seconds))), "--parallel", str(flows), "--connect-timeout", "5000"]
    words += ["--congestion", CONGESTION]
    return [*words, "--reverse"] if down else words


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
