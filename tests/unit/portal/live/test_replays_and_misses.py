"""Whoever consumes changes tolerates to be told twice, and to be told nothing."""

from sqlalchemy import delete, update

from tests.unit.portal.live.fold import fold_client, fold_gateway
from tests.unit.portal.live.test_changes import (
    DELETED,
    REJECT,
    account,
    add_policy,
    apply,
    change_policy,
    change_resource,
    drop_policy,
    members,
    move,
    pool,
    verify,
)
from tests.unit.portal.live.world import World
from wardgate.portal.changes import Dispatcher
from wardgate.portal.channels.client import RECOMPUTE_S
from wardgate.portal.channels.lists import MAX_AGE_S
from wardgate.portal.db.outbox import Reader
from wardgate.portal.db.tables import Membership, Policy, PolicyAuthorization, Resource, StaticDevicePoolMember
from wardgate.portal.services import accounts, groups, sites

REPEATABLE = {"config_changed", "init", "resource_updated", "resource_filters_updated"}
"""What may come twice: it says how things are, not what has become of them."""


async def test_changes_that_are_dispatched_twice_contradict_nothing(world: World) -> None:
    readers = [Reader(node.hub.db) for node in world.nodes]
    for reader in readers:
        await reader.start()
    await apply(
        world,
        change_policy("p-lab", flow_log_uploads_enabled=False),
        add_policy("oncall", "web"),
        drop_policy("p-web"),
        change_resource("lab", filters=[{"protocol": "tcp", "ports": ["80"]}]),
        change_resource("printers", filters=[{"protocol": "tcp", "ports": ["631"]}]),
        change_resource("wiki", address="10.8.1.0/24"),
        members("finance", add=("mia",), remove=("ugo",)),
        pool("printer", "ugo-laptop"),
        verify("laptop"),
        move("printer", "100.64.77.3"),
        account(slug="corporation"),
        lambda world, unit: accounts.update_config(unit, {"search_domain": "corp.example"}),
        lambda world, unit: sites.update_site(unit, world.id("vienna"), {"name": "Wien"}),
        lambda world, unit: groups.delete_group(unit, world.id("nobody")),
    )
    await world.quiesce()
    await world.granted("laptop", "lab", gateway="gw-vienna")
    await world.mark()
    before = _believed(world)

    for node, reader in zip(world.nodes, readers, strict=True):
        hub = node.hub
        current, hub.outbox = hub.outbox, reader
        while await Dispatcher(hub).dispatch_once():
            pass
        hub.outbox = current

    heard = await world.told()
    assert {text.partition(" ")[0] for texts in heard.values() for text in texts} <= REPEATABLE
    assert heard["phone"] == ["config_changed"]
    assert _believed(world) == before


def _believed(world: World) -> dict[str, object]:
    return {
        name: (fold_client if peer.topic == "client" else fold_gateway)(peer)
        for name, peer in world.peers.items()
        if not peer.is_closed.is_set()
    }


async def test_what_was_missed_is_found(world: World) -> None:
    """Rows that are changed behind the portal's back stand for a dispatch that was lost."""
    async with world.db.unscoped_write() as session:
        await session.execute(delete(PolicyAuthorization).where(PolicyAuthorization.policy_id == world.id("p-lab")))
        await session.execute(
            delete(PolicyAuthorization).where(PolicyAuthorization.policy_id == world.id("p-printers"))
        )
        await session.execute(delete(Policy).where(Policy.id.in_([world.id("p-lab"), world.id("p-printers")])))
    await world.mark()

    await world.advance(RECOMPUTE_S + MAX_AGE_S + 1, step=30)

    heard = await world.told()
    assert heard == {
        "gw-vienna": [f"{REJECT} laptop lab", f"{REJECT} phone lab"],
        "printer": [f"{REJECT} laptop printers"],
        "laptop": ["client_device_access_denied forbidden", f"{DELETED} lab", f"{DELETED} printers"],
        "phone": ["client_device_access_denied forbidden", f"{DELETED} lab", f"{DELETED} printers"],
    }


async def test_an_end_that_was_missed_is_found(world: World) -> None:
    row = next(one for one in await world.grants() if one.policy_id == world.id("p-web"))
    async with world.db.unscoped_write() as session:
        earlier = update(PolicyAuthorization).where(PolicyAuthorization.id == row.id)
        await session.execute(earlier.values(expires_at=world.clock.utc_now().replace(hour=20)))
    await world.mark()

    await world.advance(RECOMPUTE_S + MAX_AGE_S + 1, step=30)

    assert await world.told() == {"gw-vienna": ["create_authorization laptop web"]}
    end = fold_gateway(world.peers["gw-vienna"]).grants[world.id("laptop"), world.id("web")]
    assert end == int(world.clock.utc_now().replace(hour=20, minute=0, second=0, microsecond=0).timestamp())


async def test_a_lost_membership_is_found_and_nothing_else_is_sent(world: World) -> None:
    async with world.db.unscoped_write() as session:
        await session.execute(delete(Membership).where(Membership.actor_id == world.id("ugo")))
    await world.mark()

    await world.advance(RECOMPUTE_S + MAX_AGE_S + 1, step=30)

    heard = await world.told()
    assert heard["ugo-laptop"] == [f"{DELETED} ledger"]
    assert heard.keys() <= {"ugo-laptop", "gw-graz"}


async def test_a_grant_is_by_what_the_resource_is_now_not_by_the_list(world: World) -> None:
    """The list of the client is behind: the resource has moved and has another address."""
    async with world.db.unscoped_write() as session:
        moved = update(Resource).where(Resource.id == world.id("wiki"))
        await session.execute(moved.values(site_id=world.id("vienna"), address="10.8.7.0/24"))

    request = await world.granted("phone", "wiki", gateway="gw-vienna")

    assert str(request.resource.address) == "10.8.7.0/24"


async def test_a_device_that_has_just_left_a_pool_is_not_reached(world: World) -> None:
    async with world.db.unscoped_write() as session:
        of_pool = StaticDevicePoolMember.resource_id == world.id("printers")
        await session.execute(delete(StaticDevicePoolMember).where(of_pool))
    await world.mark()

    await world.ask("phone", "printers", device="printer")

    assert await world.told() == {"phone": ["client_device_access_denied forbidden"]}
