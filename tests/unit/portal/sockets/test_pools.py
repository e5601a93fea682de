"""Devices of pools: clients that reach each other."""

import pytest

from tests.unit.portal.helpers import Lab
from tests.unit.portal.sockets.harness import Peer, PortalUnderTest, key
from wardgate.ids import ClientId, ResourceId
from wardgate.portal.db.tables import Device
from wardgate.portal.services import devices, policies, resources
from wardgate.wire import portal

CANDIDATE = "candidate:1 1 udp 2130706175 10.5.0.2 52625 typ host ufrag bm7b"


async def pooled(server: PortalUnderTest, lab: Lab) -> tuple[Peer, Peer, ResourceId, Device]:
    """A client, a target, and a pool that holds the target."""
    target = await server.client(lab, "printer")
    await target.take(portal.ClientInit)
    async with server.hub.db.writing(lab.subject) as unit:
        device = (await unit.all(unit.select(Device).where(Device.firezone_id == "printer")))[0]
        pool = await resources.create_resource(
            unit, {"name": "Printers", "type": "static_device_pool"}, ("static_device_pool",)
        )
        await resources.set_pool_members(unit, pool.id, [device.id])
        await policies.create_policy(unit, {"group_id": lab.group.id, "resource_id": pool.id})
    await target.take(portal.ResourceCreatedOrUpdated)
    client = await server.client(lab)
    await client.take(portal.ClientInit)
    return client, target, ResourceId(pool.id), device


async def connected(server: PortalUnderTest, lab: Lab) -> tuple[Peer, Peer, ResourceId, Device]:
    """The same, with a grant."""
    client, target, pool, device = await pooled(server, lab)
    await client.send(portal.RequestAuthorization(resource_id=pool, ipv4=device.ipv4))
    await target.take(portal.ClientDeviceAccessAuthorized)
    await client.take(portal.ClientDeviceAccessAuthorized)
    return client, target, pool, device


async def test_a_pool_lists_its_devices_with_prefixes(server: PortalUnderTest, lab: Lab) -> None:
    _, _, pool, device = await pooled(server, lab)
    client = await server.client(lab, "third")

    listed = {one.id: one for one in (await client.take(portal.ClientInit)).resources}

    [one] = listed[pool].devices
    assert (one.client_id, str(one.ipv4), str(one.ipv6)) == (device.id, f"{device.ipv4}/32", f"{device.ipv6}/128")


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
async def test_both_ends_are_told_how_to_meet(server: PortalUnderTest, lab: Lab, family: str) -> None:
    client, target, pool, device = await pooled(server, lab)
    address = device.ipv4 if family == "ipv4" else device.ipv6

    await client.send(portal.RequestAuthorization.model_validate({"resource_id": pool, family: address}))
    at_target = await target.take(portal.ClientDeviceAccessAuthorized)
    at_client = await client.take(portal.ClientDeviceAccessAuthorized)

    assert (at_target.ice_role, at_client.ice_role) == ("controlled", "controlling")
    assert at_target.preshared_key == at_client.preshared_key
    assert at_target.local_ice_credentials == at_client.remote_ice_credentials
    assert at_target.remote_ice_credentials == at_client.local_ice_credentials
    assert portal.key_text(at_client.client_public_key) == key("printer")
    assert portal.key_text(at_target.client_public_key) == key("laptop")
    assert at_target.resource.id == pool
    assert at_target.expires_at is not None
    assert (at_client.resource, at_client.subject, at_client.expires_at) == (None, None, None)


async def test_wrong_addresses_are_refused(server: PortalUnderTest, lab: Lab) -> None:
    client, _, pool, device = await pooled(server, lab)
    cases = [
        ({}, "missing_address"),
        ({"ipv4": device.ipv4, "ipv6": device.ipv6}, "ambiguous_address"),
        ({"ipv4": "nonsense"}, "invalid_address"),
        ({"ipv4": "100.64.255.1"}, "forbidden"),
    ]
    for fields, reason in cases:
        await client.send(portal.RequestAuthorization.model_validate({"resource_id": pool, **fields}))
        assert (await client.take(portal.ClientDeviceAccessDenied)).reason == reason


async def test_a_target_that_is_not_there_is_offline(server: PortalUnderTest, lab: Lab) -> None:
    client, target, pool, device = await pooled(server, lab)
    [channel] = [one for one in server.hub.presence.all_clients() if one.device_id == device.id]
    channel.leave()

    await client.send(portal.RequestAuthorization(resource_id=pool, ipv4=device.ipv4))

    assert (await client.take(portal.ClientDeviceAccessDenied)).reason == "offline"
    assert await target.settle() == []


