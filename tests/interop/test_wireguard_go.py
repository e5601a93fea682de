"""Our WireGuard against wireguard-go, an implementation that is not ours, in a network namespace of its own.

Needs root, and the Debian packages wireguard-go, wireguard-tools, iproute2 and iputils-ping.
"""

import base64
import os
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from wardgate._fastpath import Engine, OpenedInitiation, PacketUpcall, SessionUpcall, StaticKey
from wardgate.errors import RemoteProtocolError
from wardgate.lab.namespaces import enter
from wardgate.proto.handshake import (
    CookieReply,
    Event,
    Gate,
    Handshakes,
    KeepaliveDue,
    SessionExpired,
    SessionReady,
    Timers,
)
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import MAX_PACKET, IpAddress, Packet, icmp_echo, parse
from wardgate.wire.wireguard import MessageType, message_type

pytestmark = [pytest.mark.interop, pytest.mark.netns]

PROGRAMS = {"wireguard-go": "wireguard-go", "wg": "wireguard-tools", "ip": "iproute2", "ping": "iputils-ping"}
THEIR_PORT = 51820
THEIRS4, OURS4 = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.2")
THEIRS6, OURS6 = IPv6Address("fd77::1"), IPv6Address("fd77::2")
THEM = SocketAddr("127.0.0.1", THEIR_PORT)
PEER = 0
WAIT_S = 20.0
INITIATION_SPACING_S = 0.05
"""wireguard-go drops an initiation that follows another within 20 ms."""


def test_we_start_with_a_preshared_key_and_ping_through_it(them: "Them") -> None:
    us = them.configure(psk=os.urandom(32))

    us.initiate()
    us.run_until(lambda: us.has_session(initiator=True))

    assert us.ping(OURS4, THEIRS4, 1)
    assert us.ping(OURS6, THEIRS6, 2)
    assert them.latest_handshake() > 0


def test_we_start_without_a_preshared_key(them: "Them") -> None:
    us = them.configure(psk=bytes(32))
    us.initiate()
    us.run_until(lambda: us.has_session(initiator=True))
    assert us.ping(OURS4, THEIRS4, 1)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, MAX_PACKET - 28])
def test_packets_of_every_length_come_back_without_padding(them: "Them", size: int) -> None:
    us = them.configure(psk=os.urandom(32))
    us.initiate()
    us.run_until(lambda: us.has_session(initiator=True))
    assert us.ping(OURS4, THEIRS4, 1, payload=os.urandom(size))


def test_they_start_and_ping_us(them: "Them") -> None:
    us = them.configure(psk=os.urandom(32))

    with them.pinging(OURS4) as ping:
        us.run_until(lambda: ping.poll() is not None)

    assert ping.returncode == 0
    assert us.has_session(initiator=False)
    assert us.confirmed


def test_new_keys_take_over_while_the_old_ones_still_open(them: "Them") -> None:
    us = them.configure(psk=os.urandom(32))
    us.initiate()
    us.run_until(lambda: us.has_session(initiator=True))
    assert us.ping(OURS4, THEIRS4, 1)
    first = us.engine.activity(PEER).sending_index

    us.run_for(INITIATION_SPACING_S)
    us.machine.initiate(time.monotonic(), force=True)
    us.run_until(lambda: len(us.sessions) == 2)

    assert us.engine.activity(PEER).sending_index not in (0, first)
    assert us.ping(OURS4, THEIRS4, 2)


def test_their_new_keys_are_taken_beside_ours(them: "Them") -> None:
    us = them.configure(psk=os.urandom(32))
    us.initiate()
    us.run_until(lambda: us.has_session(initiator=True))
    assert us.ping(OURS4, THEIRS4, 1)

    them.forget_sessions()
    with them.pinging(OURS4) as ping:
        us.run_until(lambda: ping.poll() is not None)

    assert ping.returncode == 0
    assert us.has_session(initiator=False)
    assert us.ping(OURS4, THEIRS4, 2)


def test_wrong_preshared_key_gives_no_session(them: "Them") -> None:
    us = them.configure(psk=os.urandom(32), our_psk=bytes(32))
    us.initiate()
    us.run_until(lambda: us.refused > 0)
    assert us.sessions == {}


def test_their_cookie_lets_us_in_under_their_load(them: "Them") -> None:
    us = them.configure(psk=os.urandom(32))
    us.machine.initiate(time.monotonic())
    datagram = us.machine.poll_transmit_bytes()
    assert datagram is not None

    us.flood_until_cookie(datagram)
    us.run_for(INITIATION_SPACING_S)
    us.machine.initiate(time.monotonic(), force=True)
    stamped = us.machine.poll_transmit_bytes()

    assert stamped is not None
    assert stamped[-16:] != bytes(16)
    us.socket.send(stamped)
    us.run_until(lambda: us.has_session(initiator=True))


