"""New flows a second that Python decides on one core: a gateway and a client, each packet the first of its flow.

    .venv/bin/python -m bench.flows [--flows 20000] [--rounds 3] [--profile FILE]

Method: the real state of a gateway (or client) on the real native engine, driven by the real control loop on an
asyncio event loop. Sessions are made by real handshakes, access by the portal's messages, filters are in place. Packets
go into the engine as its threads hand them over (`Engine.handle_inner`, behind the decryption, on a gateway;
`Engine.handle_tun` on a client), in rounds that fit the upcall ring, and the loop runs until the ring is empty. What
counts is processor time of the whole process (user and system, all threads) but for the time spent feeding; the loop's
output ends where its system calls would be made. Every fed packet has to become a flow, or the run fails. A row is the
median of `--rounds` fresh states; the bar is the slowest row. The file also keeps what this core is worth: how often
a second a fixed piece of Python runs on it.
"""

import argparse
import asyncio
import cProfile
import itertools
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, ip_network
from typing import Any, NamedTuple

from tests.sim.product import CLIENT_V4, SITE, Product, product

from bench import bars
from bench.bars import Bar
from bench.light_clients import PROXY_IPS, REAL_IP, LightClients, filters, first_packets, init, resource_id, resources
from wardgate._fastpath import Engine, StaticKey
from wardgate.gateway.state import GatewayState
from wardgate.io.loop import ControlLoop
from wardgate.tunnel.events import Resolve
from wardgate.wire import portal
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import TCP, UDP, icmp_echo

AT_LEAST, AIM, ROUNDS, FLOWS = 5_000, 20_000, 3, 20_000
GATEWAY = SocketAddr("203.0.113.31", 52625)
HANDSHAKE_GAP_S = 0.02
FED_PER_ROUND = 1_000
CIDR_HOSTS = tuple(IPv4Address("10.9.0.2") + number for number in range(16))


class Clock:
    """Monotonic seconds that can be put forward, so that limits of rate do not slow the building."""

    def __init__(self, start: float | None = None) -> None:
        self._ahead = 0.0 if start is None else start - time.monotonic()

    def __call__(self) -> float:
        """Now."""
        return time.monotonic() + self._ahead

    def put_forward(self, seconds: float) -> None:
        """Lets time pass."""
        self._ahead += seconds


class Outlet:
    """Where the loop's output ends."""

    def __init__(self) -> None:
        self.datagrams = 0
        self.packets = 0

    def send(self, datagrams: list[tuple[tuple[str, int] | None, tuple[str, int], bytes]]) -> int:
        """Takes datagrams for the network."""
        self.datagrams += len(datagrams)
        return len(datagrams)

    def write_tun(self, packets: list[bytes]) -> int:
        """Takes packets for the TUN device."""
        self.packets += len(packets)
        return len(packets)


class End(NamedTuple):
    """One end under test.

    Attributes:
        feed: Hands one packet of the iterator's to the engine.
        keep: Called between rounds, to keep the connection alive.
    """

    state: Any
    engine: Engine
    clock: Clock
    packets: Iterator[Any]
    feed: Callable[[Any, float], object]
    keep: Callable[[], None]


class Sample(NamedTuple):
    """What one run took."""

    flows: int
    cpu_s: float
    wall_s: float

    @property
    def per_s(self) -> float:
        """Flows per second of processor time."""
        return self.flows / self.cpu_s


# --- the ends --------------------------------------------------------------------------------------------------------


