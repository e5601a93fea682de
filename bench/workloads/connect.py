"""New TCP connections at a fixed pace; for Wardgate each is a new flow, which Python decides at both ends."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from bench.peers import LOAD
from bench.place import LOAD_PORT
from bench.statistics import percentile
from bench.workloads.base import Task
from wardgate.errors import LabError

GRACE_S = 20.0


@dataclass(frozen=True, slots=True)
class NewConnections:
    """Connections that are opened, and closed at once.

    Attributes:
        per_second: How many are started in each second, whatever becomes of the earlier ones.
    """

    per_second: int = 200

    def run(self, task: Task) -> Mapping[str, float]:
        """Gives `success_pct`, and `p50_ms` and `p99_ms` of those that were established."""
        words = [str(LOAD), "connect", f"{task.target}:{LOAD_PORT}", str(self.per_second), f"{task.seconds:g}"]
        return read_connections(task.place.client.run(words, timeout_s=task.seconds + GRACE_S).check().stdout)


def read_connections(text: str) -> dict[str, float]:
    """What `load connect` printed.

    Raises:
        LabError: It is not what it should be, or no connection was established.
    """
    try:
        told = json.loads(text)
        tried, latencies_ms = int(told["tried"]), [float(taken) * 1000 for taken in told["latencies_s"]]
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"load connect printed {text[:200]!r}") from error
    if not latencies_ms or tried < len(latencies_ms):
        raise LabError(f"{len(latencies_ms)} of {tried} connections were established")
    return {
        "success_pct": 100 * len(latencies_ms) / tried,
        "p50_ms": percentile(latencies_ms, 0.5),
        "p99_ms": percentile(latencies_ms, 0.99),
    }
