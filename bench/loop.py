"""What a flood of first packets does to a gateway: its control loop, its portal link, and a flow that is established.

    .venv/bin/python -m bench.loop [--rate 40000] [--seconds 20] [--rounds 3]

Method, messages: the real `wardgate gateway` in a lab (`bench/stage.py`). Four clients with real sessions send
datagrams that were sealed before, each the first packet of a flow of its own, `--rate` a second for `--seconds`, so
every one of them is an upcall; the flow table fills up on the way, and what comes then is refused. Meanwhile the
portal says twenty times a second that somebody may reach something, and waits for the gateway's word that it has
acted on it: that time is a message's handling, there and back. Before the flood the same for five seconds. Heartbeats
are noted as they come. The loop's own figures are differences of `/metrics` over the flood.

Method, an established flow: the product in the lab of `make bench`. One TCP flow (iperf3, down), and beside it 5,000
datagrams a second from the client to the app: all of one flow, which the native threads forward, or each of a flow of
its own, from a new socket and a port that no round used before, which Python decides at both ends; a round in which
fewer than four fifths as many flows were opened does not count. The share that the TCP flow keeps is the
median of each round's ratio. Both kinds come from one program at one pace, so what making them costs is on both sides.
"""

import argparse
import asyncio
import dataclasses
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import bars, peers
from bench.bars import Bar
from bench.contenders.wardgate import Products, Wardgate
from bench.cost import usage_of
from bench.light_clients import LightClient, first_packets, resources
from bench.memory import FIRST_PORT, Crowd
from bench.place import LOAD_PORT, Place, opened
from bench.stage import GATEWAY, Stage, stage
from bench.statistics import percentile
from bench.workloads.base import Task
from bench.workloads.tcp import Bulk
from wardgate.errors import LabError
from wardgate.lab import topologies
from wardgate.lab.demo.workplace import Ended, end_on_signals, workplace
from wardgate.lab.process import Process
from wardgate.wire.ip import UDP

RATE, SECONDS, ROUNDS = 40_000, 20.0, 3
FLOODING_CLIENTS, ASKING_CLIENT = 4, 900
QUIET_S, ASK_EVERY_S, ANSWER_WITHIN_S = 5.0, 0.05, 5.0
HOSTS = tuple(IPv4Address("10.9.1.1") + number for number in range(16))
MOST_P99_MS, MOST_BETWEEN_HEARTBEATS_S, LEAST_KEPT = 100.0, 11.0, 0.8
SIDE_RATE, BULK_S = 5_000, 3.0
LEAST_OPENED, ROUND_PAUSE_S = 0.8, 15.0
ASIDE = tuple(IPv4Address("10.9.0.3") + number for number in range(4))
LOOP, ENGINE = "wardgate_gateway_loop_", "wardgate_gateway_engine_"
SHOWN = ("runs", "iterations", "forced_yields", "timeouts", "network_upcalls", "longest_run_seconds")
THREADS = "wardgate_gateway_threads_"

FLOOD = """
import socket, sys, time
path, length, host, port, rate, first_port = sys.argv[1], int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:])
data = open(path, "rb").read()
count, began = len(data) // length, time.monotonic()
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.bind(("0.0.0.0", first_port))
out.connect((host, port))
sent = 0
while sent < count:
    due = min(count, int((time.monotonic() - began) * rate))
    for at in range(sent, due):
        try:
            out.send(data[at * length : (at + 1) * length])
        except OSError:
            pass
    sent = max(sent, due)
    time.sleep(0.002)
"""

