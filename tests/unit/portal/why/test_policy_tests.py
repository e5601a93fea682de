"""What must stay true of access: it is looked at before every change, whoever makes it."""

import asyncio
from datetime import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.portal.api.conftest import Portal
from tests.unit.portal.helpers import make_lab
from tests.unit.portal.why.changing import TIME, Operation, open_account, operations
from tests.unit.portal.why.test_previews import group_of, payments, people
from tests.unit.portal.why.test_snapshots import random_runs
from wardgate.errors import PolicyTestFailed, WardgateError
from wardgate.portal.db.access_guard import spec_of
from wardgate.portal.db.access_tables import PolicyTest
from wardgate.portal.db.engine import Database
from wardgate.portal.db.tables import ChangeLog
from wardgate.portal.domain.policy_tests import Moments, Origin, all_violations, holds
from wardgate.portal.domain.policy_tests import PolicyTest as Spec
from wardgate.portal.domain.snapshot import AccessSnapshot
from wardgate.portal.services import groups, policies
from wardgate.portal.services.policy_tests import create_policy_test, run_policy_tests


async def never(portal: Portal, **fields: Any) -> Any:
    whole = {"name": "never", "who": "everyone", "resource": "payments*", "expectation": "never_reaches", **fields}
    return (await portal.ask("POST", "/policy_tests", {"policy_test": whole}, status=201))["data"]


async def test_a_change_that_breaks_a_test_is_refused_with_examples(portal: Portal) -> None:
    carl, dora = await people(portal, "Carl", "Dora")
    contractors, resource = await group_of(portal, "Contractors", [carl, dora]), await payments(portal)
    made = await never(portal, name="contractors never reach payments", who="group:Contractors")
    assert made["holds"]
    policy = {"policy": {"group_id": contractors, "resource_id": resource}}

    problem = await portal.ask("POST", "/policies", policy, status=409)

    assert problem["code"] == "policy_test_failed"
    assert "contractors never reach payments" in problem["detail"]
    (test,) = problem["policy_tests"]
    assert test["count"] == 2
    assert {(one["actor_name"], one["resource_name"]) for one in test["examples"]} == {
        ("Carl", "Payments DB"),
        ("Dora", "Payments DB"),
    }
    assert (await portal.ask("GET", "/policies", status=200))["data"] == []


@pytest.mark.parametrize("reason", ["the auditors asked for it", "%C3%9Cbung"])
async def test_a_forced_change_leaves_its_reason_in_the_change_log(portal: Portal, db: Database, reason: str) -> None:
    (carl,) = await people(portal, "Carl")
    contractors, resource = await group_of(portal, "Contractors", [carl]), await payments(portal)
    made = await never(portal, who="group:Contractors")
    policy = {"policy": {"group_id": contractors, "resource_id": resource}}

    async with portal.client() as client:
        answer = await client.post("/policies", json=policy, headers={"X-Force-Reason": reason})

    said = reason.replace("%C3%9C", "\N{LATIN CAPITAL LETTER U WITH DIAERESIS}")
    assert answer.status_code == 201
    test = (await portal.ask("GET", f"/policy_tests/{made['test']['id']}", status=200))["data"]
    assert (test["broken_reason"], test["broken_by"]) == (said, "robot")
    async with db.unscoped() as session:
        rows = (await session.scalars(ChangeLog.__table__.select().with_only_columns(ChangeLog.after))).all()
    assert [row["broken_reason"] for row in rows if row and "broken_reason" in row] == [None, said]


async def test_what_is_broken_stays_out_of_the_way_and_is_mended_by_what_mends_it(portal: Portal) -> None:
    carl, dora, erik = await people(portal, "Carl", "Dora", "Erik")
    contractors, resource = await group_of(portal, "Contractors", [carl]), await payments(portal)
    policy = await portal.make("policy", group_id=contractors, resource_id=resource)
    broken = await never(portal)
    assert not broken["holds"]
    assert broken["examples"][0]["actor_name"] == "Carl"
    others = await group_of(portal, "Others", [dora])
    add = {"memberships": {"add": [erik]}}

    await portal.ask("PATCH", f"/groups/{others}/memberships", add, status=200)
    problem = await portal.ask("PATCH", f"/groups/{contractors}/memberships", add, status=409)
    await portal.ask("DELETE", f"/policies/{policy['id']}", status=200)
    (result,) = (await portal.ask("POST", "/policy_tests/run", {}, status=200))["data"]

    assert [one["actor_name"] for one in problem["policy_tests"][0]["examples"]] == ["Erik"]
    assert result["holds"]
    assert result["test"]["broken_at"] is None


