"""Why an actor can or cannot reach a resource: everything that was looked at, now and then, and what was refused."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from tests.unit.portal.api.conftest import Portal
from tests.unit.portal.helpers import ManualClock, make_lab
from tests.unit.portal.why.changing import TIME, Operation, open_account, operations
from tests.unit.portal.why.test_previews import group_of, payments, people
from tests.unit.portal.why.test_snapshots import random_runs
from wardgate.ids import AccountId
from wardgate.portal.db.access import policies_about
from wardgate.portal.db.access_tables import RefusedRequest
from wardgate.portal.db.devices import create_device
from wardgate.portal.db.engine import Database
from wardgate.portal.db.refusals import MAX_KEPT, Refusal, Refusals
from wardgate.portal.db.tables import Account, Actor, Device
from wardgate.portal.domain import subjects
from wardgate.portal.services import devices
from wardgate.portal.services.explanations import policies_in

WORKDAYS = {**TIME, "values": [f"{day}/07:00-14:00/Europe/Berlin" for day in "MTWRF"]}
VERIFIED = {"property": "client_verified", "operator": "is", "values": ["true"]}
COUNTRY = {"property": "remote_ip_location_region", "operator": "is_in", "values": ["DE", "PT", "JP"]}


async def why(portal: Portal, status: Any = 200, **query: Any) -> Any:
    async with portal.client() as client:
        answer = await client.get("/explain", params=query)
    assert answer.status_code == status, answer.text
    return answer.json()["data"] if status == 200 else answer.json()


async def carol_and_payments(portal: Portal) -> tuple[str, str, str, str]:
    carol, paul = await people(portal, "Carol", "Paul")
    data, on_call = await group_of(portal, "Data", [carol]), await group_of(portal, "On call", [paul])
    resource = await payments(portal)
    conditions = [WORKDAYS, VERIFIED, COUNTRY]
    policy = await portal.make("policy", group_id=data, resource_id=resource, conditions=conditions)
    await portal.make("policy", group_id=on_call, resource_id=resource)
    return carol, resource, str(policy["id"]), on_call


async def laptop(db: Database, actor_id: str, **columns: Any) -> Device:
    async with db.unscoped() as session:
        actor = (await session.execute(Actor.__table__.select().where(Actor.id == actor_id))).one()
    async with db.writing(subjects.system(AccountId(actor.account_id))) as unit:
        seen = {"last_seen_remote_ip": "198.51.100.71", "last_seen_version": "1.5.0", "last_seen_at": unit.at}
        place = {"last_seen_remote_ip_location_region": "DE"}
        return await create_device(unit, type="client", actor_id=actor_id, **{"name": "l", **seen, **place, **columns})


async def test_every_condition_is_shown_with_what_it_saw(portal: Portal, db: Database) -> None:
    carol, _, policy_id, on_call = await carol_and_payments(portal)
    device = await laptop(db, carol, name="carol-laptop")
    await portal.ask("PUT", f"/clients/{device.id}/verify", status=200)

    answer = await why(portal, actor="carol@corp.example", resource="Payments DB", at="2026-11-26T14:21:00Z")

    assert answer["allowed"] is False
    first, second = answer["policies"]
    assert (first["id"], first["state"]) == (policy_id, "conditions_violated")
    by_property = {one["property"]: (one["holds"], one["seen"]) for one in first["conditions"]}
    assert by_property == {
        "current_utc_datetime": (False, "Thu 15:21 in Europe/Berlin"),
        "client_verified": (True, "verified"),
        "remote_ip_location_region": (True, "DE"),
    }
    assert (second["group"], second["state"]) == ({"id": on_call, "name": "On call"}, "not_in_group")
    wait, join = answer["hints"]
    assert (wait["kind"], wait["at"]) == ("wait", "2026-11-27T06:00:00Z")
    assert (join["kind"], join["group"]["name"]) == ("join_group", "On call")
    assert [one["name"] for one in answer["actor"]["groups"]] == ["Data", "Everyone"]
    assert answer["device"]["name"] == "carol-laptop"


async def test_the_policy_that_lasts_longest_decides_and_says_until_when(portal: Portal, db: Database) -> None:
    (ann,) = await people(portal, "Ann")
    first, second, third = [await group_of(portal, name, [ann]) for name in ("First", "Second", "Third")]
    resource = await payments(portal)
    for group, end in ((first, "15:00"), (second, "18:00"), (third, "16:00")):
        hours = {**TIME, "values": [f"M/09:00-{end}/UTC"]}
        await portal.make("policy", group_id=group, resource_id=resource, conditions=[hours])

    answer = await why(portal, actor="Ann", resource=resource, at="2026-11-30T12:00:00Z")

    assert [one["state"] for one in answer["policies"]] == ["passes", "decides", "passes"]
    assert answer["decided_by"] == answer["policies"][1]["id"]
    assert answer["expires_at"] == "2026-11-30T18:00:00Z"
    assert answer["policies"][1]["conditions"][0]["until"] == "2026-11-30T18:00:00Z"


async def test_another_address_is_asked_about_and_nothing_else_is_taken_from_the_device(
    portal: Portal, db: Database
) -> None:
    carol, resource, _, _ = await carol_and_payments(portal)
    await laptop(db, carol)
    monday_morning = "2026-11-30T08:00:00Z"

    elsewhere = await why(portal, actor=carol, resource=resource, at=monday_morning, **{"from": "203.0.113.9"})
    told = await why(
        portal,
        actor=carol,
        resource=resource,
        at=monday_morning,
        region="JP",
        verified="true",
        **{"from": "203.0.113.9"},
    )

    assert elsewhere["circumstances"]["remote_ip"] == "203.0.113.9"
    assert elsewhere["circumstances"]["region"] is None
    assert told["policies"][0]["state"] == "decides"


async def test_gateways_are_told_apart_by_who_can_serve(portal: Portal, db: Database) -> None:
    (ann,) = await people(portal, "Ann")
    group, resource = await group_of(portal, "Crew", [ann]), await payments(portal)
    await portal.make("policy", group_id=group, resource_id=resource)
    site = (await portal.ask("GET", f"/resources/{resource}", status=200))["data"]["site_id"]
    made = [
        (await portal.ask("POST", f"/sites/{site}/gateways", {"gateway": {"name": name}}, status=201))["data"]["id"]
        for name in ("good", "gone", "old")
    ]
    await laptop(db, ann, last_seen_version="1.5.0")
    portal.online.connect_gateway(site, made[0])
    portal.online.connect_gateway(site, made[2])
    old = portal.online.gateways[site][1]
    portal.online.gateways[site][1] = type(old)(old.id, "1.0.0", old.location)

    answer = await why(portal, actor="Ann", resource=resource)

    seen = {one["name"]: (one["is_online"], one["is_compatible"], one["is_candidate"]) for one in answer["gateways"]}
    assert seen == {"good": (True, True, True), "gone": (False, None, False), "old": (True, False, False)}
    assert answer["allowed"] is True
    assert answer["resource"]["site"] == {"id": site, "name": "Berlin"}


async def test_the_policies_of_another_time_explain_what_was(portal: Portal, db: Database, clock: ManualClock) -> None:
    (ann,) = await people(portal, "Ann")
    group, resource = await group_of(portal, "Crew", [ann]), await payments(portal)
    await portal.make("policy", group_id=group, resource_id=resource, conditions=[VERIFIED])
    device = await laptop(db, ann)
    clock.advance(60)
    await portal.ask("PUT", f"/clients/{device.id}/verify", status=200)
    verified = clock.utc_now().isoformat()
    clock.advance(3600)
    await portal.ask("PUT", f"/clients/{device.id}/unverify", status=200)
    await portal.ask("PATCH", f"/groups/{group}/memberships", {"memberships": {"remove": [ann]}}, status=200)
    await portal.ask("DELETE", f"/resources/{resource}", status=200)
    clock.advance(60)

    then = await why(portal, actor="Ann", resource="Payments DB", at=verified)
    before = await why(
        portal, actor="Ann", resource="Payments DB", at=(datetime.fromisoformat(verified) - timedelta(seconds=1))
    )
    now = await why(portal, 404, actor="Ann", resource="Payments DB")

    assert then["allowed"] is True
    assert then["as_of"] == verified.replace("+00:00", "Z")
    assert then["policies"][0]["conditions"][0]["seen"] == "verified"
    assert before["policies"][0]["conditions"][0]["seen"] == "not verified"
    assert "there is no resource 'Payments DB'" in now["detail"]


async def test_names_that_several_have_are_listed(portal: Portal) -> None:
    site = await portal.make("site", name="Berlin")
    for address in ("10.0.0.1", "10.0.0.2"):
        await portal.make("resource", name="Twin", type="ip", address=address, site_id=site["id"])
    await people(portal, "Ann")

    problem = await why(portal, 422, actor="Ann", resource="Twin")

    assert "10.0.0.1" in problem["validation_errors"]["resource"][0]
    assert "10.0.0.2" in problem["validation_errors"]["resource"][0]


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ({}, 422, "actor"),
        ({"actor": "Ann"}, 422, "resource"),
        ({"actor": "Nobody", "resource": "x"}, 404, None),
        ({"actor": "Ann", "resource": str(uuid4())}, 404, None),
        ({"actor": "Ann", "resource": "Payments DB", "device": "phone"}, 404, None),
        ({"actor": "Ann", "resource": "Payments DB", "from": "somewhere"}, 422, "from"),
        ({"actor": "Ann", "resource": "Payments DB", "from": "10.0.0.0/8"}, 422, "from"),
        ({"actor": "Ann", "resource": "Payments DB", "region": "xx"}, 422, "region"),
        ({"actor": "Ann", "resource": "Payments DB", "at": "yesterday"}, 400, None),
        ({"actor": "Ann", "resource": "Payments DB", "at": "2020-01-01T00:00:00Z"}, 422, "as_of"),
        ({"actor": "Ann", "resource": "Payments DB", "as_of": "2030-01-01T00:00:00Z"}, 422, "as_of"),
    ],
)
async def test_what_cannot_be_asked_is_refused(portal: Portal, query: Any, status: int, field: str | None) -> None:
    await people(portal, "Ann")
    await payments(portal)

    problem = await why(portal, status, **query)

    assert (field is None) or field in problem["validation_errors"]


async def test_another_accounts_things_are_not_there(portal: Portal) -> None:
    (ann,) = await people(portal, "Ann")
    resource = await payments(portal)

    for query in (f"actor_id={ann}&resource_id={resource}", "actor=Ann&resource=Payments%20DB"):
        await portal.ask("GET", f"/explain?{query}", status=404, token=portal.other_token)


@random_runs
@given(some=st.lists(operations, max_size=8))
def test_now_and_then_are_explained_from_the_same_facts(migrated: Path, some: list[Operation]) -> None:
    async def run(folder: Path) -> None:
        account = await open_account(migrated, folder)
        try:
            for operation in some:
                account.clock.advance(1)
                await account.make(operation)
            async with account.db.scoped(account.subject) as scope:
                _, snapshot = await account.db.snapshots.current(scope)
                for actor in await scope.all(scope.select(Actor)):
                    for resource_id in snapshot.resources:
                        then = policies_in(snapshot, snapshot.actors[actor.id], resource_id)
                        assert then == await policies_about(scope, actor, resource_id)
        finally:
            await account.db.close()

    with TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


# --- what was refused -------------------------------------------------------------------------------------------------


def refusal(account_id: str, actor_id: str, resource_id: str, at: datetime, reason: str = "offline") -> Refusal:
    return Refusal(account_id, actor_id, resource_id, str(uuid4()), reason, (), "192.0.2.7", at)


async def test_the_last_refusal_is_told_and_older_ones_are_counted(
    portal: Portal, db: Database, clock: ManualClock
) -> None:
    (ann,) = await people(portal, "Ann")
    resource = await payments(portal)
    async with db.unscoped() as session:
        account_id = (await session.scalars(Account.__table__.select().where(Account.slug == "corp"))).one()
    refusals = portal.app.state.api.refusals = Refusals(db, clock, lambda error: pytest.fail(str(error)))
    for reason in ("offline", "offline", "forbidden"):
        refusals.note(refusal(account_id, ann, resource, clock.utc_now(), reason))
        clock.advance(0.5)

    first = await why(portal, actor=ann, resource=resource)
    refusals.note(refusal(account_id, ann, resource, clock.utc_now(), "version_mismatch"))
    clock.advance(3)
    await refusals.wait_written()
    portal.app.state.api.refusals = None
    later = await why(portal, actor=ann, resource=resource)

    assert (first["last_refusal"]["reason"], first["last_refusal"]["count"]) == ("forbidden", 3)
    assert (later["last_refusal"]["reason"], later["last_refusal"]["count"]) == ("version_mismatch", 4)


async def stored(db: Database) -> list[RefusedRequest]:
    async with db.unscoped() as session:
        return list((await session.scalars(select(RefusedRequest).order_by(RefusedRequest.at))).all())


async def test_only_the_newest_refusals_of_an_account_are_kept(db: Database, clock: ManualClock) -> None:
    lab = await make_lab(db)
    refusals = Refusals(db, clock, lambda error: pytest.fail(str(error)))
    start = clock.utc_now()
    for number in range(MAX_KEPT + 7):
        at = start + timedelta(seconds=number)
        refusals.note(refusal(lab.account.id, lab.actor.id, str(uuid4()), at))
    await refusals.flush()

    rows = await stored(db)

    assert len(rows) == MAX_KEPT
    assert rows[0].at == start + timedelta(seconds=7)


async def test_refusals_of_an_account_that_is_gone_are_forgotten(db: Database, clock: ManualClock) -> None:
    refusals = Refusals(db, clock, lambda error: pytest.fail(str(error)))
    refusals.note(refusal(str(uuid4()), str(uuid4()), str(uuid4()), datetime.now(UTC)))

    await refusals.flush()

    assert await stored(db) == []


async def test_a_client_that_is_taken_back_its_mark_is_told_why(portal: Portal, db: Database) -> None:
    (ann,) = await people(portal, "Ann")
    group, resource = await group_of(portal, "Crew", [ann]), await payments(portal)
    await portal.make("policy", group_id=group, resource_id=resource, conditions=[VERIFIED])
    device = await laptop(db, ann)
    async with db.writing(subjects.system(AccountId(device.account_id))) as unit:
        await devices.set_verified(unit, device.id, True)
        await devices.set_verified(unit, device.id, False)

    answer = await why(portal, actor=ann, resource=resource, device="l")

    assert [one["kind"] for one in answer["hints"]] == ["verify_client"]
