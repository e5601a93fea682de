"""Every event of every channel with another tenant's ids: nothing crosses, and no answer tells what is there."""

import json
from typing import Any
from uuid import uuid4

import pytest

from tests.unit.portal.live.world import World
from tests.unit.portal.sockets.harness import Peer
from wardgate.portal.services import devices, policies, resources
from wardgate.wire import portal
from wardgate.wire.portal_client import FromClient
from wardgate.wire.portal_gateway import FromGateway
from wardgate.wire.portal_messages import Unknown

CANDIDATE = "candidate:1 1 udp 2130706175 10.5.0.2 52625 typ host ufrag bm7b"
Payloads = list[dict[str, Any]]


def from_client(resource: str, pool: str, gateway: str, client: str, address: str) -> dict[str, Payloads]:
    """For each event of a client, what it says about things with these ids."""
    lines = {"candidates": [CANDIDATE]}
    return {
        "set_snownet_capabilities": [{"iceless": True}],
        "request_authorization": [
            {"resource_id": resource, "connected_gateway_ids": [gateway]},
            {"resource_id": resource, "connected_gateway_ids": [gateway], "ipv4": address},
            {"resource_id": pool, "ipv4": address},
        ],
        "resolve_device_pool_domain": [{"resource_id": resource, "domain": "eve.rival.example"}],
        "new_gateway_ice_candidates": [{"gateway_id": gateway, **lines}],
        "invalidate_gateway_ice_candidates": [{"gateway_id": gateway, **lines}],
        "new_client_ice_candidates": [{"client_id": client, **lines}],
        "invalidate_client_ice_candidates": [{"client_id": client, **lines}],
        "broadcast_ice_candidates": [{"gateway_ids": [gateway], **lines}],
        "broadcast_invalidated_ice_candidates": [{"gateway_ids": [gateway], **lines}],
        "no_relays": [{}],
        "request_device_access": [{"client_id": client, "resource_id": resource}],
    }


def from_gateway(client: str, ref: str) -> dict[str, Payloads]:
    """The same for a gateway."""
    lines = {"candidates": [CANDIDATE]}
    return {
        "set_snownet_capabilities": [{"iceless": True}],
        "authorization_created": [{"ref": ref}],
        "broadcast_ice_candidates": [{"client_ids": [client], **lines}],
        "broadcast_invalidated_ice_candidates": [{"client_ids": [client], **lines}],
        "no_relays": [{}],
    }


async def answers(world: World, peer: Peer, said: dict[str, Payloads]) -> list[tuple[str, str]]:
    """Says everything and gives what comes back, with references and the ids that were given left out."""
    kinds = {kind.EVENT: kind for kind in (*FromClient.__args__, *FromGateway.__args__) if kind is not Unknown}
    seen = len(peer.seen)
    for event, payloads in said.items():
        for payload in payloads:
            await peer.send_event(kinds[event].event_names(peer.version)[0], payload)
    await world.quiesce()
    text = json.dumps(said)
    given = {word for word in text.replace('"', " ").split() if len(word) == 36 and word.count("-") == 4}
    heard = []
    for frame in peer.seen[seen:]:
        if frame.topic != peer.topic:
            continue
        body = json.dumps(frame.payload)
        for one in given:
            body = body.replace(one, "…")
        heard.append((frame.event, body))
    return heard


def test_every_event_is_walked() -> None:
    some = "00000000-0000-4000-8000-000000000001"
    client, gateway = from_client(some, some, some, some, "100.64.0.1"), from_gateway(some, "x")

    assert client.keys() == {kind.EVENT for kind in FromClient.__args__ if kind is not Unknown}
    assert gateway.keys() == {kind.EVENT for kind in FromGateway.__args__ if kind is not Unknown}