async def test_forcing_is_forgotten_once_the_test_holds_again(portal: Portal) -> None:
    (carl,) = await people(portal, "Carl")
    contractors, resource = await group_of(portal, "Contractors", [carl]), await payments(portal)
    made = await never(portal)
    body = {"policy": {"group_id": contractors, "resource_id": resource}}
    async with portal.client() as client:
        policy = (await client.post("/policies", json=body, headers={"X-Force-Reason": "now"})).json()["data"]
    before = await portal.ask("GET", f"/policy_tests/{made['test']['id']}", status=200)

    await portal.ask("PATCH", f"/policies/{policy['id']}", {"policy": {"is_disabled": True}}, status=200)
    after = await portal.ask("GET", f"/policy_tests/{made['test']['id']}", status=200)

    assert before["data"]["broken_at"] is not None
    assert after["data"]["broken_at"] is None


async def test_somebody_must_reach_something_at_night(portal: Portal) -> None:
    (olivia,) = await people(portal, "Olivia")
    on_call, resource = await group_of(portal, "On call", [olivia]), await payments(portal)
    night = {**TIME, "values": [f"{day}/00:00-07:00,18:00-24:00/Europe/Berlin" for day in "MTWRFSU"]}
    verified = {"property": "client_verified", "operator": "is", "values": ["true"]}
    policy = await portal.make("policy", group_id=on_call, resource_id=resource, conditions=[night, verified])
    test = {
        "name": "On call reaches Payments DB at night",
        "who": f"group:{on_call}",
        "resource": "Payments DB",
        "expectation": "reaches",
        "at": {"time": "03:00", "zone": "Europe/Berlin"},
    }
    made = await portal.ask("POST", "/policy_tests", {"policy_test": test}, status=201)
    evenings = {**TIME, "values": [f"{day}/18:00-24:00/Europe/Berlin" for day in "MTWRFSU"]}
    path, narrower = f"/policies/{policy['id']}", {"policy": {"conditions": [evenings]}}

    preview = await portal.ask("POST", "/preview", {"method": "PATCH", "path": path, "body": narrower}, status=200)
    problem = await portal.ask("PATCH", path, narrower, status=409)
    gone = await portal.ask("DELETE", f"/groups/{on_call}", status=409)
    left = await portal.ask("PATCH", f"/actors/{olivia}", {"actor": {"is_disabled": True}}, status=409)

    assert made["data"]["holds"]
    assert [one["state"] for one in preview["data"]["tests"]] == ["breaks"]
    assert problem["policy_tests"][0]["examples"][0]["actor_name"] == "Olivia"
    assert gone["policy_tests"][0]["count"] == 1
    assert left["policy_tests"][0]["examples"][0]["actor_name"] is None  # there is nobody on call any more


async def test_a_switched_off_test_is_not_looked_at(portal: Portal) -> None:
    (carl,) = await people(portal, "Carl")
    contractors, resource = await group_of(portal, "Contractors", [carl]), await payments(portal)
    made = await never(portal)
    path = f"/policy_tests/{made['test']['id']}"

    off = await portal.ask("PATCH", path, {"policy_test": {"is_enabled": False}}, status=200)
    await portal.make("policy", group_id=contractors, resource_id=resource)
    (ran,) = (await portal.ask("POST", "/policy_tests/run", status=200))["data"]
    await portal.ask("DELETE", path, status=200)
    await portal.ask("GET", path, status=404)

    assert off["data"]["test"]["is_enabled"] is False
    assert ran["holds"] is False


async def test_services_and_commands_are_held_to_the_tests_as_well(db: Database) -> None:
    lab = await make_lab(db, has_policy=False)
    async with db.writing(lab.subject) as unit:
        _, snapshot = await db.snapshots.current(unit)
        fields = {"name": "never", "who": "anyone", "resource": lab.resource.id, "expectation": "never_reaches"}
        await create_policy_test(unit, fields, snapshot)

    with pytest.raises(PolicyTestFailed, match="never"):
        await link(db, lab)

    async with db.scoped(lab.subject) as scope:
        assert (await db.snapshots.current(scope))[1].policies == {}