async def test_candidates_go_both_ways(server: PortalUnderTest, lab: Lab) -> None:
    client, target, _, device = await connected(server, lab)
    me = next(one.device_id for one in server.hub.presence.all_clients() if one.device_id != device.id)

    await client.send(portal.NewPeerCandidates(client_id=ClientId(device.id), candidates=(CANDIDATE,)))
    await target.send(portal.NewPeerCandidates(client_id=me, candidates=(CANDIDATE,)))
    await client.send(portal.WithdrawnPeerCandidates(client_id=ClientId(device.id), candidates=(CANDIDATE,)))

    assert (await target.take(portal.PeerIceCandidates)).client_id == me
    assert (await client.take(portal.PeerIceCandidates)).client_id == device.id
    assert (await target.take(portal.InvalidatePeerIceCandidates)).candidates == (CANDIDATE,)


async def test_withdrawn_candidates_for_nobody_say_so(server: PortalUnderTest, lab: Lab) -> None:
    client = await server.client(lab)
    nobody = ClientId("00000000-0000-4000-8000-000000000001")

    await client.send(portal.NewPeerCandidates(client_id=nobody, candidates=(CANDIDATE,)))
    await client.send(portal.WithdrawnPeerCandidates(client_id=nobody, candidates=(CANDIDATE,)))

    error = await client.take(portal.PeerIceCandidateError)
    assert (error.client_id, error.reason) == (nobody, "offline")


async def test_a_member_that_leaves_is_denied_before_the_pool_changes(server: PortalUnderTest, lab: Lab) -> None:
    client, target, pool, device = await connected(server, lab)

    async with server.hub.db.writing(lab.subject) as unit:
        await resources.set_pool_members(unit, pool, [])

    assert await target.take(portal.RejectAccess)
    first = await client.next()
    assert first.event == "client_device_access_denied"
    assert isinstance(first.payload, dict)
    assert (first.payload["ipv4"], first.payload["reason"]) == (device.ipv4, "forbidden")
    assert (await client.next()).event in ("resource_created_or_updated", "resource_deleted")


async def test_changed_filters_of_a_pool_reach_both_ends(server: PortalUnderTest, lab: Lab) -> None:
    client, target, pool, _ = await connected(server, lab)

    async with server.hub.db.writing(lab.subject) as unit:
        await resources.update_resource(unit, pool, {"filters": [{"protocol": "tcp", "ports": ["631"]}]})

    updated = await target.take(portal.ResourceFiltersUpdated)
    assert (updated.id, updated.filters[0].port_range_start) == (pool, 631)
    assert (await client.take(portal.ResourceCreatedOrUpdated)).resource.filters == updated.filters


async def test_a_target_with_another_key_makes_its_peers_ask_again(server: PortalUnderTest, lab: Lab) -> None:
    client, _, _, device = await connected(server, lab)

    await server.client(lab, "printer", public_key=key("another"))

    denied = await client.take(portal.ClientDeviceAccessDenied)
    assert (str(denied.ipv4), denied.reason) == (device.ipv4, "forbidden")


async def test_a_name_of_a_dynamic_pool_is_resolved(server: PortalUnderTest, lab: Lab) -> None:
    client, _, _, device = await pooled(server, lab)
    async with server.hub.db.writing(lab.subject) as unit:
        await devices.update_client(unit, device.id, {"hostname": "printer.devices.example"})
        pool = await resources.create_resource(
            unit,
            {"name": "Devices", "type": "dynamic_device_pool", "address": "*.devices.example"},
            ("dynamic_device_pool",),
        )
        await policies.create_policy(unit, {"group_id": lab.group.id, "resource_id": pool.id})
    assert (await client.take(portal.ResourceCreatedOrUpdated)).resource.type == "dynamic_device_pool"
    pool_id = ResourceId(pool.id)

    await client.send(portal.ResolveDevicePoolDomain(resource_id=pool_id, domain="Printer.devices.example"))
    await client.send(portal.ResolveDevicePoolDomain(resource_id=pool_id, domain="other.devices.example"))
    await client.send(portal.RequestAuthorization(resource_id=pool_id, ipv4=device.ipv4))

    assert str((await client.take(portal.DevicePoolDomainResolved)).ipv4) == device.ipv4
    assert (await client.take(portal.DevicePoolDomainResolutionFailed)).reason == "not_found"
    assert (await client.take(portal.ClientDeviceAccessAuthorized)).client_id == device.id
