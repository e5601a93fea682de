"""A portal with ten thousand agents: memory, idle, a storm of joins, changes of policies, authorizations.

    .venv/bin/python -m bench.portal [--agents 10000] [--database postgresql://…]

Method: one real `wardgate portal serve` and one process with all agents, on loopback, two processors between them. The
database is filled in bulk with what the services would leave (`bench/portal_fill.py`): for 10,000 clients 500 gateways
in 100 sites, 10,000 resources with a policy each, 100,000 memberships; a client reaches some 140 resources. Agents are
real websocket connections with a source address each that join, beat every 10 s and come back with the delays of real
programs (`bench/portal_swarm.py`). Everything is done at three sizes, the last one in full.

Memory is that of the portal with all agents less that without, for each agent; the kernel's socket buffers are not in
it. A change is a PATCH of a policy over the REST API that takes access away or gives it back; its time runs from the
request being sent, so it includes that of the API and the commit, to the moment that the last client concerned has its
message; bytes that any other agent gets are counted. The processor time of changes is that of the whole portal from one
change to the next, less what it uses idle. Authorizations are offered at a fixed pace by clients taken at random, for
resources taken at random; gateways acknowledge at once; the time is from asking to being told. In the storm the portal
is killed with SIGKILL and started again at once; its time runs from the kill to the last agent's init.
"""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

from bench import bars
from bench.bars import Bar
from bench.portal_fill import Filled, Size, fill
from bench.portal_place import Portal, PortalError, allow_open_files
from bench.portal_swarm import Agent, Swarm
from bench.statistics import percentile
from wardgate.portal.clock import SystemClock
from wardgate.portal.db.engine import Database

AGENTS: Final = 10_000
MOST_KB_PER_AGENT, MOST_STORM_S, MOST_CHANGE_S, LEAST_AUTHORIZATIONS = 50.0, 60.0, 1.0, 300.0
SETTLE_S, IDLE_S, ASK_S, ANSWER_WITHIN_S, STORM_WITHIN_S = 12.0, 20.0, 15.0, 20.0, 300.0
OFFERED: Final = (300.0, 450.0)
REPEATS: Final = {"one": 20, "department": 10, "all": 5}
JOIN_PER_S: Final = 250.0
HEARTBEATS_S: Final = 10.0


@dataclass
class Change:
    """One kind of change: how many clients it concerns, and every time it was made.

    Attributes:
        seconds: From the request to the last client concerned.
        cpu_s: The portal's processor time for one, the mean.
        foreign_bytes: What others got.
    """

    concerned: int
    seconds: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    foreign_bytes: int = 0


@dataclass
class Load:
    """Authorizations at one pace."""

    offered_per_s: float
    answered_per_s: float
    failed: int
    seconds: list[float]
    cpu_share: float


@dataclass
class Storm:
    """What a restart did."""

    seconds: float
    since_ready_s: float
    refused: dict[int, int]
    timeouts: int
    fatal: int
    join_seconds: list[float]


@dataclass
class Measured:
    """Everything at one size."""

    size: Size
    fill_s: float = 0.0
    base_pss: int = 0
    pss_per_agent: float = 0.0
    rss_per_agent: float = 0.0
    idle_cpu_share: float = 0.0
    first_join_s: float = 0.0
    changes: dict[str, Change] = field(default_factory=dict)
    loads: list[Load] = field(default_factory=list)
    storm: Storm | None = None


