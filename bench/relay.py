"""Our relay beside coturn's, in the same run: throughput, time added, overload, allocations a second, memory.

    make bench-relay        python -m bench.relay [--quick] [--rounds 3] [--only WORD …]

Method: a client, a relay and a peer in three network namespaces with a veth wire on either side of the relay. The
programs take turns, coturn 4.6 (Debian's) with one relay thread; each figure is the median of the rounds, and the
columns "least" and "most" are of single rounds. "per core" is what arrived divided by the processor time of the relay's
process, all threads, user and system. A core is shared with whatever else the machine does, so the ratios say more.

Load comes from `bench/load`, with a payload that says when it was sent. "batched" hands up to 40 datagrams of one
client to the kernel at once (UDP GSO), as Wardgate's own programs do; "single" is one system call for each datagram, as
most other programs do. With many allocations the sender goes from one to the next after each call. Batched senders
favour our relay: it takes what arrives together with one call and sends it with one, while coturn handles each datagram
by itself. The bars are about batched senders; single ones are shown beside them. Receivers take coalesced datagrams
(UDP GRO), and a veth wire carries super-packets whole, so that where a network card cannot cut them the relay's kernel
would have to, and has less left for us.

Time added is measured at half of the load that coturn carries at its best, single datagrams of 1280 bytes over all
allocations, against packets that the relay's machine forwards in the kernel. Overload is twice the best that the
program itself has carried (batched, 1280 bytes, all allocations). Allocations a second are whole cycles: a socket, a
401, an Allocate and a Refresh of lifetime 0; 32 are under way, from the addresses of a /16. Memory is the growth of the
process's resident memory over so many idle allocations, so the kernel's memory for sockets is not in it.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from bench import bars, peers
from bench.bars import Bar
from bench.relay_client import pairs
from bench.relay_measures import (
    OVERLOAD_SIZE,
    Churn,
    Overload,
    Row,
    Throughput,
    churn,
    memory,
    overload,
    throughput,
    times,
    times_without_relay,
)
from bench.relay_place import STARTS, Place, Program, missing, opened
from wardgate.errors import LabError
from wardgate.lab.demo.workplace import Ended, end_on_signals, workplace

OURS, THEIRS = "wardgate", "coturn"
LEAST_RATIO, AIMED_RATIO = 5.0, 15.0
MOST_BYTES = 4096.0
ROW_HEADS = ("coturn /s", "Gb/s", "ours /s", "Gb/s", "ratio", "least", "most", "coturn busy", "ours busy")
OVERLOAD_HEADS = ("best /s", "offered /s", "received /s", "of best", "Refreshes answered", "median", "longest")
PARTS = ("throughput", "time", "overload", "allocations", "memory")


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What to measure, and for how long."""

    rounds: int
    seconds: float
    allocations: int
    idle: int
    parts: Sequence[str]


@dataclasses.dataclass(slots=True)
class Found:
    """Everything that was measured, by program, a value for each round."""

    rows: dict[tuple[str, Row], list[Throughput]] = dataclasses.field(default_factory=dict)
    times: dict[str, list[dict[str, float]]] = dataclasses.field(default_factory=dict)
    overloads: dict[str, list[Overload]] = dataclasses.field(default_factory=dict)
    churns: dict[str, list[Churn]] = dataclasses.field(default_factory=dict)
    memory: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def per_core(self, name: str, row: Row) -> float:
        """The median of the rounds."""
        return statistics.median(one.per_core_s for one in self.rows[name, row])

    def ratios(self, row: Row) -> list[float]:
        """Ours to coturn's, round by round."""
        both = zip(self.rows[OURS, row], self.rows[THEIRS, row], strict=True)
        return [ours.per_core_s / theirs.per_core_s for ours, theirs in both]

    def as_json(self) -> dict[str, object]:
        """For the file."""
        rows: dict[str, dict[str, object]] = {}
        for (name, row), values in self.rows.items():
            rows.setdefault(row.name, {})[name] = [
                {**value._asdict(), "per_core_s": value.per_core_s} for value in values
            ]
        return {
            "throughput": rows,
            "times_us": self.times,
            "overload": {name: [one._asdict() for one in values] for name, values in self.overloads.items()},
            "allocations": {name: [one._asdict() for one in values] for name, values in self.churns.items()},
            "bytes_per_allocation": self.memory,
        }


