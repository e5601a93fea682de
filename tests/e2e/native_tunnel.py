"""Two native tunnel ends in network namespaces, for the tests of the threads.

    client (100.64.0.1 on its TUN) --- wan --- gateway (100.64.0.2 on its TUN) --- app (10.9.0.2)

Run as a program (`python -m tests.e2e.native_tunnel`) it prints the throughput
of TCP through the tunnel beside plain forwarding.
"""

import argparse
import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from wardgate._fastpath import (
    Engine,
    Flow,
    Initiation,
    OpenedInitiation,
    PacketUpcall,
    StaticKey,
    TunDevice,
    TunnelIo,
)

T = TypeVar("T")
PEER = 1
PORT = 52625
CLIENT_WAN, GATEWAY_WAN, APP = "203.0.113.2", "198.51.100.2", "10.9.0.2"
CLIENT_WAN6, GATEWAY_WAN6, APP6 = "2001:db8:1::2", "2001:db8:2::2", "fd00:9::2"
CLIENT_TUN, CLIENT_TUN6 = "100.64.0.1", "fd00:2021:1111::1"


def run(command: str, **options: Any) -> str:
    """Runs a command made of plain words and returns what it printed."""
    printed: str = subprocess.run(command.split(), check=True, capture_output=True, text=True, **options).stdout
    return printed


def inside(namespace: str, act: Callable[[], T]) -> T:
    """Calls `act` on a thread of its own inside a network namespace."""
    result: list[T] = []

    def enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{namespace}") as handle:
            if libc.setns(handle.fileno(), 0x40000000) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        result.append(act())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return result[0]


@dataclass
class Names:
    """The four namespaces, named after this process so that runs do not meet."""

    prefix: str = field(default_factory=lambda: f"wgt{os.getpid()}")

    def __getattr__(self, name: str) -> str:
        return f"{self.prefix}-{name}"


@contextlib.contextmanager
def topology() -> Iterator[Names]:
    names = Names()
    spaces = [names.client, names.wan, names.gateway, names.app]
    try:
        for space in spaces:
            run(f"ip netns add {space}")
            run(f"ip -n {space} link set lo up")
        link(names.client, CLIENT_WAN, CLIENT_WAN6, names.wan, "203.0.113.1", "2001:db8:1::1", "a")
        link(names.gateway, GATEWAY_WAN, GATEWAY_WAN6, names.wan, "198.51.100.1", "2001:db8:2::1", "b")
        link(names.app, APP, APP6, names.gateway, "10.9.0.1", "fd00:9::1", "c")
        for space in (names.client, names.gateway):
            is_client = space == names.client
            run(f"ip -n {space} route add default via {'203.0.113.1' if is_client else '198.51.100.1'}")
            run(f"ip -n {space} -6 route add default via {'2001:db8:1::1' if is_client else '2001:db8:2::1'}")
        run(f"ip -n {names.app} route add default via 10.9.0.1")
        run(f"ip -n {names.app} -6 route add default via fd00:9::1")
        run(f"ip -n {names.wan} route add 10.9.0.0/24 via {GATEWAY_WAN}")
        for space in (names.wan, names.gateway):
            for setting in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
                run(f"ip netns exec {space} sysctl -qw net.{setting}=1")
        yield names
    finally:
        for space in spaces:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


def link(space: str, ip: str, ip6: str, other: str, other_ip: str, other_ip6: str, name: str) -> None:
    run(f"ip -n {space} link add {name}0 type veth peer name {name}1 netns {other}")
    for where, device, address, address6 in ((space, f"{name}0", ip, ip6), (other, f"{name}1", other_ip, other_ip6)):
        run(f"ip -n {where} addr add {address}/24 dev {device}")
        run(f"ip -n {where} -6 addr add {address6}/64 dev {device} nodad")
        run(f"ip -n {where} link set {device} up")


