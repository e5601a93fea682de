"""What every request meets before a route, in the order of the original, and what every answer carries."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.unit.portal.api.conftest import Portal
from wardgate.ids import AccountId, DeviceId
from wardgate.portal.api.app import mount
from wardgate.portal.api.context import ApiContext, ApiLimits
from wardgate.portal.api.front import MAX_BODY, MAX_BODY_OF_STRANGERS
from wardgate.portal.api.problems import MEDIA_TYPE

NOBODY = "6f0a3c1e-93a5-4f1c-8d0e-1c5b9a1f7e42"
DEEP = b"[" * 100_000


@pytest.fixture
def database_url(database_path: Path) -> str:
    return f"sqlite:///{database_path}"


async def send(portal: Portal, method: str, path: str, token: str | None = None, **arguments: Any) -> httpx.Response:
    async with portal.client(token) as client:
        return await client.request(method, path, **arguments)


@pytest.mark.parametrize(
    ("method", "path", "arguments", "status", "code"),
    [
        ("GET", "/nowhere", {}, 404, "no_such_route"),
        ("GET", "/sites/a/b/c/d", {}, 404, "no_such_route"),
        ("DELETE", "/sites", {}, 405, "method_not_allowed"),
        ("TRACE", "/sites", {}, 405, "method_not_allowed"),
        ("POST", "/sites", {"content": b"{"}, 400, "unreadable_body"),
        ("POST", "/sites", {"content": b'{"site": {"name": NaN}}'}, 400, "unreadable_body"),
        ("POST", "/sites", {"content": b'{"site": {"name": "\\ud800"}}'}, 400, "unreadable_body"),
        ("POST", "/sites", {"content": DEEP}, 400, "unreadable_body"),
        ("POST", "/sites", {"content": b"\xff\xfe"}, 400, "unreadable_body"),
        ("POST", "/sites", {"json": []}, 400, "malformed_request"),
        ("POST", "/sites", {"json": "site"}, 400, "malformed_request"),
        ("POST", "/sites", {"json": {}}, 400, "malformed_request"),
        ("POST", "/sites", {"json": {"site": "office"}}, 400, "malformed_request"),
        ("POST", "/sites", {}, 400, "malformed_request"),
        ("POST", "/sites", {"json": {"site": {"name": "a\x00b"}}}, 422, "validation_failed"),
        ("GET", "/sites?name=a%00b", {}, 400, "invalid_parameter"),
        ("GET", "/sites/a%00b", {}, 400, "invalid_id"),
        ("GET", f"/sites/{NOBODY.replace('-', '')}", {}, 400, "invalid_id"),
        ("GET", f"/sites/{NOBODY}", {}, 404, "not_found"),
        ("GET", "/sites?limit=many", {}, 400, "invalid_parameter"),
        ("GET", "/sites?sort=colour", {}, 400, "invalid_parameter"),
        ("GET", "/sites?page_cursor=nonsense", {}, 400, "invalid_cursor"),
        ("GET", "/groups?directory_id=nonsense", {}, 400, "invalid_parameter"),
        ("GET", "/resources?type=dynamic_device_pool", {}, 400, "invalid_parameter"),
        ("GET", "/sites", {"headers": {"Accept": "text/html"}}, 406, "not_acceptable"),
        ("GET", "/sites", {"headers": {"Accept": "application/json;q=0"}}, 406, "not_acceptable"),
        ("POST", "/sites", {"data": {"site": "x"}}, 415, "unsupported_media_type"),
        (
            "POST",
            "/sites",
            {"content": b"{}", "headers": {"Content-Type": "application/json; charset=latin1"}},
            415,
            "unsupported_media_type",
        ),
        ("POST", "/sites", {"content": b" " * (MAX_BODY + 1)}, 413, "body_too_large"),
    ],
)
async def test_every_refusal_is_a_problem_with_a_code(
    portal: Portal, method: str, path: str, arguments: dict[str, Any], status: int, code: str
) -> None:
    answer = await send(portal, method, path, **arguments)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code)
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert {"type", "title", "status", "detail"} <= set(problem)
    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert len(answer.headers["x-request-id"]) == 36


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"content": b"{", "headers": {"Accept": "text/html"}}, 400),
        ({"json": {}, "headers": {"Accept": "text/html"}}, 406),
        ({"json": {}}, 401),
    ],
)
async def test_a_body_is_parsed_before_media_types_and_these_are_looked_at_before_the_token(
    portal: Portal, arguments: dict[str, Any], status: int
) -> None:
    assert (await send(portal, "POST", "/sites/not-an-id/gateways", "nonsense", **arguments)).status_code == status


async def test_a_token_is_asked_for_before_ids_are_looked_at_and_the_rate_before_them(portal: Portal) -> None:
    assert (await send(portal, "GET", "/sites/not-an-id", "nonsense")).status_code == 401
    portal.app.state.api.limits = ApiLimits(refill_rate=0.001, capacity=10)

    assert (await send(portal, "GET", "/sites/not-an-id")).status_code == 400
    assert (await send(portal, "GET", "/sites/not-an-id")).status_code == 429


async def test_of_a_strangers_body_little_is_read(portal: Portal) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 16384
            yield b" " * 16384

    transport = httpx.ASGITransport(portal.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://portal") as client:
        answer = await client.post("/sites", content=endless())

    assert answer.status_code == 413
    assert read <= MAX_BODY_OF_STRANGERS + 2 * 16384


@pytest.mark.parametrize("accept", ["application/json", "*/*", "application/*", "text/html, */*;q=0.1", ""])
async def test_whoever_takes_json_gets_it(portal: Portal, accept: str) -> None:
    assert (await send(portal, "GET", "/account", headers={"Accept": accept})).status_code == 200


async def test_a_body_without_a_type_is_json(portal: Portal) -> None:
    answer = await send(portal, "POST", "/sites", content=b'{"site": {"name": "office", "colour": "red"}}')

    assert answer.status_code == 201


async def test_head_answers_as_get_without_a_body(portal: Portal) -> None:
    answer = await send(portal, "HEAD", "/account")

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["etag"] == (await send(portal, "GET", "/account")).headers["etag"]


async def test_a_wrong_method_is_told_which_there_are(portal: Portal) -> None:
    answer = await send(portal, "DELETE", "/sites")

    assert answer.headers["allow"] == "GET, HEAD, POST"


async def test_every_answer_says_what_is_left_of_the_rate(portal: Portal) -> None:
    portal.app.state.api.limits = ApiLimits(refill_rate=10, capacity=200)

    answers = [await send(portal, "GET", path) for path in ("/sites", "/sites/not-an-id", f"/sites/{NOBODY}")]

    assert [one.headers["ratelimit-remaining"] for one in answers] == ["19", "18", "17"]
    assert {one.headers["ratelimit-limit"] for one in answers} == {"20"}
    assert [one.headers["ratelimit-reset"] for one in answers] == ["1", "2", "3"]


async def test_an_error_that_nobody_foresaw_is_a_problem_that_keeps_its_reason_to_itself(portal: Portal) -> None:
    def fail(account_id: AccountId, device_id: DeviceId) -> bool:
        raise RuntimeError("the reason")

    portal.online.is_online = fail  # type: ignore[method-assign]
    site = await portal.make("site", name="office")
    answer = await send(portal, "POST", f"/sites/{site['id']}/gateways")

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "the reason" not in answer.text
    assert answer.headers["x-request-id"]
    assert (await portal.ask("GET", "/sites?name=office", status=200))["metadata"]["count"] == 1


async def test_a_request_id_is_kept_if_it_is_plain_text_of_20_to_200_characters(portal: Portal) -> None:
    for given, is_kept in (("x" * 20, True), ("x" * 200, True), ("x" * 19, False), ("x" * 201, False)):
        answer = await send(portal, "GET", "/account", headers={"x-request-id": given})
        assert (answer.headers["x-request-id"] == given) is is_kept


async def test_requests_under_another_host_name_are_sent_to_the_apis_own(portal: Portal) -> None:
    app = FastAPI()
    mount(app, ApiContext(portal.db, portal.app.state.api.clock, portal.online), "https://api.corp.example")
    elsewhere = Portal(app, portal.db, portal.online, portal.token, portal.other_token)

    sent_on = await send(elsewhere, "POST", "/sites?x=%20y", json={"site": {}})
    passed = await send(elsewhere, "GET", "/account", headers={"Host": "API.corp.example:8443"})
    health = await send(elsewhere, "GET", "/healthz")

    assert sent_on.status_code == 308
    assert sent_on.headers["location"] == "https://api.corp.example/sites?x=%20y"
    assert passed.status_code == 200
    assert health.status_code == 404  # not sent on: this application has none


async def test_the_documents_are_public(portal: Portal) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(portal.app), base_url="http://portal") as client:
        moved, page = await client.get("/openapi"), await client.get("/swaggerui")
        document = (await client.get("/openapi.json")).json()

    assert (moved.status_code, moved.headers["location"]) == (308, "/openapi.json")
    assert "/external_identities/" in page.text
    assert "<script" not in page.text
    assert document["openapi"] == "3.1.0"
