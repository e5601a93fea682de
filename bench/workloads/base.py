"""What every workload is to the benchmark."""

from collections.abc import Mapping
from typing import Protocol

from bench.place import Place


class Workload(Protocol):
    """Load from the client to the app, and what is measured of it."""

    def run(self, place: Place, target: str, seconds: float) -> Mapping[str, float]:
        """Puts load on the tunnel that leads to `target`, for about so long.

        Returns:
            What was measured, by name. `bytes` and `packets` are what crossed the tunnel with a payload, for the cost
            of each.

        Raises:
            LabError: The load's program failed.
            TimeoutError: It did not end in time.
        """