SIDE = """
import socket, sys, time
host, port, rate, seconds, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
first_port, last_port = 10000, 65000
began, sent = time.monotonic(), 0
held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
held.connect((host, port))
while (passed := time.monotonic() - began) < seconds and sent < last_port - first_port:
    for _ in range(int(passed * rate) - sent):
        fresh = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            fresh.bind(("", first_port + sent))
            fresh.connect((host, port))
            (fresh if kind == "new" else held).send(bytes(100))
        except OSError:
            pass
        fresh.close()
        sent += 1
    time.sleep(0.002)
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Handling:
    """How long messages of the portal took; seconds, and what the loop did meanwhile, by name."""

    quiet_s: list[float]
    flooded_s: list[float]
    between_heartbeats_s: list[float]
    loop: Mapping[str, float]


async def measure_handling(rate: int, seconds: float) -> Handling:
    """Times the portal's messages before and during a flood."""
    async with stage() as on:
        crowd = Crowd(on, FLOODING_CLIENTS)
        await crowd.connect()
        asking = crowd.clients.make(ASKING_CLIENT)
        quiet = await _ask(on, asking, QUIET_S, "quiet")
        crowd.fall_silent()
        with TemporaryDirectory() as directory:
            path, length = Path(directory, "flood"), 0
            print(f"  sealing {round(rate * seconds):,} first packets ...", flush=True)
            length = await asyncio.to_thread(_write_flood, path, crowd, round(rate * seconds))
            before, cpu = await on.metrics(), usage_of([on.process.pid])
            words = [sys.executable, "-c", FLOOD, str(path), str(length), GATEWAY.host, str(GATEWAY.port), str(rate)]
            flood = on.outside.spawn([*words, str(FIRST_PORT + 100)])
            print(f"  flooding for {seconds:.0f} s ...", flush=True)
            flooded = await _ask(on, asking, seconds, "flooded")
            after = await on.metrics()
            spent_s = usage_of([on.process.pid]).since(cpu).cpu_s
            flood.stop()
        beats = on.portal.heartbeats
    loop = {
        name: value - before.get(name, 0.0) for name, value in after.items() if name.startswith((LOOP, ENGINE, THREADS))
    }
    loop[f"{LOOP}longest_run_seconds"] = after.get(f"{LOOP}longest_run_seconds", 0.0)
    loop["cpu_seconds"] = spent_s
    return Handling(quiet, flooded, [later - earlier for earlier, later in pairwise(beats)], loop)


def _write_flood(path: Path, crowd: Crowd, count: int) -> int:
    """Seals first packets of flows by turns of the clients; gives the length of each datagram."""
    packets = [first_packets(client.ipv4, HOSTS, UDP) for client in crowd.all]
    now, length = time.monotonic(), 0
    with path.open("wb") as file:
        for number in range(count):
            client = crowd.all[number % len(crowd.all)]
            datagram = crowd.clients.seal(client, next(packets[number % len(crowd.all)]), now)
            length = length or len(datagram)
            if len(datagram) != length:
                raise SystemExit("the datagrams of the flood are not of one length")
            file.write(datagram)
    return length


async def _ask(on: Stage, client: LightClient, seconds: float, name: str) -> list[float]:
    """Has the portal grant something again and again; gives how long each took to be acknowledged.

    Raises:
        SystemExit: One never was.
    """
    took: list[float] = []
    (resource, *_) = resources()
    until = time.monotonic() + seconds
    while (asked_at := time.monotonic()) < until:
        ref = f"{name}-{len(took)}"
        message = client.authorization(resource, int(time.time()) + 86_400)
        await on.portal.push(message.model_copy(update={"ref": ref}))
        while ref not in on.portal.acknowledged_at:
            if time.monotonic() > asked_at + ANSWER_WITHIN_S:
                raise SystemExit(f"the gateway did not acknowledge a grant within {ANSWER_WITHIN_S:g} s ({name})")
            await asyncio.sleep(0.001)
        took.append(on.portal.acknowledged_at[ref] - asked_at)
        await asyncio.sleep(max(0.0, asked_at + ASK_EVERY_S - time.monotonic()))
    return took


def measure_kept(directory: Path, rounds: int) -> list[dict[str, float]]:
    """Throughput of one TCP flow beside datagrams of one flow, and of as many flows; Gbit/s, for each round."""
    found = []
    with opened("near", topologies.demo(), directory / "near") as place:
        for address in ASIDE:
            place.app_answers_at(address)
        wardgate = Wardgate(Products())
        wardgate.start(place)
        for number in range(rounds):
            time.sleep(ROUND_PAUSE_S if number else 0.0)  # so that a client's flows stay below their bound
            kinds = ("one", "new") if number % 2 == 0 else ("new", "one")
            aside = str(ASIDE[number % len(ASIDE)])
            one_round, opened_a_second = {}, 0.0
            for kind in kinds:
                before, began = _flows_opened(wardgate), time.monotonic()
                one_round[kind] = _bulk_beside(place, wardgate.target(), aside, kind)
                in_this = (_flows_opened(wardgate) - before) / (time.monotonic() - began)
                opened_a_second = in_this if kind == "new" else opened_a_second
            print(f"  round {number + 1}/{rounds}: {one_round['one']:.2f} Gbit/s beside one flow, "
                  f"{one_round['new']:.2f} beside {opened_a_second:,.0f} new ones a second", flush=True)  # fmt: skip
            if opened_a_second < LEAST_OPENED * SIDE_RATE:
                raise LabError(f"too few flows were opened: {opened_a_second:,.0f} a second")
            found.append(one_round)
    return found


