"""Real processes that are killed, restarted and cut off: no agent keeps access that it lost, none loses what it has."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.nats_server import NatsServer, nats_or_skip
from tests.postgres import TEMPLATE, Server, server_or_skip
from tests.unit.portal.conftest import migrate
from tests.unit.portal.nodes.processes import KILL, TERMINATE, Installation, Node, installation, is_draining

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = nats_or_skip(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def site(postgresql: Server, nats: NatsServer, tmp_path: Path) -> AsyncIterator[Installation]:
    name = await asyncio.to_thread(_create, postgresql)
    made = await installation(postgresql.url(name), nats, tmp_path)
    try:
        yield made
    finally:
        await made.close()


def _create(server: Server) -> str:
    return server.create_database()


async def until(condition: Callable[[], Awaitable[object]], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_killed_portals_agents_go_on_at_another_and_miss_nothing(site: Installation) -> None:
    one, two = await site.node(), await site.node()
    client, gateway = site.client(one), site.gateway(two, one)
    while gateway.url != two.url:
        await gateway.close()
        gateway = site.gateway(two, one)
        await gateway.wait_joined()
    await site.granted(client, gateway)
    pair = (await site.device_id("laptop"), site.lab.resource.id)
    assert gateway.grants == {pair}

    joins = gateway.joins
    two.signal(KILL)
    await gateway.wait(lambda: gateway.joins > joins)
    assert gateway.grants == {pair}, "what it had it still has"
    assert client.joins == 1, "whoever was elsewhere noticed nothing"
    revoked_at = await site.revoke()

    await gateway.wait(lambda: not gateway.grants)
    await client.wait(lambda: not client.resources)
    print(f"gap {gateway.gaps[-1]:.2f} s; revoked within {time.monotonic() - revoked_at:.2f} s")
    assert not client.saw("disconnect")


async def test_what_is_revoked_while_a_gateways_portal_is_dead_is_gone_when_it_is_back(site: Installation) -> None:
    one, two = await site.node(), await site.node()
    client, gateway = site.client(one), site.gateway(two)
    await site.granted(client, gateway)

    two.signal(KILL)
    await two.wait_ended()
    await site.revoke()
    await client.wait(lambda: not client.resources)
    joins = gateway.joins
    await two.start()

    await gateway.wait(lambda: gateway.joins > joins)
    assert gateway.grants == set()
    await client.ask(site.lab.resource.id)
    await client.wait(lambda: client.saw("authorization_creation_failed"))
    assert gateway.grants == set()


async def test_while_nats_is_away_changes_act_and_afterwards_portals_hear_each_other(site: Installation) -> None:
    one, two = await site.node(), await site.node()
    client, gateway = site.client(one), site.gateway(two)
    await site.granted(client, gateway)

    site.nats.stop()
    revoked_at = await site.revoke()
    await client.wait(lambda: not client.resources)
    await gateway.wait(lambda: not gateway.grants)
    took_s = time.monotonic() - revoked_at
    await site.allow()
    await client.wait(lambda: client.resources)
    asked_at = time.monotonic()
    await client.ask(site.lab.resource.id)
    await client.wait(lambda: client.saw("authorization_creation_failed", asked_at))
    assert client.saw("authorization_creation_failed", asked_at)[0]["reason"] == "offline"
    site.nats.start()
    back_at = time.monotonic()

    await site.granted(client, gateway)
    print(f"without NATS revoked within {took_s:.2f} s; granted {time.monotonic() - back_at:.2f} s after it was back")
    assert (client.joins, gateway.joins) == (1, 1), "nobody lost a connection"


@pytest.fixture
def own_postgresql() -> Iterator[Server]:
    """A server that a test may stop."""
    server = server_or_skip()
    try:
        server.start(synchronous_commit="on")
        server.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate(server.url(TEMPLATE))
        yield server
    finally:
        server.remove()


async def test_while_the_database_is_away_agents_stay_and_afterwards_changes_act(
    own_postgresql: Server, nats: NatsServer, tmp_path: Path
) -> None:
    site = await installation(own_postgresql.url(TEMPLATE), nats, tmp_path)
    try:
        one, two = await site.node(), await site.node()
        client, gateway = site.client(one), site.gateway(two)
        await site.granted(client, gateway)

        own_postgresql.stop()
        await until(lambda: _is_unavailable(one))
        asked_at = time.monotonic()
        await client.ask(site.lab.resource.id)
        await client.wait(lambda: client.saw("authorization_creation_failed", asked_at), 20)
        assert gateway.grants, "what it had it still has"
        await asyncio.to_thread(own_postgresql.start, synchronous_commit="on")
        back_at = time.monotonic()
        revoked_at = await site.revoke()
        await client.wait(lambda: not client.resources)
        await gateway.wait(lambda: not gateway.grants)

        print(f"revoked {time.monotonic() - revoked_at:.2f} s after the commit, {time.monotonic() - back_at:.2f} after")
        assert (client.joins, gateway.joins) == (1, 1), "nobody lost a connection"
    finally:
        await site.close()


async def _is_unavailable(node: Node) -> bool:
    return (await node.get("/readyz"))[0] == 503


async def test_a_rolling_restart_moves_every_agent_and_signs_nobody_out(site: Installation) -> None:
    one, two = await site.node(WARDGATE_DRAIN_S="1"), await site.node(WARDGATE_DRAIN_S="1")
    gateways = [site.gateway(one, two, name=f"gw{number}") for number in range(3)]
    clients = [site.client(one, two, name=f"client{number}") for number in range(12)]
    agents = [*gateways, *clients]
    for agent in agents:
        await agent.wait_joined()

    for node in (one, two):
        node.signal(TERMINATE)
        await until(lambda node=node: _drains_or_ended(node))  # type: ignore[misc]
        assert await node.wait_ended() == 0
        for agent in agents:
            await agent.wait(lambda agent=agent: agent.joined_at is not None)  # type: ignore[misc]
            assert agent.url != node.url or agent.joined_at is None
        await node.start()

    for agent in agents:
        await agent.wait_joined()
        assert not agent.saw("disconnect")
    gaps = sorted(gap for agent in agents for gap in agent.gaps)
    print(f"{len(gaps)} gaps, the longest {gaps[-1]:.2f} s")
    await clients[0].ask(site.lab.resource.id)
    await clients[0].wait(lambda: site.lab.resource.id in clients[0].granted)


async def _drains_or_ended(node: Node) -> bool:
    try:
        return is_draining(await node.get("/readyz"))
    except OSError:
        return not node.is_running


async def test_a_second_signal_ends_a_draining_portal_at_once(site: Installation) -> None:
    node = await site.node(WARDGATE_DRAIN_S="30")
    agents = [site.client(node, name=f"client{number}") for number in range(3)]
    for agent in agents:
        await agent.wait_joined()
    node.signal(TERMINATE)
    await until(lambda: _drains_or_ended(node))
    assert node.is_running
    signalled_at = time.monotonic()

    node.signal(TERMINATE)
    await node.wait_ended(within_s=10)

    assert time.monotonic() - signalled_at < 10
