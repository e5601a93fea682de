"""A client that is entitled never stays refused: after a revocation, an expiry, a restart, a time away.

The references mark these as traps of the original (portal-protocol sections 2.2, 3.2 and 8; portal-domain section 2.4):
a client does not ask again for what it believes to have, so the portal has to act.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.portal.live.fold import fold_client, fold_gateway
from tests.unit.portal.live.test_changes import (
    DELETED,
    GONE,
    REJECT,
    UPDATED,
    add_policy,
    apply,
    change_policy,
    drop_policy,
    members,
)
from tests.unit.portal.live.world import World
from tests.unit.portal.sockets.harness import Peer, key, running_portal
from wardgate.portal.config import Settings
from wardgate.portal.db.purge import remove_grants
from wardgate.portal.db.tables import GatewayToken
from wardgate.portal.services import accounts, tokens
from wardgate.wire.portal import Frame

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def hours(*values: str) -> dict[str, Any]:
    return {
        "property": "current_utc_datetime",
        "operator": "is_in_day_of_week_time_ranges",
        "values": list(values),
    }


def lists(frames: Sequence[Frame]) -> list[list[str]]:
    """The ids in each init."""
    payloads: list[Any] = [frame.payload for frame in frames if frame.event == "init"]
    return [[one["id"] for one in payload["resources"]] for payload in payloads]


async def came_back(world: World, name: str, **changed: Any) -> Peer:
    """A client comes back, and everything of its start has come."""
    peer = await world.come_back(name, **changed)
    await world.quiesce()
    return peer


# --- away -------------------------------------------------------------------------------------------------------------


async def test_a_client_that_was_away_is_made_to_ask_for_what_it_lost(world: World) -> None:
    before = world.peers["laptop"]
    await world.leave("laptop")
    await apply(world, change_policy("p-lab", flow_log_uploads_enabled=False))

    peer = await world.dial_again("laptop", "client")
    await world.quiesce()

    lab = world.id("lab")
    partial, full = lists(peer.seen)
    assert sorted(full) == sorted([*partial, lab])
    believed = fold_client(before)
    for frame in peer.seen:
        believed.take(frame)
    assert lab not in believed.granted
    assert world.id("web") in believed.granted
    assert len(believed.reached) == 1
    again = await came_back(world, "laptop")
    assert len(lists(again.seen)) == 1


async def test_a_client_that_was_away_while_its_grant_expired_is_made_to_ask(world: World) -> None:
    await apply(world, change_policy("p-lab", conditions=[hours("M/12:00-12:10/UTC", "M/12:20-13:00/UTC")]))
    await world.leave("laptop")
    await world.advance(25 * 60)
    await remove_grants(world.db, world.clock.utc_now())

    peer = await world.dial_again("laptop", "client")
    await world.quiesce()

    partial, full = lists(peer.seen)
    assert set(full) - set(partial) == {world.id("lab")}


async def test_a_client_that_was_away_while_its_gateway_started_again_is_made_to_ask(world: World) -> None:
    await world.leave("laptop")
    await world.come_back("gw-vienna", public_key=key("another"))

    peer = await world.dial_again("laptop", "client")
    await world.quiesce()

    partial, full = lists(peer.seen)
    assert set(full) - set(partial) == {world.id("lab"), world.id("web")}


async def test_a_client_that_was_away_while_a_device_of_a_pool_was_lost_is_made_to_ask(world: World) -> None:
    await world.leave("laptop")
    await apply(world, change_policy("p-printers", flow_log_uploads_enabled=False))

    peer = await world.dial_again("laptop", "client")
    await world.quiesce()

    partial, full = lists(peer.seen)
    assert set(full) - set(partial) == {world.id("printers")}


async def test_nothing_lost_is_one_init(world: World) -> None:
    peer = await came_back(world, "laptop")

    assert len(lists(peer.seen)) == 1


async def test_another_program_knows_nothing_and_gets_one_init(world: World) -> None:
    await world.leave("laptop")
    await apply(world, change_policy("p-lab", flow_log_uploads_enabled=False))

    peer = await world.dial_again("laptop", "client", public_key=key("another"))
    await world.quiesce()

    assert len(lists(peer.seen)) == 1
    assert len(lists((await came_back(world, "laptop")).seen)) == 1


# --- restarts ---------------------------------------------------------------------------------------------------------


async def test_a_gateway_that_was_cut_off_gets_its_grants_back_and_nobody_asks(world: World) -> None:
    held = fold_gateway(world.peers["gw-vienna"]).grants

    peer = await world.come_back("gw-vienna")

    assert fold_gateway(peer).grants == held
    assert len(held) == 3
    heard = await world.told()
    assert heard.keys() <= {"gw-vienna"}


async def test_a_gateway_that_started_again_makes_only_its_own_clients_ask(world: World) -> None:
    await world.mark()

    await world.come_back("gw-vienna", public_key=key("another"))

    heard = await world.told()
    assert heard.pop("gw-vienna")[0] == "init"
    assert heard == {
        "laptop": [f"{kind} {one}" for kind in (DELETED, UPDATED) for one in ("lab", "web")],
        "phone": [f"{DELETED} lab", f"{UPDATED} lab"],
    }


async def test_a_device_of_a_pool_that_started_again_makes_its_peers_ask(world: World) -> None:
    await world.mark()

    await world.come_back("printer", public_key=key("another"))

    heard = await world.told()
    assert heard.pop("printer")[0] == "init"
    assert heard == {"laptop": ["client_device_access_denied forbidden"]}


async def test_the_end_of_an_older_grant_does_not_disturb_a_newer_one(world: World) -> None:
    """A grant at another gateway took the place of the first: the client uses that one."""
    corp = world.tenants["corp"]
    await world.connect_gateway("gw-second", corp.tokens["vienna"])
    await world.leave("gw-vienna")
    await world.granted("phone", "lab", gateway="gw-second")
    await world.mark()

    async with world.change() as unit:
        gateway = await world.device("gw-vienna")
        await unit.delete(await unit.get(type(gateway), gateway.id))

    heard = await world.told()
    assert "phone" not in heard
    assert heard["laptop"] == [f"{kind} {one}" for kind in (DELETED, UPDATED) for one in ("lab", "web")]


# --- ends -------------------------------------------------------------------------------------------------------------


async def test_a_grant_is_renewed_before_its_hours_end_if_others_follow(world: World) -> None:
    await apply(
        world,
        add_policy("oncall", "lab", conditions=[hours("M/13:00-15:00/UTC")]),
        change_policy("p-lab", conditions=[hours("M/09:00-13:00/UTC")]),
    )
    await world.mark()
    await world.advance(3600 - 31)
    assert await world.told() == {}

    await world.advance(2)

    assert await world.told() == {"gw-vienna": ["create_authorization laptop lab", "create_authorization phone lab"]}
    end = int((NOON + timedelta(hours=3)).timestamp())
    grants = fold_gateway(world.peers["gw-vienna"]).grants
    assert {grants[world.id(one), world.id("lab")] for one in ("laptop", "phone")} == {end}
    await world.mark()
    await world.advance(600)
    assert await world.told() == {}


async def test_a_renewal_is_the_same_connection(world: World) -> None:
    [first] = [one for one in world.peers["gw-vienna"].seen if _is_create(one, world, "phone")]
    await apply(world, change_policy("p-lab", conditions=[hours("M/09:00-13:00/UTC")]))
    await world.quiesce()

    [_, second] = [one for one in world.peers["gw-vienna"].seen if _is_create(one, world, "phone")]

    same = ("client", "client_ice_credentials", "gateway_ice_credentials", "use_iceless", "resource", "subject")
    one, other = _payload(first), _payload(second)
    assert {name: one[name] for name in same} == {name: other[name] for name in same}
    assert other["expires_at"] < one["expires_at"]
    await world.acknowledge("gw-vienna", other["ref"])
    assert await world.told() == {"gw-vienna": [*(await world.told())["gw-vienna"]]}


def _payload(frame: Frame) -> Any:
    return frame.payload


def _is_create(frame: Frame, world: World, client: str) -> bool:
    payload: Any = frame.payload
    if frame.event not in ("create_authorization", "authorize_flow"):
        return False
    return bool(payload["client"]["id"] == world.id(client) and payload["resource"]["id"] == world.id("lab"))


async def test_midnight_between_two_whole_days_is_no_interruption(world: World) -> None:
    """Where it is 23:00 at first."""
    await apply(world, change_policy("p-lab", conditions=[hours("M/true/Etc/GMT-11", "T/true/Etc/GMT-11")]))
    await world.mark()

    await world.advance(3600 + 60, step=30)

    heard = await world.told()
    assert heard == {"gw-vienna": ["create_authorization laptop lab", "create_authorization phone lab"]}
    grants = fold_gateway(world.peers["gw-vienna"]).at(world.clock.utc_now().timestamp())
    assert (world.id("laptop"), world.id("lab")) in grants


async def test_a_grant_to_a_device_of_a_pool_is_renewed_as_well(world: World) -> None:
    await apply(
        world,
        add_policy("oncall", "printers", conditions=[hours("M/12:05-15:00/UTC")]),
        change_policy("p-printers", conditions=[hours("M/09:00-12:05/UTC")]),
    )
    await world.mark()

    await world.advance(5 * 60 + 10)

    assert await world.told() == {"printer": ["client_device_access_authorized laptop printers"]}
    assert len(fold_client(world.peers["printer"]).inbound) == 1


async def test_a_client_that_signed_in_anew_keeps_its_grants_beyond_the_old_token(world: World) -> None:
    corp = world.tenants["corp"]
    async with world.change() as unit:
        later = (unit.at + timedelta(days=30)).isoformat()
        issued = await tokens.create_client_token(
            unit, world.id("mia"), {"expires_at": later}, actor_types=("account_user",)
        )
    await world.mark()

    peer = await came_back(world, "laptop", token=issued.text)
    heard = await world.told()
    async with world.change() as unit:
        await tokens.delete_client_token(unit, world.id("mia"), corp.token_ids["mia"])
    await world.quiesce()

    assert heard["gw-vienna"] == ["create_authorization laptop lab", "create_authorization laptop web"]
    assert heard["printer"] == ["client_device_access_authorized laptop printers"]
    assert len(lists(peer.seen)) == 1
    assert (await world.told())["laptop"] == heard["laptop"]
    grants = fold_gateway(world.peers["gw-vienna"]).grants
    assert grants.keys() == {(world.id("laptop"), world.id("lab")), (world.id("laptop"), world.id("web"))}
    assert set(grants.values()) == {int((NOON + timedelta(days=30)).timestamp())}


async def test_hours_with_a_gap_take_the_resource_away_and_bring_it_back_to_the_second(world: World) -> None:
    await apply(world, change_policy("p-lab", conditions=[hours("M/12:00-12:10/UTC", "M/12:20-13:00/UTC")]))
    await world.mark()

    await world.advance(10 * 60)
    assert await world.told() == {}
    await world.advance(0.01)
    assert await world.told() == {one: [f"{DELETED} lab"] for one in ("laptop", "phone")}
    await world.mark()
    await world.advance(10 * 60 - 0.02)
    assert await world.told() == {}
    await world.advance(0.01)
    assert await world.told() == {one: [f"{UPDATED} lab"] for one in ("laptop", "phone")}


async def test_hours_are_those_of_their_zone(world: World) -> None:
    await apply(world, add_policy("finance", "spare", conditions=[hours("M/13:30-14:00/Europe/Vienna")]))
    await world.mark()

    await world.advance(30 * 60 - 0.01)
    assert await world.told() == {}
    await world.advance(0.01)
    assert await world.told() == {"ugo-laptop": [f"{UPDATED} spare"]}
    await world.advance(30 * 60 + 0.01)
    assert await world.told() == {"ugo-laptop": [f"{UPDATED} spare", f"{DELETED} spare"]}


async def test_a_token_that_expires_ends_the_session_and_nobody_else_hears_of_it(world: World) -> None:
    async with world.change() as unit:
        soon = (unit.at + timedelta(seconds=90)).isoformat()
        issued = await tokens.create_client_token(
            unit, world.id("mia"), {"expires_at": soon}, actor_types=("account_user",)
        )
    await world.connect_client("tablet", issued.text)
    await world.granted("tablet", "lab", gateway="gw-vienna")
    await world.mark()

    await world.advance(89)
    assert await world.told() == {}
    await world.advance(2)
    await remove_grants(world.db, world.clock.utc_now())

    assert await world.told() == {"tablet": GONE}
    assert await world.grants() != []


# --- moves ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The peers of these tests come through a proxy that tells where they are."""
    return settings.model_copy(update={"trusted_proxies": ("127.0.0.0/8",)})


