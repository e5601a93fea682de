"""What a datagram costs a relay whose channels the kernel forwards, beside the same relay in user space.

    .venv/bin/python -m bench.relay_xdp [--datagrams 100000] [--size 1280]

A client, a relay and a peer in network namespaces at one switch; the client sends channel data one by one, as it would
come over a wire. Per datagram: what the relay's thread takes, what the program takes (as the kernel measures it), and
what the whole machine is busy for, sender, switch and receiver included. Needs root. veth pairs are no network cards:
the first two figures say what forwarding itself costs, the third what it costs here.
"""

import argparse
import contextlib
import multiprocessing
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import NamedTuple

from tests.xdp import network
from tests.xdp.network import ADDRESSES, CLIENT, INTERFACE, PEER, RELAY, inside, udp_socket
from tests.xdp.program import Program, bpf

from wardgate._fastpath import RelayIo
from wardgate.wire import channel_data

ENABLE_STATS = 32
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PORT, CHANNEL, LISTEN = 50000, 0x4000, 3478


class Figures(NamedTuple):
    """Datagrams per second and lost; then microseconds per datagram."""

    per_second: float
    lost: float
    relay_us: float
    program_us: float
    machine_us: float


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datagrams", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=1280)
    options = parser.parse_args()
    print(f"{'forwarded':<12}{'client':>7}{'peer':>5}{'sent/s':>10}{'lost':>7}", end="")
    print(f"{'relay us':>10}{'program us':>12}{'machine us':>12}")
    with network.network(), statistics_of_programs():
        for mode in (None, "generic", "driver"):
            for client, peer in ((0, 0), (0, 1), (1, 0), (1, 1)):
                with network.far_end_with_a_program() if mode == "driver" else contextlib.nullcontext():
                    row = measure(mode, client, peer, options.datagrams, options.size)
                families = f"{'IPv6' if client else 'IPv4':>7}{'v6' if peer else 'v4':>5}"
                print(f"{mode or 'user space':<12}{families}{row.per_second:>10,.0f}{row.lost:>7.1%}", end="")
                print(f"{row.relay_us:>10.2f}{row.program_us:>12.2f}{row.machine_us:>12.2f}", flush=True)


def measure(mode: str | None, client: int, peer: int, datagrams: int, size: int) -> Figures:
    """Sends them through a relay of one process with this one."""
    with ExitStack() as stack:
        sender = stack.enter_context(udp_socket(CLIENT, ADDRESSES[CLIENT][client]))
        receiver = stack.enter_context(udp_socket(PEER, ADDRESSES[PEER][peer]))
        public4, public6 = ADDRESSES[RELAY]
        with inside(RELAY):
            io = RelayIo(
                listen_port=LISTEN,
                bind4="0.0.0.0",
                bind6="::",
                public4=public4,
                public6=public6,
                xdp=INTERFACE if mode else None,
                xdp_mode=mode or "generic",
            )
            stack.callback(io.stop)
            io.open_allocation(PORT, ipv4=True, ipv6=True)
            if (reason := io.offload_error()) is not None:
                raise SystemExit(reason)
            program = Program(INTERFACE) if mode else None
        io.start()
        io.add_channel(sender.getsockname()[:2], CHANNEL, PORT, receiver.getsockname()[:2])
        sender.connect((ADDRESSES[RELAY][client], LISTEN))
        frame = channel_data.encode(CHANNEL, bytes(size))
        for _ in range(3):  # until all are neighbours
            sender.send(frame)
            receiver.recv(65535)
        arrived = multiprocessing.get_context("fork").Value("Q", 0)
        counting = multiprocessing.get_context("fork").Process(target=count, args=(receiver, arrived))
        counting.start()
        thread, run, busy, started = thread_s(), program_s(program), busy_s(), time.monotonic()
        for _ in range(datagrams):
            sender.send(frame)
        elapsed = time.monotonic() - started
        counting.join()
        each = 1e6 / datagrams
        figures = Figures(
            datagrams / elapsed,
            1 - arrived.value / datagrams,
            (thread_s() - thread) * each,
            (program_s(program) - run) * each,
            (busy_s() - busy) * each,
        )
        if program is not None:
            program.close()
        return figures


def count(receiver: socket.socket, arrived: "Synchronized[int]") -> None:
    """Counts what arrives until nothing more does."""
    receiver.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while True:
            receiver.recv(65535)
            arrived.value += 1


@contextlib.contextmanager
def statistics_of_programs() -> Iterator[None]:
    """Meanwhile the kernel measures what programs take."""
    descriptor, _ = bpf(ENABLE_STATS, struct.pack("=I", 0))
    try:
        yield
    finally:
        os.close(descriptor)


def program_s(program: Program | None) -> float:
    if program is None:
        return 0.0
    found = re.search(r"run_time_ns:\s+(\d+)", Path(f"/proc/self/fdinfo/{program.fileno()}").read_text())
    return int(found[1]) / 1e9 if found else 0.0


def thread_s() -> float:
    """Processor time of the relay's thread."""
    threads = [path for path in Path("/proc/self/task").iterdir() if (path / "comm").read_text() == "relay\n"]
    return sum(processor_s(path / "stat") for path in threads)


def processor_s(path: Path) -> float:
    fields = path.read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def busy_s() -> float:
    """What all processors were busy for, interrupts included."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) * TICK_S


if __name__ == "__main__":
    main()
