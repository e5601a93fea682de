"""Runs the rounds: every row, every contender, one after the other, so that a machine's drift meets all alike."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.cast import ENTRIES, FAR, NEAR, SYMMETRIC, Entry
from bench.contenders.base import Contender
from bench.contenders.wardgate import Products
from bench.cost import machine_busy_s, machine_stolen_s, usage_of
from bench.instructions import can_count, counted
from bench.options import Options
from bench.place import Place, opened
from bench.results import Results, Sample
from bench.rows import ROWS, Row
from bench.wire import carried
from bench.workloads.base import Task
from wardgate.errors import LabError
from wardgate.lab import topologies
from wardgate.lab.topology import Link, NatKind, Topology

FAR_DELAY_MS = 20.0
EDGE = "client-nat"
TOPOLOGIES: Mapping[str, Callable[[], Topology]] = {
    NEAR: topologies.demo,
    FAR: lambda: topologies.demo(client_link=Link(delay_ms=FAR_DELAY_MS)),
    SYMMETRIC: lambda: topologies.demo(NatKind.SYMMETRIC, NatKind.SYMMETRIC),
}
Say = Callable[[str], None]


@dataclass
class Field:
    """The labs that are open, and who is ready in each.

    Attributes:
        places: By name.
        ready: Contenders by name of the lab and their own.
    """

    places: dict[str, Place] = field(default_factory=dict)
    ready: dict[tuple[str, str], Contender] = field(default_factory=dict)


class Runner:
    """One run of the benchmark.

    Attributes:
        results: What has been measured so far.
        facts: What to know of the contenders, by lab and name.
        counts_instructions: Whether the machine does.
    """

    def __init__(self, options: Options, directory: Path, say: Say) -> None:
        self.results = Results(options.contenders)
        self.facts: dict[str, Mapping[str, str]] = {}
        self.counts_instructions = can_count()
        self._options = options
        self._directory = directory
        self._say = say
        self._began = time.monotonic()

    def run(self) -> None:
        """Opens the labs, starts everybody, does all rounds, and closes everything.

        Raises:
            LabError: A lab or a contender does not start.
        """
        rows = [ROWS[name] for name in self._options.rows]
        entries = [ENTRIES[name] for name in self._options.contenders]
        with self._field(rows, entries) as ground:
            for number in range(self._options.rounds):
                for row in rows:
                    with self._prepared(ground, row):
                        self._do_row(ground, row, number, order(entries, number))
        self._say(f"everything is measured after {self._elapsed_s() / 60:.1f} min; the labs are closed")

    @contextmanager
    def _field(self, rows: Sequence[Row], entries: Sequence[Entry]) -> Iterator[Field]:
        products, ground = Products(), Field()
        with ExitStack() as stack:
            for name in (NEAR, SYMMETRIC, FAR):
                here = [entry for entry in entries if any(entry.lab_for(row.where) == name for row in rows)]
                if not here:
                    continue
                began = time.monotonic()
                place = stack.enter_context(opened(name, TOPOLOGIES[name](), self._directory / name))
                ground.places[name] = place
                for entry in here:
                    contender = entry.make(products)
                    contender.start(place)
                    ground.ready[name, entry.name] = contender
                    self.facts[f"{entry.name}, {name}"] = contender.facts()
                names = ", ".join(entry.name for entry in here)
                self._say(f"lab {name}: {names} ready after {time.monotonic() - began:.0f} s")
            yield ground

    @contextmanager
    def _prepared(self, ground: Field, row: Row) -> Iterator[None]:
        """The client's wire as the row wants it, in every lab that the row is done in."""
        link = Link(delay_ms=row.delay_ms, loss=row.loss)
        labs = [place for name, place in ground.places.items() if (name == FAR) == (row.where == FAR)]
        before = [place.lab.topology.site("client").link for place in labs]
        for place in labs:
            place.lab.set_link(EDGE, link)
        try:
            yield
        finally:
            for place, earlier in zip(labs, before, strict=True):
                place.lab.set_link(EDGE, earlier)

    def _do_row(self, ground: Field, row: Row, number: int, entries: Sequence[Entry]) -> None:
        for entry in entries:
            lab = entry.lab_for(row.where)
            if lab is None:
                continue
            at_s = self._elapsed_s()
            values, error = self._try_twice(ground, row, entry, lab)
            self.results.samples.append(Sample(number, row.name, entry.name, at_s, values, error))
            self._say(self._progress(number, row, entry, values, error))

    def _try_twice(self, ground: Field, row: Row, entry: Entry, lab: str) -> tuple[Mapping[str, float], str | None]:
        error = ""
        for _ in range(2):
            try:
                return self._measure(ground, row, entry, lab), None
            except (LabError, TimeoutError) as failure:
                error = str(failure)
        return {}, error

    def _measure(self, ground: Field, row: Row, entry: Entry, lab: str) -> dict[str, float]:
        contender = ground.ready[lab, entry.name]
        target = contender.target()
        processes = {role: process.pid for role, process in contender.processes().items()}
        others = self._pids_of_others(ground, set(processes.values()))
        pids = tuple(processes.values())
        used, idle = usage_of(pids), usage_of(others)
        wire = carried(ground.places[lab])
        busy_s, stolen_s, began = machine_busy_s(), machine_stolen_s(), time.monotonic()
        with counted(pids if self.counts_instructions else ()) as instructions:
            task = Task(ground.places[lab], target, self._options.seconds, lambda: usage_of(pids))
            measured = row.workload.run(task)
        lasted_s, spent = time.monotonic() - began, usage_of(pids).since(used)
        values = {"cpu_s": spent.cpu_s, "switches": float(spent.switches), **measured}
        values |= {
            "lasted_s": lasted_s,
            "machine_s": machine_busy_s() - busy_s,
            "stolen_s": machine_stolen_s() - stolen_s,
            "others_cpu_s": usage_of(others).since(idle).cpu_s,
        }
        values |= carried(ground.places[lab]).figures_since(wire, lasted_s)
        values |= {f"peak_rss_mb_{role}": usage_of([pid]).peak_rss / 1e6 for role, pid in processes.items()}
        if entry.carriers:
            values["peak_rss_mb"] = sum(values[f"peak_rss_mb_{role}"] for role in entry.carriers)
        return values | per_unit(values, bool(processes), instructions())

    @staticmethod
    def _pids_of_others(ground: Field, ours: set[int]) -> list[int]:
        everybody = {process.pid for contender in ground.ready.values() for process in contender.processes().values()}
        return sorted(everybody - ours)

    def _progress(self, number: int, row: Row, entry: Entry, values: Mapping[str, float], error: str | None) -> str:
        done, total = len(self.results.samples), self._total()
        left_s = self._elapsed_s() / done * (total - done)
        told = f"failed: {error}" if error else ", ".join(f"{key} {values[key]:.4g}" for key in TOLD if key in values)
        where = f"round {number + 1}/{self._options.rounds}"
        return f"{where}  {row.name:<13}{entry.name:<18}{told}   [{done}/{total}, {left_s / 60:.0f} min left]"

    def _total(self) -> int:
        rows = [ROWS[name] for name in self._options.rows]
        entries = [ENTRIES[name] for name in self._options.contenders]
        return self._options.rounds * sum(entry.lab_for(row.where) is not None for row in rows for entry in entries)

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began