def coming_from(address: str, region: str = "AT") -> dict[str, dict[str, str]]:
    return {"headers": {"x-forwarded-for": address, "x-geo-location-region": region}}


@pytest.mark.parametrize(
    ("name", "operator", "values"),
    [
        ("remote_ip", "is_in_cidr", ["203.0.113.0/24"]),
        ("remote_ip_location_region", "is_in", ["AT"]),
        ("remote_ip_location_region", "is_not_in", ["DE"]),
    ],
)
async def test_a_client_that_moved_to_another_network_loses_what_is_bound_to_the_first(
    world: World, name: str, operator: str, values: list[str]
) -> None:
    await came_back(world, "laptop", **coming_from("203.0.113.5"))
    await came_back(world, "phone", **coming_from("203.0.113.6"))
    await apply(world, change_policy("p-lab", conditions=[{"property": name, "operator": operator, "values": values}]))
    await world.mark()

    peer = await came_back(world, "laptop", **coming_from("198.51.100.7", "DE"))

    heard = await world.told()
    assert heard.pop("laptop") is not None
    assert heard == {"gw-vienna": [f"{REJECT} laptop lab"]}
    assert world.id("lab") not in lists(peer.seen)[-1]
    await came_back(world, "laptop", **coming_from("203.0.113.5"))
    assert world.id("lab") in fold_client(world.peers["laptop"]).resources