def test_our_cookie_lets_them_in_under_our_load(them: "Them") -> None:
    us = them.configure(psk=os.urandom(32))
    us.is_loaded = True

    with them.pinging(OURS4, count=8) as ping:
        us.run_until(lambda: us.has_session(initiator=False) and bool(us.confirmed))
        us.is_loaded = False
        us.run_until(lambda: ping.poll() is not None)

    assert us.cookie_replies > 0
    assert us.gate.counters["opened"] > 0


@dataclass
class Us:
    """Our end: handshakes and an engine behind a UDP socket inside their namespace."""

    socket: socket.socket
    static: StaticKey
    machine: Handshakes
    gate: Gate
    timers: Timers
    engine: Engine = field(default_factory=Engine)
    sessions: dict[int, bool] = field(default_factory=dict)
    confirmed: list[int] = field(default_factory=list)
    inner: list[Packet] = field(default_factory=list)
    refused: int = 0
    cookie_replies: int = 0
    is_loaded: bool = False

    def initiate(self) -> None:
        self.machine.initiate(time.monotonic())
        self.flush()

    def has_session(self, initiator: bool) -> bool:
        return initiator in self.sessions.values()

    def run_until(self, done: Callable[[], bool]) -> None:
        """Passes datagrams and time to the machines until something is so."""
        deadline = time.monotonic() + WAIT_S
        while not done():
            now = time.monotonic()
            assert now < deadline, f"nothing happened: sessions {self.sessions}, gate {self.gate.counters}"
            self.machine.handle_activity(self.engine.activity(PEER), now)
            self.machine.handle_timeout(now)
            self.flush()
            if select.select([self.socket], [], [], 0.05)[0]:
                self.receive(self.socket.recv(65535), time.monotonic())
                self.flush()

    def run_for(self, duration_s: float) -> None:
        end = time.monotonic() + duration_s
        self.run_until(lambda: time.monotonic() >= end)

    def receive(self, datagram: bytes, now: float) -> None:
        match message_type(datagram):
            case MessageType.INITIATION:
                self.receive_initiation(datagram, now)
            case MessageType.RESPONSE:
                try:
                    self.machine.handle_response(datagram, now)
                except RemoteProtocolError:
                    self.refused += 1
            case MessageType.COOKIE_REPLY:
                self.machine.handle_cookie_reply(datagram, now)
            case _:
                self.engine.handle_datagram(self.local, THEM, datagram, now)
                self.handle_upcalls(now)

    def receive_initiation(self, datagram: bytes, now: float) -> None:
        if self.is_loaded:
            for _ in range(100):
                self.gate.open(SocketAddr("192.0.2.1", 1), datagram, now)
        opened = self.gate.open(THEM, datagram, now)
        if isinstance(opened, CookieReply):
            self.cookie_replies += 1
            self.socket.send(opened.datagram)
        elif isinstance(opened, OpenedInitiation):
            self.machine.handle_initiation(opened, now)

    def handle_upcalls(self, now: float) -> None:
        for upcall in self.engine.poll_upcalls():
            if isinstance(upcall, SessionUpcall) and upcall.kind == "confirmed":
                self.confirmed.append(upcall.local_index)
                self.machine.handle_confirmed(upcall.local_index, now)
            elif isinstance(upcall, PacketUpcall):
                packet = parse(upcall.packet)
                self.inner.append(packet)
                if packet.is_echo_request:
                    rest = packet.raw[packet.transport_offset + 4 :]
                    identifier, sequence = int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big")
                    self.send(icmp_echo(packet.destination, packet.source, identifier, sequence, rest[4:], reply=True))

    def flush(self) -> None:
        now = time.monotonic()
        while (event := self.machine.poll_event()) is not None:
            self.handle_event(event, now)
        while (datagram := self.machine.poll_transmit_bytes()) is not None:
            self.socket.send(datagram)

    def handle_event(self, event: Event, now: float) -> None:
        match event:
            case SessionReady(keypair):
                self.sessions[keypair.local_index] = keypair.is_initiator
                self.engine.add_session(PEER, keypair, now, self.timers.initiator_stops_s)
            case SessionExpired(local_index):
                self.engine.remove_session(local_index)
            case KeepaliveDue():
                self.send(b"")
            case _:
                raise AssertionError(event)

    def send(self, packet: bytes) -> None:
        datagram = self.engine.seal(PEER, packet, time.monotonic())
        assert datagram is not None
        assert len(datagram) == len(packet) + 32
        self.socket.send(datagram)

    def ping(self, source: IpAddress, destination: IpAddress, identifier: int, payload: bytes = b"hello") -> bool:
        self.inner.clear()
        self.send(icmp_echo(source, destination, identifier, 1, payload))
        self.run_until(lambda: any(packet.icmp_id == identifier for packet in self.inner))
        return [packet.payload for packet in self.inner if packet.icmp_id == identifier] == [payload]

    def flood_until_cookie(self, datagram: bytes) -> None:
        """Sends one initiation over and over until they are busy enough to want a cookie."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            for _ in range(500):
                self.socket.send(datagram)
            while select.select([self.socket], [], [], 0.01)[0]:
                answer = self.socket.recv(65535)
                if message_type(answer) is MessageType.COOKIE_REPLY:
                    self.machine.handle_cookie_reply(answer, time.monotonic())
                    return
        raise AssertionError("wireguard-go never asked for a cookie")

    @property
    def local(self) -> SocketAddr:
        host, port = self.socket.getsockname()
        return SocketAddr(host, port)


@dataclass
class Them:
    """wireguard-go on an interface in a namespace."""

    namespace: str
    interface: str
    directory: Path
    sockets: list[socket.socket] = field(default_factory=list)
    peer: tuple[bytes, bytes, int] = (b"", b"", 0)

    def configure(self, psk: bytes, our_psk: bytes | None = None) -> Us:
        """Gives both ends keys and each other's address."""
        private = os.urandom(32)
        theirs, ours = StaticKey.from_bytes(private), StaticKey.from_bytes(os.urandom(32))
        endpoint = self.socket_inside()
        self.private_key(private)
        self.add_peer(ours.public_key, psk, endpoint.getsockname()[1])
        timers = Timers.ice()
        epoch = time.time() - time.monotonic()
        machine = Handshakes(
            ours, theirs.public_key, psk if our_psk is None else our_psk, 0x00ABCD00, timers, epoch, os.urandom
        )
        return Us(endpoint, ours, machine, Gate(ours, os.urandom), timers)

    def socket_inside(self) -> socket.socket:
        """A socket in the namespace; it stays there although this thread comes back."""
        with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{self.namespace}").open() as inside:
            enter(inside.fileno())
            try:
                endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            finally:
                enter(home.fileno())
        endpoint.bind(("127.0.0.1", 0))
        endpoint.connect(THEM)
        self.sockets.append(endpoint)
        return endpoint

    def private_key(self, private: bytes) -> None:
        file = self.secret("private", private)
        self.wg("set", self.interface, "listen-port", str(THEIR_PORT), "private-key", file)

    def add_peer(self, public: bytes, psk: bytes, port: int) -> None:
        peer = ["peer", base64.b64encode(public).decode(), "preshared-key", self.secret("psk", psk)]
        allowed = f"{OURS4}/32,{OURS6}/128"
        self.wg("set", self.interface, *peer, "endpoint", f"127.0.0.1:{port}", "allowed-ips", allowed)
        self.peer = (public, psk, port)

    def forget_sessions(self) -> None:
        """Removes and adds the peer, which makes them start over."""
        public, psk, port = self.peer
        self.wg("set", self.interface, "peer", base64.b64encode(public).decode(), "remove")
        self.add_peer(public, psk, port)

    def latest_handshake(self) -> int:
        output = self.wg("show", self.interface, "latest-handshakes")
        return int(output.split()[-1])

    def pinging(self, address: IpAddress, count: int = 1) -> "subprocess.Popen[bytes]":
        command = [*self.inside(), "ping", "-c", str(count), "-W", "10", "-i", "1", str(address)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def secret(self, name: str, value: bytes) -> str:
        path = self.directory / name
        path.write_text(base64.b64encode(value).decode())
        return str(path)

    def inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace]

    def wg(self, *arguments: str) -> str:
        return run(*self.inside(), "wg", *arguments)