async def link(db: Database, lab: Any) -> None:
    async with db.writing(lab.subject) as unit:
        await policies.create_policy(unit, {"group_id": lab.group.id, "resource_id": lab.resource.id})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"who": "somebody"}, "who"),
        ({"who": "group:Nobody"}, "who"),
        ({"who": "actor:not an address"}, "who"),
        ({"resource": "6f0a3c1e-93a5-4f1c-8d0e-1c5b9a1f7e42"}, "resource"),
        ({"name": ""}, "name"),
        ({"at": {"time": "25:00"}}, "at"),
        ({"at": {"time": "03:00", "zone": "Mars/Olympus"}}, "at"),
        ({"at": {"time": "03:00", "days": "MM"}}, "at"),
        ({"from": {"remote_ip": "somewhere"}}, "from"),
        ({"from": {"region": "Germany"}}, "from"),
    ],
)
async def test_a_test_that_says_nothing_sensible_is_refused(portal: Portal, fields: Any, field: str) -> None:
    whole = {"name": "never", "who": "everyone", "resource": "*", "expectation": "never_reaches", **fields}

    problem = await portal.ask("POST", "/policy_tests", {"policy_test": whole}, status=422)

    assert list(problem["validation_errors"]) == [field]


# --- what a test means ------------------------------------------------------------------------------------------------

PERSON, SERVICE, GROUP, RESOURCE = "actor-1", "actor-2", "group-1", "resource-1"


def account_with(conditions: list[dict[str, Any]], **policy: Any) -> AccessSnapshot:
    """One person and one service account in a group with one policy."""
    rows: list[tuple[str, dict[str, Any]]] = [
        ("actors", {"id": PERSON, "type": "account_user", "name": "P", "email": "p@x.example", "is_disabled": False}),
        ("actors", {"id": SERVICE, "type": "service_account", "name": "S", "email": None, "is_disabled": False}),
        ("groups", {"id": GROUP, "name": "G", "type": "static", "directory_id": None}),
        ("memberships", {"id": "m1", "actor_id": PERSON, "group_id": GROUP}),
        ("memberships", {"id": "m2", "actor_id": SERVICE, "group_id": GROUP}),
        (
            "resources",
            {
                "id": RESOURCE,
                "name": "Payments",
                "type": "dns",
                "address": "x",
                "site_id": "s",
                "ip_stack": None,
                "filters": [],
            },
        ),
        (
            "policies",
            {
                "id": "p1",
                "group_id": GROUP,
                "resource_id": RESOURCE,
                "conditions": conditions,
                "is_disabled": False,
                "flow_log_uploads_enabled": True,
                "inserted_at": "2026-01-01T00:00:00+00:00",
                **policy,
            },
        ),
    ]
    return AccessSnapshot().changed(Row(table, row) for table, row in rows)


class Row:
    """A row that is new."""

    def __init__(self, table: str, row: dict[str, Any]) -> None:
        self.object, self.before, self.after = table, None, row


DE = {"property": "remote_ip_location_region", "operator": "is_in", "values": ["DE"]}
OFFICE = {"property": "remote_ip", "operator": "is_in_cidr", "values": ["10.0.0.0/8"]}
VERIFIED = {"property": "client_verified", "operator": "is", "values": ["true"]}
MONDAYS = {**TIME, "values": ["M/09:00-17:00/UTC"]}
CLOSED = {**TIME, "values": ["M//UTC"]}


@pytest.mark.parametrize(
    ("conditions", "expectation", "at", "origin", "who", "is_true"),
    [
        ([], "reaches", None, Origin(), "everyone", True),
        ([], "never_reaches", None, Origin(), "everyone", False),
        ([DE, VERIFIED], "reaches", None, Origin(), "everyone", True),
        ([DE], "reaches", None, Origin(region="FR"), "everyone", False),
        ([DE], "never_reaches", None, Origin(region="FR"), "everyone", True),
        ([OFFICE], "never_reaches", None, Origin(remote_ip="192.0.2.1"), "everyone", True),
        ([OFFICE], "never_reaches", None, Origin(remote_ip="10.1.2.3"), "everyone", False),
        ([VERIFIED], "never_reaches", None, Origin(is_verified=False), "everyone", True),
        ([VERIFIED], "never_reaches", None, Origin(is_verified=True), "everyone", False),
        ([MONDAYS], "reaches", None, Origin(), "everyone", False),
        ([MONDAYS], "never_reaches", None, Origin(), "everyone", False),
        ([CLOSED], "never_reaches", None, Origin(), "everyone", True),
        ([MONDAYS], "reaches", ("M", "12:00"), Origin(), "everyone", True),
        ([MONDAYS], "reaches", ("MT", "12:00"), Origin(), "everyone", False),
        ([MONDAYS], "never_reaches", ("T", "12:00"), Origin(), "everyone", True),
        ([MONDAYS], "never_reaches", ("MT", "12:00"), Origin(), "everyone", False),
        ([], "never_reaches", None, Origin(), "actor:P@X.example", False),
        ([], "never_reaches", None, Origin(), "actor:q@x.example", True),
        ([], "reaches", None, Origin(), "actor:q@x.example", False),
        ([], "never_reaches", None, Origin(), "group:group-2", True),
    ],
)
async def test_what_is_not_said_is_taken_as_favourable(
    conditions: Any, expectation: Any, at: Any, origin: Origin, who: str, is_true: bool, clock: Any
) -> None:
    moments = Moments(at[0], time.fromisoformat(at[1]), "UTC") if at else None
    test = Spec("t", "t", who, "pay*", expectation, moments, origin)

    found = all_violations(test, account_with(conditions), clock.utc_now())

    assert (not found) is is_true
    assert holds(test, account_with(conditions), clock.utc_now()) is is_true