async def test_a_client_that_moved_keeps_what_another_policy_gives(world: World) -> None:
    await came_back(world, "laptop", **coming_from("203.0.113.5"))
    inside = {"property": "remote_ip", "operator": "is_in_cidr", "values": ["203.0.113.0/24"]}
    await apply(world, change_policy("p-lab", conditions=[inside]), add_policy("oncall", "lab"))
    await world.mark()

    peer = await came_back(world, "laptop", **coming_from("198.51.100.7", "DE"))

    assert (await world.told()).keys() == {"laptop"}
    assert len(lists(peer.seen)) == 1


# --- tokens of gateways -----------------------------------------------------------------------------------------------


async def test_a_rotated_gateway_token_is_used_without_anybody_noticing(world: World) -> None:
    gateway = world.id("gw-vienna")
    async with world.change() as unit:
        first = await tokens.create_gateway_token(unit, gateway)
    await world.come_back("gw-vienna", token=first.text)
    await world.mark()

    answer = await world.rest("POST", "/sites/{vienna}/gateways/{gw-vienna}/token/rotate")
    assert await world.told() == {}
    await world.come_back("gw-vienna", token=answer["data"]["token"])

    heard = await world.told()
    assert heard.keys() <= {"gw-vienna"}
    assert len(fold_gateway(world.peers["gw-vienna"]).grants) == 3
    async with world.db.scoped(world.tenants["corp"].subject) as scope:
        rows = await scope.all(scope.select(GatewayToken).where(GatewayToken.device_id == gateway))
    assert [row.rotated_at for row in rows] == [None]


