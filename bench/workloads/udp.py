"""Packets a second: the highest rate of plain datagrams of which nearly all arrive."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.cost import Usage
from bench.peers import LOAD
from bench.place import LOAD_PORT
from bench.workloads.base import Task
from wardgate.errors import LabError

MAX_LOSS = 0.005
FLOOD = 1_000_000.0
"""More datagrams a second than anything here can carry."""
MAX_PROBES = 12
CLOSE_ENOUGH = 1.06
"""The search ends when a rate that is too high is less than this much above one that is not."""
STEP = 1.3
UNLUCKY_LOSS = 0.03
"""A probe that lost no more is tried once more: a single late wake-up of a busy machine may have done it."""
LEAST_RATE = 100.0
LEAD_IN_S = 0.1
"""How long `load udp` sends at the same rate before it counts."""
GRACE_S = 20.0


@dataclass(frozen=True, slots=True)
class Probe:
    """What became of datagrams that were sent at some rate.

    Attributes:
        sent: How many were sent, or would have been if the kernel had taken them.
        received: How many arrived.
        seconds: How long they were sent.
    """

    sent: int
    received: int
    seconds: float

    @property
    def loss(self) -> float:
        """The share that did not arrive."""
        return max(0.0, 1 - self.received / self.sent) if self.sent else 1.0

    @property
    def rate(self) -> float:
        """How many arrived in each second."""
        return self.received / self.seconds if self.seconds > 0 else 0.0

    @property
    def holds(self) -> bool:
        """Whether nearly all arrived."""
        return self.loss < MAX_LOSS


@dataclass(frozen=True, slots=True)
class Found:
    """The end of a search.

    Attributes:
        best: The probe with the most datagrams a second of those that hold; `None` if none did.
        flood_rate: How many arrived of a flood.
        probes: How many probes it took.
    """

    best: Probe | None
    flood_rate: float
    probes: int


def highest_rate(probe: Callable[[float], Probe], max_probes: int = MAX_PROBES) -> Found:
    """Searches the highest rate that holds: from what arrives of a flood in steps, then by halves.

    Args:
        probe: Sends at a rate, in datagrams a second.
        max_probes: How often it may be asked, the flood included.
    """
    flood = probe(FLOOD)
    best = flood if flood.holds else None
    probes, low, high = 1, 0.0, FLOOD
    rate = max(LEAST_RATE, flood.rate * 0.8)
    unlucky = False
    while best is not flood and probes < max_probes and rate >= LEAST_RATE:
        probes += 1
        outcome = probe(rate)
        if outcome.holds:
            best = outcome if best is None or outcome.rate > best.rate else best
            low, unlucky = rate, False
            if outcome.sent < 0.9 * rate * outcome.seconds:
                break  # the sender has no more to give
        elif outcome.loss < UNLUCKY_LOSS and not unlucky:
            unlucky = True
            continue
        else:
            high, unlucky = rate, False
        if low > 0 and high / low < CLOSE_ENOUGH:
            break
        rate = _next_rate(low, high)
    return Found(best, flood.rate, probes)


def _next_rate(low: float, high: float) -> float:
    if low == 0:
        return high / STEP
    return min(low * STEP, math.sqrt(low * high))


@dataclass(frozen=True, slots=True)
class PacketRate:
    """Datagrams from the client to the app.

    Attributes:
        size: Payload bytes of each.
    """

    size: int

    def run(self, task: Task) -> Mapping[str, float]:
        """Gives `packets_per_s`, and the `flood_packets_per_s` that arrive when far too many are sent.

        Costs are those of the probe that counts.
        """
        probe_s = min(1.0, max(0.3, task.seconds / 4))
        spent: dict[Probe, Usage] = {}

        def probe(rate: float) -> Probe:
            words = [str(LOAD), "udp", f"{task.target}:{LOAD_PORT}", str(self.size), f"{rate:.0f}", f"{probe_s:g}"]
            before = task.usage()
            done = task.place.client.run(words, timeout_s=probe_s + GRACE_S).check()
            outcome = read_probe(done.stdout)
            spent[outcome] = task.usage().since(before)
            return outcome

        found = highest_rate(probe)
        values = {"flood_packets_per_s": found.flood_rate, "probes": float(found.probes)}
        if found.best is None:
            return {**values, "packets_per_s": 0.0}
        cost, packets = spent[found.best], found.best.received * (1 + LEAD_IN_S / probe_s)
        values |= {"cpu_s": cost.cpu_s, "switches": float(cost.switches), "packets": packets}
        return {**values, "packets_per_s": found.best.rate}


def read_probe(text: str) -> Probe:
    """What `load udp` printed.

    Raises:
        LabError: It is not what it should be.
    """
    try:
        told = json.loads(text)
        return Probe(int(told["sent"]) + int(told["refused"]), int(told["received"]), float(told["seconds"]))
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"load udp printed {text!r}") from error