def rows_of(allocations: int) -> list[Row]:
    """All loads."""
    return [
        Row(to_peer, size, count, batched)
        for count in (1, allocations)
        for batched in (True, False)
        for to_peer in (True, False)
        for size in (1280, 100)
    ]


def measure(place: Place, options: Options, say: Callable[[str], None]) -> Found:
    """Rounds in which the programs take turns."""
    found = Found()
    began = time.monotonic()
    for number in range(options.rounds):
        for name in (THEIRS, OURS) if number % 2 == 0 else (OURS, THEIRS):
            with STARTS[name](place) as program:
                _forward(place, program, options, found)
            if "allocations" in options.parts:
                with STARTS[name](place) as program:
                    found.churns.setdefault(name, []).append(churn(place, program, 3 * options.seconds))
            say(f"round {number + 1} of {options.rounds}: {name} done after {time.monotonic() - began:.0f} s")
    if "memory" in options.parts:
        for name, start in STARTS.items():
            with start(place) as program:
                found.memory[name] = [memory(place, program, options.idle)]
        say(f"memory done after {time.monotonic() - began:.0f} s")
    return found


def _forward(place: Place, program: Program, options: Options, found: Found) -> None:
    if not {"throughput", "time", "overload"} & set(options.parts):
        return
    with pairs(place, options.allocations) as made:
        if "throughput" in options.parts:
            for row in rows_of(options.allocations):
                value = throughput(program, made, row, options.seconds)
                found.rows.setdefault((program.name, row), []).append(value)
        if "overload" in options.parts or THEIRS not in found.overloads:
            value_ = overload(place, program, made, options.seconds)
            found.overloads.setdefault(program.name, []).append(value_)
        if "time" in options.parts:
            rate, seconds = found.overloads[THEIRS][0].best_per_s / 2, 2 * options.seconds
            found.times.setdefault(program.name, []).append(times(made, OVERLOAD_SIZE, rate, seconds))
            direct = times_without_relay(place, OVERLOAD_SIZE, rate, seconds)
            found.times.setdefault("without", []).append(direct)


def show(found: Found, options: Options) -> None:
    """Tables on the terminal."""
    if found.rows:
        bars.table(("per core", *ROW_HEADS), [_row_cells(found, row) for row in rows_of(options.allocations)])
    if found.times:
        cells: list[tuple[str, ...]] = []
        for name, values in found.times.items():
            figures = [statistics.median(one[key] for one in values) for key in ("p50", "p99", "most")]
            arrived = statistics.median(one["arrived"] for one in values)
            cells.append((name, *(f"{figure:,.0f}" for figure in figures), f"{100 * arrived:.1f} %"))
        rate = found.times["without"][0]["rate"]
        bars.table((f"at {rate:,.0f} datagrams a second", "p50, us", "p99, us", "most, us", "arrived"), cells)
    if found.overloads:
        bars.table(
            ("overload", *OVERLOAD_HEADS), [_overload_cells(name, values) for name, values in found.overloads.items()]
        )
    if found.churns:
        lines: list[tuple[str, ...]] = []
        for name, churns in found.churns.items():
            rates, per_core = [one.per_s for one in churns], [one.per_core_s for one in churns]
            resent = sum(one.resent for one in churns)
            figures = [statistics.median(rates), min(rates), max(rates), statistics.median(per_core), resent]
            lines.append((name, *(f"{figure:,.0f}" for figure in figures)))
        bars.table(("allocations", "a second", "least", "most", "per core", "resent"), lines)
    if found.memory:
        bars.table(("idle allocations", "bytes each"), [(name, f"{one[0]:,.0f}") for name, one in found.memory.items()])