async def test_a_gateway_whose_token_was_revoked_comes_back_with_another_and_finds_its_grants(world: World) -> None:
    async with world.change() as unit:
        await tokens.delete_site_tokens(unit, world.id("vienna"))
        issued = await tokens.create_site_token(unit, world.id("vienna"))
    await world.quiesce()
    assert world.peers["gw-vienna"].is_closed.is_set()
    await world.mark()

    await world.dial_again("gw-vienna", "gateway", token=issued.text)

    assert (await world.told()).keys() <= {"gw-vienna"}
    assert len(fold_gateway(world.peers["gw-vienna"]).grants) == 3


# --- accounts and doors -----------------------------------------------------------------------------------------------


async def test_an_account_that_is_enabled_again_serves_its_clients_again(world: World) -> None:
    corp = world.tenants["corp"]
    async with world.change() as unit:
        await accounts.set_disabled(unit, True, "unpaid")
    await world.quiesce()
    assert world.peers["laptop"].is_closed.is_set()
    async with world.change() as unit:
        await accounts.set_disabled(unit, False)
        later = (unit.at + timedelta(days=1)).isoformat()
        issued = await tokens.create_client_token(
            unit, world.id("mia"), {"expires_at": later}, actor_types=("account_user",)
        )

    await world.dial_again("laptop", "client", token=issued.text)
    await world.granted("laptop", "lab", gateway="gw-vienna")

    assert corp.ids["lab"] in fold_client(world.peers["laptop"]).granted