class Run:
    """One size, from the empty database to the storm."""

    def __init__(self, portal: Portal, filled: Filled, seed: int = 1) -> None:
        self._portal = portal
        self._filled = filled
        self._rng = random.Random(seed)
        self._swarm = Swarm("127.0.0.1", portal.port)
        self._gateways = self._swarm.add("gateway", filled.gateways)
        self._clients = self._swarm.add("client", filled.clients)
        self.measured = Measured(filled.size)

    async def everything(self, steps: Sequence[str]) -> Measured:
        """Does what is asked for, in order."""
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        self._portal.start()
        beating = asyncio.create_task(self._swarm.beat())
        try:
            await self._portal.wait_ready()
            await self._join()
            for name in steps:
                print(f"  {name} ...", flush=True)
                await {"idle": self._idle, "changes": self._changes, "asks": self._asks, "storm": self._storm}[name]()
        finally:
            self._swarm.close()
            beating.cancel()
            self._portal.stop()
        return self.measured

    async def _join(self) -> None:
        before, began = self._portal.memory(), time.monotonic()
        await self._swarm.start(self._gateways, JOIN_PER_S)
        await self._swarm.start(self._clients, JOIN_PER_S)
        self.measured.first_join_s = time.monotonic() - began
        await asyncio.sleep(SETTLE_S)
        after, agents = self._portal.memory(), len(self._swarm.agents)
        self.measured.base_pss = before.pss
        self.measured.pss_per_agent = (after.pss - before.pss) / agents
        self.measured.rss_per_agent = (after.rss - before.rss) / agents

    async def _idle(self) -> None:
        self.measured.idle_cpu_share = await self._idle_share(IDLE_S)

    async def _idle_share(self, seconds: float) -> float:
        cpu_s, began = self._portal.cpu_s(), time.monotonic()
        await asyncio.sleep(seconds)
        return (self._portal.cpu_s() - cpu_s) / (time.monotonic() - began)

    # --- changes ------------------------------------------------------------------------------------------------------

    async def _changes(self) -> None:
        filled = self._filled
        department = [self._clients[number] for number in filled.department]
        idle = self.measured.idle_cpu_share or await self._idle_share(HEARTBEATS_S)
        for name, policy, concerned in (
            ("one", filled.policy_of_one, self._clients[:1]),
            ("department", filled.policy_of_department, department),
            ("all", filled.policy_of_all, self._clients),
        ):
            self.measured.changes[name] = await self._change(policy, concerned, REPEATS[name], idle)

    async def _change(self, policy: str, concerned: Sequence[Agent], repeats: int, idle_share: float) -> Change:
        change = Change(len(concerned))
        for agent in self._swarm.agents:
            agent.pushes = agent.push_bytes = 0
        cpu_s, started = self._portal.cpu_s(), time.monotonic()
        for number in range(2 * repeats):
            began = time.monotonic()
            body = {"policy": {"is_disabled": number % 2 == 0}}
            await self._portal.change("PATCH", f"/policies/{policy}", self._filled.api_token, body)
            while not all(agent.pushes > number for agent in concerned):
                if time.monotonic() > began + ANSWER_WITHIN_S:
                    raise PortalError(f"a change did not reach everybody: {self._portal.log()}")
                await asyncio.sleep(0.002)
            change.seconds.append(max(agent.pushed_at for agent in concerned) - began)
        passed = time.monotonic() - started
        change.cpu_s = (self._portal.cpu_s() - cpu_s - idle_share * passed) / (2 * repeats)
        await asyncio.sleep(0.5)
        known = set(map(id, concerned))
        change.foreign_bytes = sum(agent.push_bytes for agent in self._swarm.agents if id(agent) not in known)
        if any(agent.pushes != 2 * repeats for agent in concerned):
            raise PortalError("a client got more messages than changes")
        return change

    # --- authorizations -----------------------------------------------------------------------------------------------

    async def _asks(self) -> None:
        for offered in OFFERED:
            self.measured.loads.append(await self._offer(offered, ASK_S))

    async def _offer(self, per_s: float, seconds: float) -> Load:
        asked: dict[int, float] = {}
        took: list[float] = []
        failed = 0

        def answered(agent: Agent, text: bytes) -> None:
            nonlocal failed
            if agent.topic != "client" or b'"authorization_creat' not in text[:80]:
                return
            at = asked.pop(agent.number, None)
            if at is not None:
                took.append(time.monotonic() - at)
                failed += b"creation_failed" in text[:80]

        self._swarm.on_push = answered
        free = [agent for agent in self._clients if agent.spec.resource_ids]
        cpu_s, began, sent = self._portal.cpu_s(), time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            while sent < passed * per_s:
                sent += 1
                agent = next((one for one in self._rng.sample(free, 20) if one.number not in asked), None)
                if agent is None:
                    failed += 1
                    continue
                asked[agent.number] = time.monotonic()
                agent.ask(self._rng.choice(agent.spec.resource_ids))
            await asyncio.sleep(0.001)
        in_time, passed = len(took), time.monotonic() - began
        share = (self._portal.cpu_s() - cpu_s) / passed
        await self._wait(lambda: not asked, ANSWER_WITHIN_S)
        self._swarm.on_push = None
        return Load(per_s, in_time / passed, failed + len(asked), took, share)

    async def _wait(self, is_over: Callable[[], bool], within_s: float) -> None:
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            if is_over():
                return
            await asyncio.sleep(0.01)

    # --- storm --------------------------------------------------------------------------------------------------------

    async def _storm(self) -> None:
        swarm = self._swarm
        swarm.refused.clear()
        swarm.timeouts = 0
        self._portal.kill()
        began = time.monotonic()
        self._portal.start()
        await self._portal.wait_ready()
        ready = time.monotonic()
        while any(agent.joined_at < began for agent in swarm.agents):
            if swarm.fatal or time.monotonic() > began + STORM_WITHIN_S:
                break
            await asyncio.sleep(0.1)
        joined = [agent.joined_at - began for agent in swarm.agents if agent.joined_at >= began]
        last = max(joined) if len(joined) == len(swarm.agents) else float("inf")
        since_ready = last - (ready - began)
        self.measured.storm = Storm(
            last, since_ready, dict(swarm.refused), swarm.timeouts, len(swarm.fatal), sorted(joined)
        )