def _row_cells(found: Found, row: Row) -> tuple[str, ...]:
    cells = [row.name]
    for name in (THEIRS, OURS):
        per_core = found.per_core(name, row)
        cells += [f"{per_core:,.0f}", f"{per_core * row.size * 8 / 1e9:.2f}"]
    ratios = found.ratios(row)
    cells += [f"{figure:.1f}" for figure in (statistics.median(ratios), min(ratios), max(ratios))]
    cells += [f"{statistics.median(one.cores for one in found.rows[name, row]):.2f}" for name in (THEIRS, OURS)]
    return tuple(cells)


def _overload_cells(name: str, values: Sequence[Overload]) -> tuple[str, ...]:
    middle = statistics.median
    cells = [f"{middle(getattr(one, key) for one in values):,.0f}" for key in ("best_per_s", "offered_per_s")]
    cells.append(f"{middle(one.received_per_s for one in values):,.0f}")
    cells.append(f"{100 * middle(one.share for one in values):.0f} %")
    cells.append(f"{sum(one.refreshes_answered for one in values)} of {sum(one.refreshes for one in values)}")
    cells.append(f"{1000 * middle(one.refresh_s[0] for one in values):.1f} ms")
    cells.append(f"{1000 * max(one.refresh_s[1] for one in values):.1f} ms")
    return (name, *cells)


def bars_of(found: Found, options: Options) -> list[Bar]:
    """The figures against their limits."""
    made = []
    if found.rows:
        for count in (1, options.allocations):
            rows = [row for row in rows_of(options.allocations) if row.allocations == count and row.batched]
            least = min(statistics.median(found.ratios(row)) for row in rows)
            name = (
                f"packets per core through {count:,} allocation{'s' if count > 1 else ''}, to coturn's; least of 4 rows"
            )
            made.append(Bar(name, least, "x", LEAST_RATIO, aim=AIMED_RATIO))
    if found.times:
        p99 = {name: statistics.median(one["p99"] for one in values) for name, values in found.times.items()}
        added, theirs = p99[OURS] - p99["without"], p99[THEIRS] - p99["without"]
        made.append(
            Bar("latency added at half of coturn's load, p99, to coturn's", added, "us", round(theirs, 1), True)
        )
    if found.churns:
        ratio = statistics.median(
            ours.per_s / theirs.per_s for ours, theirs in zip(found.churns[OURS], found.churns[THEIRS], strict=True)
        )
        made.append(Bar("allocations a second, to coturn's", ratio, "x", 1.0))
    if found.memory:
        made.append(Bar("memory of an idle allocation", found.memory[OURS][0], "B", MOST_BYTES, True))
    return made


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, below two minutes; nothing is written")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each program has its turn (3)")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="how long each load is measured (1)")
    parser.add_argument("--allocations", type=int, default=1000, metavar="N", help="in the rows with many (1000)")
    parser.add_argument("--idle", type=int, default=4000, metavar="N", help="allocations for the memory (4000)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts; nothing is written")
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.seconds <= 0 or not 1 < given.allocations <= 4000 or not 0 < given.idle <= 14_000:
        parser.error("rounds and seconds are above zero, allocations 2 to 4000, idle ones 1 to 14000")
    if given.quick:
        return Options(1, 0.4, min(given.allocations, 1000), min(given.idle, 1000), given.only)
    return Options(given.rounds, given.seconds, given.allocations, given.idle, given.only)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables and keeps them in `bench/results/relay.json`; gives the exit status."""
    options = parse(arguments)
    if (text := missing()) is not None:
        print(f"bench: {text}", file=sys.stderr)
        return 1
    end_on_signals()

    def say(text: str) -> None:
        print(text, flush=True)

    try:
        peers.prepare_load(say)
        with workplace() as directory, opened(directory) as place:
            found = measure(place, options, say)
    except Ended as ended:
        print(f"bench: ended by {ended}; everything is cleaned up")
        return 128 + ended.number
    except (LabError, peers.PeerError, TimeoutError) as error:
        print(f"bench: failed: {error}", file=sys.stderr)
        return 1
    show(found, options)
    made = bars_of(found, options)
    if options.rounds > 1 and set(options.parts) == set(PARTS):
        bars.write("relay.json", made, (__doc__ or "").partition("Method: ")[2].strip(), found.as_json())
    else:
        bars.show(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
