"""A preview says what really happens when the change is made, and makes nothing."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.portal.api.conftest import Portal
from tests.unit.portal.helpers import ManualClock
from tests.unit.portal.why.changing import TIME, Changing, Operation, open_account, operations
from tests.unit.portal.why.test_snapshots import random_runs
from wardgate.errors import WardgateError
from wardgate.portal.db.access import rules_of_actor
from wardgate.portal.db.tables import Actor
from wardgate.portal.domain.conditions import Condition
from wardgate.portal.domain.reach import Ways, monday_of, ways
from wardgate.portal.domain.snapshot import AccessSnapshot
from wardgate.portal.services.previews import preview

Access = dict[tuple[str, str], Ways]


@random_runs
@given(before=st.lists(operations, max_size=6), change=st.lists(operations, min_size=1, max_size=3))
def test_a_preview_is_the_difference_that_the_change_makes(
    migrated: Path, before: list[Operation], change: list[Operation]
) -> None:
    async def run(folder: Path) -> None:
        account = await open_account(migrated, folder)
        try:
            for operation in before:
                account.clock.advance(1)
                await account.make(operation)
            old = await access_now(account)
            await compare(account, old, change)
        finally:
            await account.db.close()

    with TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


async def compare(account: Changing, old: Access, change: list[Operation]) -> None:
    async def make(unit: Any) -> None:
        for operation in change:
            await account.within(unit, operation)

    start = account.names[0]
    try:
        foreseen = await preview(account.db, account.subject, make)
    except WardgateError:
        with pytest.raises(WardgateError):
            async with account.db.writing(account.subject) as unit:
                await make(unit)
        assert await access_now(account) == old
        return
    assert await access_now(account) == old
    account.names[0] = start
    async with account.db.writing(account.subject) as unit:
        await make(unit)
    new = await access_now(account)

    async with account.db.scoped(account.subject) as scope:
        _, after = await account.db.snapshots.current(scope)
    said = {
        known((one.actor_id, one.resource_id), foreseen.before, foreseen.after): one.kind for one in foreseen.changes
    }
    was = {known(pair, foreseen.before, after): access for pair, access in old.items()}
    new = {known(pair, foreseen.before, after): access for pair, access in (await access_now(account)).items()}

    assert pairs_of(said, "gains") == set(new) - set(was)
    assert pairs_of(said, "loses") == set(was) - set(new)
    differs = {pair for pair in set(was) & set(new) if was[pair] != new[pair]}
    assert pairs_of(said, "fewer_hours", "more_hours", "other_hours", "other_conditions") == differs
    assert pairs_of(said, "keeps", "other_resource") <= (set(was) & set(new)) - differs


def pairs_of(said: Mapping[tuple[str, str], str], *kinds: str) -> set[tuple[str, str]]:
    return {pair for pair, kind in said.items() if kind in kinds}


def known(pair: tuple[str, str], before: AccessSnapshot, after: AccessSnapshot) -> tuple[str, str]:
    """The ids of what was there before; things that a change makes get other ids each time, and are known by name."""
    actor_id, resource_id = pair
    actor = actor_id if actor_id in before.actors else after.actors[actor_id].name
    return actor, resource_id if resource_id in before.resources else after.resources[resource_id].name


async def access_now(account: Changing) -> Access:
    """Who reaches what in which ways, asked of the database as requests are."""
    found: Access = {}
    async with account.db.scoped(account.subject) as scope:
        for actor in await scope.all(scope.select(Actor)):
            if actor.is_disabled or actor.type == "api_client":
                continue
            by_resource: dict[str, list[tuple[Condition, ...]]] = {}
            for rule in await rules_of_actor(scope, actor):
                by_resource.setdefault(rule.resource_id, []).append(rule.conditions)
            for resource_id, some in by_resource.items():
                if open_ways := ways(some, monday_of(account.clock.utc_now())):
                    found[actor.id, resource_id] = open_ways
    return found


# --- the route --------------------------------------------------------------------------------------------------------


async def people(portal: Portal, *names: str) -> list[str]:
    made = []
    for name in names:
        fields = {"name": name, "type": "account_user", "email": f"{name.lower()}@corp.example"}
        made.append((await portal.make("actor", **fields))["id"])
    return made


async def group_of(portal: Portal, name: str, members: list[str]) -> str:
    group = await portal.make("group", name=name)
    body = {"memberships": {"add": members}}
    await portal.ask("PATCH", f"/groups/{group['id']}/memberships", body, status=200)
    return str(group["id"])


async def payments(portal: Portal) -> str:
    site = await portal.make("site", name="Berlin")
    fields = {"name": "Payments DB", "type": "dns", "address": "db.pay.example", "site_id": site["id"]}
    return str((await portal.make("resource", **fields))["id"])


def told(answer: Any) -> dict[str, str]:
    return {one["actor"]["name"]: one["kind"] for one in answer["data"]["changes"]}


async def test_another_group_and_other_hours_are_told_by_person(portal: Portal) -> None:
    judy, walter, grace, olivia, bob = await people(portal, "Judy", "Walter", "Grace", "Olivia", "Bob")
    operations_group = await group_of(portal, "Operations", [judy, walter, grace, bob])
    on_call = await group_of(portal, "On call", [olivia, bob])
    data = await group_of(portal, "Data", [grace])
    resource = await payments(portal)
    weekdays = [f"{day}/00:00-07:00,18:00-24:00/Europe/Berlin" for day in "MTWRF"]
    weekend = ["S/true/Europe/Berlin", "U/true/Europe/Berlin"]
    policy = await portal.make(
        "policy",
        group_id=operations_group,
        resource_id=resource,
        conditions=[{**TIME, "values": weekdays + weekend}],
    )
    await portal.make("policy", group_id=data, resource_id=resource)
    evenings = [one.replace("00:00-07:00,", "") for one in weekdays]
    body = {"policy": {"group_id": on_call, "conditions": [{**TIME, "values": evenings + weekend}]}}

    answer = await portal.ask(
        "POST", "/preview", {"method": "PATCH", "path": f"/policies/{policy['id']}", "body": body}, status=200
    )

    assert told(answer) == {
        "Judy": "loses",
        "Walter": "loses",
        "Olivia": "gains",
        "Bob": "fewer_hours",
        "Grace": "keeps",
    }
    bob_loses = next(one["hours_lost"] for one in answer["data"]["changes"] if one["actor"]["name"] == "Bob")
    assert bob_loses["zone"] == "Europe/Berlin"
    assert bob_loses["windows"] == [f"{day} 00:00-07:00" for day in ("Mon", "Tue", "Wed", "Thu", "Fri")]
    assert answer["data"]["actors"]["loses"] == 2
    unchanged = await portal.ask("GET", f"/policies/{policy['id']}", status=200)
    assert unchanged["data"] == policy


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"method": "DELETE", "path": "/groups/{group}"}, {"Ann": "loses", "Ben": "loses"}),
        ({"method": "DELETE", "path": "/resources/{resource}"}, {"Ann": "loses", "Ben": "loses"}),
        ({"method": "DELETE", "path": "/sites/{site}"}, {"Ann": "loses", "Ben": "loses"}),
        ({"method": "DELETE", "path": "/actors/{ann}"}, {"Ann": "loses"}),
        ({"method": "PATCH", "path": "/actors/{ann}", "body": {"actor": {"is_disabled": True}}}, {"Ann": "loses"}),
        (
            {
                "method": "PATCH",
                "path": "/groups/{group}/memberships",
                "body": {"memberships": {"add": ["{cid}"], "remove": ["{ben}"]}},
            },
            {"Ben": "loses", "Cid": "gains"},
        ),
        (
            {"method": "PATCH", "path": "/resources/{resource}", "body": {"resource": {"address": "db2.pay.example"}}},
            {"Ann": "other_resource", "Ben": "other_resource"},
        ),
        ({"method": "PATCH", "path": "/groups/{group}", "body": {"group": {"name": "Renamed"}}}, {}),
    ],
)
async def test_every_kind_of_change_can_be_looked_at(
    portal: Portal, change: dict[str, Any], expected: dict[str, str]
) -> None:
    ann, ben, cid = await people(portal, "Ann", "Ben", "Cid")
    group, resource = await group_of(portal, "Crew", [ann, ben]), await payments(portal)
    await portal.make("policy", group_id=group, resource_id=resource)
    site = (await portal.ask("GET", f"/resources/{resource}", status=200))["data"]["site_id"]
    ids = {"ann": ann, "ben": ben, "cid": cid, "group": group, "resource": resource, "site": site}
    text = json.dumps(change)
    for name, value in ids.items():
        text = text.replace("{" + name + "}", value)

    answer = await portal.ask("POST", "/preview", json.loads(text), status=200)

    assert told(answer) == expected


async def test_several_changes_are_one_preview(portal: Portal) -> None:
    (ann,) = await people(portal, "Ann")
    first, second = await group_of(portal, "First", [ann]), await group_of(portal, "Second", [ann])
    resource = await payments(portal)
    policy = await portal.make("policy", group_id=first, resource_id=resource)
    changes = [
        {"method": "DELETE", "path": f"/policies/{policy['id']}"},
        {"method": "POST", "path": "/policies", "body": {"policy": {"group_id": second, "resource_id": resource}}},
    ]

    both = await portal.ask("POST", "/preview", {"changes": changes}, status=200)
    one = await portal.ask("POST", "/preview", {"changes": changes[:1]}, status=200)

    assert told(both) == {"Ann": "keeps"}
    assert told(one) == {"Ann": "loses"}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "`method` and `path` are needed"),
        ({"method": "DELETE", "path": "/sites/x/gateway_tokens"}, 400, "tokens"),
        ({"method": "POST", "path": "/preview"}, 400, "is not one of"),
        ({"changes": []}, 400, "at least 1"),
        ({"method": "DELETE", "path": "/policies/6f0a3c1e-93a5-4f1c-8d0e-1c5b9a1f7e42"}, 404, "policies has no"),
        ({"method": "POST", "path": "/groups", "body": {"group": {"name": ""}}}, 422, ""),
        ({"method": "POST", "path": "/groups", "body": {"name": "unwrapped"}}, 400, ""),
        ({"method": "PATCH", "path": "/groups", "body": {}}, 405, ""),
        ({"method": "DELETE", "path": "/policies/1", "as_of": "2030-01-01T00:00:00Z"}, 422, ""),
    ],
)
async def test_what_the_request_would_be_refused_for_the_preview_is_refused_for(
    portal: Portal, body: Any, status: int, said: str
) -> None:
    problem = await portal.ask("POST", "/preview", body, status=status)

    assert said in problem["detail"]


async def test_pages_of_a_preview_go_together_or_are_refused(portal: Portal) -> None:
    ids = await people(portal, "Ann", "Ben", "Cid")
    group, resource = await group_of(portal, "Crew", ids), await payments(portal)
    change = {"method": "POST", "path": "/policies", "body": {"policy": {"group_id": group, "resource_id": resource}}}

    first = await portal.ask("POST", "/preview?limit=2", change, status=200)
    cursor = first["metadata"]["next_page"]
    second = await portal.ask("POST", f"/preview?limit=2&page_cursor={cursor}", change, status=200)
    await portal.ask("DELETE", f"/actors/{ids[0]}", status=200)
    late = await portal.ask("POST", f"/preview?limit=2&page_cursor={cursor}", change, status=409)

    assert [*told(first), *told(second)] == ["Ann", "Ben", "Cid"]
    assert first["metadata"]["count"] == 3
    assert "look again" in late["detail"]


async def test_a_change_can_be_put_on_the_policies_of_another_time(portal: Portal, clock: ManualClock) -> None:
    (ann,) = await people(portal, "Ann")
    group, resource = await group_of(portal, "Crew", [ann]), await payments(portal)
    policy = await portal.make("policy", group_id=group, resource_id=resource)
    then = clock.utc_now()
    clock.advance(3600)
    await portal.ask("PATCH", f"/groups/{group}/memberships", {"memberships": {"remove": [ann]}}, status=200)
    change = {"method": "DELETE", "path": f"/policies/{policy['id']}"}

    now = await portal.ask("POST", "/preview", change, status=200)
    past = await portal.ask("POST", "/preview", {**change, "as_of": then.isoformat()}, status=200)

    assert told(now) == {}
    assert told(past) == {"Ann": "loses"}
