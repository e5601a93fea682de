"""The REST door: what every route has in common, then each noun."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.unit.portal.api.conftest import Portal
from wardgate.portal.api.context import ApiLimits

# --- what all routes share ---


async def test_without_a_living_token_there_is_no_answer(portal: Portal) -> None:
    problem = await portal.ask("GET", "/sites", status=401, token="nonsense")

    assert problem["title"] == "Unauthorized"
    assert problem["status"] == 401


async def test_too_many_requests_are_told_when_to_come_back(portal: Portal) -> None:
    portal.app.state.api.limits = ApiLimits(refill_rate=0.001, capacity=20)

    async with portal.client() as client:
        statuses = [(await client.get("/sites")).status_code for _ in range(3)]
        refused = await client.get("/sites")

    assert statuses == [200, 200, 429]
    assert int(refused.headers["retry-after"]) > 1


async def test_another_accounts_row_does_not_exist(portal: Portal) -> None:
    site = await portal.make("site", name="office")

    await portal.ask("GET", f"/sites/{site['id']}", status=404, token=portal.other_token)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/sites/not-an-id", None, 400),
        ("GET", "/sites?limit=many", None, 400),
        ("GET", "/sites?page_cursor=%F0%9F%98%80", None, 400),
        ("GET", "/resources?type=internet", None, 400),
        ("POST", "/sites", {"name": "without its wrapper"}, 400),
        ("POST", "/sites", {"site": {"name": ""}}, 422),
        ("POST", "/sites", {"site": {"name": ["a", "list"]}}, 422),
        ("GET", "/nowhere", None, 404),
        ("GET", "/sites/6f0a3c1e-93a5-4f1c-8d0e-1c5b9a1f7e42", None, 404),
        ("DELETE", "/sites", None, 405),
    ],
)
async def test_every_error_is_a_problem(portal: Portal, method: str, path: str, body: Any, status: int) -> None:
    problem = await portal.ask(method, path, body, status=status)

    assert problem["status"] == status
    assert problem["type"] == "about:blank"
    assert problem["detail"]
    assert ("validation_errors" in problem) == (status == 422)


async def test_lists_come_in_pages_that_can_be_walked_both_ways(portal: Portal) -> None:
    names = [f"site {number}" for number in range(5)]
    for name in names:
        await portal.make("site", name=name)

    first = await portal.ask("GET", "/sites?limit=4", status=200)
    second = await portal.ask("GET", f"/sites?limit=4&page_cursor={first['metadata']['next_page']}", status=200)
    back = await portal.ask("GET", f"/sites?limit=4&page_cursor={second['metadata']['prev_page']}", status=200)

    assert [row["name"] for row in first["data"] + second["data"]] == ["Internet", *names]
    assert first["metadata"]["count"] == 6
    assert first["metadata"]["prev_page"] is None
    assert second["metadata"]["next_page"] is None
    assert back["data"] == first["data"]


async def test_answers_carry_a_request_id(portal: Portal) -> None:
    mine = "a-request-id-of-my-own-choice"
    async with portal.client() as client:
        kept = await client.get("/sites", headers={"x-request-id": mine})
        made = await client.get("/sites", headers={"x-request-id": "short"})

    assert kept.headers["x-request-id"] == mine
    assert len(made.headers["x-request-id"]) == 36


async def test_the_openapi_document_names_every_noun(portal: Portal) -> None:
    document = await portal.ask("GET", "/openapi.json", status=200)

    nouns = {path.split("/")[1] for path in document["paths"]}
    why = {"explain", "preview", "policy_tests", "reach"}
    assert nouns >= {"account", "actors", "groups", "sites", "resources", "policies", "clients"} | why
    assert len(nouns) == 25


async def test_using_a_token_is_noted(portal: Portal) -> None:
    await portal.ask("GET", "/account", status=200)

    actors = await portal.ask("GET", "/actors?type=api_client", status=200)
    assert actors["data"][0]["name"] == "robot"


# --- nouns ---


async def test_the_account_is_that_of_the_token(portal: Portal) -> None:
    assert (await portal.ask("GET", "/account", status=200))["data"]["slug"] == "corp"


async def test_a_created_thing_is_found_where_the_answer_says(portal: Portal) -> None:
    async with portal.client() as client:
        created = await client.post("/sites", json={"site": {"name": "  office "}})
        found = await client.get(created.headers["location"])

    assert found.json() == created.json()
    assert found.json()["data"]["name"] == "office"


async def test_a_taken_name_is_refused_by_field(portal: Portal) -> None:
    await portal.make("site", name="office")

    problem = await portal.ask("POST", "/sites", {"site": {"name": "office"}}, status=422)

    assert list(problem["validation_errors"]) == ["name"]


async def test_the_system_site_cannot_be_deleted(portal: Portal) -> None:
    system = (await portal.ask("GET", "/sites?name=Internet", status=200))["data"][0]

    await portal.ask("DELETE", f"/sites/{system['id']}", status=403)


async def test_a_provisioned_gateway_has_one_token_until_it_is_rotated(portal: Portal) -> None:
    site = await portal.make("site", name="office")
    path = f"/sites/{site['id']}/gateways"
    gateway = (await portal.ask("POST", path, status=201))["data"]

    await portal.ask("POST", f"{path}/{gateway['id']}/token", status=409)
    rotated = (await portal.ask("POST", f"{path}/{gateway['id']}/token/rotate", status=201))["data"]

    assert gateway["token"] != rotated["token"]
    assert gateway["online"] is False
    assert len(gateway["name"]) == 5


async def test_gateways_show_who_is_online(portal: Portal) -> None:
    site = await portal.make("site", name="office")
    path = f"/sites/{site['id']}/gateways"
    gateway = (await portal.ask("POST", path, {"gateway": {"name": "one"}}, status=201))["data"]

    portal.online.connect_gateway(site["id"], gateway["id"])

    assert (await portal.ask("GET", path, status=200))["data"][0]["online"] is True


async def test_a_gateway_is_not_found_under_another_site(portal: Portal) -> None:
    office, lab = await portal.make("site", name="office"), await portal.make("site", name="lab")
    gateway = (await portal.ask("POST", f"/sites/{office['id']}/gateways", status=201))["data"]

    await portal.ask("GET", f"/sites/{lab['id']}/gateways/{gateway['id']}", status=404)


async def test_site_tokens_are_made_and_revoked(portal: Portal) -> None:
    site = await portal.make("site", name="office")
    path = f"/sites/{site['id']}/gateway_tokens"
    first = (await portal.ask("POST", path, status=201))["data"]
    await portal.ask("POST", path, status=201)

    assert await portal.ask("DELETE", f"{path}/{first['id']}", status=200) == {"data": {"id": first["id"]}}
    assert await portal.ask("DELETE", path, status=200) == {"data": {"deleted_count": 1}}


async def test_members_change_by_difference(portal: Portal) -> None:
    group = await portal.make("group", name="engineering")
    mia, ben = [(await person(portal, name))["id"] for name in ("mia", "ben")]
    path = f"/groups/{group['id']}/memberships"

    await portal.ask("PUT", path, {"memberships": [{"actor_id": mia}]}, status=200)
    both = await portal.ask("PATCH", path, {"memberships": {"add": [ben], "remove": []}}, status=200)
    left = await portal.ask("PATCH", path, {"memberships": {"remove": [mia, str(uuid4())]}}, status=200)

    assert both["data"]["actor_ids"] == sorted([mia, ben])
    assert left["data"]["actor_ids"] == [ben]
    assert [row["name"] for row in (await portal.ask("GET", path, status=200))["data"]] == ["ben"]
    unknown = await portal.ask("PUT", path, {"memberships": [{"actor_id": str(uuid4())}]}, status=422)
    assert list(unknown["validation_errors"]) == ["memberships"]


async def test_everyone_is_not_shown(portal: Portal) -> None:
    assert (await portal.ask("GET", "/groups", status=200))["data"] == []


async def test_client_tokens_are_for_service_accounts(portal: Portal) -> None:
    mia = await person(portal, "mia")
    robot = await portal.make("actor", name="backup", type="service_account")
    body = {"client_token": {"expires_at": "2099-01-01T00:00:00Z"}}

    await portal.ask("POST", f"/actors/{mia['id']}/client_tokens", body, status=400)
    token = (await portal.ask("POST", f"/actors/{robot['id']}/client_tokens", body, status=201))["data"]

    assert token["token"].startswith(".")
    listed = (await portal.ask("GET", f"/actors/{robot['id']}/client_tokens", status=200))["data"]
    assert [row["id"] for row in listed] == [token["id"]]
    assert "token" not in listed[0]
    await portal.ask("DELETE", f"/actors/{robot['id']}/client_tokens/{token['id']}", status=200)


async def test_the_last_admin_stays(portal: Portal) -> None:
    admin = await portal.make("actor", name="root", type="account_admin_user", email="root@corp.example")

    await portal.ask("DELETE", f"/actors/{admin['id']}", status=409)
    await portal.ask("PATCH", f"/actors/{admin['id']}", {"actor": {"is_disabled": True}}, status=409)


async def test_a_reversed_port_range_is_refused(portal: Portal) -> None:
    site = await portal.make("site", name="office")
    resource = dns_resource(site) | {"filters": [{"protocol": "tcp", "ports": ["90 - 80"]}]}

    problem = await portal.ask("POST", "/resources", {"resource": resource}, status=422)

    assert "filters" in problem["validation_errors"]


async def test_a_resource_keeps_what_an_update_does_not_name(portal: Portal) -> None:
    site = await portal.make("site", name="office")
    made = await portal.make("resource", **dns_resource(site))

    changed = await portal.ask("PATCH", f"/resources/{made['id']}", {"resource": {"name": "Wiki 2"}}, status=200)

    assert changed["data"] == {**made, "name": "Wiki 2"}
    assert made["filters"] == [{"protocol": "tcp", "ports": ["443"]}]
    assert made["site_id"] == site["id"]


async def test_one_policy_for_each_group_and_resource(portal: Portal) -> None:
    site, group = await portal.make("site", name="office"), await portal.make("group", name="engineering")
    resource = await portal.make("resource", **dns_resource(site))
    pair = {"group_id": group["id"], "resource_id": resource["id"]}
    policy = await portal.make("policy", **pair)

    await portal.ask("POST", "/policies", {"policy": pair}, status=422)
    disabled = await portal.ask("PATCH", f"/policies/{policy['id']}", {"policy": {"is_disabled": True}}, status=200)
    listed = await portal.ask("GET", f"/policies?group_id={group['id']}", status=200)

    assert disabled["data"]["is_disabled"] is True
    assert [row["id"] for row in listed["data"]] == [policy["id"]]
    await portal.ask("DELETE", f"/policies/{policy['id']}", status=200)


async def test_access_explains_itself(portal: Portal) -> None:
    site, group = await portal.make("site", name="office"), await portal.make("group", name="engineering")
    resource, mia = await portal.make("resource", **dns_resource(site)), await person(portal, "mia")

    assert await why(portal, mia, resource) == (False, ["no_policy", "site_offline"])

    await portal.make("policy", group_id=group["id"], resource_id=resource["id"])
    portal.online.connect_gateway(site["id"], str(uuid4()))
    assert await why(portal, mia, resource) == (False, ["not_in_group"])

    members = {"memberships": {"add": [mia["id"]]}}
    await portal.ask("PATCH", f"/groups/{group['id']}/memberships", members, status=200)
    assert await why(portal, mia, resource) == (True, ["allowed"])


async def why(portal: Portal, actor: Any, resource: Any) -> tuple[bool, list[str]]:
    path = f"/explain?actor_id={actor['id']}&resource_id={resource['id']}"
    answer = (await portal.ask("GET", path, status=200))["data"]
    assert all(reason["text"] for reason in answer["reasons"])
    return answer["allowed"], [reason["code"] for reason in answer["reasons"]]


async def person(portal: Portal, name: str) -> Any:
    return await portal.make("actor", name=name, type="account_user", email=f"{name}@corp.example")


def dns_resource(site: Any) -> dict[str, Any]:
    filters = [{"protocol": "tcp", "ports": ["443"]}]
    return {"name": "Wiki", "type": "dns", "address": "wiki.corp.example", "site_id": site["id"], "filters": filters}


async def test_the_same_request_twice_at_once_is_carried_out_once(portal: Portal) -> None:
    async def send() -> int:
        async with portal.client() as client:
            headers = {"Idempotency-Key": "k"}
            return (await client.post("/sites", json={"site": {"name": "office"}}, headers=headers)).status_code

    statuses = sorted(await asyncio.gather(*(send() for _ in range(4))))

    assert statuses[0] == 201
    assert set(statuses) <= {201, 409}
    assert await send() == 201
    assert (await portal.ask("GET", "/sites?name=office", status=200))["metadata"]["count"] == 1


async def test_lists_are_filtered_sorted_and_searched_alike_on_every_database(portal: Portal) -> None:
    site = await portal.make("site", name="office")
    for name in ("b", "a", "C_c"):
        await portal.ask("POST", f"/sites/{site['id']}/gateways", {"gateway": {"name": name}}, status=201)
    path = f"/sites/{site['id']}/gateways"
    [one] = (await portal.ask("GET", f"{path}?name=a", status=200))["data"]

    for query, count in (
        (f"ipv4={one['ipv4']}", 1),
        (f"ipv6={one['ipv6']}", 1),
        ("search=C", 1),
        ("search=_", 1),
        ("sort=-name&limit=2", 3),
    ):
        assert (await portal.ask("GET", f"{path}?{query}", status=200))["metadata"]["count"] == count
    first = await portal.ask("GET", f"{path}?sort=name&limit=2", status=200)
    second = await portal.ask(
        "GET", f"{path}?sort=name&limit=2&page_cursor={first['metadata']['next_page']}", status=200
    )
    assert sorted(row["name"] for row in first["data"] + second["data"]) == ["C_c", "a", "b"]
