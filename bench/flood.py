"""Our relay in a flood from strangers: memory, amplification, what its users keep, and whether all is counted.

    make bench-flood        python -m bench.flood [--quick] [--count N]

Method: a real relay process in the namespaces of `bench.relay`. Datagrams with random IPv4 sources and ports come
through a packet socket of the client's machine as fast as it sends: Binding requests, Allocates without credentials,
random bytes of random length, and channel data of no channel; each kind alone and all in turns. Meanwhile one client
sends 20,000 datagrams of 1280 bytes a second through its channel, one system call each, and another asks for a Refresh
twenty times a second, resending after 0.5 s. The flood, its victim, the client and the receiver share the processor.

Memory is the process's resident memory after all floods against before. Amplification is measured at a slow rate, where
every request is answered that is answered at all: UDP payloads, and IP packets (28 bytes more each). "not counted" is
what the kernel delivered to the relay's sockets (its own count) minus everything that the relay forwarded, answered, or
counted as refused at `/metrics`.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench import bars, peers
from bench.bars import Bar
from bench.cost import usage_of
from bench.peers import LOAD
from bench.relay_client import Blast, Pair, Sink, User, pairs
from bench.relay_measures import asking, resident
from bench.relay_place import (
    PORT,
    RELAY,
    TO_CLIENT,
    TO_RELAY,
    Place,
    Program,
    counted,
    metrics,
    opened,
    udp_counters,
    wardgate,
)
from wardgate.errors import LabError
from wardgate.lab.demo.workplace import Ended, end_on_signals, workplace
from wardgate.lab.node import Node

KINDS = {
    "Binding requests": "b",
    "Allocates without credentials": "a",
    "random bytes": "g",
    "channel data of nobody": "c",
    "all in turns": "bagc",
}
MOST_GROWTH_MB = 20.0
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
USER_RATE, USER_SIZE = 20_000.0, 1280
SLOW_RATE, SLOW_COUNT = 2000.0, 4000
HEADERS = 14 + 20 + 8
QUIET_S = 2.0


class Flooded(NamedTuple):
    """What one flood did.

    Attributes:
        sent, delivered: Datagrams of the flood, and of everybody that reached the relay's sockets.
        seconds: How long it lasted.
        answered, refused, dropped_ring: What became of them, as the relay says; of the refused, dropped before Python.
        not_counted: What the relay says nothing about.
        arrived: The share of the user's datagrams that arrived.
        refresh_s: How long each Refresh took; `None` if it was not answered.
        cores: What the relay used.
    """

    sent: int
    delivered: int
    seconds: float
    answered: float
    refused: float
    dropped_ring: float
    not_counted: float
    arrived: float
    refresh_s: list[float | None]
    cores: float


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted up to now: by the kernel, by the forwarder, by the TURN server."""

    delivered: int
    forwarder: Mapping[str, float]
    events: Mapping[str, float]
    responses: float

    @classmethod
    def read(cls, place: Place) -> "Counts":
        """Once no datagram waits any more."""
        before = -1
        while (delivered := udp_counters(place.relay)["InDatagrams"]) != before:
            before = delivered
            time.sleep(0.2)
        figures = metrics(place)
        responses = sum(
            value for name, value in figures.items() if name.startswith("wardgate_relay_responses_total")
        )  # fmt: skip
        return cls(delivered, counted(figures, "forwarder"), counted(figures, "events"), responses)

    def since(self, before: "Counts") -> "Counts":
        """What was counted in between."""
        return Counts(
            self.delivered - before.delivered,
            {name: value - before.forwarder.get(name, 0.0) for name, value in self.forwarder.items()},
            {name: value - before.events.get(name, 0.0) for name, value in self.events.items()},
            self.responses - before.responses,
        )

    @property
    def answered(self) -> float:
        """Requests that were answered, by Python or before."""
        return self.responses + sum(
            self.forwarder.get(name, 0.0) for name in ("bindings_answered", "allocates_refused")
        )

    @property
    def forwarded(self) -> float:
        """Data that went on to a peer or a client."""
        return self.forwarder["forwarded_to_peer"] + self.forwarder["forwarded_to_client"]

    @property
    def dropped_ring(self) -> float:
        """What had no room in the ring of upcalls."""
        return sum(value for name, value in self.forwarder.items() if name.startswith("upcalls_dropped"))

    @property
    def refused(self) -> float:
        """What was dropped and counted, wherever."""
        both = (*self.forwarder.items(), *self.events.items())
        return self.dropped_ring + sum(value for name, value in both if name.startswith("dropped_"))


