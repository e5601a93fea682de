"""Packets a second through a relay on loopback, ours beside coturn's in the same run.

    .venv/bin/python -m bench.relay [--seconds 3] [--size 1280]

One client floods one channel, one peer counts. "single" is one datagram a system call, "batched" hands 40 at once to
the kernel (UDP GSO), as Wardgate's own programs do. Received packets count, per second and per second of the relay's
processor time; sender, relay and receiver share the machine, so on two cores the ratio says more than the figures.
"""

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.interop.relay_process import Portal, free_port, running_relay

from wardgate.wire import channel_data, stun, turn
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.stun import Builder, MessageClass, Method

HOST = "127.0.0.1"
UDP_SEGMENT, UDP_GRO, SO_RCVBUFFORCE = 103, 104, 33
BATCH = 40


class Target(NamedTuple):
    """A relay under test."""

    pid: int
    port: int
    username: str
    password: str


class Figures(NamedTuple):
    """Received packets per second, and per second of processor time."""

    per_second: float
    per_cpu_second: float


@contextlib.contextmanager
def ours(*arguments: str) -> Iterator[Target]:
    """Our relay."""
    portal = Portal()
    try:
        with running_relay(portal, *arguments) as relay:
            yield Target(relay.process.pid, relay.port, *relay.credentials())
            relay.stop()
    finally:
        portal.close()


@contextlib.contextmanager
def coturn() -> Iterator[Target]:
    """coturn's server with one relay thread."""
    port = free_port(socket.SOCK_DGRAM)
    with tempfile.TemporaryDirectory() as directory:
        command = ["turnserver", "-n", "-L", HOST, "-p", str(port), "--no-tls", "--no-dtls", "-a", "-u", "u:p"]
        command += ["-r", turn.REALM, "--no-cli", "--allow-loopback-peers", "-m", "1"]
        command += ["--log-file", f"{directory}/log", "--pidfile", f"{directory}/pid"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(2.0)
            yield Target(process.pid, port, "u", "p")
        finally:
            process.terminate()
            process.wait()


def bind_channel(target: Target) -> tuple[socket.socket, socket.socket]:
    """A client and a peer with channel 0x4000 between them."""
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(3.0)
    client.connect((HOST, target.port))
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind((HOST, 0))
    peer.settimeout(0.5)
    with contextlib.suppress(OSError):
        peer.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    peer.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)

    def request(method: Method) -> Builder:
        return Builder(method, MessageClass.REQUEST, os.urandom(12))

    def ask(datagram: bytes) -> stun.Message:
        client.send(datagram)
        return stun.decode(client.recv(2000))

    challenge = ask(request(Method.ALLOCATE).requested_transport(turn.UDP_TRANSPORT).build())
    key = turn.long_term_key(target.username, target.password)
    for builder in (
        request(Method.ALLOCATE).requested_transport(turn.UDP_TRANSPORT),
        request(Method.CHANNEL_BIND).channel_number(0x4000).peer_address(SocketAddr(*peer.getsockname())),
    ):
        signed = builder.username(target.username).realm(turn.REALM).nonce(challenge.nonce or b"")
        answer = ask(signed.build(key))
        if answer.error:
            raise SystemExit(f"the relay refused: {answer.error}")
    return client, peer


def measure(target: Target, seconds: float, size: int, batched: bool) -> Figures:
    """Floods the channel and counts what arrives."""
    client, peer = bind_channel(target)
    frame = channel_data.encode(0x4000, bytes(size))
    client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(frame) if batched else 0)
    blob = frame * (BATCH if batched else 1)
    received, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                received[0] += len(peer.recv(65535)) // size

    counting = threading.Thread(target=count)
    counting.start()
    cpu, started = cpu_seconds(target.pid), time.monotonic()
    while time.monotonic() - started < seconds:
        with contextlib.suppress(OSError):
            client.send(blob)
    elapsed, cpu = time.monotonic() - started, cpu_seconds(target.pid) - cpu
    stop.set()
    counting.join()
    client.close()
    peer.close()
    return Figures(received[0] / elapsed, received[0] / max(cpu, 0.01))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Prints a table, the last column being the ratio to coturn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--size", type=int, default=1280)
    options = parser.parse_args()
    relays: dict[str, Callable[[], contextlib.AbstractContextManager[Target]]] = {}
    if shutil.which("turnserver"):
        relays["coturn"] = coturn
    relays["wardgate"] = ours
    relays["wardgate, no segmentation"] = lambda: ours("--no-segmentation")
    relays["wardgate, Python"] = lambda: ours("--no-native")
    baseline: dict[bool, Figures] = {}
    print(f"{'relay':<28}{'sender':<10}{'packets/s':>12}{'per cpu s':>12}{'to coturn':>11}")
    for name, relay in relays.items():
        for batched in (False, True):
            with relay() as target:
                figures = measure(target, options.seconds, options.size, batched)
            if name == "coturn":
                baseline[batched] = figures
            ratio = f"{figures.per_second / baseline[batched].per_second:.1f}" if batched in baseline else "-"
            sender = "batched" if batched else "single"
            print(f"{name:<28}{sender:<10}{figures.per_second:>12,.0f}{figures.per_cpu_second:>12,.0f}{ratio:>11}")


if __name__ == "__main__":
    main()
