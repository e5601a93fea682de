"""The change, session and API request logs, as rows and through `GET /logs`."""

from typing import Any

import pytest
from sqlalchemy import select

from tests.unit.portal.api.conftest import Portal
from tests.unit.portal.helpers import ManualClock
from wardgate.ids import AccountId
from wardgate.portal.db.engine import Database
from wardgate.portal.db.log_tables import ApiRequestLog
from wardgate.portal.db.tables import Account, ChangeLog
from wardgate.portal.domain import log_ids
from wardgate.portal.domain.subjects import Location, system
from wardgate.portal.services import sites

SUBJECT_KEYS = {
    "actor_id",
    "actor_name",
    "actor_email",
    "actor_type",
    "auth_provider_id",
    "ip",
    "ip_region",
    "ip_city",
    "ip_lat",
    "ip_lon",
    "user_agent",
}


async def changes_of(db: Database, slug: str) -> list[ChangeLog]:
    async with db.unscoped() as session:
        account = (await session.scalars(select(Account).where(Account.slug == slug))).one()
        query = select(ChangeLog).where(ChangeLog.account_id == account.id).order_by(ChangeLog.log_id)
        return list((await session.scalars(query)).all())


async def test_ids_of_changes_sort_as_they_were_committed_even_in_one_moment(portal: Portal) -> None:
    for number in range(20):
        await portal.make("site", name=f"site {number}")

    changes = [one for one in await changes_of(portal.db, "corp") if one.object == "sites" and one.after]

    names = [one.after["name"] for one in changes if one.after and one.after["name"].startswith("site ")]
    assert names == [f"site {number}" for number in range(20)]
    assert len({one.log_id for one in changes}) == len(changes)
    assert all(log_ids.stream_of(one.log_id) == "change" for one in changes)
    assert [one.seq for one in changes] == sorted({one.seq for one in changes})


async def test_a_change_names_exactly_who_made_it_and_from_where(portal: Portal) -> None:
    portal.app.state.api.trusted_location = lambda request: Location("AT", "Vienna", 48.2, 16.4)
    await portal.make("site", name="Graz")

    change = (await portal.ask("GET", "/logs?type=change&limit=1", status=200))["data"][0]

    assert set(change["subject"]) == SUBJECT_KEYS
    assert change["subject"]["actor_type"] == "api_client"
    assert change["subject"]["ip"] == "127.0.0.1"
    assert (change["subject"]["ip_region"], change["subject"]["ip_lat"]) == ("AT", 48.2)
    assert (change["object"], change["operation"], change["before"]) == ("sites", "insert", None)
    assert change["after"]["name"] == "Graz"


async def test_what_the_portal_does_by_itself_has_no_subject(portal: Portal) -> None:
    account_id = (await changes_of(portal.db, "corp"))[0].account_id
    async with portal.db.writing(system(AccountId(account_id))) as unit:
        await sites.create_site(unit, {"name": "Linz"})

    newest = (await portal.ask("GET", "/logs?type=change&limit=1", status=200))["data"][0]

    assert newest["after"]["name"] == "Linz"
    assert newest["subject"] is None


async def test_requests_are_logged_before_they_are_answered(portal: Portal) -> None:
    async with portal.client() as client:
        headers = {"x-request-id": "r" * 30, "user-agent": "terraform/1.9"}
        assert (await client.get("/sites/no-uuid", headers=headers)).status_code in (400, 404)

    rows = (await portal.ask("GET", "/logs?type=api_request", status=200))["data"]
    (row,) = [one for one in rows if one["path"] != "/logs"]

    assert (row["method"], row["path"], row["content_length"]) == ("GET", "/sites/no-uuid", None)
    assert (row["request_id"], row["user_agent"], row["ip"]) == ("r" * 30, "terraform/1.9", "127.0.0.1")
    assert row["log_id"].startswith("a")
    assert row["timestamp"] == "2026-11-23T12:00:00.000000Z"


async def test_rejected_requests_are_not_logged(portal: Portal) -> None:
    await portal.ask("GET", "/sites", status=401, token="nonsense")
    portal.app.state.api._buckets.clear()
    async with portal.db.unscoped_write() as session:
        account = (await session.scalars(select(Account).where(Account.slug == "corp"))).one()
        account.limits = {"api_refill_rate": 1, "api_capacity": 10}
    await portal.ask("GET", "/sites", status=200)
    await portal.ask("GET", "/sites", status=429)

    async with portal.db.unscoped() as session:
        assert [row.path for row in (await session.scalars(select(ApiRequestLog))).all()] == ["/sites"]