class Spoof:
    """A flood, in a process of its own."""

    def __init__(self, place: Place, kinds: str, count: int, rate: float = 0.0, seed: int = 1) -> None:
        self._socket = place.client.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.bind((TO_RELAY, 0))
        self._socket.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        fd = self._socket.fileno()
        words = [str(LOAD), "spoof", str(fd), mac(place.client, TO_RELAY), mac(place.relay, TO_CLIENT)]
        words += [f"{RELAY}:{PORT}", str(count), f"{rate:.0f}", kinds, str(seed)]
        self._process = subprocess.Popen(words, pass_fds=[fd], stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Spoof":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._socket.close()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def finish(self) -> dict[str, float]:
        """Waits for its end; gives what was `sent`, the bytes of `payload`, and how many `seconds` it took."""
        assert self._process.stdout is not None
        text = self._process.stdout.read()
        if self._process.wait() != 0:
            raise LabError("the flood could not be sent")
        result: dict[str, float] = json.loads(text)
        return result

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self._process.poll() is None


def mac(node: Node, interface: str) -> str:
    """The hardware address of an interface."""
    words = node.run(["ip", "-o", "link", "show", interface]).check().stdout.split()
    return words[words.index("link/ether") + 1]


def flooded(place: Place, program: Program, pair: Pair, kinds: str, count: int) -> Flooded:
    """Floods, beside a client at work and one that asks for something."""
    before, user = Counts.read(place), User(place)
    with user.socket, Sink([pair.peer], USER_SIZE, 0) as sink:
        used, began = usage_of([program.pid]), time.monotonic()
        with Spoof(place, kinds, count) as flood, _user_load(pair, 600.0) as load:
            with asking(user, lambda: flood.running) as took:
                sent = flood.finish()
            lasted = time.monotonic() - began
            cores = usage_of([program.pid]).since(used).cpu_s / lasted
            seen = sink.ask()
            load.stop()
    counts = Counts.read(place).since(before)
    handled = counts.forwarded + counts.answered + counts.refused
    return Flooded(
        int(sent["sent"]),
        counts.delivered,
        sent["seconds"],
        counts.answered,
        counts.refused,
        counts.dropped_ring,
        counts.delivered - handled,
        seen["datagrams"] / (USER_RATE * lasted),
        took,
        cores,
    )


def quiet(place: Place, pair: Pair) -> tuple[float, list[float | None]]:
    """The same without a flood: the share of the user's datagrams that arrives, and the times of Refreshes."""
    user, until = User(place), time.monotonic() + QUIET_S
    with user.socket, Sink([pair.peer], USER_SIZE, 0) as sink, _user_load(pair, 600.0) as load:
        began = time.monotonic()
        with asking(user, lambda: time.monotonic() < until) as took:
            pass
        arrived = sink.ask()["datagrams"] / (USER_RATE * (time.monotonic() - began))
        load.stop()
    return arrived, took


def _user_load(pair: Pair, seconds: float) -> Blast:
    sockets = [pair.user.socket]
    return Blast(sockets, USER_SIZE, is_channel=True, is_batched=False, seconds=seconds, rate=USER_RATE)


class Amplified(NamedTuple):
    """Bytes that strangers made the relay send, to bytes that they sent."""

    payload: float
    packets: float


def amplification(place: Place, kinds: str) -> Amplified:
    """Measured at the client's interface, where answers to all of the sources arrive."""
    before = _received(place.client)
    with Spoof(place, kinds, SLOW_COUNT, SLOW_RATE, seed=7) as flood:
        sent = flood.finish()
    time.sleep(0.5)
    after = _received(place.client)
    size, packets = after[0] - before[0], after[1] - before[1]
    asked = sent["payload"] + (HEADERS - 14) * sent["sent"]
    return Amplified((size - HEADERS * packets) / sent["payload"], (size - 14 * packets) / asked)


def _received(node: Node) -> tuple[int, int]:
    """Bytes and packets that the machine's interface has received; frames with their Ethernet headers."""
    for line in node.read_text("/proc/net/dev").splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == TO_RELAY:
            words = rest.split()
            return int(words[0]), int(words[1])
    raise LabError(f"no {TO_RELAY}")


class Found(NamedTuple):
    """All figures of a run."""

    growth_mb: float
    quiet: tuple[float, list[float | None]]
    floods: dict[str, Flooded]
    amplified: dict[str, Amplified]


def measure(place: Place, counts: Mapping[str, int]) -> Found:
    """Everything, at one relay process."""
    with wardgate(place) as program, pairs(place, 1) as (pair,):
        amplified = {name: amplification(place, kinds) for name, kinds in KINDS.items() if len(kinds) == 1}
        calm = quiet(place, pair)
        before = resident(program)
        floods = {}
        for name, count in counts.items():
            floods[name] = flooded(place, program, pair, KINDS[name], count)
            print(f"{name}: done, {floods[name].seconds:.0f} s; resident memory "
                  f"{(resident(program) - before) / 1e6:+.1f} MB", flush=True)  # fmt: skip
            time.sleep(1.0)
        return Found((resident(program) - before) / 1e6, calm, floods, amplified)


def show(found: Found) -> None:
    """Tables on the terminal."""
    rows: list[tuple[str, ...]] = []
    for name, one in found.floods.items():
        rows.append((name, f"{one.sent / 1e6:.2f}", f"{one.sent / one.seconds:,.0f}", f"{one.delivered / 1e6:.2f}",
                     f"{one.answered:,.0f}", f"{one.refused:,.0f}", f"{one.dropped_ring:,.0f}",
                     f"{one.not_counted:,.0f}", f"{one.cores:.2f}"))  # fmt: skip
    heads = ("flood", "sent, M", "a second", "delivered, M", "answered", "refused", "ring full", "not counted", "busy")
    bars.table(heads, rows)
    beside = {"no flood": found.quiet} | {name: (one.arrived, one.refresh_s) for name, one in found.floods.items()}
    rows = [(name, f"{100 * arrived:.0f} %", *_times(took)) for name, (arrived, took) in beside.items()]
    bars.table(("users beside it", "arrived", "Refreshes", "unanswered", "median, ms", "longest, ms"), rows)
    rows = [(name, f"{one.payload:.2f}", f"{one.packets:.2f}") for name, one in found.amplified.items()]
    bars.table(("amplification", "UDP payload", "IP packets"), rows)


def _times(took: Sequence[float | None]) -> tuple[str, ...]:
    answered = [one for one in took if one is not None]
    if not answered:
        return (str(len(took)), str(len(took)), "-", "-")
    middle, most = 1000 * statistics.median(answered), 1000 * max(answered)
    return (str(len(took)), str(len(took) - len(answered)), f"{middle:.1f}", f"{most:.1f}")


def bars_of(found: Found) -> list[Bar]:
    """The figures against their limits."""
    missed = max(abs(one.not_counted) for one in found.floods.values())
    return [
        Bar("growth of resident memory over all floods", found.growth_mb, "MB", MOST_GROWTH_MB, True),
        Bar("datagrams of a flood that no counter shows", missed, "", 0.0, True),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables and keeps them in `bench/results/flood.json`; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000_000, metavar="N", help="datagrams of the mix (10000000)")
    parser.add_argument("--alone", type=int, default=2_000_000, metavar="N", help="of each kind alone (2000000)")
    parser.add_argument("--quick", action="store_true", help="a tenth of that; nothing is written")
    options = parser.parse_args(arguments)
    if options.count < 1000 or options.alone < 1000:
        parser.error("at least 1000 datagrams")
    part = 10 if options.quick else 1
    counts = {name: (options.alone if len(kinds) == 1 else options.count) // part for name, kinds in KINDS.items()}
    end_on_signals()
    try:
        peers.prepare_load(lambda line: print(line, flush=True))
        with workplace() as directory, opened(directory) as place:
            found = measure(place, counts)
    except Ended as ended:
        print(f"bench: ended by {ended}; everything is cleaned up")
        return 128 + ended.number
    except (LabError, peers.PeerError, TimeoutError) as error:
        print(f"bench: failed: {error}", file=sys.stderr)
        return 1
    show(found)
    made = bars_of(found)
    if options.quick:
        bars.show(made)
        return 0
    samples = {
        "floods": {name: one._asdict() for name, one in found.floods.items()},
        "no flood": found.quiet,
        "amplification": {name: one._asdict() for name, one in found.amplified.items()},
    }
    bars.write("flood.json", made, (__doc__ or "").partition("Method: ")[2].strip(), samples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
