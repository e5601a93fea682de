"""What is measured of one relay: throughput, time under way, overload, allocations a second, memory."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from bench.cost import number_of, usage_of
from bench.relay_client import Blast, Pair, Sink, User, raise_file_limit
from bench.relay_place import Place, Program, socket_pair
from wardgate.errors import LabError

WARM_UP_S = 0.25
LATE_S = 0.3
CHANNEL_HEADER = 4
STEPS = (0.6, 0.8, 1.0, 1.25)
"""What is offered in the search for the best throughput, in parts of what a flood gets through."""
OVERLOAD_SIZE = 1280
REFRESH_EVERY_S = 0.05
WORKERS, CLIENTS = 2, 16


class Row(NamedTuple):
    """One kind of load."""

    to_peer: bool
    size: int
    allocations: int
    batched: bool

    @property
    def name(self) -> str:
        """For tables and files."""
        way = "client -> peer" if self.to_peer else "peer -> client"
        return f"{way}, {self.size} B, {self.allocations:,} alloc., {'batched' if self.batched else 'single'}"


class Throughput(NamedTuple):
    """What came through: datagrams a second, the relay's processor seconds meanwhile, and what was offered."""

    received_per_s: float
    cores: float
    offered_per_s: float

    @property
    def per_core_s(self) -> float:
        """Datagrams for each second of the relay's processor time."""
        return self.received_per_s / max(self.cores, 0.005)


def throughput(program: Program, made: Sequence[Pair], row: Row, seconds: float, rate: float = 0.0) -> Throughput:
    """Sends as fast as it goes, or at a rate, and counts what arrives."""
    some = made[: row.allocations]
    clients, peers = [pair.user.socket for pair in some], [pair.peer for pair in some]
    senders, receivers = (clients, peers) if row.to_peer else (peers, clients)
    lasts = WARM_UP_S + seconds + 0.1
    with (
        Sink(receivers, row.size, 0 if row.to_peer else CHANNEL_HEADER) as sink,
        Blast(
            senders, row.size, is_channel=row.to_peer, is_batched=row.batched, seconds=lasts, rate=rate
        ) as blast,
    ):  # fmt: skip
        time.sleep(WARM_UP_S)
        sink.ask()
        before, began = usage_of([program.pid]), time.monotonic()
        time.sleep(seconds)
        seen, lasted = sink.ask(), time.monotonic() - began
        cpu_s = usage_of([program.pid]).since(before).cpu_s
        sent = blast.finish()
        sink.wait_quiet()
    return Throughput(seen["datagrams"] / lasted, cpu_s / lasted, sent["sent"] / sent["seconds"])


def times(made: Sequence[Pair], size: int, rate: float, seconds: float) -> dict[str, float]:
    """How long single datagrams from clients to peers are under way, in microseconds, at a rate."""
    clients, peers = [pair.user.socket for pair in made], [pair.peer for pair in made]
    with Sink(peers, size, 0, is_timed=True) as sink:
        with Blast(clients, size, is_channel=True, is_batched=False, seconds=seconds, rate=rate) as blast:
            return _times(sink, blast)


def times_without_relay(place: Place, size: int, rate: float, seconds: float) -> dict[str, float]:
    """The same on the same wires, where the relay's machine just forwards packets."""
    with socket_pair(place) as (client, peer):
        with Sink([peer], size, 0, is_timed=True) as sink:
            with Blast([client], size, is_channel=False, is_batched=False, seconds=seconds, rate=rate) as blast:
                return _times(sink, blast)


def _times(sink: Sink, blast: Blast) -> dict[str, float]:
    sent = blast.finish()
    time.sleep(LATE_S)
    seen = sink.ask()
    found = {name: seen[f"{name}_ns"] / 1000 for name in ("p50", "p99", "most")}
    return {**found, "arrived": seen["datagrams"] / max(1, sent["sent"]), "rate": sent["sent"] / sent["seconds"]}