@dataclass
class End:
    """One end of the tunnel, and a loop that lets every flow through, each authorized by its destination port."""

    engine: Engine
    tun: TunDevice
    io: TunnelIo
    sockets: list[socket.socket]
    from_peer: bool
    flows: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    deciding: threading.Thread | None = None

    def start(self) -> None:
        """Starts the native threads, and one that decides."""
        self.io.start()
        self.deciding = threading.Thread(target=self.decide, daemon=True)
        self.deciding.start()

    def stop_deciding(self) -> None:
        """Lets no flow through from now on but those that are installed."""
        self.stopping.set()
        if self.deciding is not None:
            self.deciding.join(5)

    def decide(self) -> None:
        while not self.stopping.wait(0.0005):
            for upcall in self.engine.poll_upcalls():
                if isinstance(upcall, PacketUpcall) and (upcall.peer is not None) == self.from_peer:
                    self.install(upcall.packet)

    def install(self, packet: bytes) -> None:
        now = time.monotonic()
        is_v6 = packet[0] >> 4 == 6
        family, start, header = (socket.AF_INET6, 8, 40) if is_v6 else (socket.AF_INET, 12, 20)
        protocol, length = packet[6 if is_v6 else 9], 16 if is_v6 else 4
        source = socket.inet_ntop(family, packet[start : start + length])
        destination = socket.inet_ntop(family, packet[start + length : start + 2 * length])
        if protocol in (6, 17):
            ports = [int.from_bytes(packet[at : at + 2], "big") for at in (header, header + 2)]
        elif packet[header] in (8, 128):
            ports = [int.from_bytes(packet[header + 4 : header + 6], "big")] * 2
        else:
            return
        self.flows += 1
        ends = (source, ports[0]), (destination, ports[1])
        flow = Flow(
            flow_id=self.flows,
            peer=PEER,
            authorization=ports[1],
            protocol=protocol,
            inner_source=ends[0],
            inner_destination=ends[1],
            host_source=ends[0],
            host_destination=ends[1],
            from_peer=self.from_peer,
            idle_s=120,
            unconfirmed_idle_s=60,
        )
        self.engine.add_flow(flow, now)
        if self.from_peer:
            self.io.write_tun(self.engine.handle_inner(PEER, packet, now))
        else:
            self.io.send(self.engine.handle_tun(packet, now))

    def close(self) -> None:
        self.stop_deciding()
        self.io.stop()
        self.tun.close()
        for one in self.sockets:
            one.close()


def open_end(
    namespace: str,
    *,
    from_peer: bool,
    tun_offload: bool,
    udp_gso: bool,
    udp_gro: bool,
    kernel: Callable[[], None] | None,
) -> End:
    def opened() -> End:
        if kernel is not None:
            kernel()
        tun = TunDevice.open("tun0", offload=tun_offload)
        sockets = [udp_socket(socket.AF_INET), udp_socket(socket.AF_INET6)]
        engine = Engine()
        fds = {"udp4_fd": sockets[0].fileno(), "udp6_fd": sockets[1].fileno()}
        io = TunnelIo(engine, tun, **fds, udp_gso=udp_gso, udp_gro=udp_gro)
        if kernel is not None:
            io.start()  # what this thread changed is only for those that it starts
        return End(engine, tun, io, sockets, from_peer)

    return inside(namespace, opened)


def udp_socket(family: socket.AddressFamily, port: int = PORT) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind(("", port))
    SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
    made.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 << 20)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
    return made


@contextlib.contextmanager
def tunnel(
    names: Names,
    *,
    tun_offload: bool = True,
    udp_gso: bool = True,
    udp_gro: bool = True,
    over_v6: bool = False,
    kernel: Callable[[], None] | None = None,
) -> Iterator[tuple[End, End]]:
    """Opens both ends, runs a real handshake between them and routes the app's networks into the tunnel.

    Args:
        kernel: Changes the kernel for the threads of each end; called in one that starts them.
    """
    options = {"tun_offload": tun_offload, "udp_gso": udp_gso, "udp_gro": udp_gro}
    client = open_end(names.client, from_peer=False, **options, kernel=kernel)
    gateway = open_end(names.gateway, from_peer=True, **options, kernel=kernel)
    try:
        new_session(client, gateway, 1)
        wan = (CLIENT_WAN6, GATEWAY_WAN6) if over_v6 else (CLIENT_WAN, GATEWAY_WAN)
        client.engine.set_path(PEER, None, (wan[1], PORT))
        gateway.engine.set_path(PEER, (wan[1], PORT), (wan[0], PORT))
        configure(names)
        for end in (client, gateway):
            end.start()
        yield client, gateway
    finally:
        client.close()
        gateway.close()


