"""Where relays are measured: a client, a relay and a peer in namespaces of their own, with one wire on each side.

    client 10.77.1.2 --- 10.77.1.1 relay 10.77.2.1 --- 10.77.2.2 peer

Everything goes with the lab, however the run ends.
"""

import http.client
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import NamedTuple

from wardgate.errors import LabError
from wardgate.lab import operations as ops
from wardgate.lab.lab import Lab
from wardgate.lab.node import SYSTEM_DIRECTORIES, Node
from wardgate.lab.process import Process, wait_until
from wardgate.lab.topology import Host, Link, Topology
from wardgate.wire import stun
from wardgate.wire.stun import Builder, MessageClass, Method

CLIENT, RELAY, PEER = IPv4Address("10.77.1.2"), IPv4Address("10.77.1.1"), IPv4Address("10.77.2.2")
RELAY_AT_PEER = IPv4Address("10.77.2.1")
TO_RELAY, TO_CLIENT, TO_PEER = "relay0", "client0", "peer0"
"""Interfaces: the client's and the peer's, and the relay's two."""
CROWD = "10.80.0.0/16"
"""More addresses of the client's machine, for clients of many networks."""
PORT, HEALTH_PORT = 3478, 8080
USER, PASSWORD, REALM = "alice", "wonderland", "bench"
ANYWHERE = IPv4Network("0.0.0.0/0")
START_TIMEOUT_S = 20.0
MANY = "100000"


@dataclass(frozen=True, slots=True)
class Place:
    """The three machines and a directory for files."""

    lab: Lab
    directory: Path

    @property
    def client(self) -> Node:
        return self.lab.node("client")

    @property
    def relay(self) -> Node:
        return self.lab.node("relay")

    @property
    def peer(self) -> Node:
        return self.lab.node("peer")


class Program(NamedTuple):
    """A relay that runs.

    Attributes:
        name: `wardgate` or `coturn`.
        process: Its process, on the relay's machine.
    """

    name: str
    process: Process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid


@contextmanager
def opened(directory: Path) -> Iterator[Place]:
    """Builds the machines and wires."""
    hosts = (("client", 10), ("relay", 11), ("peer", 12))
    topology = Topology(hosts=tuple(Host(name, IPv4Address(f"203.0.113.{last}")) for name, last in hosts))
    with Lab(topology) as lab:
        lab.apply(
            [
                *ops.wire("client", TO_RELAY, "relay", TO_CLIENT, Link()),
                *ops.wire("relay", TO_PEER, "peer", TO_RELAY, Link()),
                ops.address("client", TO_RELAY, CLIENT, 24),
                ops.address("relay", TO_CLIENT, RELAY, 24),
                ops.address("relay", TO_PEER, RELAY_AT_PEER, 24),
                ops.address("peer", TO_RELAY, PEER, 24),
                *(
                    ops.up(node, interface)
                    for node, interface in (
                        ("client", TO_RELAY),
                        ("relay", TO_CLIENT),
                        ("relay", TO_PEER),
                        ("peer", TO_RELAY),
                    )
                ),
                ops.route("client", ANYWHERE, TO_RELAY, RELAY),
                ops.route("peer", ANYWHERE, TO_RELAY, RELAY_AT_PEER),
                # What strangers are answered ends at the client's machine, which forwards nothing.
                ops.route("relay", ANYWHERE, TO_CLIENT, CLIENT),
                ops.sysctl("relay", "net/ipv4/ip_forward", 1),
            ]
        )
        place = Place(lab, directory)
        place.client.run(["ip", "route", "add", "local", CROWD, "dev", "lo"]).check()
        yield place


@contextmanager
def wardgate(place: Place, *arguments: str) -> Iterator[Program]:
    """Our relay, without a portal."""
    users = place.directory / "users"
    users.write_text(f"{USER}:{PASSWORD}\n")
    users.chmod(0o600)
    words = [sys.executable, "-m", "wardgate.relay.main", "--public-ip4-addr", str(RELAY), "--realm", REALM]
    words += ["--bind-ip4-addr", str(RELAY), "--listen-port", str(PORT), "--users-file", str(users)]
    words += ["--max-per-user", MANY, "--max-per-source", MANY, "--drain-time", "0s", "--log-level", "warning"]
    words += ["--health-check-addr", f"{RELAY}:{HEALTH_PORT}", *arguments]
    with _running(place, "wardgate", words) as program:
        yield program