def gateway(peers: int, protocol: int, *, by_name: bool) -> End:
    """A gateway with that many connected clients, each of which may reach four networks and a name."""
    clock, engine = Clock(), Engine()
    static = StaticKey.from_bytes(bytes(range(32)))
    state = GatewayState(engine, static, time.time() - clock(), random.Random(1).randbytes)
    state.handle_portal_up(clock())
    state.handle_portal(init(), clock())
    clients = LightClients(GATEWAY, "198.51.100.7", 20_000, 64)
    made = [clients.make(number) for number in range(peers)]
    for number, client in enumerate(made):
        for resource in resources():
            state.handle_portal(client.authorization(resource, int(time.time()) + 86_400), clock())
        clock.put_forward(HANDSHAKE_GAP_S)
        start = clients.initiation(client, static.public_key, time.time() + number)
        engine.handle_datagram(GATEWAY, client.address, start, clock())
        _settle(state, engine, clock)
        response = next(one.payload for one in iter(state.poll_transmit, None) if one.remote == client.address)
        confirm = clients.confirmation(client, response, clock())
        engine.handle_datagram(GATEWAY, client.address, confirm, clock())
        announcement = clients.seal(client, client.announcement(), clock())
        engine.handle_datagram(GATEWAY, client.address, announcement, clock())
        _settle(state, engine, clock)
    destinations = PROXY_IPS if by_name else CIDR_HOSTS
    sources = [zip(itertools.repeat(one.number), first_packets(one.ipv4, destinations, protocol)) for one in made]
    packets = itertools.chain.from_iterable(zip(*sources, strict=True))
    return End(state, engine, clock, packets, lambda one, now: engine.handle_inner(one[0], one[1], now), lambda: None)


def _settle(state: GatewayState, engine: Engine, clock: Clock) -> None:
    """Does what the loop would do, and resolves names."""
    while upcalls := engine.poll_upcalls():
        for upcall in upcalls:
            state.handle_upcall(upcall, clock())
    while (event := state.poll_event()) is not None:
        if isinstance(event, Resolve):
            state.handle_resolved(event.request_id, (REAL_IP, REAL_IP + 1), (), None, clock())
    while state.poll_packet() is not None:
        pass


def client(protocol: int, *, by_name: bool) -> End:
    """A client that is connected to a gateway and may reach three networks and a name."""
    lab = product()
    networks = {1: "10.9.0.0/16", 3: "10.0.0.0/8", 4: "172.16.5.0/24"}
    for number, text in networks.items():
        resource = portal.CidrResource(
            id=resource_id(number), address=ip_network(text), name=text, sites=(SITE,), filters=filters()
        )
        lab.portal.allow(resource)
    name = portal.DnsResource(
        id=resource_id(2), address="*.corp.example", name="corp", sites=(SITE,), filters=filters()
    )
    lab.portal.allow(name)
    lab.lan.names["app.corp.example"] = (REAL_IP,)
    lab.run(0.5)
    proxy_ips = tuple(one for one in lab.ask_name("app.corp.example") if isinstance(one, IPv4Address))
    for address in (REAL_IP, proxy_ips[0]):
        lab.client.send(icmp_echo(CLIENT_V4, address, 1, 1))
        lab.run(2.0)
    assert len(lab.client.packets()) >= 2, "both pings are answered"
    packets = first_packets(CLIENT_V4, proxy_ips if by_name else CIDR_HOSTS, protocol)
    engine, clock = lab.client.program.engine, Clock(lab.world.now)
    return End(lab.client.state, engine, clock, packets, engine.handle_tun, _keepalive(lab, clock))


def _keepalive(lab: Product, clock: Clock) -> Callable[[], None]:
    """Lets the client hear from its gateway, as it does where flows are answered."""
    client, gateway = lab.client.program, lab.gateways[0].program
    ((_, remote, _),) = client.engine.handle_tun(icmp_echo(CLIENT_V4, REAL_IP, 1, 2), clock())

    def keep() -> None:
        keepalive = gateway.engine.seal(0, b"", clock())
        assert keepalive is not None, "the gateway has a session"
        client.engine.handle_datagram(client.address, remote, keepalive, clock())

    return keep


# --- measuring -------------------------------------------------------------------------------------------------------