@pytest.mark.parametrize("name", ["laptop", "phone"])
async def test_a_client_reaches_nothing_of_another_tenant(world: World, name: str) -> None:
    address = await _eves_address(world)
    pool, nothing = world.id("printers"), str(uuid4())
    eve = world.id("eve-laptop")
    async with world.change("rival") as unit:
        await devices.update_client(unit, eve, {"hostname": "eve.rival.example"})
    await world.mark()
    peer = world.peers[name]

    foreign = from_client(world.id("rival-lab"), pool, world.id("gw-rival"), eve, address)
    heard = await answers(world, peer, foreign)
    absent = await answers(world, peer, from_client(nothing, pool, nothing, nothing, address))

    assert heard == absent
    assert {event for event, _ in heard} <= {
        "authorization_creation_failed",
        "flow_creation_failed",
        "client_device_access_denied",
        "device_pool_domain_resolution_failed",
        "client_ice_candidate_error",
        "relays_presence",
    }
    assert (await world.told()).keys() == {name}
    assert await world.grants("rival") == []


async def _eves_address(world: World) -> str:
    """Eve's tunnel address, which no device of corp has."""
    address = "100.64.9.9"
    async with world.change("rival") as unit:
        await devices.change_addresses(unit, world.id("eve-laptop"), {"ipv4": address})
    await world.quiesce()
    return address


@pytest.mark.parametrize("name", ["gw-vienna", "gw-graz"])
async def test_a_gateway_reaches_nothing_of_another_tenant(world: World, name: str) -> None:
    await world.ask("eve-laptop", "rival-lab")
    request = await world.peers["gw-rival"].take(portal.CreateAuthorization)
    await world.mark()
    peer = world.peers[name]

    heard = await answers(world, peer, from_gateway(world.id("eve-laptop"), request.ref))
    absent = await answers(world, peer, from_gateway(str(uuid4()), "nothing"))

    assert heard == absent
    assert [event for event, _ in heard] == ["phx_reply", "relays_presence"]
    assert (await world.told()).keys() == {name}
    await world.acknowledge("gw-rival", request.ref)
    await world.peers["eve-laptop"].take(portal.AuthorizationCreated)


async def test_a_relay_has_nothing_to_say(world: World) -> None:
    relay = await world.nodes[0].relay()
    await relay.take(portal.RelayInit)
    await world.advance(2)
    await world.mark()

    ids = [world.id(one) for one in ("lab", "printers", "gw-vienna", "laptop")]
    for event, payloads in from_client(ids[0], ids[1], ids[2], ids[3], "x").items():
        for payload in payloads:
            await relay.send_event(event, payload)
            reply = await relay.next(portal.REPLY)
            assert reply.payload == {"status": "error", "response": {"reason": "unknown_message"}}

    assert await world.told() == {}


async def test_the_same_name_and_key_in_another_tenant_is_another_device(world: World) -> None:
    rival, corp = world.tenants["rival"], world.tenants["corp"]
    before = {name: world.id(name) for name in ("laptop", "gw-vienna")}
    await world.mark()
    node = world.nodes[0]

    client = await node.connect("client", rival.tokens["eve"], external_id="laptop", public_key=world.key_of("laptop"))
    gateway = await node.connect(
        "gateway", rival.tokens["rival-site"], external_id="gw-vienna", public_key=world.key_of("gw-vienna")
    )
    await client.join()
    await gateway.join()
    ids = [one["id"] for one in _payload(await client.next("init"))["resources"]]
    grants = _payload(await gateway.next("init"))["authorizations"]

    assert (ids, grants) == ([world.id("rival-lab")], [])
    assert await world.told() == {}
    assert {name: world.id(name) for name in before} == before
    assert corp.ids.keys() >= before.keys()


def _payload(frame: portal.Frame) -> Any:
    return frame.payload


async def test_a_name_in_a_dynamic_pool_is_looked_up_in_the_own_tenant_only(world: World) -> None:
    async with world.change("rival") as unit:
        await devices.update_client(unit, world.id("eve-laptop"), {"hostname": "eve.devices.example"})
    async with world.change() as unit:
        fields = {"name": "Devices", "type": "dynamic_device_pool", "address": "*.devices.example"}
        pool = await resources.create_resource(unit, fields, ("dynamic_device_pool",))
        await policies.create_policy(unit, {"group_id": world.id("engineering"), "resource_id": pool.id})
    await world.mark()

    for domain in ("eve.devices.example", "nobody.devices.example"):
        await world.peers["laptop"].send_event("resolve_device_pool_domain", {"resource_id": pool.id, "domain": domain})

    heard = await world.told()
    assert [text.partition(" ")[0] for text in heard.pop("laptop")] == ["device_pool_domain_resolution_failed"] * 2
    assert heard == {}