async def test_the_last_admin_cannot_be_removed_through_the_api_and_nobody_hears_of_the_attempt(world: World) -> None:
    await world.rest("DELETE", "/actors/{ada}", status=(403, 409, 422))
    await world.rest("PATCH", "/actors/{ada}", {"actor": {"is_disabled": True}}, status=(403, 409, 422))
    await world.rest("PATCH", "/actors/{ada}", {"actor": {"type": "account_user"}}, status=(403, 409, 422))

    assert await world.told() == {}


async def test_reversed_ports_are_refused_at_the_door_and_reach_no_peer(world: World) -> None:
    filters = [{"protocol": "tcp", "ports": ["443 - 80"]}]

    answer = await world.rest("PATCH", "/resources/{lab}", {"resource": {"filters": filters}}, status=(422,))

    assert "filters" in str(answer)
    assert await world.told() == {}


async def test_a_membership_that_goes_and_comes_in_one_commit_is_no_news(world: World) -> None:
    async with world.change() as unit:
        await members("oncall", remove=("mia",))(world, unit)
        await members("oncall", add=("mia",))(world, unit)

    assert await world.told() == {}


async def test_what_a_policy_gave_by_itself_is_asked_for_again_after_it_comes_back(world: World) -> None:
    await apply(world, drop_policy("p-lab"))
    await apply(world, add_policy("engineering", "lab"))
    await world.quiesce()

    await world.granted("laptop", "lab", gateway="gw-vienna")

    assert (world.id("laptop"), world.id("lab")) in fold_gateway(world.peers["gw-vienna"]).grants


# --- a portal that starts again ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1], indirect=True)
async def test_a_portal_that_starts_again_knows_when_to_renew(world: World, settings: Settings) -> None:
    await apply(
        world,
        add_policy("oncall", "lab", conditions=[hours("M/12:05-15:00/UTC")]),
        change_policy("p-lab", conditions=[hours("M/09:00-12:05/UTC")]),
    )
    await world.quiesce()
    async with running_portal(settings, world.clock) as other:
        for name in list(world.peers):
            await world.leave(name)
        world.nodes = [other]
        await world.dial_again("gw-vienna", "gateway")
        await world.dial_again("laptop", "client")
        await world.mark()

        await world.advance(5 * 60)

        assert await world.told() == {"gw-vienna": ["create_authorization laptop lab"]}
