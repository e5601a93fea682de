"""What clients share when their lists are computed: never older than the last change that was dispatched."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.unit.portal.helpers import Lab
from tests.unit.portal.sockets.harness import Peer, PortalUnderTest, key
from wardgate.ids import AccountId, ResourceId
from wardgate.portal.channels.lists import Patch, may_reach
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Device, StaticDevicePoolMember
from wardgate.portal.domain.authorizations import PolicyRule
from wardgate.portal.services import groups, policies, resources, sites
from wardgate.wire import portal

Change = Callable[[UnitOfWork, Lab], Awaitable[object]]


async def rename_resource(unit: UnitOfWork, lab: Lab) -> object:
    return await resources.update_resource(unit, lab.resource.id, {"name": "Renamed"})


async def rename_site(unit: UnitOfWork, lab: Lab) -> object:
    return await sites.update_site(unit, lab.site.id, {"name": "Graz"})


async def refilter(unit: UnitOfWork, lab: Lab) -> object:
    return await resources.update_resource(unit, lab.resource.id, {"filters": [{"protocol": "icmp", "ports": []}]})


async def disable_policy(unit: UnitOfWork, lab: Lab) -> object:
    assert lab.policy is not None
    return await policies.update_policy(unit, lab.policy.id, {"is_disabled": True})


async def delete_resource(unit: UnitOfWork, lab: Lab) -> object:
    return await resources.delete_resource(unit, lab.resource.id)


async def delete_group(unit: UnitOfWork, lab: Lab) -> object:
    return await groups.delete_group(unit, lab.group.id)


async def leave_group(unit: UnitOfWork, lab: Lab) -> object:
    return await groups.change_members(unit, lab.group.id, remove=[lab.actor.id])


async def close_hours(unit: UnitOfWork, lab: Lab) -> object:
    assert lab.policy is not None
    only = [{"property": "client_verified", "operator": "is", "values": ["true"]}]
    return await policies.update_policy(unit, lab.policy.id, {"conditions": only})


CHANGES: list[Change] = [
    rename_resource,
    rename_site,
    refilter,
    disable_policy,
    delete_resource,
    delete_group,
    leave_group,
    close_hours,
]


async def list_of(peer: Peer) -> dict[str, Any]:
    """What a client that was told everything has now."""
    await peer.settle()
    listed: dict[str, Any] = {}
    for frame in peer.seen:
        payload: Any = frame.payload
        if frame.event == "init":
            listed = {one["id"]: one for one in payload["resources"]}
        elif frame.event == "resource_created_or_updated":
            listed[payload["id"]] = payload
        elif frame.event == "resource_deleted":
            listed.pop(payload, None)
    return listed


@pytest.mark.parametrize("change", CHANGES)
async def test_who_comes_later_and_who_was_there_see_the_same(
    server: PortalUnderTest, lab: Lab, change: Change
) -> None:
    early = await server.client(lab, "early")
    await early.take(portal.ClientInit)
    before = await list_of(early)
    async with server.hub.db.writing(lab.subject) as unit:
        await change(unit, lab)
    at_once = await server.client(lab, "at once")  # its init may be made of what the change has not reached yet
    await at_once.take(portal.ClientInit)

    async with asyncio.timeout(20):
        while await list_of(early) == before or await list_of(at_once) != await list_of(early):
            await server.refreshed()
            await asyncio.sleep(0.01)
    late = await server.client(lab, "late")
    await late.take(portal.ClientInit)

    assert await list_of(late) == await list_of(early) != before


async def test_what_was_read_while_something_changed_is_not_kept(server: PortalUnderTest, lab: Lab) -> None:
    client = await server.client(lab)
    await client.take(portal.ClientInit)
    [channel] = server.hub.presence.all_clients()
    lists, account = server.hub.lists, AccountId(lab.account.id)
    lists.forget_all(account)

    look = asyncio.ensure_future(lists.look(channel))
    while not look.done():
        lists.forget(account, "policies", [{"group_id": lab.group.id}])
        await asyncio.sleep(0)
    kept = lists._account(account)

    assert list(look.result().listed) == [lab.resource.id]
    assert not kept._rules
    assert not kept._facts
    assert not kept._listed


async def test_a_device_that_is_changed_is_read_anew_in_the_pools_that_hold_it(
    server: PortalUnderTest, lab: Lab
) -> None:
    target = await server.client(lab, "target")
    await target.take(portal.ClientInit)
    async with server.hub.db.writing(lab.subject) as unit:
        [device] = await unit.all(unit.select(Device).where(Device.type == "client"))
        fields = {"name": "Pool", "type": "static_device_pool"}
        pool = await resources.create_resource(unit, fields, ("static_device_pool",))
        member = StaticDevicePoolMember(account_id=unit.account_id, resource_id=pool.id, device_id=device.id)
        await unit.insert(member)
        await policies.create_policy(unit, {"group_id": lab.group.id, "resource_id": pool.id})
    client = await server.client(lab, "other", agent="Debian/12.0.0 headless-client/1.5.13 (x86_64; 6.18)")
    await client.take(portal.ClientInit)
    await server.refreshed()
    assert pool.id in await list_of(client)

    server.hub.lists.forget(AccountId(lab.account.id), "devices", [{"id": device.id}])

    assert ResourceId(pool.id) not in server.hub.lists._account(AccountId(lab.account.id))._facts


def test_a_patch_knows_members_and_everyone() -> None:
    rule = PolicyRule("p", "r", "g", None)  # type: ignore[arg-type]
    all_users = PolicyRule("q", "r", "everyone", None)  # type: ignore[arg-type]
    patch = Patch({ResourceId("r"): (rule, all_users)}, {"g": {"mia"}}, "everyone", lambda one, sight: None)

    assert patch.rules_for(ResourceId("r"), "mia", "service_account") == [rule]
    assert patch.rules_for(ResourceId("r"), "mia", "account_user") == [rule, all_users]
    assert patch.rules_for(ResourceId("r"), "ada", "account_user") == [all_users]
    assert patch.rules_for(ResourceId("r"), "robot", "service_account") == []
    assert not may_reach([], lambda: pytest.fail("nothing asks for circumstances"))


async def test_two_clients_get_bytes_that_were_made_once(server: PortalUnderTest, lab: Lab) -> None:
    await (await server.client(lab, "before")).take(portal.ClientInit)
    await server.refreshed()
    one, other = await server.client(lab, "one"), await server.client(lab, "other", public_key=key("other"))
    first, second = await one.take(portal.ClientInit), await other.take(portal.ClientInit)
    names = {key("one"), key("other")}
    channels = [channel for channel in server.hub.presence.all_clients() if channel.device.public_key in names]
    views = {id(channel._listed[ResourceId(lab.resource.id)]) for channel in channels}

    assert first.resources == second.resources
    assert len(channels) == 2
    assert len(views) == 1
