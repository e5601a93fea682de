"""Several portals: how long things take when devices are at different ones, and when one, NATS or PostgreSQL breaks.

    .venv/bin/python -m bench.nodes [--rounds 5]

Method: two `wardgate portal serve` processes on loopback, one PostgreSQL (files in memory where there is room, fsync
off, synchronous commit on) and one nats-server, all started by the program and ended by their process ids. Agents are
websocket clients in the program's own process that come back after 50 to 150 ms, then after growing times; each
chooses a portal by chance, as behind a load balancer. Times are of the program's clock, from just after the commit,
the signal or the frame until the frame that shows the effect has arrived. Requests are asked one after the other,
each acknowledged by its gateway at once. "Killed" is SIGKILL. What a command commits wakes no portal: they look each
second. "Through a portal" is counted from its answer. A row is the median (p99: the second worst of a hundred) of all
rounds.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.nats_server import NatsServer
from tests.postgres import TEMPLATE, Server
from tests.unit.portal.conftest import migrate
from tests.unit.portal.nodes.processes import KILL, TERMINATE, Agent, Installation, Node, installation

from bench import bars
from bench.bars import Bar
from wardgate.ids import GatewayId
from wardgate.lab.demo.workplace import Ended, end_on_signals
from wardgate.wire import portal

ASKS = 100
AGENTS = 50
CANDIDATE = "candidate:1 1 udp 2130706175 10.5.0.2 52625 typ host ufrag bm7b"
LIMITS_S = {
    "grant, both at one portal": 0.2,
    "grant, both at one portal, p99": 1.0,
    "grant, at two portals": 0.2,
    "grant, at two portals, p99": 1.0,
    "candidate, at two portals": 0.1,
    "revoked at both ends, through a portal": 1.0,
    "revoked at both ends, by a command": 2.0,
    "revoked at both ends while NATS is away": 2.0,
    "granted again after NATS was restarted": 5.0,
    "revoked after PostgreSQL was restarted": 5.0,
    "gateway back after its portal was killed": 5.0,
    "granted again after the gateway's portal was killed": 10.0,
    "agent away in a rolling restart": 3.0,
    "agent away in a rolling restart, longest": 10.0,
}
Samples = dict[str, list[float]]


async def measure(server: Server, nats: NatsServer, directory: Path, rounds: int) -> Samples:
    """All samples in seconds, by row."""
    found: Samples = {name: [] for name in LIMITS_S}
    site = await installation(server.url(TEMPLATE), nats, directory)
    try:
        one, two = await site.node(), await site.node()
        client, near = site.client(one), site.gateway(one, name="near")
        await site.granted(client, near)
        await _grants(site, client, near, found, "grant, both at one portal")
        await near.close()
        far = site.gateway(two, name="far")
        client.granted.clear()
        await site.granted(client, far)
        await _grants(site, client, far, found, "grant, at two portals")
        await _candidates(site, client, far, found["candidate, at two portals"])
        for number in range(rounds):
            print(f"  round {number + 1} of {rounds}", flush=True)
            found["revoked at both ends, through a portal"].append(await _revoked(site, client, far, through=two))
            found["revoked at both ends, by a command"].append(await _revoked(site, client, far))
            await _nats_away(site, client, far, found)
            await _database_away(site, server, client, far, found["revoked after PostgreSQL was restarted"])
            await _killed(site, client, found)
        await _rolling(site, rounds, found)
    finally:
        await site.close()
    return found


async def _grants(site: Installation, client: Agent, gateway: Agent, found: Samples, name: str) -> None:
    await _at(gateway)
    times = []
    for _ in range(ASKS):
        asked_at = time.monotonic()
        await client.ask(site.lab.resource.id)
        await client.wait(lambda asked_at=asked_at: client.saw("authorization_created", asked_at))  # type: ignore[misc]
        times.append(client.events[-1][0] - asked_at)
        await asyncio.sleep(0.05)  # the portal lets a client ask 20 times a second
    found[name] = times
    found[f"{name}, p99"] = [sorted(times)[-2]]


async def _at(agent: Agent) -> None:
    await agent.wait_joined()
    await asyncio.sleep(0.5)


async def _candidates(site: Installation, client: Agent, gateway: Agent, times: list[float]) -> None:
    gateway_id = GatewayId(await site.device_id(gateway.name))
    for number in range(ASKS):
        message = portal.BroadcastGatewayCandidates(
            gateway_ids=(gateway_id,), candidates=(CANDIDATE.replace("52625", str(10_000 + number)),)
        )
        sent_at = time.monotonic()
        await client.send(message)
        await gateway.wait(lambda sent_at=sent_at: gateway.saw("ice_candidates", sent_at))  # type: ignore[misc]
        times.append(gateway.events[-1][0] - sent_at)


async def _revoked(site: Installation, client: Agent, gateway: Agent, through: Node | None = None) -> float:
    """How long until both ends know; access is given again."""
    revoked_at = await (site.revoke_through(through) if through else site.revoke())
    await client.wait(lambda: not client.resources)
    await gateway.wait(lambda: not gateway.grants)
    took_s = time.monotonic() - revoked_at
    await _regrant(site, client, gateway)
    return took_s


async def _regrant(site: Installation, client: Agent, gateway: Agent) -> None:
    await site.allow()
    await client.wait(lambda: client.resources)
    client.granted.clear()
    await site.granted(client, gateway)


async def _nats_away(site: Installation, client: Agent, gateway: Agent, found: Samples) -> None:
    site.nats.stop()
    revoked_at = await site.revoke()
    await client.wait(lambda: not client.resources)
    await gateway.wait(lambda: not gateway.grants)
    found["revoked at both ends while NATS is away"].append(time.monotonic() - revoked_at)
    await site.allow()
    await client.wait(lambda: client.resources)
    await asyncio.to_thread(site.nats.start)
    back_at = time.monotonic()
    client.granted.clear()
    await site.granted(client, gateway)
    found["granted again after NATS was restarted"].append(time.monotonic() - back_at)


async def _database_away(site: Installation, server: Server, client: Agent, gateway: Agent, times: list[float]) -> None:
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(1)
    await asyncio.to_thread(server.start, synchronous_commit="on")
    revoked_at = await site.revoke()
    await client.wait(lambda: not client.resources)
    await gateway.wait(lambda: not gateway.grants)
    times.append(time.monotonic() - revoked_at)
    await _regrant(site, client, gateway)


async def _killed(site: Installation, client: Agent, found: Samples) -> None:
    """A gateway's portal is killed; the gateway goes to the client's, since there is no other."""
    one, two = site.nodes[0], site.nodes[1]
    gateway = site.gateway(two, one, name="mover")
    while (await gateway.wait_joined()).url != two.url:
        await gateway.close()
        gateway = site.gateway(two, one, name="mover")
    joins = gateway.joins
    killed_at = time.monotonic()
    two.signal(KILL)
    await gateway.wait(lambda: gateway.joins > joins)
    found["gateway back after its portal was killed"].append(time.monotonic() - killed_at)
    client.granted.clear()
    await site.granted(client, gateway)
    found["granted again after the gateway's portal was killed"].append(time.monotonic() - killed_at)
    await gateway.close()
    await two.start()
    await asyncio.sleep(1)


async def _rolling(site: Installation, rounds: int, found: Samples) -> None:
    """Each portal in turn is asked to end and started again, below fifty agents."""
    for one_agent in site.agents:
        await one_agent.close()
    one, two = site.nodes
    agents = [site.gateway(one, two, name=f"rolling{number}") for number in range(AGENTS // 10)]
    agents += [site.client(one, two, name=f"rolling-client{number}") for number in range(AGENTS - len(agents))]
    for agent in agents:
        await agent.wait_joined()
    for _ in range(rounds):
        for node in (one, two):
            await _restart(node, agents)
    gaps = [gap for agent in agents for gap in agent.gaps]
    if any(agent.saw("disconnect") for agent in agents):
        raise RuntimeError("an agent was signed out")
    found["agent away in a rolling restart"] = gaps
    found["agent away in a rolling restart, longest"] = [max(gaps)]


async def _restart(node: Node, agents: list[Agent]) -> None:
    node.signal(TERMINATE)
    if await node.wait_ended() != 0:
        raise RuntimeError(f"a portal ended badly: {node.log()[-2000:]}")
    await node.start()
    for agent in agents:
        await agent.wait_joined()


def run(work: Callable[[Server, NatsServer, Path], Awaitable[Samples]]) -> Samples:
    """Does it with a PostgreSQL and a NATS server, which end with it."""
    with tempfile.TemporaryDirectory(prefix="wardgate-bench-") as directory:
        server, nats = Server(), NatsServer(Path(directory))
        try:
            server.start(synchronous_commit="on")
            server.execute(f"CREATE DATABASE {TEMPLATE}")
            migrate(server.url(TEMPLATE))
            nats.start()

            async def done() -> Samples:
                return await work(server, nats, Path(directory))

            return asyncio.run(done())
        finally:
            nats.stop()
            server.remove()


def main() -> int:
    """Prints the figures and keeps them in `bench/results/nodes.json`; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each thing is broken (5)")
    options = parser.parse_args()
    end_on_signals()
    load = [round(one, 1) for one in os.getloadavg()]
    try:
        found = run(lambda server, nats, directory: measure(server, nats, directory, options.rounds))
    except Ended as ended:
        print(f"bench: ended by {ended}; everything is cleaned up")
        return 128 + ended.number
    made = [Bar(name, statistics.median(times), "s", LIMITS_S[name], True) for name, times in found.items()]
    samples: dict[str, Any] = {
        "load average before": load,
        "seconds": {name: [round(one, 4) for one in times] for name, times in found.items()},
    }
    bars.table(
        ("seconds", "median", "least", "most", "samples"),
        [
            (name, f"{statistics.median(times):.3f}", f"{min(times):.3f}", f"{max(times):.3f}", str(len(times)))
            for name, times in found.items()
        ],
    )
    bars.write("nodes.json", made, (__doc__ or "").partition("Method: ")[2].strip(), samples)
    return 0 if all(bar.holds for bar in made) else 1


if __name__ == "__main__":
    sys.exit(main())