@contextmanager
def coturn(place: Place) -> Iterator[Program]:
    """coturn's server with one relay thread."""
    words = ["turnserver", "-n", "-L", str(RELAY), "-E", str(RELAY), "-p", str(PORT), "-m", "1", "-r", REALM]
    words += ["--no-tls", "--no-dtls", "-a", "-u", f"{USER}:{PASSWORD}", "--no-cli", "--no-stdout-log"]
    words += ["--simple-log", "--log-file", str(place.directory / "coturn.session.log")]
    words += ["--pidfile", str(place.directory / "coturn.pid"), "--userdb", str(place.directory / "coturn.db")]
    with _running(place, "coturn", words) as program:
        yield program


@contextmanager
def socket_pair(place: Place) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's socket and a peer's, connected to each other through the relay's machine, past the relay."""
    with place.client.socket() as client, place.peer.socket() as peer:
        client.bind((str(CLIENT), 0))
        peer.bind((str(PEER), 0))
        client.connect(peer.getsockname())
        peer.connect(client.getsockname())
        yield client, peer


Start = Callable[[Place], AbstractContextManager[Program]]
STARTS: Mapping[str, Start] = {"coturn": coturn, "wardgate": wardgate}


def missing() -> str | None:
    """What to say if coturn is not there; `None` if it is."""
    directories = ":".join(("/usr/bin", "/bin", "/usr/local/bin", *SYSTEM_DIRECTORIES))
    if shutil.which("turnserver") or shutil.which("turnserver", path=directories):
        return None
    return "turnserver is not installed, and relays are compared with it: apt-get install coturn"


def metrics(place: Place) -> dict[str, float]:
    """What our relay counted, by the name and labels of each figure at `/metrics`.

    Raises:
        LabError: It did not answer with them.
    """
    connection = http.client.HTTPConnection(str(RELAY), HEALTH_PORT)
    own = place.relay.socket(socket.AF_INET, socket.SOCK_STREAM)
    own.settimeout(30.0)
    try:
        own.connect((str(RELAY), HEALTH_PORT))
        connection.sock = own
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
        own.close()
    if answer.status != 200:
        raise LabError(f"/metrics answers {answer.status}")
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def counted(figures: Mapping[str, float], metric: str) -> dict[str, float]:
    """The figures of one metric of ours by its label, such as the forwarder's by event."""
    pattern = re.compile(rf'wardgate_relay_{metric}_total\{{event="(\w+)"\}}')
    return {found[1]: value for name, value in figures.items() if (found := pattern.fullmatch(name))}


def udp_counters(node: Node) -> dict[str, int]:
    """What the kernel of that machine counted of UDP."""
    lines = [line.split()[1:] for line in node.read_text("/proc/net/snmp").splitlines() if line.startswith("Udp:")]
    heads, values = lines
    return {head: int(value) for head, value in zip(heads, values, strict=True)}


@contextmanager
def _running(place: Place, name: str, words: list[str]) -> Iterator[Program]:
    log_path = place.directory / f"{name}.log"
    process = place.relay.spawn(words, log_path=log_path, cwd=Path.cwd())
    try:
        wait_until(lambda: _answers(place, process), START_TIMEOUT_S, f"{name} answers")
        yield Program(name, process)
        if not process.running:
            raise LabError(f"{name} ended by itself: {process.log(10)}")
    finally:
        process.stop()


def _answers(place: Place, process: Process) -> bool:
    if not process.running:
        raise LabError(f"{process.argv[0]} ended: {process.log(10)}")
    with place.client.socket() as probe:
        probe.settimeout(0.2)
        probe.connect((str(RELAY), PORT))
        try:
            probe.send(Builder(Method.BINDING, MessageClass.REQUEST, bytes(12)).build())
            return stun.decode(probe.recv(2000)).message_class == MessageClass.SUCCESS
        except OSError:
            time.sleep(0.02)
            return False
