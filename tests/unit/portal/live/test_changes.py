"""Every row of the references' tables on what a change triggers: who is told what, in which order; all others nothing.

Rows: portal-protocol section 8, "access changes -> messages", and portal-domain section 1.12.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.unit.portal.live.fold import fold_client
from tests.unit.portal.live.world import Expected, World
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.services import accounts, actors, devices, groups, policies, resources, sites, tokens

Step = Callable[[World, UnitOfWork], Awaitable[Any]]
UPDATED, DELETED, REJECT = "resource_created_or_updated", "resource_deleted", "reject_access"
REGION = {"property": "remote_ip_location_region", "operator": "is_in", "values": ["AT"]}
VERIFIED = {"property": "client_verified", "operator": "is", "values": ["true"]}
LOOPBACK = {"property": "remote_ip", "operator": "is_in_cidr", "values": ["127.0.0.0/8"]}
HOURS = {
    "property": "current_utc_datetime",
    "operator": "is_in_day_of_week_time_ranges",
    "values": ["M/09:00-13:00/UTC"],
}
GONE = ["disconnect token_expired", "phx_close"]


@dataclass(frozen=True)
class Row:
    """One change.

    Attributes:
        expected: What each peer is told; who is not in it gets no byte.
        rest: The same change as a request, where there is a route.
        before: What is so already, quietly.
    """

    name: str
    change: Step
    expected: Expected
    rest: tuple[str, str, Any] | None = None
    before: tuple[Step, ...] = ()
    rest_before: dict[str, Any] = field(default_factory=dict)


def add_policy(group: str, resource: str, /, **fields: Any) -> Step:
    async def step(world: World, unit: UnitOfWork) -> None:
        values = {"group_id": world.id(group), "resource_id": world.id(resource), **fields}
        row = await policies.create_policy(unit, values)
        world.tenants["corp"].ids[f"p2-{resource}"] = row.id

    return step


def change_policy(name: str, /, **fields: Any) -> Step:
    async def step(world: World, unit: UnitOfWork) -> None:
        ids = {one: world.id(value) if one.endswith("_id") else value for one, value in fields.items()}
        await policies.update_policy(unit, world.id(name), ids)

    return step


def drop_policy(name: str) -> Step:
    return lambda world, unit: policies.delete_policy(unit, world.id(name))


def members(group: str, *, add: tuple[str, ...] = (), remove: tuple[str, ...] = ()) -> Step:
    return lambda world, unit: groups.change_members(
        unit, world.id(group), add=[world.id(one) for one in add], remove=[world.id(one) for one in remove]
    )


def change_resource(name: str, /, **fields: Any) -> Step:
    async def step(world: World, unit: UnitOfWork) -> None:
        ids = {one: world.id(value) if one.endswith("_id") else value for one, value in fields.items()}
        await resources.update_resource(unit, world.id(name), ids)

    return step


def pool(*names: str) -> Step:
    return lambda world, unit: resources.set_pool_members(unit, world.id("printers"), [world.id(one) for one in names])


def verify(name: str, *, is_verified: bool = True) -> Step:
    return lambda world, unit: devices.set_verified(unit, world.id(name), is_verified)


def move(name: str, ipv4: str) -> Step:
    return lambda world, unit: devices.change_addresses(unit, world.id(name), {"ipv4": ipv4})


def account(**values: Any) -> Step:
    async def step(world: World, unit: UnitOfWork) -> None:
        await unit.update(await unit.account(), **values)

    return step


LOSES_LAB = {
    "gw-vienna": [f"{REJECT} laptop lab", f"{REJECT} phone lab"],
    "laptop": [f"{DELETED} lab"],
    "phone": [f"{DELETED} lab"],
}
ASKS_LAB_AGAIN = {
    "gw-vienna": [f"{REJECT} laptop lab", f"{REJECT} phone lab"],
    "laptop": [f"{DELETED} lab", f"{UPDATED} lab"],
    "phone": [f"{DELETED} lab", f"{UPDATED} lab"],
}
LOSES_ALL = {
    "gw-vienna": [f"{REJECT} laptop lab", f"{REJECT} laptop web", f"{REJECT} phone lab"],
    "printer": [f"{REJECT} laptop printers"],
    "laptop": [
        "client_device_access_denied forbidden",
        *(f"{DELETED} {one}" for one in ("lab", "web", "wiki", "printers")),
    ],
    "phone": [
        "client_device_access_denied forbidden",
        *(f"{DELETED} {one}" for one in ("lab", "web", "wiki", "printers")),
    ],
}
ENDS_MIA = {
    "gw-vienna": [f"{REJECT} laptop lab", f"{REJECT} laptop web", f"{REJECT} phone lab"],
    "printer": [f"{REJECT} laptop printers"],
    "laptop": GONE,
    "phone": GONE,
}
BOTH_UPDATED = {"laptop": [f"{UPDATED} lab"], "phone": [f"{UPDATED} lab"]}

ROWS = [
    # --- policies
    Row(
        "a policy is added",
        add_policy("engineering", "spare"),
        {"laptop": [f"{UPDATED} spare"], "phone": [f"{UPDATED} spare"]},
        rest=("POST", "/policies", {"policy": {"group_id": "engineering", "resource_id": "spare"}}),
    ),
    Row(
        "a policy of Everyone is added: all people, not the service account",
        add_policy("everyone", "spare"),
        {one: [f"{UPDATED} spare"] for one in ("laptop", "phone", "ugo-laptop")},
    ),
    Row(
        "a policy for the Internet is added",
        add_policy("engineering", "internet"),
        {"laptop": [f"{UPDATED} internet"], "phone": [f"{UPDATED} internet"]},
    ),
    Row(
        "a policy that is disabled is added",
        add_policy("engineering", "spare", is_disabled=True),
        {},
    ),
    Row(
        "a policy is enabled",
        change_policy("p2-spare", is_disabled=False),
        {"laptop": [f"{UPDATED} spare"], "phone": [f"{UPDATED} spare"]},
        before=(add_policy("engineering", "spare", is_disabled=True),),
        rest=("PATCH", "/policies/{p2-spare}", {"policy": {"is_disabled": False}}),
    ),
    Row(
        "a policy is deleted",
        drop_policy("p-lab"),
        LOSES_LAB,
        rest=("DELETE", "/policies/{p-lab}", None),
    ),
    Row(
        "a policy is disabled",
        change_policy("p-lab", is_disabled=True),
        LOSES_LAB,
        rest=("PATCH", "/policies/{p-lab}", {"policy": {"is_disabled": True}}),
    ),
    Row(
        "a policy that only describes itself anew",
        change_policy("p-lab", description="why"),
        {},
        rest=("PATCH", "/policies/{p-lab}", {"policy": {"description": "why"}}),
    ),
    Row(
        "a policy gets conditions that do not hold",
        change_policy("p-lab", conditions=[REGION]),
        LOSES_LAB,
        rest=("PATCH", "/policies/{p-lab}", {"policy": {"conditions": [REGION]}}),
    ),
    Row(
        "a policy gets conditions that hold: nobody notices",
        change_policy("p-lab", conditions=[LOOPBACK]),
        {},
        rest=("PATCH", "/policies/{p-lab}", {"policy": {"conditions": [LOOPBACK]}}),
    ),
    Row(
        "a policy gets hours: the gateway learns the new end, the clients notice nothing",
        change_policy("p-lab", conditions=[HOURS]),
        {"gw-vienna": ["create_authorization laptop lab", "create_authorization phone lab"]},
    ),
    Row(
        "the hours of a policy are prolonged",
        change_policy("p-lab", conditions=[]),
        {"gw-vienna": ["create_authorization laptop lab", "create_authorization phone lab"]},
        before=(change_policy("p-lab", conditions=[HOURS]),),
    ),
    Row(
        "a pool gets hours: the device learns the new end",
        change_policy("p-printers", conditions=[HOURS]),
        {"printer": ["client_device_access_authorized laptop printers"]},
    ),
    Row(
        "a policy is deleted while another one gives the same: nobody notices",
        drop_policy("p-lab"),
        {},
        before=(add_policy("oncall", "lab"),),
    ),
    Row(
        "a policy is disabled while another one gives the same for some hours",
        change_policy("p-lab", is_disabled=True),
        {"gw-vienna": ["create_authorization laptop lab", "create_authorization phone lab"]},
        before=(add_policy("oncall", "lab", conditions=[HOURS]),),
    ),
    Row(
        "a policy is deleted while another one gives the same without flow logs: tokens have to be made anew",
        drop_policy("p-lab"),
        ASKS_LAB_AGAIN,
        before=(add_policy("oncall", "lab", flow_log_uploads_enabled=False),),
    ),
    Row(
        "a second policy gives what is had already",
        add_policy("everyone", "lab"),
        {"ugo-laptop": [f"{UPDATED} lab"]},
    ),
    Row(
        "a policy is for another group",
        change_policy("p-lab", group_id="finance"),
        {**LOSES_LAB, "ugo-laptop": [f"{UPDATED} lab"]},
    ),
    Row(
        "a policy is for another resource",
        change_policy("p-lab", resource_id="spare"),
        {
            "gw-vienna": [f"{REJECT} laptop lab", f"{REJECT} phone lab"],
            "laptop": [f"{DELETED} lab", f"{UPDATED} spare"],
            "phone": [f"{DELETED} lab", f"{UPDATED} spare"],
        },
    ),
    Row(
        "the flow logs of a policy are switched",
        change_policy("p-lab", flow_log_uploads_enabled=False),
        ASKS_LAB_AGAIN,
        rest=("PATCH", "/policies/{p-lab}", {"policy": {"flow_log_uploads_enabled": False}}),
    ),
    # --- groups and memberships
    Row(
        "a membership is added",
        members("engineering", add=("ugo",)),
        {"ugo-laptop": [f"{UPDATED} {one}" for one in ("lab", "web", "wiki", "printers")]},
        rest=("PATCH", "/groups/{engineering}/memberships", {"memberships": {"add": ["ugo"]}}),
    ),
    Row(
        "a membership is removed",
        members("engineering", remove=("mia",)),
        LOSES_ALL,
        rest=("PATCH", "/groups/{engineering}/memberships", {"memberships": {"remove": ["mia"]}}),
    ),
    Row(
        "a membership is removed while another one gives a part",
        members("engineering", remove=("mia",)),
        {
            "gw-vienna": [f"{REJECT} laptop web"],
            "printer": [f"{REJECT} laptop printers"],
            **{
                one: [
                    "client_device_access_denied forbidden",
                    *(f"{DELETED} {lost}" for lost in ("web", "wiki", "printers")),
                ]
                for one in ("laptop", "phone")
            },
        },
        before=(add_policy("oncall", "lab"),),
    ),
    Row(
        "a group is deleted while Everyone has the same",
        lambda world, unit: groups.delete_group(unit, world.id("finance")),
        {},
        before=(add_policy("everyone", "ledger"),),
    ),
    Row(
        "a membership of a group without policies",
        members("nobody", add=("mia", "ugo")),
        {},
    ),
    Row(
        "a group is deleted",
        lambda world, unit: groups.delete_group(unit, world.id("engineering")),
        LOSES_ALL,
        rest=("DELETE", "/groups/{engineering}", None),
    ),
    Row(
        "a group is renamed",
        lambda world, unit: groups.update_group(unit, world.id("engineering"), {"name": "Builders"}),
        {},
        rest=("PATCH", "/groups/{engineering}", {"group": {"name": "Builders"}}),
    ),
    # --- resources
    Row(
        "a resource nobody may reach",
        lambda world, unit: resources.create_resource(
            unit, {"name": "New", "type": "cidr", "address": "10.5.0.0/24", "site_id": world.id("vienna")}
        ),
        {},
    ),
    Row(
        "a resource is renamed",
        change_resource("lab", name="Laboratory"),
        BOTH_UPDATED,
        rest=("PATCH", "/resources/{lab}", {"resource": {"name": "Laboratory"}}),
    ),
    Row(
        "a resource is described anew",
        change_resource("lab", address_description="the lab"),
        BOTH_UPDATED,
        rest=("PATCH", "/resources/{lab}", {"resource": {"address_description": "the lab"}}),
    ),
    Row(
        "the filters of a resource are changed",
        change_resource("lab", filters=[{"protocol": "tcp", "ports": ["80"]}]),
        {**BOTH_UPDATED, "gw-vienna": ["resource_updated lab"]},
        rest=("PATCH", "/resources/{lab}", {"resource": {"filters": [{"protocol": "tcp", "ports": ["80"]}]}}),
    ),
    Row(
        "the filters of a resource nobody uses are changed",
        change_resource("wiki", filters=[{"protocol": "icmp"}]),
        {"laptop": [f"{UPDATED} wiki"], "phone": [f"{UPDATED} wiki"]},
    ),
    Row(
        "the filters of a pool are changed",
        change_resource("printers", filters=[{"protocol": "tcp", "ports": ["631"]}]),
        {
            "printer": ["resource_filters_updated printers"],
            "laptop": [f"{UPDATED} printers"],
            "phone": [f"{UPDATED} printers"],
        },
    ),
    Row(
        "the address of a resource is changed",
        change_resource("lab", address="10.9.1.0/24"),
        ASKS_LAB_AGAIN,
        rest=("PATCH", "/resources/{lab}", {"resource": {"address": "10.9.1.0/24"}}),
    ),
    Row(
        "the address is changed while one client has no grant: an update is enough for it",
        change_resource("web", address="www.corp.example"),
        {
            "gw-vienna": [f"{REJECT} laptop web"],
            "laptop": [f"{DELETED} web", f"{UPDATED} web"],
            "phone": [f"{UPDATED} web"],
        },
    ),
    Row(
        "the IP stack of a resource is changed",
        change_resource("web", ip_stack="ipv4_only"),
        {
            "gw-vienna": [f"{REJECT} laptop web"],
            "laptop": [f"{DELETED} web", f"{UPDATED} web"],
            "phone": [f"{UPDATED} web"],
        },
        rest=("PATCH", "/resources/{web}", {"resource": {"ip_stack": "ipv4_only"}}),
    ),
    Row(
        "the type of a resource is changed",
        change_resource("lab", type="ip", address="10.9.0.7"),
        ASKS_LAB_AGAIN,
        rest=("PATCH", "/resources/{lab}", {"resource": {"type": "ip", "address": "10.9.0.7"}}),
    ),
    Row(
        "a resource is moved to another site",
        change_resource("lab", site_id="graz"),
        ASKS_LAB_AGAIN,
        rest=("PATCH", "/resources/{lab}", {"resource": {"site_id": "graz"}}),
    ),
    Row(
        "a resource is deleted",
        lambda world, unit: resources.delete_resource(unit, world.id("lab")),
        LOSES_LAB,
        rest=("DELETE", "/resources/{lab}", None),
    ),
    # --- sites
    Row(
        "a site is renamed",
        lambda world, unit: sites.update_site(unit, world.id("vienna"), {"name": "Wien"}),
        {one: [f"{UPDATED} lab", f"{UPDATED} web"] for one in ("laptop", "phone")},
        rest=("PATCH", "/sites/{vienna}", {"site": {"name": "Wien"}}),
    ),
    Row(
        "a site is deleted",
        lambda world, unit: sites.delete_site(unit, world.id("vienna")),
        {
            "gw-vienna": [f"{REJECT} laptop lab", f"{REJECT} laptop web", f"{REJECT} phone lab", "phx_close"],
            "laptop": [f"{DELETED} lab", f"{DELETED} web"],
            "phone": [f"{DELETED} lab", f"{DELETED} web"],
        },
        rest=("DELETE", "/sites/{vienna}", None),
    ),
    # --- pools
    Row(
        "a member is added to a pool",
        pool("printer", "ugo-laptop"),
        {"laptop": [f"{UPDATED} printers"], "phone": [f"{UPDATED} printers"]},
        rest=("PATCH", "/resources/{printers}/pool_members", {"pool_members": {"add": ["ugo-laptop"]}}),
    ),
    Row(
        "a member is removed from a pool",
        pool(),
        {
            "printer": [f"{REJECT} laptop printers"],
            "laptop": ["client_device_access_denied forbidden", f"{DELETED} printers", f"{UPDATED} printers"],
            "phone": ["client_device_access_denied forbidden", f"{UPDATED} printers"],
        },
        rest=("PUT", "/resources/{printers}/pool_members", {"pool_members": []}),
    ),
    # --- devices
    Row(
        "a client is verified where a policy asks for it",
        verify("laptop"),
        {"laptop": [f"{UPDATED} spare"]},
        before=(add_policy("engineering", "spare", conditions=[VERIFIED]),),
        rest=("PUT", "/clients/{laptop}/verify", None),
    ),
    Row(
        "a client is no longer verified: what needs it ends",
        verify("laptop", is_verified=False),
        {"gw-vienna": [f"{REJECT} laptop lab"], "laptop": [f"{DELETED} lab"]},
        before=(verify("laptop"), verify("phone"), change_policy("p-lab", conditions=[VERIFIED])),
        rest=("PUT", "/clients/{laptop}/unverify", None),
    ),
    Row(
        "a client has another tunnel address: what hangs on the old one ends",
        move("laptop", "100.64.77.1"),
        {
            "gw-vienna": [f"{REJECT} laptop lab", f"{REJECT} laptop web"],
            "printer": [f"{REJECT} laptop printers"],
            "laptop": ["init", *(f"{kind} {one}" for kind in (DELETED, UPDATED) for one in ("lab", "web", "printers"))],
        },
    ),
    Row(
        "a gateway has another tunnel address",
        move("gw-vienna", "100.64.77.2"),
        {
            "gw-vienna": [f"{REJECT} laptop lab", f"{REJECT} laptop web", f"{REJECT} phone lab", "init"],
            "laptop": [f"{kind} {one}" for kind in (DELETED, UPDATED) for one in ("lab", "web")],
            "phone": [f"{DELETED} lab", f"{UPDATED} lab"],
        },
    ),
    Row(
        "a member of a pool has another tunnel address",
        move("printer", "100.64.77.3"),
        {
            "printer": [f"{REJECT} laptop printers", "init"],
            "laptop": ["client_device_access_denied forbidden", f"{DELETED} printers", f"{UPDATED} printers"],
            "phone": ["client_device_access_denied forbidden", f"{UPDATED} printers"],
        },
    ),
    Row(
        "a client is renamed",
        lambda world, unit: devices.update_client(unit, world.id("laptop"), {"name": "Mia's"}),
        {},
        rest=("PATCH", "/clients/{laptop}", {"client": {"name": "Mia's"}}),
    ),
    Row(
        "a client is deleted",
        lambda world, unit: devices.delete_client(unit, world.id("laptop")),
        {
            "gw-vienna": [f"{REJECT} laptop lab", f"{REJECT} laptop web"],
            "printer": [f"{REJECT} laptop printers"],
            "laptop": ["phx_close"],
        },
        rest=("DELETE", "/clients/{laptop}", None),
    ),
    Row(
        "a gateway is deleted: who used it asks for another",
        lambda world, unit: sites.delete_gateway(unit, world.id("vienna"), world.id("gw-vienna")),
        {
            "gw-vienna": [f"{REJECT} laptop lab", f"{REJECT} laptop web", f"{REJECT} phone lab", "phx_close"],
            "laptop": [f"{DELETED} lab", f"{DELETED} web", f"{UPDATED} lab", f"{UPDATED} web"],
            "phone": [f"{DELETED} lab", f"{UPDATED} lab"],
        },
        rest=("DELETE", "/sites/{vienna}/gateways/{gw-vienna}", None),
    ),
    Row(
        "a gateway is renamed",
        lambda world, unit: sites.update_gateway(
            unit, world.id("vienna"), world.id("gw-vienna"), {"name": "front door"}
        ),
        {},
        rest=("PATCH", "/sites/{vienna}/gateways/{gw-vienna}", {"gateway": {"name": "front door"}}),
    ),
    # --- tokens, actors, accounts
    Row(
        "a client token is revoked",
        lambda world, unit: tokens.delete_client_token(unit, world.id("mia"), world.tenants["corp"].token_ids["mia"]),
        ENDS_MIA,
    ),
    Row(
        "all tokens of an actor are revoked",
        lambda world, unit: tokens.delete_client_tokens(unit, world.id("mia")),
        ENDS_MIA,
    ),
    Row(
        "a gateway token is revoked: the grants stay for its return",
        lambda world, unit: tokens.delete_site_tokens(unit, world.id("vienna")),
        {"gw-vienna": GONE},
        rest=("DELETE", "/sites/{vienna}/gateway_tokens", None),
    ),
    Row(
        "an actor is disabled",
        lambda world, unit: actors.update_actor(unit, world.id("mia"), {"is_disabled": True}),
        ENDS_MIA,
        rest=("PATCH", "/actors/{mia}", {"actor": {"is_disabled": True}}),
    ),
    Row(
        "an actor is renamed",
        lambda world, unit: actors.update_actor(unit, world.id("mia"), {"name": "Mia B."}),
        {},
        rest=("PATCH", "/actors/{mia}", {"actor": {"name": "Mia B."}}),
    ),
    Row(
        "an actor becomes an admin",
        lambda world, unit: actors.update_actor(unit, world.id("mia"), {"type": "account_admin_user"}),
        {},
        rest=("PATCH", "/actors/{mia}", {"actor": {"type": "account_admin_user"}}),
    ),
    Row(
        "an actor is deleted",
        lambda world, unit: actors.delete_actor(unit, world.id("mia")),
        ENDS_MIA,
        rest=("DELETE", "/actors/{mia}", None),
    ),
    Row(
        "an account is disabled: its gateways stay",
        lambda world, unit: accounts.set_disabled(unit, True, "unpaid"),
        {
            **ENDS_MIA,
            "gw-graz": [f"{REJECT} ugo-laptop ledger"],
            "printer": [f"{REJECT} laptop printers", *GONE],
            "ugo-laptop": GONE,
        },
    ),
    Row(
        "an account is enabled again",
        lambda world, unit: accounts.set_disabled(unit, False),
        {},
    ),
    Row(
        "the network configuration of an account is changed",
        lambda world, unit: accounts.update_config(unit, {"search_domain": "corp.example"}),
        {one: ["config_changed"] for one in ("laptop", "phone", "ugo-laptop", "printer")},
    ),
    Row(
        "an account has another slug",
        account(slug="corporation"),
        {"gw-vienna": ["init"], "gw-graz": ["init"]},
    ),
    Row(
        "an account has another name",
        account(name="Corporation"),
        {},
    ),
    Row(
        "the features of an account are changed",
        lambda world, unit: accounts.set_features(unit, {"iceless": False}),
        {},
    ),
]


def in_ids(world: World, value: Any) -> Any:
    """A body with ids instead of names."""
    if isinstance(value, dict):
        return {name: in_ids(world, one) for name, one in value.items()}
    if isinstance(value, list):
        return [in_ids(world, one) for one in value]
    known = {**world.tenants["corp"].ids}
    return known.get(value, value) if isinstance(value, str) else value


async def apply(world: World, *steps: Step) -> None:
    """Each step is one commit."""
    for step in steps:
        async with world.change() as unit:
            await step(world, unit)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_change_reaches_whom_it_concerns_and_nobody_else(world: World, row: Row) -> None:
    await apply(world, *row.before)
    await world.mark()

    await apply(world, row.change)

    assert await world.told() == row.expected
    await same_as_a_fresh_start(world)


@pytest.mark.parametrize("row", [row for row in ROWS if row.rest], ids=lambda row: row.name)
@pytest.mark.parametrize("world", ["flipped"], indirect=True)
async def test_a_request_has_the_same_effect(world: World, row: Row) -> None:
    assert row.rest
    await apply(world, *row.before)
    await world.mark()
    method, path, body = row.rest

    await world.rest(method, path, in_ids(world, body), status=(200, 201, 204))

    assert await world.told() == row.expected


async def same_as_a_fresh_start(world: World) -> None:
    """What clients were told bit by bit is what they are told when they connect anew."""
    for name, peer in list(world.peers.items()):
        if peer.topic != "client" or peer.is_closed.is_set():
            continue
        known = fold_client(peer)
        again = fold_client(await world.come_back(name))
        assert known.resources == again.resources, name
        assert known.interface == again.interface, name
        assert known.inbound == again.inbound, name
