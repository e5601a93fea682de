"""ETags, and idempotency keys: nothing is overwritten unseen, and nothing is done twice."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text

from tests.unit.portal.api.conftest import Portal
from tests.unit.portal.api.things import make_things
from tests.unit.portal.helpers import ManualClock
from wardgate.portal.db import idempotency
from wardgate.portal.db.identity_tables import IdempotencyKey
from wardgate.portal.db.purge import remove_tokens

CHANGES: list[tuple[str, str, Any]] = [
    ("PATCH", "/sites/{site_id}", {"site": {"name": "other"}}),
    ("PUT", "/sites/{site_id}", {"site": {"name": "other"}}),
    ("DELETE", "/sites/{site_id}", None),
    ("PATCH", "/actors/{actor_id}", {"actor": {"name": "other"}}),
    ("DELETE", "/actors/{actor_id}", None),
    ("DELETE", "/actors/{actor_id}/external_identities/{identity_id}", None),
    ("DELETE", "/actors/{actor_id}/client_tokens/{token_id}", None),
    ("PATCH", "/groups/{group_id}", {"group": {"name": "other"}}),
    ("DELETE", "/groups/{group_id}", None),
    ("PATCH", "/sites/{site_id}/gateways/{gateway_id}", {"gateway": {"name": "other"}}),
    ("DELETE", "/sites/{site_id}/gateways/{gateway_id}", None),
    ("PATCH", "/resources/{resource_id}", {"resource": {"name": "other"}}),
    ("DELETE", "/resources/{resource_id}", None),
    ("PATCH", "/policies/{policy_id}", {"policy": {"description": "other"}}),
    ("DELETE", "/policies/{policy_id}", None),
    ("PATCH", "/clients/{client_id}", {"client": {"name": "other"}}),
    ("DELETE", "/clients/{client_id}", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES, ids=[f"{one[0]} {one[1]}" for one in CHANGES])
async def test_a_change_of_what_the_caller_knows_passes_and_another_does_not(
    portal: Portal, method: str, path: str, body: Any
) -> None:
    place = path.format(**await make_things(portal))
    async with portal.client() as client:
        known = await client.get(place)
        stale = await client.request(method, place, json=body, headers={"If-Match": '"another"'})
        after_stale = await client.get(place)
        fresh = await client.request(method, place, json=body, headers={"If-Match": f'"x", {known.headers["etag"]}'})
        after_fresh = await client.get(place)

    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    assert stale.json()["etag"] == known.headers["etag"]
    assert after_stale.json() == known.json()
    assert fresh.status_code == 200
    if method == "DELETE":
        assert after_fresh.status_code == 404
    else:
        assert after_fresh.headers["etag"] == fresh.headers["etag"] != known.headers["etag"]


async def test_who_has_the_current_state_is_not_sent_it_again(portal: Portal) -> None:
    site = await portal.make("site", name="office")
    async with portal.client() as client:
        first = await client.get(f"/sites/{site['id']}")
        same = await client.get(f"/sites/{site['id']}", headers={"If-None-Match": first.headers["etag"]})
        await client.patch(f"/sites/{site['id']}", json={"site": {"name": "lab"}})
        changed = await client.get(f"/sites/{site['id']}", headers={"If-None-Match": first.headers["etag"]})

    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["etag"] == first.headers["etag"]
    assert changed.json()["data"]["name"] == "lab"


async def test_a_repeated_request_gets_the_first_answer_and_does_nothing(portal: Portal) -> None:
    site = await portal.make("site", name="office")
    path = f"/sites/{site['id']}/gateways"
    first, second = await post(portal, path, "k"), await post(portal, path, "k")

    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    assert second.json()["data"]["token"]
    assert second.headers["location"] == first.headers["location"]
    assert second.headers["idempotency-replayed"] == "true"
    assert (await portal.ask("GET", path, status=200))["metadata"]["count"] == 1


async def test_a_key_belongs_to_its_request_and_its_account(portal: Portal) -> None:
    await post(portal, "/sites", "k", {"site": {"name": "office"}})

    other_body = await post(portal, "/sites", "k", {"site": {"name": "lab"}})
    other_path = await post(portal, "/groups", "k", {"group": {"name": "lab"}})
    other_account = await post(portal, "/sites", "k", {"site": {"name": "lab"}}, portal.other_token)

    assert [one.json()["code"] for one in (other_body, other_path)] == ["idempotency_key_reused"] * 2
    assert (other_body.status_code, other_account.status_code) == (422, 201)


async def test_a_refused_request_uses_its_key_up_no_more_than_a_lost_one(portal: Portal) -> None:
    taken = await portal.make("site", name="office")
    refused = await post(portal, "/sites", "k", {"site": {"name": "office"}})
    await portal.ask("DELETE", f"/sites/{taken['id']}", status=200)

    assert refused.status_code == 422
    assert (await post(portal, "/sites", "k", {"site": {"name": "office"}})).status_code == 201


async def test_a_key_whose_answer_was_lost_does_not_do_it_again(portal: Portal) -> None:
    body = {"site": {"name": "office"}}
    await post(portal, "/sites", "k", body)
    async with portal.db.unscoped_write() as session:
        await session.execute(text("UPDATE idempotency_keys SET answer = NULL, status = NULL"))

    again = await post(portal, "/sites", "k", body)

    assert (again.status_code, again.json()["code"]) == (409, "idempotency_in_progress")


async def test_a_key_is_forgotten_after_a_day(portal: Portal, clock: ManualClock) -> None:
    await post(portal, "/groups", "k", {"group": {"name": "one"}})
    clock.advance(24 * 3600 + 1)

    assert (await post(portal, "/groups", "k", {"group": {"name": "two"}})).status_code == 201


async def test_keys_that_are_over_are_removed(portal: Portal, clock: ManualClock) -> None:
    await post(portal, "/groups", "k", {"group": {"name": "one"}})

    for hours, left in ((23, 1), (24, 0)):
        await remove_tokens(portal.db, clock.utc_now() + timedelta(hours=hours))
        async with portal.db.unscoped() as session:
            assert await session.scalar(select(func.count()).select_from(IdempotencyKey)) == left


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
async def test_what_is_no_key_is_refused(portal: Portal, key: str) -> None:
    answer = await post(portal, "/groups", key, {"group": {"name": "one"}})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")


async def test_a_kept_answer_is_sealed(portal: Portal) -> None:
    site = await portal.make("site", name="office")
    token = (await post(portal, f"/sites/{site['id']}/gateways", "k")).json()["data"]["token"]

    async with portal.db.unscoped() as session:
        [row] = (await session.scalars(select(IdempotencyKey))).all()
    assert row.answer
    assert token.encode() not in row.answer


async def test_keys_of_an_account_are_bounded(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MAX_KEYS", 3)
    monkeypatch.setattr(idempotency, "_DROPPED_AT_ONCE", 1)
    for number in range(6):
        await post(portal, "/groups", f"k{number}", {"group": {"name": f"group {number}"}})

    async with portal.db.unscoped() as session:
        assert await session.scalar(select(func.count()).select_from(IdempotencyKey)) == 3


@pytest.fixture
def database_url(database_path: Path) -> str:
    return f"sqlite:///{database_path}"


async def post(portal: Portal, path: str, key: str, body: Any = None, token: str | None = None) -> httpx.Response:
    async with portal.client(token) as client:
        return await client.post(path, json=body, headers={"Idempotency-Key": key})
