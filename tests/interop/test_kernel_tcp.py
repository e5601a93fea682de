"""Our TCP against the kernel's, both ways round, over a TUN interface in a network namespace of its own. Needs root."""

import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest

from wardgate.lab.namespaces import enter
from wardgate.proto.stub_resolver import Asker
from wardgate.proto.tcp_query import TcpQuery
from wardgate.proto.tcp_responder import TcpResponder
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import TCP, Packet, parse

pytestmark = [pytest.mark.interop, pytest.mark.netns]

SENTINEL, ASKER = ("100.100.111.1", 53), ("100.100.111.9", 50000)
WAIT_S = 10.0
T = TypeVar("T")
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


@pytest.mark.parametrize("size", [100, 1220, 30_000, 65_535])
def test_kernel_reads_the_whole_answer(host: "Host", size: int) -> None:
    answer = os.urandom(size)
    peer = host.connect()

    peer.sendall(framed(b"question"))
    host.run_until(lambda: bool(host.queries))
    asker, question = host.queries.pop()
    host.responder.handle_answer(asker, answer, time.monotonic())

    assert question == b"question"
    assert host.read(peer, 2 + size) == framed(answer)


def test_many_questions_on_one_connection(host: "Host") -> None:
    peer = host.connect()
    for number in range(200):
        peer.sendall(framed(b"question %d" % number))
    answered = 0
    while answered < 200:
        host.run_until(lambda: bool(host.queries))
        for asker, question in host.queries:
            host.responder.handle_answer(asker, question, time.monotonic())
            answered += 1
        host.queries.clear()
    expected = b"".join(framed(b"question %d" % number) for number in range(200))
    assert host.read(peer, len(expected)) == expected


def test_lost_packets_are_made_up_for(host: "Host") -> None:
    host.loss = 0.15
    peer = host.connect()
    peer.sendall(framed(b"q"))
    host.run_until(lambda: bool(host.queries))
    answer = os.urandom(20_000)
    host.responder.handle_answer(host.queries.pop()[0], answer, time.monotonic())
    assert host.read(peer, 20_002) == framed(answer)


def test_orderly_end_from_the_kernels_side(host: "Host") -> None:
    peer = host.connect()
    peer.sendall(framed(b"q"))
    peer.shutdown(socket.SHUT_WR)
    host.run_until(lambda: bool(host.queries))
    host.responder.handle_answer(host.queries.pop()[0], b"a", time.monotonic())
    assert host.read(peer, 100) == framed(b"a")
    host.run_until(lambda: len(host.responder) == 0)


def test_refused_port_is_refused_at_once(host: "Host") -> None:
    peer = host.stream()
    peer.connect_ex((SENTINEL[0], 54))
    host.run_until(lambda: host.responder.refused > 0)
    host.run_for(0.1)
    assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


@pytest.mark.parametrize(("size", "loss"), [(100, 0.0), (2600, 0.0), (65_535, 0.0), (20_000, 0.1)])
def test_our_question_is_answered_by_a_kernel(host: "Host", size: int, loss: float) -> None:
    server = host.listen(53535)
    host.loss = loss
    answer, question = os.urandom(size), os.urandom(3000)
    host.query = TcpQuery(SocketAddr(*ASKER), SocketAddr("100.64.0.1", 53535), question, 5, time.monotonic())

    host.run_until(lambda: bool(select.select([server], [], [], 0)[0]))
    peer, _ = server.accept()
    peer.setblocking(False)
    host.sockets.append(peer)
    assert host.read(peer, 3002) == framed(question)
    peer.setblocking(True)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
    peer.sendall(framed(answer))
    peer.close()
    host.run_until(lambda: host.query is not None and host.query.is_gone)

    assert host.query.poll_answer() == (answer,)


@dataclass
class Host:
    """A namespace whose TUN interface is in our hands."""

    namespace: str
    tun: int
    responder: TcpResponder
    queries: list[tuple[Asker, bytes]]
    sockets: list[socket.socket]
    query: TcpQuery | None = None
    loss: float = 0.0
    random: Random = field(default_factory=lambda: Random(1))

    def stream(self) -> socket.socket:
        made = inside(self.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        made.setblocking(False)
        self.sockets.append(made)
        return made

    def listen(self, port: int) -> socket.socket:
        made = self.stream()
        made.bind(("100.64.0.1", port))
        made.listen()
        return made

    def connect(self) -> socket.socket:
        made = self.stream()
        made.connect_ex(SENTINEL)
        self.run_until(lambda: bool(select.select([], [made], [], 0)[1]))
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        return made

    def read(self, peer: socket.socket, size: int) -> bytes:
        """Reads that many bytes, or up to the end."""
        received = bytearray()
        ended = False

        def is_done() -> bool:
            nonlocal ended
            while not ended and select.select([peer], [], [], 0)[0]:
                part = peer.recv(65536)
                received.extend(part)
                ended = not part
            return ended or len(received) >= size

        self.run_until(is_done)
        return bytes(received)

    def run_for(self, duration_s: float) -> None:
        end = time.monotonic() + duration_s
        self.run_until(lambda: time.monotonic() >= end)

    def run_until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not done():
            now = time.monotonic()
            assert now < deadline, "nothing happened"
            self.responder.handle_timeout(now)
            if self.query is not None:
                self.query.handle_timeout(now)
            self.drain()
            if select.select([self.tun], [], [], 0.01)[0]:
                data = os.read(self.tun, 65535)
                if data[0] >> 4 == 4 and data[9] == TCP:
                    self.take(parse(data))
                self.drain()

    def take(self, packet: Packet) -> None:
        if packet.key.destination == ASKER and self.query is not None:
            self.query.handle_packet(packet, time.monotonic())
        else:
            self.responder.handle_packet(packet, time.monotonic())

    def drain(self) -> None:
        while self.query is not None and (sent := self.query.poll_packet()) is not None:
            if self.random.random() >= self.loss:
                os.write(self.tun, sent)
        while (query := self.responder.poll_query()) is not None:
            self.queries.append(query)
        while (packet := self.responder.poll_packet()) is not None:
            if self.random.random() >= self.loss:
                os.write(self.tun, packet)


@pytest.fixture
def host() -> Iterator[Host]:
    if os.geteuid() != 0:
        pytest.fail("needs root, to make a network namespace and a TUN interface", pytrace=False)
    name = f"wgt{os.getpid()}"
    run("ip", "netns", "add", name)
    tun = inside(name, lambda: os.open("/dev/net/tun", os.O_RDWR))
    made = Host(name, tun, TcpResponder(os.urandom), [], [])
    try:
        request = struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI)
        fcntl.ioctl(tun, TUNSETIFF, request)
        run("ip", "-n", name, "address", "add", "100.64.0.1/32", "dev", name)
        run("ip", "-n", name, "link", "set", name, "mtu", "1280", "up")
        run("ip", "-n", name, "route", "add", "100.100.111.0/24", "dev", name)
        yield made
    finally:
        for one in made.sockets:
            one.close()
        os.close(tun)
        run("ip", "netns", "delete", name)


def inside(namespace: str, action: Callable[[], T]) -> T:
    """Does one thing in a namespace; what it opens stays there."""
    with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{namespace}").open() as other:
        enter(other.fileno())
        try:
            return action()
        finally:
            enter(home.fileno())


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