async def measure(end: End, flows: int, profile: cProfile.Profile | None) -> Sample:
    """Feeds packets, lets the loop decide them, and gives what that took."""
    loop: ControlLoop[Any, Any] = ControlLoop(end.state, end.engine, Outlet(), lambda event: None, now=end.clock)
    loop.start()
    await _until_idle(end, loop)
    before = end.engine.counters()["flows_added"]
    cpu_s = wall_s = 0.0
    left = flows
    while left > 0:
        end.keep()
        batch = list(itertools.islice(end.packets, min(left, FED_PER_ROUND)))
        now = end.clock()
        for packet in batch:
            end.feed(packet, now)
        left -= len(batch)
        if profile is not None:
            profile.enable()
        cpu, wall = time.process_time(), time.monotonic()
        await _until_idle(end, loop)
        cpu_s += time.process_time() - cpu
        wall_s += time.monotonic() - wall
        if profile is not None:
            profile.disable()
    loop.stop()
    added = end.engine.counters()["flows_added"] - before
    if added != flows:
        raise SystemExit(f"{added} of {flows} packets became flows: {dict(end.state.counters)}")
    return Sample(flows, cpu_s, wall_s)


async def _until_idle(end: End, loop: ControlLoop[Any, Any]) -> None:
    """Goes round the event loop until a whole round brought no upcall and no run."""
    runs = -1
    while runs != loop.counters["runs"]:
        runs = loop.counters["runs"]
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def yardstick() -> float:
    """How often a second a fixed piece of Python runs on this core."""
    began, count = time.process_time(), 0
    while time.process_time() - began < 0.5:
        table = {}
        for number in range(1000):
            table[int(str(number))] = number
        count += 1
    return count / (time.process_time() - began)


CASES: dict[str, Callable[[], End]] = {
    "gateway, network, TCP, 1 peer": lambda: gateway(1, TCP, by_name=False),
    "gateway, network, UDP, 1 peer": lambda: gateway(1, UDP, by_name=False),
    "gateway, network, TCP, 100 peers": lambda: gateway(100, TCP, by_name=False),
    "gateway, name with NAT, TCP, 1 peer": lambda: gateway(1, TCP, by_name=True),
    "gateway, name with NAT, UDP, 100 peers": lambda: gateway(100, UDP, by_name=True),
    "client, network, TCP": lambda: client(TCP, by_name=False),
    "client, network, UDP": lambda: client(UDP, by_name=False),
    "client, name, TCP": lambda: client(TCP, by_name=True),
}


def main() -> None:
    """Prints a row a case and keeps the figures in `bench/results/flows.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=FLOWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--profile", help="write a profile of the decided part here; figures are not kept then")
    options = parser.parse_args()
    cases = {name: make for name, make in CASES.items() if options.only in name}
    profile = cProfile.Profile() if options.profile else None
    samples: dict[str, list[Sample]] = {name: [] for name in cases}
    for _ in range(options.rounds):
        for name, make in cases.items():
            samples[name].append(asyncio.run(measure(make(), options.flows, profile)))
    medians = {name: statistics.median(one.per_s for one in found) for name, found in samples.items()}
    rows = [
        (name, f"{medians[name]:,.0f}", f"{1e6 / medians[name]:.1f}", f"{min(s.per_s for s in found):,.0f}")
        for name, found in samples.items()
    ]
    bars.table(("each packet a new flow", "flows/cpu s", "us a flow", "worst round"), rows)
    if profile is not None:
        profile.dump_stats(options.profile)
    elif not options.only:
        bar = Bar("new flows per second decided in Python on one core", min(medians.values()), "1/s", AT_LEAST, aim=AIM)
        kept = {name: [round(one.per_s, 1) for one in found] for name, found in samples.items()}
        context = {"flows_per_cpu_second": kept, "yardstick_per_second": round(yardstick(), 1), "pid": os.getpid()}
        bars.write("flows.json", [bar], " ".join(str(__doc__).split()), context)


if __name__ == "__main__":
    main()