async def test_a_request_that_cannot_be_logged_fails(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    async with portal.db.unscoped_write() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("DROP TABLE api_request_logs")

    await portal.ask("POST", "/sites", {"site": {"name": "Graz"}}, status=500)

    assert "Graz" not in [
        one.after["name"] for one in await changes_of(portal.db, "corp") if one.object == "sites" and one.after
    ]


@pytest.mark.parametrize(
    "query",
    [
        "",
        "type=",
        "type=everything",
        "type=change&begin=yesterday",
        "type=change&begin=2026-11-23",
        "type=change&end=2026-11-23T12:00:00",
        "type=change&begin=0001-01-01T00:00:00%2B23:59",
        "type=change&begin=2026-13-01T00:00:00Z",
        "type=change&begin=2026-11-23T12:00:01Z&end=2026-11-23T12:00:00Z",
        "type=change&actor_id=mia",
        "type=api_request&actor_email=mia@corp.example",
        "type=change&page_cursor=nonsense",
        "type=change&limit=many",
    ],
)
async def test_unacceptable_queries_are_refused(portal: Portal, query: str) -> None:
    await portal.ask("GET", f"/logs?{query}", status=400)


async def test_logs_are_paged_both_ways(portal: Portal, clock: ManualClock) -> None:
    for number in range(5):
        await portal.make("site", name=f"site {number}")
        clock.advance(1)
    for kind in ("change", "api_request"):
        whole = (await portal.ask("GET", f"/logs?type={kind}&limit=100&end=2026-11-23T12:00:04Z", status=200))["data"]
        seen: list[Any] = []
        cursor, back = "", ""
        while True:
            path = f"/logs?type={kind}&limit=2&end=2026-11-23T12:00:04Z&page_cursor={cursor}"
            page = await portal.ask("GET", path, status=200)
            assert page["metadata"]["count"] == len(whole) > 4
            seen += page["data"]
            if page["metadata"]["next_page"] is None:
                back = page["metadata"]["prev_page"]
                break
            cursor = page["metadata"]["next_page"]
        assert [one["log_id"] for one in seen] == [one["log_id"] for one in whole]
        times = [one["timestamp"] for one in seen]
        assert times == sorted(times, reverse=True)
        path = f"/logs?type={kind}&limit=2&end=2026-11-23T12:00:04Z&page_cursor={back}"
        before = await portal.ask("GET", path, status=200)
        last = len(whole) - (len(whole) % 2 or 2)
        assert [one["log_id"] for one in before["data"]] == [one["log_id"] for one in whole[last - 2 : last]]


async def test_a_cursor_of_one_log_is_none_of_another(portal: Portal) -> None:
    for _ in range(3):
        await portal.ask("GET", "/sites", status=200)
    page = await portal.ask("GET", "/logs?type=api_request&limit=1", status=200)
    assert page["metadata"]["next_page"]
    await portal.ask("GET", f"/logs?type=change&page_cursor={page['metadata']['next_page']}", status=400)


async def test_logs_are_found_by_time_and_actor(portal: Portal, clock: ManualClock) -> None:
    await portal.make("site", name="early")
    clock.advance(3600)
    await portal.make("site", name="late")
    actor = (await portal.ask("GET", "/logs?type=change&limit=1", status=200))["data"][0]["subject"]["actor_id"]

    async def names(query: str) -> list[str]:
        found = (await portal.ask("GET", f"/logs?type=change&{query}", status=200))["data"]
        return [one["after"]["name"] for one in found if one["object"] == "sites" and one["subject"]]

    assert await names("") == ["late", "early"]
    assert await names("begin=2026-11-23T12:30:00Z") == ["late"]
    assert await names("end=2026-11-23T13:30:00%2B01:00") == ["early"]
    assert await names(f"actor_id={actor}") == ["late", "early"]
    assert await names("actor_id=00000000-0000-4000-8000-000000000000") == []
    assert await names("actor_email=nobody@corp.example") == []
    requests = await portal.ask("GET", f"/logs?type=api_request&actor_id={actor}", status=200)
    assert len(requests["data"]) == requests["metadata"]["count"] >= 8


async def test_a_log_is_read_by_its_id_in_either_case_and_by_its_account_alone(portal: Portal) -> None:
    await portal.make("site", name="Graz")
    change = (await portal.ask("GET", "/logs?type=change&limit=1", status=200))["data"][0]
    log_id = change["log_id"]

    assert (await portal.ask("GET", f"/logs/{log_id}", status=200))["data"] == change
    assert (await portal.ask("GET", f"/logs/{log_id.upper()}", status=200))["data"] == change
    await portal.ask("GET", f"/logs/{log_id}", status=404, token=portal.other_token)
    await portal.ask("GET", "/logs/" + "0" * 24, status=404)
    await portal.ask("GET", "/logs/" + "c" * 24, status=404)
    await portal.ask("GET", "/logs/c123", status=400)
