"""What every workload is to the benchmark."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from bench.cost import Usage
from bench.place import Place


@dataclass(frozen=True, slots=True)
class Task:
    """What a workload is to be done on.

    Attributes:
        place: The lab.
        target: The address at which the client finds the app through the tunnel.
        seconds: About how long the load is to last.
        usage: What the contender's programs have used so far.
    """

    place: Place
    target: str
    seconds: float
    usage: Callable[[], Usage]


class Workload(Protocol):
    """Load from the client to the app, and what is measured of it."""

    def run(self, task: Task) -> Mapping[str, float]:
        """Puts load on the tunnel.

        Returns:
            What was measured, by name. `bytes` and `packets` are what crossed the tunnel with a payload, for the cost
            of each; a workload of several loads, of which one counts, gives that one's `cpu_s` and `switches` too.

        Raises:
            LabError: The load's program failed.
            TimeoutError: It did not end in time.
        """
