"""Uploads of flow logs: limits, tokens, what is stored, and how it is shown."""

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import select

from tests.unit.portal.api.conftest import Portal
from tests.unit.portal.domain.test_flow_records import CLOSE, OPEN, OUTER
from tests.unit.portal.helpers import ManualClock
from wardgate.portal.api.ingestion import MAX_BODY, Ingestion
from wardgate.portal.db.log_tables import FlowLog
from wardgate.portal.db.sealing import unseal
from wardgate.portal.db.tables import Account
from wardgate.portal.services.log_objects import iso_utc
from wardgate.wire.portal_secrets import sign_jwt

GRANT = str(uuid4())


async def token_of(
    portal: Portal, clock: ManualClock, slug: str = "corp", key: bytes | None = None, **change: Any
) -> str:
    async with portal.db.unscoped() as session:
        account = (await session.scalars(select(Account).where(Account.slug == slug))).one()
    now = clock.utc_now()
    claims = {
        "account_id": account.id,
        "role": "initiator",
        "uploads_enabled": True,
        "initiator_device_id": str(uuid4()),
        "responder_device_id": str(uuid4()),
        "policy_authorization_id": GRANT,
        "policy_id": str(uuid4()),
        "resource_id": str(uuid4()),
        "resource_name": "Wiki",
        "resource_address": "wiki.corp.example",
        "initiator_actor_id": str(uuid4()),
        "initiator_actor_name": "Mia Berg",
        "initiator_actor_email": "mia@corp.example",
        "initiator_device_os_name": "Debian",
        "authorized_at": iso_utc(now),
        "authorization_expires_at": iso_utc(now + timedelta(hours=1)),
        "iat": int(now.timestamp()),
        "exp": int(now.timestamp()) + 3600 + 30 * 86400,
        **change,
    }
    return sign_jwt(
        {name: value for name, value in claims.items() if value is not None},
        key or unseal(portal.db.keyring, account, "ingest_signing_key"),
    )


async def upload(portal: Portal, token: str, *records: Any, body: Any = None, status: int = 200) -> Any:
    portal.app.state.ingestion._buckets.clear()
    async with portal.client(token) as client:
        content = json.dumps({"flow_logs": records}) if body is None else body
        response = await client.post("/ingestion/flow_logs", content=content)
    assert response.status_code == status, response.text
    if status >= 400:
        assert response.headers["content-type"] == "application/problem+json"
    return response.json()


async def flows(portal: Portal, query: str = "") -> list[Any]:
    until = "" if "end=" in query else "&end=2026-11-24T00:00:00Z"
    return list((await portal.ask("GET", f"/logs?type=flow{query}{until}", status=200))["data"])


async def test_a_flow_is_opened_and_closed(portal: Portal, clock: ManualClock) -> None:
    token = await token_of(portal, clock)
    answer = await upload(portal, token, {**OPEN, "domain": "wiki.corp.example", "outers": [OUTER]})
    assert answer == {"data": {"status": "ok"}}
    opened = (await flows(portal))[0]
    clock.advance(60)
    await upload(portal, token, CLOSE)
    closed = (await flows(portal))[0]

    assert opened["flow_end"] is opened["outers"] is opened["rx_bytes"] is None
    assert opened["timestamp"] == closed["timestamp"] == "2026-11-23T12:00:00.000000Z"
    assert opened["log_id"] == closed["log_id"]
    assert closed["flow_end"] == "2026-11-23T12:00:05.000000Z"
    assert closed["inner_domain"] == "wiki.corp.example"
    assert (closed["initiator_actor_email"], closed["resource_name"]) == ("mia@corp.example", "Wiki")
    assert closed["outers"][0]["dst_port"] == 51820
    assert (closed["role"], closed["rx_packets"], closed["tx_bytes"]) == ("initiator", 1, 2**63 - 1)
    async with portal.db.unscoped() as session:
        row = (await session.scalars(select(FlowLog))).one()
    assert row.start_seq < row.seq


async def test_a_repeated_open_and_anything_after_the_close_is_ignored(portal: Portal, clock: ManualClock) -> None:
    token = await token_of(portal, clock)
    await upload(portal, token, CLOSE)
    before = await flows(portal)
    clock.advance(60)
    await upload(portal, token, {**CLOSE, "rx_packets": 77})
    await upload(portal, token, OPEN)

    assert await flows(portal) == before
    async with portal.db.unscoped() as session:
        row = (await session.scalars(select(FlowLog))).one()
    assert row.start_seq == row.seq


async def test_both_sides_report_the_same_flow_under_their_own_role(portal: Portal, clock: ManualClock) -> None:
    same: dict[str, Any] = {"initiator_device_id": str(uuid4()), "resource_id": str(uuid4())}
    for role in ("initiator", "responder"):
        await upload(portal, await token_of(portal, clock, role=role, **same), OPEN)

    assert sorted(one["role"] for one in await flows(portal)) == ["initiator", "responder"]


async def test_claims_of_the_token_decide_whose_flow_it_is_whatever_the_body_says(
    portal: Portal, clock: ManualClock
) -> None:
    token = await token_of(portal, clock)
    lies = {"role": "responder", "resource_name": "Payments", "account_id": str(uuid4())}
    await upload(portal, token, {**OPEN, **lies, "policy_authorization_id": GRANT.upper()})

    row = (await flows(portal))[0]
    assert (row["role"], row["resource_name"]) == ("initiator", "Wiki")
    assert await portal.ask("GET", "/logs?type=flow", status=200, token=portal.other_token) == {
        "data": [],
        "metadata": {"count": 0, "limit": 50, "next_page": None, "prev_page": None},
    }