@pytest.fixture
def them(tmp_path: Path) -> Iterator[Them]:
    require_programs()
    name = f"wgi{os.getpid()}"
    run("ip", "netns", "add", name)
    daemon = None
    theirs = Them(name, name, tmp_path)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        daemon = subprocess.Popen(
            [*theirs.inside(), "wireguard-go", "-f", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_interface(theirs, daemon)
        for address in (f"{THEIRS4}/24", f"{THEIRS6}/64"):
            run("ip", "-n", name, "address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
        run("ip", "-n", name, "link", "set", name, "mtu", str(MAX_PACKET), "up")
        yield theirs
    finally:
        for endpoint in theirs.sockets:
            endpoint.close()
        if daemon is not None:
            daemon.terminate()
            daemon.wait(timeout=10)
        run("ip", "netns", "delete", name)


def require_programs() -> None:
    missing = sorted(package for program, package in PROGRAMS.items() if shutil.which(program) is None)
    if missing:
        pytest.fail(f"not installed: {' '.join(missing)} (apt-get install {' '.join(missing)})", pytrace=False)
    if os.geteuid() != 0:
        pytest.fail("needs root, to make a network namespace and a TUN interface", pytrace=False)


def wait_for_interface(theirs: Them, daemon: "subprocess.Popen[bytes]") -> None:
    control = Path("/var/run/wireguard") / f"{theirs.interface}.sock"
    deadline = time.monotonic() + WAIT_S
    while not control.exists():
        assert daemon.poll() is None, "wireguard-go ended at once"
        assert time.monotonic() < deadline, "wireguard-go did not start"
        select.select([], [], [], 0.02)


def run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
