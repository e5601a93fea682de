"""As much TCP as a tunnel carries, both ways at once, and an account of what was lost in it."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.native_tunnel import APP, End, Names, inside, run

CHUNK = bytes(1 << 16)
QUIET_S = 0.3
"""Packets that were not heard of for so long are lost: no path of the tests is longer than a millisecond."""


@dataclass
class Stream:
    """One connection; each side writes all it can and reads all there is."""

    port: int
    ends: list[socket.socket] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    up: int = 0
    """Bytes that the app read."""
    down: int = 0
    """Bytes that the client read."""
    is_silent: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)

    def open(self, names: Names) -> None:
        """Connects and starts."""
        listener = inside(names.app, lambda: listening(self.port))
        client = inside(names.client, lambda: socket.create_connection((APP, self.port), timeout=10))
        app, _ = listener.accept()
        listener.close()
        self.ends = [client, app]
        for one in self.ends:
            one.settimeout(0.2)
        work = [(self._write, client), (self._write, app), (self._read, client), (self._read, app)]
        self.threads = [threading.Thread(target=act, args=(end,), daemon=True) for act, end in work]
        for thread in self.threads:
            thread.start()

    def _write(self, end: socket.socket) -> None:
        while not self.is_silent.is_set():
            with contextlib.suppress(TimeoutError):
                try:
                    end.send(CHUNK)
                except ConnectionError:
                    return

    def _read(self, end: socket.socket) -> None:
        is_client = end is self.ends[0]
        while not self.is_over.is_set():
            with contextlib.suppress(TimeoutError):
                try:
                    taken = len(end.recv(1 << 18))
                except ConnectionError:
                    return
                if is_client:
                    self.down += taken
                else:
                    self.up += taken

    def close(self) -> None:
        """Ends it."""
        self.is_silent.set()
        self.is_over.set()
        for thread in self.threads:
            thread.join(5)
        for one in self.ends:
            one.close()


def listening(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((APP, port))
    listener.listen()
    listener.settimeout(10)
    return listener


@contextlib.contextmanager
def full_load(names: Names, *ports: int) -> Iterator[list[Stream]]:
    """Streams from the client to these ports of the app, at their full rate when they are given."""
    streams = [Stream(port) for port in ports]
    try:
        for one in streams:
            one.open(names)
        wait_for_progress(streams)
        yield streams
    finally:
        for one in streams:
            one.close()


def wait_for_progress(streams: list[Stream], least: int = 8 << 20, seconds: float = 20.0) -> None:
    """Waits until each stream moved so many bytes more each way."""
    wanted = [(one, one.up + least, one.down + least) for one in streams]
    deadline = time.monotonic() + seconds
    while any(one.up < up or one.down < down for one, up, down in wanted):
        assert time.monotonic() < deadline, [(one.up, one.down) for one in streams]
        time.sleep(0.005)


def sealed(end: End) -> int:
    return end.engine.counters()["packets_sealed"]


def opened(end: End) -> int:
    return end.engine.counters()["packets_opened"]


def fall_silent(client: End, gateway: End, streams: list[Stream]) -> None:
    """Writes nothing more, and waits until what was written has arrived; the connections stay."""
    for one in streams:
        one.is_silent.set()
    lost(client, gateway)
    lost(gateway, client)


def lost(sender: End, receiver: End) -> int:
    """How many of the packets that one end ever sealed the other never opened, once nothing moves any more."""
    seen, since = (sealed(sender), opened(receiver)), time.monotonic()
    while time.monotonic() - since < QUIET_S:
        time.sleep(0.01)
        now = sealed(sender), opened(receiver)
        if now != seen:
            seen, since = now, time.monotonic()
    return seen[0] - seen[1]


def dropped_by_kernel(names: Names) -> int:
    """What the kernel says it dropped between the ends: in full socket buffers and full queues of its own."""
    total = 0
    for space in (names.client, names.gateway):
        printed = run(f"ip netns exec {space} nstat -az UdpRcvbufErrors Udp6RcvbufErrors UdpMemErrors UdpSndbufErrors")
        total += sum(int(line.split()[1]) for line in printed.splitlines() if not line.startswith("#"))
    backlogs = Path("/proc/net/softnet_stat").read_text().splitlines()
    return total + sum(int(line.split()[1], 16) for line in backlogs)