def new_session(client: End, gateway: End, number: int) -> None:
    """Runs a handshake, the first one or a rekeying, and installs its keys, first those that answer.

    Args:
        number: How many there were, this one included.
    """
    a, b, psk = StaticKey.from_bytes(os.urandom(32)), StaticKey.from_bytes(os.urandom(32)), os.urandom(32)
    initiation, message = Initiation.start(a, b.public_key, psk, number << 8, bytes(12), os.urandom(32))
    response, of_gateway = OpenedInitiation.open(b, message).respond(psk, number << 8 | 1, os.urandom(32))
    now = time.monotonic()
    gateway.engine.add_session(PEER, of_gateway, now)
    client.engine.add_session(PEER, initiation.finish(response), now)


def configure(names: Names) -> None:
    for space in (names.client, names.gateway):
        run(f"ip -n {space} link set tun0 up txqueuelen 10000")
    run(f"ip -n {names.client} addr add {CLIENT_TUN}/32 dev tun0")
    run(f"ip -n {names.client} -6 addr add {CLIENT_TUN6}/128 dev tun0 nodad")
    run(f"ip -n {names.client} route add 10.9.0.0/24 dev tun0 src {CLIENT_TUN}")
    run(f"ip -n {names.client} -6 route add fd00:9::/64 dev tun0 src {CLIENT_TUN6}")
    run(f"ip -n {names.gateway} route add 100.64.0.0/11 dev tun0")
    run(f"ip -n {names.gateway} -6 route add fd00:2021:1111::/107 dev tun0")


@contextlib.contextmanager
def iperf_server(names: Names) -> Iterator[None]:
    server = subprocess.Popen(
        ["ip", "netns", "exec", names.app, "iperf3", "-s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 5
        while "5201" not in run(f"ip netns exec {names.app} ss -ltn") and time.monotonic() < deadline:
            server.poll()
        yield
    finally:
        server.terminate()
        server.wait()


def iperf(names: Names, seconds: float, *arguments: str) -> dict[str, Any]:
    """Runs iperf3 from the client to the app and returns its summary."""
    command = ["ip", "netns", "exec", names.client, "iperf3", "-J", "-c", APP, "-t", str(seconds), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 20, check=False)
    result: dict[str, Any] = json.loads(answer.stdout)
    if "error" in result:
        raise RuntimeError(result["error"])
    summary: dict[str, Any] = result["end"].get("sum_received") or result["end"]["sum"]
    return summary


def measure(seconds: float, rounds: int) -> None:
    variants: dict[str, dict[str, Any]] = {
        "all offloads": {},
        "no UDP GSO/GRO": {"udp_gso": False, "udp_gro": False},
        "no TUN offload": {"tun_offload": False},
        "no offload": {"tun_offload": False, "udp_gso": False, "udp_gro": False},
    }
    works = {"up": [], "down": ["-R"], "10 up": ["-P", "10"]}
    with topology() as names, iperf_server(names):
        for _ in range(rounds):
            report("plain", {name: iperf(names, seconds, *extra) for name, extra in works.items()})
            for title, options in variants.items():
                with tunnel(names, **options) as (client, gateway):
                    report(title, {name: iperf(names, seconds, *extra) for name, extra in works.items()})
                    if "-v" in sys.argv:
                        print(client.io.step_counters(), gateway.io.step_counters(), sep="\n")
                        print(client.engine.counters(), gateway.engine.counters(), sep="\n")


def report(title: str, results: dict[str, dict[str, Any]]) -> None:
    figures = "  ".join(f"{name} {one['bits_per_second'] / 1e9:5.2f}" for name, one in results.items())
    print(f"{title:16} Gb/s  {figures}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("-v", action="store_true", help="print the counters too")
    chosen = parser.parse_args()
    measure(chosen.seconds, chosen.rounds)
