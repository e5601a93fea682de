"""Portals that lose each other, meet again, and agree on where a device is."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.unit.portal.helpers import Lab
from tests.unit.portal.nodes.conftest import Nodes
from tests.unit.portal.sockets.harness import WAIT_S, Peer, PortalUnderTest, Refusal, key, running_portal
from wardgate.ids import AccountId, GatewayId, ResourceId
from wardgate.portal.channels.gateway import SILENT_S
from wardgate.portal.cluster import messages
from wardgate.portal.cluster.cluster import BEAT_S, LOST_S
from wardgate.portal.config import Settings
from wardgate.portal.drain import drain
from wardgate.portal.services import policies
from wardgate.wire import portal

CANDIDATE = "candidate:1 1 udp 2130706175 10.5.0.2 52625 typ host ufrag bm7b"


@pytest.fixture
def database_url(database_path: Path) -> str:
    """None of this depends on the database."""
    return f"sqlite:///{database_path}"


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def beat(nodes: Nodes, times: int = 1) -> None:
    for _ in range(times):
        nodes.clock.advance(BEAT_S)


def online(node: PortalUnderTest, lab: Lab) -> list[GatewayId]:
    found = node.hub.presence.gateways_of(AccountId(lab.account.id), lab.site.id)  # type: ignore[arg-type]
    return [one.id for one in found]


async def ask(lab: Lab, client: Peer) -> None:
    await client.send(portal.RequestAuthorization(resource_id=ResourceId(lab.resource.id)))


async def granted(nodes: Nodes, lab: Lab) -> tuple[Peer, Peer]:
    """A client at the first portal with a grant for a gateway at the second."""
    gateway, client = await nodes.second.gateway(lab), await nodes.first.client(lab)
    await gateway.take(portal.GatewayInit)
    await client.take(portal.ClientInit)
    await until(lambda: online(nodes.first, lab))
    await ask(lab, client)
    request = await gateway.take(portal.CreateAuthorization)
    await gateway.send(portal.AuthorizationAcknowledged(ref=request.ref))
    await client.take(portal.AuthorizationCreated)
    return client, gateway


def counted(node: PortalUnderTest, name: str, **labels: str) -> float:
    return node.hub.metrics.registry.get_sample_value(f"wardgate_portal_{name}", labels) or 0.0


# --- who is there ----------------------------------------------------------------------------------------------------


async def test_a_portal_that_is_not_heard_for_six_seconds_is_gone_with_its_devices(nodes: Nodes, lab: Lab) -> None:
    gateway, client = await nodes.second.gateway(lab), await nodes.first.client(lab)
    await gateway.take(portal.GatewayInit)
    await client.take(portal.ClientInit)
    await until(lambda: online(nodes.first, lab))
    beat(nodes, 5)
    assert online(nodes.first, lab)

    nodes.network.lost.add(nodes.second.hub.node_id)
    nodes.clock.advance(LOST_S - 1)
    assert online(nodes.first, lab), "not before its time"
    beat(nodes, 2)

    assert online(nodes.first, lab) == []
    await ask(lab, client)
    assert (await client.take(portal.AuthorizationCreationFailed)).reason == "offline"
    assert counted(nodes.first, "nodes") == 1


async def test_a_portal_that_ends_in_good_order_is_gone_at_once(nodes: Nodes, lab: Lab) -> None:
    await nodes.second.gateway(lab)
    await until(lambda: online(nodes.first, lab))
    assert nodes.second.hub.cluster

    await nodes.second.hub.cluster.close()

    assert online(nodes.first, lab) == []


async def test_what_was_missed_is_asked_for(nodes: Nodes, lab: Lab) -> None:
    kept = await nodes.second.gateway(lab, "kept")
    gone = await nodes.second.gateway(lab, "gone")
    await until(lambda: len(online(nodes.first, lab)) == 2)
    nodes.network.lost.add(nodes.second.hub.node_id)
    await gone.close()
    await nodes.second.gateway(lab, "new")
    await until(lambda: len(nodes.second.hub.presence.all_gateways()) == 2)
    await kept.settle()

    nodes.network.lost.clear()
    beat(nodes)

    await until(lambda: online(nodes.first, lab) == online(nodes.second, lab))
    assert len(online(nodes.first, lab)) == 2


async def test_a_message_that_was_lost_in_between_is_noticed_by_the_next(nodes: Nodes, lab: Lab) -> None:
    nodes.network.lost.add(nodes.second.hub.node_id)
    await nodes.second.gateway(lab, "one")
    nodes.network.lost.clear()

    await nodes.second.gateway(lab, "two")

    await until(lambda: len(online(nodes.first, lab)) == 2)


async def test_a_portal_that_starts_later_learns_everything(
    nodes: Nodes, lab: Lab, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "MAX_RECORDS", 3)
    for number in range(8):
        await nodes.first.gateway(lab, f"gw{number}")
    await nodes.second.gateway(lab, "other")
    await nodes.second.relay()

    async with running_portal(settings, nodes.clock, lambda hub: nodes.network.bus(hub.node_id)) as third:
        await until(lambda: len(online(third, lab)) == 9 and len(third.hub.presence.relays()) == 1)
        assert third.hub.cluster
        assert len(third.hub.cluster.node_ids) == 2
        assert counted(third, "nodes") == 3


async def test_a_portal_without_its_bus_keeps_relays_but_asks_no_gateway_elsewhere(nodes: Nodes, lab: Lab) -> None:
    await nodes.second.relay()
    gateway, client = await nodes.second.gateway(lab), await nodes.first.client(lab)
    await gateway.take(portal.GatewayInit)
    init = await client.take(portal.ClientInit)
    assert len(init.relays) == 1

    nodes.network.is_up = False
    beat(nodes, 8)
    await ask(lab, client)

    assert (await client.take(portal.AuthorizationCreationFailed)).reason == "offline"
    assert await client.settle() == [], "it was told nothing about its relay"
    assert len(nodes.first.hub.presence.relays()) == 1
    nodes.network.restore()
    await ask(lab, client)
    assert await gateway.take(portal.CreateAuthorization)


async def test_relays_of_another_portal_come_and_go_for_a_client(nodes: Nodes, lab: Lab) -> None:
    client = await nodes.first.client(lab)
    await client.take(portal.ClientInit)

    relay = await nodes.second.relay()
    await until(lambda: nodes.first.hub.presence.relays())
    nodes.clock.advance(1)
    [told] = (await client.take(portal.RelaysPresence)).connected
    moved = await nodes.first.relay()  # the same secret, at another portal
    await relay.closed()
    await moved.settle()
    nodes.clock.advance(1)

    assert told.id == next(iter(nodes.first.hub.presence.relays()))
    assert await client.settle() == [], "a relay that moved was never gone"
    await until(lambda: [one.relay_id for one in nodes.second.hub.presence.relays().values()] == [told.id])


# --- one place for each device ----------------------------------------------------------------------------------------


async def test_a_second_gateway_of_one_id_is_refused_at_another_portal(nodes: Nodes, lab: Lab) -> None:
    await nodes.first.gateway(lab, "gw", public_key=key("one"))
    await until(lambda: online(nodes.second, lab))

    with pytest.raises(Refusal) as refused:
        await nodes.second.gateway(lab, "gw", public_key=key("two"))

    assert await ready(nodes.first) == (503, "draining")
    assert (refused.value.status, refused.value.problem["code"]) == (409, "gateway_already_connected")


async def test_the_same_gateway_moves_to_another_portal(nodes: Nodes, lab: Lab) -> None:
    older = await nodes.first.gateway(lab)
    await until(lambda: online(nodes.second, lab))

    newer = await nodes.second.gateway(lab)

    await newer.take(portal.GatewayInit)
    await older.closed()
    assert "disconnect" not in older.events()
    assert nodes.first.hub.presence.all_gateways() == []
    assert online(nodes.first, lab) == online(nodes.second, lab) != []
    assert await newer.settle() == []


async def test_a_silent_gateway_gives_way_to_another_at_another_portal(nodes: Nodes, lab: Lab) -> None:
    silent = await nodes.first.gateway(lab, "gw", public_key=key("one"))
    await until(lambda: online(nodes.second, lab))
    nodes.clock.advance(SILENT_S + BEAT_S + 0.1)

    newer = await nodes.second.gateway(lab, "gw", public_key=key("two"))

    await silent.closed()
    await newer.take(portal.GatewayInit)
    assert nodes.first.hub.presence.all_gateways() == []


async def test_a_client_that_moves_closes_its_connection_elsewhere(nodes: Nodes, lab: Lab) -> None:
    older = await nodes.first.client(lab)
    await older.take(portal.ClientInit)

    newer = await nodes.second.client(lab)

    await newer.take(portal.ClientInit)
    await older.closed()
    assert "disconnect" not in older.events()
    assert (len(nodes.first.hub.presence.all_clients()), len(nodes.second.hub.presence.all_clients())) == (0, 1)
    back = await nodes.first.client(lab)
    await newer.closed()
    assert await back.take(portal.ClientInit)


async def test_gateways_that_came_while_portals_did_not_hear_each_other_become_one(nodes: Nodes, lab: Lab) -> None:
    nodes.network.is_up = False
    first = await nodes.first.gateway(lab, "gw", public_key=key("one"))
    nodes.clock.advance(1)
    second = await nodes.second.gateway(lab, "gw", public_key=key("two"))
    await first.take(portal.GatewayInit)
    await second.take(portal.GatewayInit)

    nodes.network.restore()

    await second.closed()
    assert await first.settle() == []
    assert online(nodes.second, lab) == online(nodes.first, lab) != []


async def test_clients_that_came_while_portals_did_not_hear_each_other_become_one(nodes: Nodes, lab: Lab) -> None:
    nodes.network.is_up = False
    first = await nodes.first.client(lab)
    nodes.clock.advance(1)
    second = await nodes.second.client(lab)
    await first.take(portal.ClientInit)
    await second.take(portal.ClientInit)

    nodes.network.restore()

    await first.closed()
    assert await second.settle() == []


# --- what is said ----------------------------------------------------------------------------------------------------


async def test_a_grant_that_arrives_after_its_end_is_not_given(nodes: Nodes, lab: Lab) -> None:
    gateway, client = await nodes.second.gateway(lab), await nodes.first.client(lab)
    await gateway.take(portal.GatewayInit)
    await client.take(portal.ClientInit)
    await until(lambda: online(nodes.first, lab))
    nodes.network.hold()
    await ask(lab, client)
    await client.settle()
    assert lab.policy
    async with nodes.first.hub.db.writing(lab.subject) as unit:
        await policies.delete_policy(unit, lab.policy.id)
    assert await client.take(portal.ResourceDeleted)
    async with asyncio.timeout(WAIT_S):
        while await nodes.second.hub.outbox.is_behind():  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    nodes.network.release()

    assert await gateway.settle() == []
    assert await client.settle() == []
    assert nodes.second.hub.presence.all_gateways()[0].grants.pairs() == []


async def test_a_revocation_reaches_both_ends_while_the_bus_is_away(nodes: Nodes, lab: Lab) -> None:
    client, gateway = await granted(nodes, lab)
    nodes.network.is_up = False
    assert lab.policy

    async with nodes.first.hub.db.writing(lab.subject) as unit:
        await policies.delete_policy(unit, lab.policy.id)

    assert (await client.take(portal.ResourceDeleted)).resource_id == lab.resource.id
    assert (await gateway.take(portal.RejectAccess)).resource_id == lab.resource.id


async def test_candidates_are_dropped_and_counted_while_the_bus_is_away(nodes: Nodes, lab: Lab) -> None:
    client, gateway = await granted(nodes, lab)
    [channel] = nodes.second.hub.presence.all_gateways()
    nodes.network.is_up = False

    sent = portal.BroadcastGatewayCandidates(gateway_ids=(channel.device_id,), candidates=(CANDIDATE,))
    await client.send(sent)
    await client.settle()
    nodes.network.restore()
    await client.send(sent)

    assert (await gateway.take(portal.ClientIceCandidates)).candidates == (CANDIDATE,)
    assert await gateway.settle() in ([], [portal.REPLY])
    assert counted(nodes.first, "bus_dropped_total", why="undeliverable") == 1


async def test_a_gateway_that_left_in_that_moment_is_offline_at_once(nodes: Nodes, lab: Lab) -> None:
    gateway, client = await nodes.second.gateway(lab), await nodes.first.client(lab)
    await gateway.take(portal.GatewayInit)
    await client.take(portal.ClientInit)
    await until(lambda: online(nodes.first, lab))
    nodes.network.hold()
    await ask(lab, client)
    await client.settle()
    await gateway.close()
    await until(lambda: not nodes.second.hub.presence.all_gateways())

    nodes.network.release()

    assert (await client.take(portal.AuthorizationCreationFailed)).reason == "offline"


async def test_a_request_that_a_dying_portal_did_not_answer_ends_with_it(nodes: Nodes, lab: Lab) -> None:
    gateway, client = await nodes.second.gateway(lab), await nodes.first.client(lab)
    await gateway.take(portal.GatewayInit)
    await client.take(portal.ClientInit)
    beat(nodes, 4)
    nodes.network.lost.add(nodes.second.hub.node_id)
    await ask(lab, client)
    assert await client.settle() == []

    beat(nodes, 4)

    assert (await client.take(portal.AuthorizationCreationFailed)).reason == "offline"


async def test_devices_that_say_too_much_are_known_elsewhere_all_the_same(nodes: Nodes, lab: Lab) -> None:
    agent = "Debian/12.0.0 gateway/1.5.3 (" + "x" * 5000 + ")"
    for number in range(3):
        await nodes.first.gateway(lab, f"gw{number}", agent=agent)

    await until(lambda: len(online(nodes.second, lab)) == 3)
    assert counted(nodes.second, "bus_dropped_total", why="malformed") == 0


async def test_what_strangers_say_on_the_bus_is_dropped_and_counted(nodes: Nodes, lab: Lab) -> None:
    await granted(nodes, lab)

    for noise in (b"", b"\x01", b"hello" * 100, bytes(200)):
        nodes.network.carry("stranger", "all", noise)
        nodes.network.carry("stranger", nodes.first.hub.node_id, noise)

    assert counted(nodes.first, "bus_dropped_total", why="malformed") == 8
    assert online(nodes.first, lab)


async def ready(node: PortalUnderTest) -> tuple[int, str]:
    async with httpx.AsyncClient() as http:
        answer = await http.get(node.url.replace("ws:", "http:") + "/readyz")
    return answer.status_code, answer.json()["status"]


async def test_a_file_takes_a_portal_out_of_the_load_balancer(
    settings: Settings, nodes: Nodes, lab: Lab, tmp_path: Path
) -> None:
    file = tmp_path / "draining"
    with_file = settings.model_copy(update={"draining_file": file})
    async with running_portal(with_file, nodes.clock) as node:
        assert await ready(node) == (200, "ready")
        file.touch()
        assert await ready(node) == (503, "draining")
        assert await (await node.client(lab)).take(portal.ClientInit), "all else goes on"
        file.unlink()
        assert await ready(node) == (200, "ready")


# --- leaving in good order --------------------------------------------------------------------------------------------


async def test_a_portal_that_drains_sends_its_devices_away_and_takes_no_new_ones(nodes: Nodes, lab: Lab) -> None:
    client, gateway = await nodes.first.client(lab), await nodes.second.gateway(lab)
    other = await nodes.first.client(lab, "other")
    for peer in (client, other):
        await peer.take(portal.ClientInit)
    await until(lambda: online(nodes.first, lab))
    nodes.first.hub.is_draining = True

    with pytest.raises(Refusal) as refused:
        await nodes.first.client(lab, "late")
    await ask(lab, client)
    request = await gateway.take(portal.CreateAuthorization)
    await gateway.send(portal.AuthorizationAcknowledged(ref=request.ref))
    assert await client.take(portal.AuthorizationCreated), "grants are still given"
    await drain(nodes.first.hub, 0)

    assert (refused.value.status, refused.value.headers["retry-after"]) == (503, "1")
    assert refused.value.problem["code"] == "draining"
    for peer in (client, other):
        await peer.closed()
        assert peer.events() == [portal.CLOSE]
    assert nodes.first.hub.presence.count() == 0
    assert await (await nodes.second.client(lab)).take(portal.ClientInit)