class Overload(NamedTuple):
    """What a relay does with more than it can carry.

    Attributes:
        best_per_s: The most datagrams a second that came through, whatever was offered.
        offered_per_s, received_per_s: At twice that.
        refreshes, refreshes_answered: Requests meanwhile, and how many were answered at all.
        refresh_s: How long the answers took, the median and the longest, resending included.
    """

    best_per_s: float
    offered_per_s: float
    received_per_s: float
    refreshes: int
    refreshes_answered: int
    refresh_s: tuple[float, float]

    @property
    def share(self) -> float:
        """What of its best it still delivers."""
        return self.received_per_s / self.best_per_s


def overload(place: Place, program: Program, made: Sequence[Pair], seconds: float) -> Overload:
    """Looks for the best throughput, then offers twice that, and asks for a Refresh again and again meanwhile."""
    row = Row(to_peer=True, size=OVERLOAD_SIZE, allocations=len(made), batched=True)
    flood = throughput(program, made, row, seconds).received_per_s
    best = max([flood, *(throughput(program, made, row, seconds, flood * step).received_per_s for step in STEPS)])
    user = User(place)
    until = time.monotonic() + seconds + 2 * WARM_UP_S
    with user.socket, asking(user, lambda: time.monotonic() < until) as took:
        twice = throughput(program, made, row, seconds, 2 * best)
    answered = sorted(one for one in took if one is not None)
    middle, longest = (answered[len(answered) // 2], answered[-1]) if answered else (float("inf"), float("inf"))
    return Overload(best, twice.offered_per_s, twice.received_per_s, len(took), len(answered), (middle, longest))


@contextmanager
def asking(user: User, may_go_on: Callable[[], bool]) -> Iterator[list[float | None]]:
    """Asks for one Refresh after the other; gives how long each took, `None` for those without an answer."""
    took: list[float | None] = []
    user.allocate()

    def ask() -> None:
        while may_go_on():
            began = time.monotonic()
            try:
                user.refresh()
                took.append(time.monotonic() - began)
            except LabError:
                took.append(None)
            time.sleep(REFRESH_EVERY_S)

    thread = Thread(target=ask)
    thread.start()
    try:
        yield took
    finally:
        thread.join()


class Churn(NamedTuple):
    """Allocations made and freed: how many a second, and for each second of the relay's processor time."""

    per_s: float
    per_core_s: float
    resent: int


def churn(place: Place, program: Program, seconds: float) -> Churn:
    """Lets clients allocate and free as fast as they are answered.

    Raises:
        LabError: One was refused.
    """
    before = usage_of([program.pid])
    words = [sys.executable, "-m", "bench.relay_churn", str(seconds), str(CLIENTS)]
    logs = [place.directory / f"churn-{program.name}-{time.monotonic_ns()}-{number}" for number in range(WORKERS)]
    workers = [place.client.spawn(words, log_path=log, cwd=Path.cwd()) for log in logs]
    for worker in workers:
        if worker.wait(seconds + 30):
            raise LabError(f"a client of {program.name} ended: {worker.log(5)}")
    results = [json.loads(worker.log(1)) for worker in workers]
    cycles = sum(result["cycles"] for result in results)
    cpu_s = usage_of([program.pid]).since(before).cpu_s
    per_s = sum(result["cycles"] / result["seconds"] for result in results)
    return Churn(per_s, cycles / max(cpu_s, 0.01), sum(result["resent"] for result in results))


def memory(place: Place, program: Program, allocations: int) -> float:
    """Bytes of the relay's own memory for one idle allocation, its socket's in the kernel left out."""
    raise_file_limit()
    before = resident(program)
    with ExitStack() as stack:
        for _ in range(allocations):
            user = User(place)
            stack.callback(user.socket.close)
            user.allocate()
        time.sleep(0.5)
        return (resident(program) - before) / allocations


def resident(program: Program) -> int:
    """Its resident memory in bytes."""
    return number_of(Path(f"/proc/{program.pid}/status").read_text(), "VmRSS") * 1024