async def measure(size: Size, database: str | None, steps: Sequence[str]) -> Measured:
    """Measures one size in a fresh database."""
    directory = Path(tempfile.mkdtemp(prefix="wardgate-bench-portal-"))
    try:
        url = database or f"sqlite:///{directory}/portal.db"
        db = Database(url, SystemClock())
        began = time.monotonic()
        try:
            await db.migrate()
            filled = await fill(db, size)
        finally:
            await db.close()
        fill_s = time.monotonic() - began
        run = Run(Portal(url, directory), filled)
        measured = await run.everything(steps)
        measured.fill_s = fill_s
        return measured
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def bars_of(measured: Measured) -> list[Bar]:
    """The figures of the largest size against their limits."""
    found = [Bar("memory of an idle agent, PSS", measured.pss_per_agent / 1000, "KB", MOST_KB_PER_AGENT, True)]
    if measured.storm is not None:
        found.append(Bar("storm of joins, to the last one", measured.storm.seconds, "s", MOST_STORM_S, True))
        found.append(Bar("agents refused for good in the storm", measured.storm.fatal, "", 0, True))
    for name, change in measured.changes.items():
        p99 = percentile(change.seconds, 0.99)
        found.append(Bar(f"change that concerns {name} ({change.concerned}), p99", p99, "s", MOST_CHANGE_S, True))
        found.append(Bar(f"bytes to others, {name}", change.foreign_bytes, "", 0, True))
    if measured.loads:
        best = max((one.answered_per_s for one in measured.loads if not one.failed), default=0.0)
        found.append(Bar("authorizations answered a second", best, "/s", LEAST_AUTHORIZATIONS * 0.99))
    return found


def show(measured: Measured) -> None:
    """Prints the figures of one size."""
    size = measured.size
    rows = [
        ("filled in, s", f"{measured.fill_s:.1f}"),
        ("first join of all, s", f"{measured.first_join_s:.1f}"),
        ("portal without agents, PSS, MB", f"{measured.base_pss / 1e6:.1f}"),
        ("an idle agent, PSS / RSS, KB", f"{measured.pss_per_agent / 1e3:.1f} / {measured.rss_per_agent / 1e3:.1f}"),
        ("idle, share of a processor", f"{measured.idle_cpu_share:.3f}"),
    ]
    for name, change in measured.changes.items():
        p50, p99 = (1000 * percentile(change.seconds, share) for share in (0.5, 0.99))
        figures = f"{p50:.0f} / {p99:.0f} ms, {1000 * change.cpu_s:.1f} ms"
        rows.append((f"change for {name} ({change.concerned}): p50 / p99, processor", figures))
    for load in measured.loads:
        figures = " / ".join(f"{1000 * percentile(load.seconds, share):.1f}" for share in (0.5, 0.99))
        text = f"{load.answered_per_s:.0f}/s, {figures} ms, {load.failed} failed, {load.cpu_share:.2f} processors"
        rows.append((f"authorizations, {load.offered_per_s:.0f}/s offered: answered, p50 / p99", text))
    if measured.storm:
        storm = measured.storm
        text = f"{storm.seconds:.1f} s, {storm.since_ready_s:.1f} s since ready"
        rows.append(("storm", f"{text}; refused {storm.refused}, timeouts {storm.timeouts}, for good {storm.fatal}"))
    bars.table((f"{size.agents:,} clients, {size.gateways} gateways, {size.memberships:,} memberships", ""), rows)


def as_samples(measured: Sequence[Measured]) -> dict[str, Any]:
    """Every figure, for the file."""
    return {f"{one.size.agents}": asdict(one) for one in measured}


def main() -> int:
    """Prints the figures and keeps them in `bench/results/portal.json`; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=AGENTS, metavar="N", help="clients of the largest size (10000)")
    parser.add_argument("--sizes", type=int, default=3, metavar="N", help="how many sizes, each half the next (3)")
    parser.add_argument("--database", metavar="URL", help="an empty PostgreSQL database instead of an SQLite file")
    steps = ["idle", "changes", "asks", "storm"]
    parser.add_argument("--only", nargs="+", choices=steps, default=steps, help="what to measure besides memory")
    parser.add_argument("--dry", action="store_true", help="keep no results")
    options = parser.parse_args()
    if options.agents < 20 or not 1 <= options.sizes <= 6:
        parser.error("agents are at least 20, sizes 1 to 6")
    found = []
    try:
        allow_open_files(round(options.agents * 1.05))
        for halvings in reversed(range(options.sizes)):
            size = Size.of(options.agents >> halvings)
            print(f"{size.agents:,} clients", flush=True)
            found.append(uvloop.run(measure(size, options.database, options.only)))
            show(found[-1])
    except asyncio.CancelledError:
        print("bench: ended by a signal; everything is cleaned up")
        return 130
    except PortalError as error:
        print(f"bench: failed: {error}", file=sys.stderr)
        return 1
    results = bars_of(found[-1])
    if options.dry:
        bars.show(results)
        return 0
    method = (__doc__ or "").partition("Method: ")[2].strip()
    bars.write("portal.json", results, method, as_samples(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
