"""Ten minutes at full load: memory and tables have to stay as they were after the first minute.

    .venv/bin/python -m bench.soak [--minutes 10]

Method: the product as the demo starts it, in the lab of `make bench` (client, NAT, wan, NAT, gateway, app), a CIDR
resource, the direct path. From the client: one TCP flow in each direction at full speed (iperf3), and 100 new TCP
connections a second, each of which is a new flow that Python decides at both ends. Sessions are renewed every two
minutes, as always. Each second, from outside: resident memory of both programs (VmRSS), what the tunnel carried, and
the gateway's flows at `/metrics`. Memory at the end is the median of the last ten seconds under load, beside that of
the last ten seconds of the first minute. When the load has ended, its flows have to go, too.
"""

import argparse
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import bars, peers
from bench.bars import Bar
from bench.contenders.wardgate import Products, Wardgate
from bench.cost import number_of
from bench.peers import LOAD
from bench.place import IPERF_PORT, LOAD_PORT, Place, opened
from bench.workloads.connect import read_connections
from bench.workloads.tcp import CONGESTION
from wardgate.errors import LabError
from wardgate.lab import topologies
from wardgate.lab.demo.workplace import Ended, end_on_signals, workplace
from wardgate.lab.process import Process

MINUTES, FIRST_MINUTE_S, MEDIAN_OF_S, TELL_EVERY_S = 10.0, 60.0, 10.0, 10.0
CONNECTIONS_PER_S = 100
FLOWS_LEAVE_WITHIN_S = 30.0
MOST_GROWTH, LEAST_SUCCESS_PCT, MOST_FLOWS_LEFT = 1.05, 99.0, 100
TUN = "tun-wardgate"
METRICS = "http://127.0.0.1:8080/metrics"
FLOWS = re.compile(r"^wardgate_gateway_state_flows (\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment.

    Attributes:
        at_s: Seconds since the load began.
        rss: Resident bytes by role.
        flows: How many the gateway has.
        carried: Payload and headers that crossed the client's TUN device so far, both ways; bytes.
    """

    at_s: float
    rss: Mapping[str, int]
    flows: int
    carried: int


@dataclass
class Soak:
    """One run.

    Attributes:
        place: The lab.
        programs: Client and gateway.
        looks: Everything seen under load, one a second.
    """

    place: Place
    programs: Mapping[str, Process]
    looks: list[Look] = field(default_factory=list)

    def run(self, target: str, seconds: float) -> dict[str, float]:
        """Puts load on the tunnel and looks at it; gives what became of the new connections.

        Raises:
            LabError: A program ended early.
        """
        with self._load(target, seconds) as connections:
            began = time.monotonic()
            told_s = 0.0
            while (at_s := time.monotonic() - began) < seconds:
                self.looks.append(self.look(at_s))
                if at_s - told_s >= TELL_EVERY_S:
                    told_s = at_s
                    print(f"  {self._progress(seconds)}", flush=True)
                time.sleep(max(0.0, 1.0 - (time.monotonic() - began - at_s)))
            until = time.monotonic() + 15.0
            while connections.running and time.monotonic() < until:
                time.sleep(0.1)
            return read_connections(connections.log())

    def look(self, at_s: float) -> Look:
        """Reads memory, flows and counters."""
        rss = {}
        for role, process in self.programs.items():
            if not process.running:
                raise LabError(f"the {role} ended with {process.returncode}:\n{process.log(15)}")
            rss[role] = number_of(Path(f"/proc/{process.pid}/status").read_text(), "VmRSS") * 1024
        interfaces = self.place.client.run(["cat", "/proc/net/dev"]).check().stdout
        return Look(at_s, rss, self.flows(), carried_by(interfaces, TUN))

    def flows(self) -> int:
        """How many flows the gateway has.

        Raises:
            LabError: It does not say.
        """
        text = self.place.gateway.run(["curl", "--silent", "--max-time", "5", METRICS], timeout_s=8).check().stdout
        found = FLOWS.search(text)
        if found is None:
            raise LabError("the gateway's /metrics do not say how many flows it has")
        return int(found[1])

    @contextmanager
    def _load(self, target: str, seconds: float) -> Iterator[Process]:
        iperf3 = ["iperf3", "--client", target, "--port", str(IPERF_PORT), "--bidir", "--time", f"{seconds + 5:.0f}"]
        bulk = self.place.start("soak-bulk", "client", [*iperf3, "--congestion", CONGESTION])
        words = [str(LOAD), "connect", f"{target}:{LOAD_PORT}", str(CONNECTIONS_PER_S), f"{seconds:g}"]
        connections = self.place.start("soak-connections", "client", words)
        try:
            yield connections
            if not bulk.running and bulk.returncode:
                raise LabError(f"iperf3 ended with {bulk.returncode}: {bulk.log(5)}")
        finally:
            connections.stop()
            bulk.stop()

    def _progress(self, seconds: float) -> str:
        newest = self.looks[-1]
        memory = ", ".join(f"{role} {rss / 1e6:.1f} MB" for role, rss in newest.rss.items())
        rate = gbit_per_s(self.looks[-11:])
        return f"{newest.at_s:4.0f} of {seconds:.0f} s: {memory}, {newest.flows:,} flows, {rate:.2f} Gbit/s both ways"


def carried_by(interfaces: str, name: str) -> int:
    """Bytes received and sent by an interface, from the text of `/proc/net/dev`.

    Raises:
        LabError: It is not there.
    """
    for line in interfaces.splitlines():
        found, _, figures = line.partition(":")
        if found.strip() == name:
            words = figures.split()
            return int(words[0]) + int(words[8])
    raise LabError(f"there is no interface {name}")


def gbit_per_s(looks: Sequence[Look]) -> float:
    """What was carried between the first and the last look."""
    first, last = looks[0], looks[-1]
    return (last.carried - first.carried) * 8 / 1e9 / max(last.at_s - first.at_s, 1e-9)


def growth(looks: Sequence[Look], role: str) -> float:
    """Memory in the last seconds, as a multiple of that in the last seconds of the first minute."""

    def around(end_s: float) -> float:
        return statistics.median(look.rss[role] for look in looks if end_s - MEDIAN_OF_S <= look.at_s <= end_s)

    return around(looks[-1].at_s) / around(FIRST_MINUTE_S)


def wait_for_flows_to_go(flows: Callable[[], int]) -> int:
    """Gives how many are left when there are few enough, or time is up."""
    until = time.monotonic() + FLOWS_LEAVE_WITHIN_S
    while (left := flows()) > MOST_FLOWS_LEFT and time.monotonic() < until:
        time.sleep(1.0)
    return left


def bars_of(looks: Sequence[Look], success_pct: float, flows_left: int) -> list[Bar]:
    """The figures against their limits."""
    made = [
        Bar(f"memory of the {role}, end against first minute", growth(looks, role), "x", MOST_GROWTH, is_ceiling=True)
        for role in looks[0].rss
    ]
    made.append(Bar("new connections that were established", success_pct, "%", LEAST_SUCCESS_PCT))
    return [*made, Bar("flows left 30 s after the load", flows_left, "flows", MOST_FLOWS_LEFT, is_ceiling=True)]


def main() -> int:
    """Runs it, prints the bars and keeps them in `bench/results/soak.json`; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=_minutes, default=MINUTES, metavar="M", help="how long, from 1.5 to 600 (10)")
    seconds = parser.parse_args().minutes * 60
    end_on_signals()
    try:
        peers.prepare(["wardgate"], lambda line: print(line, flush=True))
        with workplace() as directory, opened("near", topologies.demo(), directory / "near") as place:
            wardgate = Wardgate(Products())
            wardgate.start(place)
            programs = {
                role: process for role, process in wardgate.processes().items() if role in ("client", "gateway")
            }
            soak = Soak(place, programs)
            print(f"soak: {seconds:.0f} s at full load", flush=True)
            connections = soak.run(wardgate.target(), seconds)
            left = wait_for_flows_to_go(soak.flows)
    except Ended as ended:
        print(f"soak: ended by {ended}; everything is cleaned up")
        return 128 + ended.number
    except (LabError, peers.PeerError, TimeoutError) as error:
        print(f"soak: failed: {error}", file=sys.stderr)
        return 1
    made = bars_of(soak.looks, connections["success_pct"], left)
    looks = [{"at_s": round(one.at_s, 1), **one.rss, "flows": one.flows, "carried": one.carried} for one in soak.looks]
    print(
        f"carried {gbit_per_s(soak.looks):.2f} Gbit/s, both ways together; connect took {connections['p50_ms']:.1f} ms"
    )
    method = __doc__.partition("Method: ")[2].strip()
    bars.write("soak.json", made, method, {"looks": looks, "connections": connections})
    print(f"soak: {'ok' if all(one.holds for one in made) else 'failed: a bar does not hold'}")
    return 0 if all(one.holds for one in made) else 1


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 1.5 <= minutes <= 600:
        raise argparse.ArgumentTypeError("from 1.5 to 600 minutes")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