def _flows_opened(wardgate: Wardgate) -> int:
    counters = wardgate.status()["counters"]
    return int(counters.get("flows_installed", 0))


def _bulk_beside(place: Place, target: str, aside: str, kind: str) -> float:
    with _side(place, aside, kind):
        return Bulk(warm_up_s=1.0).run(Task(place, target, BULK_S, lambda: usage_of(())))["gbit_per_s"]


@contextmanager
def _side(place: Place, target: str, kind: str) -> Iterator[Process]:
    words = [sys.executable, "-c", SIDE, target, str(LOAD_PORT), str(SIDE_RATE), "60", kind]
    process = place.start(f"side-{kind}", "client", words)
    try:
        yield process
        if not process.running:
            raise LabError(f"the datagrams ended early: {process.log(5)}")
    finally:
        process.stop()


def bars_of(handling: Handling, kept: list[dict[str, float]]) -> list[Bar]:
    """The figures against their limits."""
    p99_ms = 1000 * percentile(handling.flooded_s, 0.99)
    most_between_s = max(handling.between_heartbeats_s, default=float("inf"))
    share = statistics.median(one["new"] / one["one"] for one in kept)
    return [
        Bar("handling of a portal message in a flood, p99", p99_ms, "ms", MOST_P99_MS, is_ceiling=True),
        Bar("most between two heartbeats", most_between_s, "s", MOST_BETWEEN_HEARTBEATS_S, is_ceiling=True),
        Bar("what an established flow keeps beside 5,000 new flows a second", share, "x", LEAST_KEPT),
    ]


def main() -> int:
    """Prints the figures and keeps them in `bench/results/loop.json`; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=RATE, metavar="N", help="datagrams a second of the flood (40000)")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help="how long it lasts (20)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="of the established flow (3)")
    options = parser.parse_args()
    if options.rate < 1 or options.seconds < 1 or options.rounds < 1:
        parser.error("rate, seconds and rounds are at least 1")
    end_on_signals()
    try:
        peers.prepare(["wardgate"], lambda line: print(line, flush=True))
        print("a gateway's control loop in a flood of first packets", flush=True)
        handling = asyncio.run(measure_handling(options.rate, options.seconds))
        print("an established flow beside new ones", flush=True)
        with workplace() as directory:
            kept = measure_kept(directory, options.rounds)
    except Ended as ended:
        print(f"bench: ended by {ended}; everything is cleaned up")
        return 128 + ended.number
    except (LabError, peers.PeerError, TimeoutError) as error:
        print(f"bench: failed: {error}", file=sys.stderr)
        return 1
    _show(handling)
    method = (__doc__ or "").partition("Method, messages: ")[2].strip()
    bars.write("loop.json", bars_of(handling, kept), method, {"handling": dataclasses.asdict(handling), "kept": kept})
    return 0


def _show(handling: Handling) -> None:
    rows = []
    for name, seen in (("before the flood", handling.quiet_s), ("in the flood", handling.flooded_s)):
        figures = [percentile(seen, 0.5), percentile(seen, 0.99), max(seen)]
        rows.append((name, str(len(seen)), *(f"{1000 * figure:.1f}" for figure in figures)))
    bars.table(("messages of the portal", "count", "p50, ms", "p99, ms", "most, ms"), rows)
    steps = {name: value for name, value in handling.loop.items() if "step_seconds" in name}
    figures_of_loop = {name: handling.loop.get(f"{LOOP}{name}", 0.0) for name in SHOWN}
    told = ("upcalls_dropped_full", "upcalls_dropped_share", "flows_added", "flows_refused_bound", "datagrams_replayed")
    dropped = {name: handling.loop.get(f"{ENGINE}{name}", 0.0) for name in told}
    dropped["datagrams received"] = handling.loop.get(f"{THREADS}udp_received_datagrams", 0.0)
    rows = [
        (name.removeprefix(LOOP), f"{value:,.2f}") for name, value in {**steps, **figures_of_loop, **dropped}.items()
    ]
    bars.table(("the loop in the flood", ""), [*rows, ("cpu_seconds", f"{handling.loop['cpu_seconds']:.1f}")])


if __name__ == "__main__":
    sys.exit(main())