TOLD = ("gbit_per_s", "packets_per_s", "p50_ms", "p99_ms", "success_pct", "cpu_s_per_gb")
"""What progress lines show."""


def per_unit(values: Mapping[str, float], has_programs: bool, instructions: int | None = None) -> dict[str, float]:
    """Costs for each gigabyte and packet that was carried.

    Args:
        values: What was measured.
        has_programs: Whether the contender has programs of its own.
        instructions: How many they executed; `None` if that was not counted.
    """
    made: dict[str, float] = {}
    gigabytes, packets = values.get("bytes", 0.0) / 1e9, values.get("packets", 0.0)
    if gigabytes > 0:
        made["machine_s_per_gb"] = values["machine_s"] / gigabytes
    if gigabytes > 0 and has_programs:
        made["cpu_s_per_gb"] = values["cpu_s"] / gigabytes
        made["switches_per_gb"] = values["switches"] / gigabytes
    if packets > 0 and has_programs:
        made["cpu_us_per_packet"] = values["cpu_s"] / packets * 1e6
    if gigabytes > 0 and packets > 0 and instructions is not None:
        made["instructions_per_packet"] = instructions / packets
    return made


def order(entries: Sequence[Entry], number: int) -> Sequence[Entry]:
    """Another one begins in every round, and every other round goes backwards: nobody always follows the same one."""
    start = number % len(entries)
    turned = [*entries[start:], *entries[:start]]
    return turned[::-1] if number % 2 else turned