async def test_everyone_is_all_people_and_anyone_is_service_accounts_too(clock: Any) -> None:
    account = account_with([])

    people_only = all_violations(Spec("t", "t", "everyone", "*", "never_reaches"), account, clock.utc_now())
    all_of_them = all_violations(Spec("t", "t", "anyone", "*", "never_reaches"), account, clock.utc_now())

    assert people_only == {RESOURCE: {PERSON}}
    assert all_of_them == {RESOURCE: {PERSON, SERVICE}}


# --- the guard finds exactly what a full run finds --------------------------------------------------------------------

tests_of_account: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    who=st.sampled_from(["everyone", "anyone", "group:thing 3", "actor:p1@corp.example"]),
    resource=st.sampled_from(["*", "thing 10", "thing 1*"]),
    expectation=st.sampled_from(["reaches", "never_reaches"]),
    at=st.sampled_from([None, {"time": "12:00", "days": "MT"}]),
)


@random_runs
@given(tests=st.lists(tests_of_account, min_size=1, max_size=3), some=st.lists(operations, min_size=1, max_size=6))
def test_a_change_is_refused_if_and_only_if_a_full_run_finds_more_wrong_after_it(
    migrated: Path, tests: list[dict[str, Any]], some: list[Operation]
) -> None:
    async def run(folder: Path) -> None:
        account = await open_account(migrated, folder)
        try:
            async with account.db.writing(account.subject) as unit:
                _, snapshot = await account.db.snapshots.current(unit)
                for number, fields in enumerate(tests):
                    whole = {**fields, "name": f"test {number}", "is_enabled": False}
                    await create_policy_test(unit, whole, snapshot)
            for operation in some:
                account.clock.advance(1)
                await one_change(account, operation)
        finally:
            await account.db.close()

    with TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


async def one_change(account: Any, operation: Operation) -> None:
    """Tries a change with the tests on, and compares what is said of it with full runs around it."""
    await switch(account, True)
    before = await wrong(account)
    start = account.names[0]
    refused = False
    try:
        async with account.db.writing(account.subject) as unit:
            await account.within(unit, operation)
    except PolicyTestFailed:
        refused = True
    except WardgateError:
        return
    if refused:
        assert await wrong(account) == before
        account.names[0] = start
        await switch(account, False)
        assert await account.make(operation)
    after = await wrong(account)
    assert bool(after - before) is refused


async def switch(account: Any, is_enabled: bool) -> None:
    async with account.db.writing(account.subject) as unit:
        for row in await unit.all(unit.select(PolicyTest)):
            await unit.update(row, is_enabled=is_enabled)


async def wrong(account: Any) -> set[Any]:
    """Everything that is not as the tests have it, by names: ids differ when a change is made again."""
    found = set()
    async with account.db.scoped(account.subject) as scope:
        results = await run_policy_tests(account.db, scope, account.clock.utc_now())
        _, snapshot = await account.db.snapshots.current(scope)
    for one in results:
        pairs = all_violations(spec_of(one.row), snapshot, account.clock.utc_now())
        assert one.holds is (not pairs)
        assert holds(spec_of(one.row), snapshot, account.clock.utc_now()) is one.holds
        found |= {(one.row.name, actor, resource) for resource, some in pairs.items() for actor in some}
    return found


async def test_members_who_join_are_held_to_the_test_of_their_group(db: Database) -> None:
    lab = await make_lab(db, has_policy=False)
    async with db.writing(lab.subject) as unit:
        await groups.change_members(unit, lab.group.id, remove=[lab.actor.id])
    await link(db, lab)
    async with db.writing(lab.subject) as unit:
        _, snapshot = await db.snapshots.current(unit)
        fields = {"name": "never", "who": "group:Engineering", "resource": "*", "expectation": "never_reaches"}
        await create_policy_test(unit, fields, snapshot)

    with pytest.raises(PolicyTestFailed):
        await join(db, lab)


async def join(db: Database, lab: Any) -> None:
    async with db.writing(lab.subject) as unit:
        await groups.change_members(unit, lab.group.id, add=[lab.actor.id])
