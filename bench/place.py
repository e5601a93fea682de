"""Where the benchmark runs: the demo's small internet, with an address of the app for each contender.

    client --- client-nat --- [ wan ] --- gateway-nat --- gateway-1
                                                      |-- app

The app answers at one address for each contender, so the client's routes alone decide which tunnel a packet takes, and
all tunnels stay up from the first round to the last.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from bench.peers import LOAD
from wardgate.errors import LabError
from wardgate.lab import operations as ops
from wardgate.lab.lab import Lab
from wardgate.lab.messages import Message
from wardgate.lab.node import Node
from wardgate.lab.process import Process
from wardgate.lab.topology import Topology

TUNNEL_MTU = 1280
GATEWAY = IPv4Address("10.9.0.10")
GATEWAY_PUBLIC = IPv4Address("203.0.113.31")
IPERF_PORT = 5201
LOAD_PORT = 5202
"""Where the app's load program listens, for UDP and for TCP."""
POLL_S = 0.02


@dataclass
class Place:
    """One lab, in which contenders run.

    Attributes:
        name: `near`, `far` or `symmetric`.
        lab: The network.
        directory: Where logs, keys and databases are.
        processes: Every program that was started here, by name.
    """

    name: str
    lab: Lab
    directory: Path
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def client(self) -> Node:
        """Where the near end of every tunnel is, and where load comes from."""
        return self.lab.node("client")

    @property
    def gateway(self) -> Node:
        """Where the far end of every tunnel is."""
        return self.lab.node("gateway-1")

    @property
    def app(self) -> Node:
        """What is behind the gateway."""
        return self.lab.node("app")

    def start(
        self,
        name: str,
        node: str,
        argv: Sequence[str],
        env: dict[str, str] | None = None,
        *,
        fresh_log: bool = False,
    ) -> Process:
        """Starts a program under a name; its log is `<name>.log`, which is emptied before if so wanted."""
        log_path = self.directory / f"{name}.log"
        if fresh_log:
            log_path.unlink(missing_ok=True)
        process = self.lab.node(node).spawn(argv, env=env, log_path=log_path, cwd=self.directory)
        self.processes[name] = process
        return process

    def app_answers_at(self, address: IPv4Address) -> None:
        """Gives the app one more address."""
        self.lab.apply([ops.address("app", "eth0", address, 24)])

    def forward_port(self, name: str, port: int) -> None:
        """Forwards a UDP port of the gateway's NAT to the gateway."""
        self.forward(name, f"udp dport {port}", GATEWAY)

    def forward(self, name: str, matching: str, to: IPv4Address) -> None:
        """Forwards what comes from the wan, and for which an nftables expression is true, to an address inside."""
        rule = f"iifname wan0 {matching} dnat to {to}"
        self.lab.apply([ops.rules("gateway-nat", _table(f"forward-{name}", "prerouting", -101, rule))])

    def masquerade(self, name: str, matching: str) -> None:
        """Lets packets for the app leave the gateway with the gateway's address, as Wardgate's gateway does.

        Args:
            name: Whose packets.
            matching: An nftables expression that is true for them.
        """
        rule = f"{matching} oifname eth0 masquerade"
        self.lab.apply([ops.rules("gateway-1", _table(f"masquerade-{name}", "postrouting", 100, rule))])


@contextmanager
def opened(name: str, topology: Topology, directory: Path) -> Iterator[Place]:
    """Builds a lab, and starts the app's servers in it."""
    directory.mkdir()
    with Lab(topology) as lab:
        place = Place(name, lab, directory)
        lab.apply(_host_settings())
        iperf3 = ["iperf3", "--server", "--port", str(IPERF_PORT), "--forceflush"]
        for name, argv in (("iperf3", iperf3), ("load", [str(LOAD), "serve", f"0.0.0.0:{LOAD_PORT}"])):
            server = place.start(name, "app", argv)
            wait(partial(_says_listening, server), 5.0, f"{name} listens", server)
        yield place


def _says_listening(server: Process) -> bool:
    return "listening" in server.log()


def wait(condition: Callable[[], bool], timeout_s: float, what: str, *alive: Process) -> None:
    """Waits for a condition.

    Raises:
        LabError: It did not come true in time, or a program that it depends on ended.
    """
    began = time.monotonic()
    while not condition():
        for process in alive:
            if not process.running:
                raise LabError(f"{what}: {process.argv[0]} ended with {process.returncode}:\n{process.log(15)}")
        if time.monotonic() - began > timeout_s:
            said = "".join(f"\n{process.log(15)}" for process in alive)
            raise LabError(f"{what}: not within {timeout_s:g} s{said}")
        time.sleep(POLL_S)


def reaches(place: Place, address: str) -> bool:
    """Whether a ping from the client comes back."""
    words = ["ping", "-4", "-n", "-q", "-c", "1", "-W", "1", address]
    return place.client.run(words, timeout_s=5).returncode == 0


def _host_settings() -> list[Message]:
    made = [ops.sysctl("gateway-1", "net/ipv4/ip_forward", 1)]
    made += [ops.sysctl("gateway-1", f"net/ipv4/conf/{name}/send_redirects", 0) for name in ("all", "eth0")]
    return made


def _table(name: str, hook: str, priority: int, rule: str) -> str:
    chain = f"chain {hook} {{ type nat hook {hook} priority {priority};\n{rule}\n}}"
    return f"table ip {name}\ndelete table ip {name}\ntable ip {name} {{\n{chain}\n}}\n"