@pytest.mark.parametrize(
    "change",
    [
        {"uploads_enabled": False},
        {"exp": 1_000_000},
        {"role": "observer"},
        {"account_id": str(uuid4())},
        {"account_id": "nobody"},
        {"policy_id": "no-uuid"},
        {"initiator_actor_id": None},
        {"authorized_at": "yesterday"},
        {"authorized_at": "2026-11-23T12:00:00"},
        {"key": bytes(32)},
    ],
)
async def test_a_token_that_is_not_good_is_refused(portal: Portal, clock: ManualClock, change: dict[str, Any]) -> None:
    await upload(portal, await token_of(portal, clock, **change), OPEN, status=401)

    assert await flows(portal) == []


@pytest.mark.parametrize("token", ["", "a.b.c", "....", "é", ".wga_" + "A" * 40])
async def test_what_is_no_flow_log_token_is_refused(portal: Portal, token: str) -> None:
    async with portal.client() as client:
        headers = {"Authorization": f"Bearer {token}".encode()}
        response = await client.post("/ingestion/flow_logs", json={"flow_logs": []}, headers=headers)  # type: ignore[arg-type]
    assert response.status_code == 401


async def test_unknown_accounts_look_like_bad_signatures(portal: Portal, clock: ManualClock) -> None:
    one = await upload(portal, await token_of(portal, clock, account_id=str(uuid4())), OPEN, status=401)
    other = await upload(portal, await token_of(portal, clock, key=b"k" * 32), OPEN, status=401)

    assert one == other


async def test_shape_and_number_are_checked_before_the_token(portal: Portal) -> None:
    await upload(portal, "nonsense", body="{}", status=400)
    await upload(portal, "nonsense", body="nonsense", status=400)
    await upload(portal, "nonsense", *[{}] * 10_001, status=400)
    await upload(portal, "nonsense", *[{}] * 10_000, status=401)


async def test_nothing_is_fine(portal: Portal, clock: ManualClock) -> None:
    assert await upload(portal, await token_of(portal, clock)) == {"data": {"status": "ok"}}


async def test_another_grants_record_stores_nothing(portal: Portal, clock: ManualClock) -> None:
    foreign = {**OPEN, "inner_src_port": 2, "policy_authorization_id": str(uuid4())}
    await upload(portal, await token_of(portal, clock), OPEN, foreign, status=422)

    assert await flows(portal) == []


async def test_the_acceptable_records_of_an_upload_are_kept(portal: Portal, clock: ManualClock) -> None:
    token = await token_of(portal, clock)
    answer = await upload(portal, token, {**OPEN, "protocol": "icmp"}, CLOSE, status=422)

    assert answer["validation_errors"] == {"0": {"protocol": ["must be one of tcp, udp"]}}
    assert len(await flows(portal)) == 1


async def test_one_address_uploads_once_a_second(portal: Portal, clock: ManualClock) -> None:
    async def ask(address: str) -> httpx.Response:
        transport = httpx.ASGITransport(portal.app, client=(address, 4000))
        async with httpx.AsyncClient(transport=transport, base_url="http://portal") as client:
            return await client.post("/ingestion/flow_logs", json={"flow_logs": []})

    assert (await ask("192.0.2.1")).status_code == 401
    refused = await ask("192.0.2.1")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert (await ask("192.0.2.2")).status_code == 401
    clock.advance(1)
    assert (await ask("192.0.2.1")).status_code == 401


async def test_a_body_is_not_read_further_than_it_may_be(portal: Portal, clock: ManualClock) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while True:
            sent += 1_000_000
            yield b" " * 1_000_000

    await upload(portal, await token_of(portal, clock), body=endless(), status=413)
    assert sent <= MAX_BODY + 2_000_000
    await upload(portal, "t", body=b" " * (MAX_BODY + 1), status=413)
    await upload(portal, "t", body=b" " * MAX_BODY, status=400)
    assert portal.app.state.ingestion._held == 0


async def test_outcomes_are_counted(portal: Portal, clock: ManualClock) -> None:
    seen: list[str] = []
    portal.app.state.ingestion = Ingestion(clock, count=seen.append)
    await upload(portal, await token_of(portal, clock), OPEN)
    await upload(portal, "t", OPEN, status=401)
    await upload(portal, "t", body="{}", status=400)

    assert seen == ["200", "401", "400"]


async def test_flows_are_found_if_they_overlap_the_window(portal: Portal, clock: ManualClock) -> None:
    token = await token_of(portal, clock)
    still_open = {**OPEN, "inner_src_port": 1, "flow_start": "2026-11-20T00:00:00Z"}
    await upload(portal, token, CLOSE, still_open)

    async def ports(query: str) -> list[int]:
        return [one["inner_src_port"] for one in await flows(portal, query)]

    assert await ports("") == [50000, 1]
    assert await ports("&begin=2026-11-23T12:00:02Z&end=2026-11-23T12:00:03Z") == [50000, 1]
    assert await ports("&begin=2026-11-23T12:00:06Z&end=2026-11-23T12:00:07Z") == [1]
    assert await ports("&end=2026-11-19T00:00:00Z") == []
    assert await ports("&actor_email=mia@corp.example") == [50000, 1]
    assert await ports(f"&actor_id={uuid4()}") == []
    log_id = (await flows(portal))[0]["log_id"]
    assert log_id.startswith("f")
    assert (await portal.ask("GET", f"/logs/{log_id}", status=200))["data"]["inner_src_port"] == 50000


async def test_the_ingestion_is_no_part_of_the_public_document(portal: Portal) -> None:
    document = await portal.ask("GET", "/openapi.json", status=200)

    assert not [path for path in document["paths"] if "ingestion" in path]
