"""Resident memory of a gateway with many peers and flows.

    .venv/bin/python -m bench.memory [--peers 1000] [--flows 100000]

Method: the real `wardgate gateway` process in a lab (`bench/stage.py`), with its threads, TUN device, portal link and
health server. A portal grants each client five resources (four networks and a name, with filters); each client makes a
real handshake, announces its name and sends the first packets of its share of the flows, half TCP and half UDP, a third
of them to the name, which is translated. Resident memory is what `/proc/<pid>/status` says (VmRSS) after the last flow
was installed, `/metrics` having been read every 20,000 flows; beside it stand the values before the peers and before
the flows, and the greatest ever (VmHWM).
"""

import argparse
import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

from bench import bars
from bench.bars import Bar
from bench.light_clients import PROXY_IPS, LightClient, LightClients, first_packets, resources
from bench.stage import GATEWAY, OUTSIDE, Stage, stage
from wardgate.wire import wireguard
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import TCP, UDP
from wardgate.wire.wireguard import MessageType

AT_MOST_MB, AIM_MB, PEERS, FLOWS = 250, 120, 1_000, 100_000
FIRST_PORT, SOCKETS = 20_000, 8
HANDSHAKES_AT_ONCE, HANDSHAKE_PAUSE_S = 8, 0.1
FLOWS_AT_ONCE, FLOWS_PER_S, FLOWS_PER_LOOK, PATIENCE_S = 50, 4_000, 20_000, 20.0
HOSTS = tuple(IPv4Address("10.9.0.2") + number for number in range(16))


class Crowd:
    """Every client, on a few sockets."""

    def __init__(self, on: Stage, count: int) -> None:
        self._stage = on
        self._sockets = [on.udp_socket(FIRST_PORT + number) for number in range(SOCKETS)]
        self.clients = LightClients(GATEWAY, str(OUTSIDE), FIRST_PORT, SOCKETS)
        self.all = [self.clients.make(number) for number in range(count)]
        self.confirmed: set[int] = set()
        for number, one in enumerate(self._sockets):
            asyncio.get_running_loop().add_reader(one, self._receive, number)

    def _receive(self, number: int) -> None:
        source = SocketAddr(str(OUTSIDE), FIRST_PORT + number)
        for _ in range(64):
            try:
                datagram = self._sockets[number].recv(2048)
            except BlockingIOError:
                return
            now = time.monotonic()
            match wireguard.message_type(datagram):
                case MessageType.RESPONSE:
                    client = self.all[(wireguard.receiver_index(datagram) >> 8) - 1]
                    self.send(client, self.clients.confirmation(client, datagram, now))
                    self.send(client, self.clients.seal(client, client.announcement(), now))
                    self.confirmed.add(client.number)
                case MessageType.TRANSPORT:
                    for answer in self.clients.answers(datagram, source, now):
                        self._sockets[number].sendto(answer, GATEWAY)

    def fall_silent(self) -> None:
        """Answers nothing any more: what was sealed before would be too old for the gateway beside a fresh answer."""
        for one in self._sockets:
            asyncio.get_running_loop().remove_reader(one)

    def send(self, client: LightClient, datagram: bytes) -> None:
        """Sends a datagram to the gateway."""
        self._sockets[client.address.port - FIRST_PORT].sendto(datagram, GATEWAY)

    async def connect(self) -> None:
        """Has every client granted its resources and connected, no faster than a gateway takes handshakes."""
        public = self._stage.portal.gateway_public
        for start in range(0, len(self.all), HANDSHAKES_AT_ONCE):
            batch = self.all[start : start + HANDSHAKES_AT_ONCE]
            for client in batch:
                for resource in resources():
                    await self._stage.portal.push(client.authorization(resource, int(time.time()) + 86_400))
            pause = asyncio.create_task(asyncio.sleep(HANDSHAKE_PAUSE_S))
            granted = (start + len(batch)) * len(resources())
            await until(lambda: len(self._stage.portal.acknowledged_at) >= granted, "grants are acknowledged")  # noqa: B023
            await pause
            for client in batch:
                self.send(client, self.clients.initiation(client, public, time.time()))
        await until(lambda: len(self.confirmed) == len(self.all), "every client is connected")

    async def open_flows(self, count: int) -> None:
        """Sends the first packets of that many flows at a rate that every gateway keeps up with."""
        packets = [_packets(client) for client in self.all]
        order = itertools.islice(itertools.cycle(range(len(self.all))), count)
        for sent, number in enumerate(order, 1):
            client = self.all[number]
            self.send(client, self.clients.seal(client, next(packets[number]), time.monotonic()))
            if sent % FLOWS_AT_ONCE == 0:
                await asyncio.sleep(FLOWS_AT_ONCE / FLOWS_PER_S)
            if sent % FLOWS_PER_LOOK == 0 or sent == count:
                await self._wait_for_flows(sent)

    async def _wait_for_flows(self, count: int) -> None:
        until_at = time.monotonic() + PATIENCE_S
        while (there := (await self._stage.metrics())["wardgate_gateway_state_flows"]) < count:
            if time.monotonic() > until_at:
                raise SystemExit(f"only {there:,.0f} of {count:,} flows were installed")
            await asyncio.sleep(0.2)


def _packets(client: LightClient) -> Iterator[bytes]:
    """A third of them to the name; TCP and UDP by turns."""
    kinds = [
        first_packets(client.ipv4, destinations, protocol)
        for destinations in (HOSTS[:8], PROXY_IPS, HOSTS[8:])
        for protocol in (TCP, UDP)
    ]
    for kind in itertools.cycle(kinds):
        yield next(kind)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Waits until something is so.

    Raises:
        SystemExit: It never was.
    """
    until_at = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > until_at:
            raise SystemExit(f"in vain: {what}")
        await asyncio.sleep(0.01)


async def measure(peers: int, flows: int) -> dict[str, dict[str, int]]:
    """Memory at each stage, by name."""
    async with stage() as on:
        found = {"joined": on.memory()}
        crowd = Crowd(on, peers)
        await crowd.connect()
        await asyncio.sleep(1.0)
        found[f"{peers:,} peers"] = on.memory()
        await crowd.open_flows(flows)
        found[f"{peers:,} peers, {flows:,} flows"] = on.memory()
        return found


def main() -> None:
    """Prints memory stage by stage and keeps the figures in `bench/results/memory.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=PEERS)
    parser.add_argument("--flows", type=int, default=FLOWS)
    options = parser.parse_args()
    found = asyncio.run(measure(options.peers, options.flows))
    rows = [(name, *(f"{one[kind] / 1e6:.1f}" for kind in ("VmRSS", "VmHWM", "VmData"))) for name, one in found.items()]
    bars.table(("gateway process, MB", "VmRSS", "VmHWM", "VmData"), rows)
    if (options.peers, options.flows) == (PEERS, FLOWS):
        *_, last = found.values()
        name = "gateway RSS with 1,000 peers and 100,000 flows"
        bar = Bar(name, last["VmRSS"] / 1e6, "MB", AT_MOST_MB, is_ceiling=True, aim=AIM_MB)
        bars.write("memory.json", [bar], " ".join(str(__doc__).split()), {"bytes": found})


if __name__ == "__main__":
    main()
