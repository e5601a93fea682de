"""Each noun's own rules: bodies, filters and answers as the original's API has them."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.unit.portal.api.conftest import Portal
from tests.unit.portal.api.things import make_providers, make_things
from wardgate.ids import AccountId
from wardgate.portal.db.accounts import find_account
from wardgate.portal.db.identity_tables import ExternalIdentity, FeatureFlag
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Device, GatewayToken
from wardgate.portal.domain.subjects import system
from wardgate.portal.services.accounts import set_features

FAR = "2099-01-01T00:00:00Z"


@pytest.fixture
def database_url(database_path: Path) -> str:
    return f"sqlite:///{database_path}"


@pytest.fixture
async def things(portal: Portal) -> dict[str, str]:
    return await make_things(portal)


async def corp(portal: Portal) -> Any:
    account = await find_account(portal.db, "corp")
    assert account is not None
    return account


async def changed(portal: Portal, change: Any) -> None:
    async with portal.db.writing(system(AccountId((await corp(portal)).id))) as unit:
        await change(unit)


# --- actors ---


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"name": "API", "type": "api_client"}, "type"),
        ({"name": "Mia", "type": "account_user"}, "email"),
        ({"name": "B", "type": "service_account", "email": "b@corp.example"}, "email"),
        ({"type": "service_account"}, "name"),
        ({"name": "B"}, "type"),
        ({"name": 5, "type": "service_account"}, "name"),
    ],
)
async def test_an_actor_that_cannot_be_is_refused_by_field(portal: Portal, body: Any, wrong: str) -> None:
    problem = await portal.ask("POST", "/actors", {"actor": body}, status=422)

    assert list(problem["validation_errors"]) == [wrong]
    [error] = problem["errors"]
    assert (error["field"], error["given"]) == (wrong, body.get(wrong))


async def test_an_api_client_cannot_lock_itself_out(portal: Portal) -> None:
    [me] = (await portal.ask("GET", "/actors?type=api_client", status=200))["data"]

    disabled = await portal.ask("PATCH", f"/actors/{me['id']}", {"actor": {"is_disabled": True}}, status=403)
    deleted = await portal.ask("DELETE", f"/actors/{me['id']}", status=403)

    assert [disabled["code"], deleted["code"]] == ["own_actor", "own_actor"]


async def test_an_answer_about_an_actor_has_the_originals_fields(portal: Portal) -> None:
    made = await portal.make("actor", name="Mia", type="account_user", email="mia@CORP.example")

    assert list(made) == [
        *("id", "name", "type", "email", "allow_email_otp_sign_in", "is_disabled", "last_seen_at"),
        *("created_by_directory_id", "inserted_at", "updated_at"),
    ]
    assert made["email"] == "mia@corp.example"
    assert len(made["inserted_at"]) == len("2026-11-23T12:00:00.000000Z")


async def test_a_full_plan_answers_403_with_the_kind(portal: Portal) -> None:
    async def limit(unit: UnitOfWork) -> None:
        await unit.update(await unit.account(), limits={"sites_count": 1, "users_count": 0})

    await changed(portal, limit)
    await portal.make("site", name="one")
    problem = await portal.ask("POST", "/sites", {"site": {"name": "two"}}, status=403)
    account = (await portal.ask("GET", "/account", status=200))["data"]

    assert (problem["code"], problem["limit"], problem["used"], problem["total"]) == ("limit_reached", "sites", 1, 1)
    assert account["limits"] == {
        "sites": {"used": 1, "available": 0, "total": 1},
        "users": {"used": 0, "available": 0, "total": 0},
    }


async def test_identities_show_what_the_issuer_calls_the_person(portal: Portal, things: dict[str, str]) -> None:
    path = f"/actors/{things['actor_id']}/external_identities"
    [shown] = (await portal.ask("GET", path, status=200))["data"]

    assert shown["email"] == f"oidc:{shown['idp_id']}"
    assert await portal.ask("GET", f"{path}/{things['identity_id']}", status=200) == {"data": shown}
    other = await portal.make("actor", name="Other", type="service_account")
    await portal.ask("GET", f"/actors/{other['id']}/external_identities/{things['identity_id']}", status=404)
    assert await portal.ask("DELETE", f"{path}/{things['identity_id']}", status=200) == {"data": shown}
    await portal.ask("GET", f"{path}/{things['identity_id']}", status=404)


async def test_a_new_address_drops_identities_through_the_api(portal: Portal) -> None:
    mia = await portal.make("actor", name="Mia", type="account_user", email="mia@corp.example")

    async def add(unit: UnitOfWork) -> None:
        row = {"account_id": unit.account_id, "actor_id": mia["id"], "issuer": "https://i", "idp_id": "m"}
        await unit.insert(ExternalIdentity(**row))

    await changed(portal, add)
    path = f"/actors/{mia['id']}"
    await portal.ask("PATCH", path, {"actor": {"email": "MIA@corp.example"}}, status=200)
    assert (await portal.ask("GET", f"{path}/external_identities", status=200))["metadata"]["count"] == 1
    await portal.ask("PUT", path, {"actor": {"email": "ben@corp.example"}}, status=200)
    assert (await portal.ask("GET", f"{path}/external_identities", status=200))["metadata"]["count"] == 0


@pytest.mark.parametrize(
    ("expires_at", "code"),
    [(None, "required"), ("soon", "invalid"), ("2001-01-01T00:00:00Z", "in_the_past"), (5, "invalid")],
)
async def test_a_client_token_ends_in_the_future(
    portal: Portal, things: dict[str, str], expires_at: Any, code: str
) -> None:
    body = {"client_token": {"expires_at": expires_at}}
    problem = await portal.ask("POST", f"/actors/{things['actor_id']}/client_tokens", body, status=422)

    assert [(one["field"], one["code"], one["given"]) for one in problem["errors"]] == [
        ("expires_at", code, expires_at)
    ]


async def test_client_tokens_are_shown_once_and_revoked(portal: Portal, things: dict[str, str]) -> None:
    path = f"/actors/{things['actor_id']}/client_tokens"
    async with portal.client() as client:
        made = await client.post(path, json={"client_token": {"expires_at": FAR}})
    shown = await portal.ask("GET", f"{path}/{made.json()['data']['id']}", status=200)
    listed = await portal.ask("GET", path, status=200)

    assert "location" not in made.headers
    assert list(made.json()["data"]) == ["id", "actor_id", "expires_at", "inserted_at", "updated_at", "token"]
    assert "token" not in shown["data"]
    assert listed["data"][0]["id"] == made.json()["data"]["id"]  # the newest first
    assert await portal.ask("DELETE", f"{path}/{things['token_id']}", status=200) == {
        "data": {"id": things["token_id"]}
    }
    assert await portal.ask("DELETE", path, status=200) == {"data": {"deleted_count": 1}}


# --- groups ---


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("PUT", {}, 400),
        ("PUT", {"memberships": "x"}, 422),
        ("PUT", {"memberships": [{}]}, 422),
        ("PUT", {"memberships": ["x"]}, 422),
        ("PUT", {"memberships": [{"actor_id": "x"}]}, 422),
        ("PUT", {"memberships": [{"actor_id": str(uuid4())}]}, 422),
        ("PATCH", {"memberships": []}, 422),
        ("PATCH", {"memberships": {"add": "x"}}, 422),
        ("PATCH", {"memberships": {"add": [5]}}, 422),
        ("PATCH", {"memberships": {"remove": ["x"]}}, 422),
        ("PATCH", {"memberships": {"add": [str(uuid4())]}}, 422),
        ("PATCH", {"memberships": {"remove": [str(uuid4())]}}, 200),
        ("PATCH", {"memberships": {}}, 200),
        ("PUT", {"memberships": []}, 200),
    ],
)
async def test_a_malformed_list_of_members_is_one_mistake(
    portal: Portal, things: dict[str, str], method: str, body: Any, status: int
) -> None:
    answer = await portal.ask(method, f"/groups/{things['group_id']}/memberships", body, status=status)

    if status == 422:
        assert list(answer["validation_errors"]) == ["memberships"]
        assert all(isinstance(one, str) for one in answer["validation_errors"]["memberships"])


async def test_who_is_both_added_and_removed_stays(portal: Portal, things: dict[str, str]) -> None:
    path, actor = f"/groups/{things['group_id']}/memberships", things["actor_id"]

    both = await portal.ask("PATCH", path, {"memberships": {"add": [actor], "remove": [actor]}}, status=200)

    assert both == {"data": {"actor_ids": [actor]}}
    [member] = (await portal.ask("GET", path, status=200))["data"]
    assert list(member) == ["id", "name", "type"]


async def test_groups_are_found_by_directory_and_kind(portal: Portal, things: dict[str, str]) -> None:
    for query, count in (("directory_id=", 1), (f"directory_id={uuid4()}", 0), ("entity_type=org_unit", 0)):
        assert (await portal.ask("GET", f"/groups?{query}", status=200))["metadata"]["count"] == count


# --- sites and gateways ---


async def test_the_deprecated_route_says_until_when_it_is_there(portal: Portal, things: dict[str, str]) -> None:
    async with portal.client() as client:
        made = await client.post(f"/sites/{things['site_id']}/gateway_tokens")

    assert (made.headers["deprecation"], made.headers["sunset"]) == ("true", "Thu, 01 Oct 2026 00:00:00 GMT")
    assert "location" not in made.headers
    assert list(made.json()["data"]) == ["id", "token"]


@pytest.mark.parametrize(
    ("body", "status"), [({}, 400), ({"name": ""}, 422), ({"name": "x" * 256}, 422), ({"name": "gw"}, 200)]
)
async def test_a_gateway_is_renamed_with_a_name(portal: Portal, things: dict[str, str], body: Any, status: int) -> None:
    path = f"/sites/{things['site_id']}/gateways/{things['gateway_id']}"
    await portal.ask("PUT", path, {"gateway": body}, status=status)


async def test_a_gateways_filters_are_addresses(portal: Portal, things: dict[str, str]) -> None:
    path = f"/sites/{things['site_id']}/gateways"
    [gateway] = (await portal.ask("GET", path, status=200))["data"]

    for query, count in ((f"ipv4={gateway['ipv4']}", 1), (f"ipv6={gateway['ipv6']}", 1), ("ipv4=192.0.2.1", 0)):
        assert (await portal.ask("GET", f"{path}?{query}", status=200))["metadata"]["count"] == count
    await portal.ask("GET", f"{path}?ipv4=ten", status=400)


async def test_a_token_that_is_rotated_works_on_until_the_next_one_is_used(
    portal: Portal, things: dict[str, str]
) -> None:
    path = f"/sites/{things['site_id']}/gateways/{things['gateway_id']}/token"
    first = (await portal.ask("POST", f"{path}/rotate", status=201))["data"]["id"]

    async def use(unit: UnitOfWork) -> None:
        await unit.update(await unit.get(Device, things["gateway_id"]), gateway_token_id=first)

    await changed(portal, use)
    second = (await portal.ask("POST", f"{path}/rotate", status=201))["data"]["id"]
    third = (await portal.ask("POST", f"{path}/rotate", status=201))["data"]["id"]
    async with portal.db.scoped(system(AccountId((await corp(portal)).id))) as scope:
        left = {row.id: row.rotated_at is not None for row in await scope.all(scope.select(GatewayToken))}
    shown = (await portal.ask("GET", path.removesuffix("/token"), status=200))["data"]

    assert left == {first: True, third: False}  # the second was never used: it is replaced outright
    assert second not in left
    assert (shown["gateway_token_id"], shown["rotated_at"] is not None) == (first, True)
    await portal.ask("DELETE", f"/sites/{things['site_id']}/gateway_tokens/{third}", status=200)
    await portal.ask("POST", path, status=201)


async def test_deleting_all_tokens_of_a_site_leaves_those_of_single_gateways(
    portal: Portal, things: dict[str, str]
) -> None:
    path = f"/sites/{things['site_id']}/gateway_tokens"
    await portal.ask("POST", path, status=201)

    assert await portal.ask("DELETE", path, status=200) == {"data": {"deleted_count": 1}}
    await portal.ask("POST", f"/sites/{things['site_id']}/gateways/{things['gateway_id']}/token", status=409)


# --- resources and pools ---


async def test_what_a_resource_does_not_have_is_left_out(portal: Portal, things: dict[str, str]) -> None:
    dns = (await portal.ask("GET", f"/resources/{things['resource_id']}", status=200))["data"]
    [internet] = [
        one for one in (await portal.ask("GET", "/resources", status=200))["data"] if one["type"] == "internet"
    ]
    pool = await pool_of(portal)

    assert (dns["ip_stack"], dns["site_id"]) == ("dual", things["site_id"])
    assert "ip_stack" not in internet
    assert not {"ip_stack", "site_id"} & set(pool)


@pytest.mark.parametrize("type", ["internet", "static_device_pool", "dynamic_device_pool"])
async def test_other_types_are_not_made_as_resources(portal: Portal, things: dict[str, str], type: str) -> None:
    body = {"name": "X", "type": type, "address": "x.corp.example", "site_id": things["site_id"]}

    problem = await portal.ask("POST", "/resources", {"resource": body}, status=422)
    assert list(problem["validation_errors"]) == ["type"]
    path = f"/resources/{things['resource_id']}"
    changed_type = await portal.ask("PATCH", path, {"resource": {"type": type}}, status=422)
    assert list(changed_type["validation_errors"]) == ["type"]


async def test_the_internet_resource_is_the_systems(portal: Portal) -> None:
    [internet] = [
        one for one in (await portal.ask("GET", "/resources", status=200))["data"] if one["type"] == "internet"
    ]

    for method, body in (("PATCH", {"resource": {"name": "x"}}), ("DELETE", None)):
        problem = await portal.ask(method, f"/resources/{internet['id']}", body, status=403)
        assert problem["code"] == "system_managed"


async def test_mistakes_in_lists_are_at_their_place(portal: Portal, things: dict[str, str]) -> None:
    filters = [{"protocol": "udp"}, {"protocol": "tcp", "ports": ["80", "90 - 80"]}]
    conditions = [{"property": "client_verified", "operator": "is", "values": []}]
    of_resource = await portal.ask(
        "PATCH", f"/resources/{things['resource_id']}", {"resource": {"filters": filters}}, status=422
    )
    of_policy = await portal.ask(
        "PATCH", f"/policies/{things['policy_id']}", {"policy": {"conditions": conditions}}, status=422
    )

    assert list(of_resource["validation_errors"]) == ["filters"]
    assert of_resource["validation_errors"]["filters"][0] == {}
    assert list(of_resource["validation_errors"]["filters"][1]) == ["ports"]
    [error] = of_resource["errors"]
    assert (error["field"], error["code"], error["given"]) == ("filters[1].ports", "reversed_range", ["80", "90 - 80"])
    assert list(of_policy["validation_errors"]["conditions"][0]) == ["values"]


async def pool_of(portal: Portal) -> Any:
    body = {"device_pool": {"name": "Laptops", "type": "static_device_pool"}}
    return (await portal.ask("POST", "/device_pools", body, status=201))["data"]


@pytest.mark.parametrize(
    ("method", "body", "wrong"),
    [
        ("PUT", {"pool_members": "x"}, "pool_members"),
        ("PUT", {"pool_members": [{"device_id": "x"}]}, "pool_members"),
        ("PUT", {"pool_members": [{"device_id": str(uuid4())}]}, "pool_members"),
        ("PATCH", {"pool_members": {"add": ["x"]}}, "pool_members"),
        ("PATCH", {"pool_members": {"add": [{}]}}, "add"),
        ("PATCH", {"pool_members": {"remove": "x"}}, "remove"),
    ],
)
async def test_malformed_pool_members_are_refused(portal: Portal, method: str, body: Any, wrong: str) -> None:
    pool = await pool_of(portal)

    problem = await portal.ask(method, f"/resources/{pool['id']}/pool_members", body, status=422)

    assert list(problem["validation_errors"]) == [wrong]


async def test_a_pool_is_made_filled_and_retyped(portal: Portal, things: dict[str, str]) -> None:
    pool = await pool_of(portal)
    path = f"/resources/{pool['id']}"
    members = {"pool_members": [{"device_id": things["client_id"]}]}
    gateways = {"pool_members": [{"device_id": things["gateway_id"]}]}

    filled = await portal.ask("PUT", f"{path}/pool_members", members, status=200)
    await portal.ask("PUT", f"{path}/pool_members", gateways, status=422)
    [member] = (await portal.ask("GET", f"{path}/pool_members", status=200))["data"]
    await portal.ask("PUT", f"/resources/{things['resource_id']}/pool_members", members, status=400)
    retyped = {"type": "ip", "address": "10.0.0.1", "site_id": things["site_id"]}
    shown = await portal.ask("PATCH", path, {"resource": retyped}, status=200)

    assert filled == {"data": {"device_ids": [things["client_id"]]}}
    assert list(member) == ["id", "name", "last_seen_at"]
    assert shown["data"]["type"] == "ip"
    await portal.ask("GET", f"{path}/pool_members", status=400)


async def test_a_dynamic_pool_has_a_pattern_of_host_names(portal: Portal) -> None:
    body = {"name": "Laptops", "type": "dynamic_device_pool"}

    await portal.ask("POST", "/device_pools", {"device_pool": body}, status=422)
    made = await portal.ask("POST", "/device_pools", {"device_pool": {**body, "address": "*.lab"}}, status=201)
    wrong = await portal.ask("POST", "/device_pools", {"device_pool": {**body, "type": "dns"}}, status=422)

    assert made["data"]["address"] == "*.lab"
    assert list(wrong["validation_errors"]) == ["type"]


# --- policies ---


async def test_policies_name_what_is_missing(portal: Portal, things: dict[str, str]) -> None:
    pair = {"group_id": things["group_id"], "resource_id": things["resource_id"]}

    duplicate = await portal.ask("POST", "/policies", {"policy": pair}, status=422)
    unknown_group = await portal.ask("POST", "/policies", {"policy": {**pair, "group_id": str(uuid4())}}, status=422)
    await portal.ask("POST", "/policies", {"policy": {**pair, "resource_id": str(uuid4())}}, status=404)

    assert duplicate["errors"][0]["code"] == "taken"
    assert (unknown_group["errors"][0]["field"], unknown_group["errors"][0]["code"]) == (
        "group_id",
        "unknown_reference",
    )


async def test_the_plans_features_are_asked_for_here_too(portal: Portal, things: dict[str, str]) -> None:
    async def switch_off(unit: UnitOfWork) -> None:
        await set_features(unit, {"policy_conditions": False, "internet_resource": False})

    await changed(portal, switch_off)
    conditions = [{"property": "client_verified", "operator": "is", "values": ["true"]}]
    [internet] = [
        one for one in (await portal.ask("GET", "/resources", status=200))["data"] if one["type"] == "internet"
    ]
    path = f"/policies/{things['policy_id']}"

    conditional = await portal.ask("PATCH", path, {"policy": {"conditions": conditions}}, status=403)
    to_internet = await portal.ask("PATCH", path, {"policy": {"resource_id": internet["id"]}}, status=403)

    assert (conditional["code"], conditional["feature"]) == ("feature_missing", "policy_conditions")
    assert (to_internet["code"], to_internet["feature"]) == ("feature_missing", "internet_resource")


# --- clients ---


async def test_verifying_is_repeatable_and_a_host_name_is_one(portal: Portal, things: dict[str, str]) -> None:
    path = f"/clients/{things['client_id']}"
    first = await portal.ask("PUT", f"{path}/verify", status=200)
    second = await portal.ask("PUT", f"{path}/verify", status=200)
    await portal.ask("PATCH", path, {"client": {"hostname": "a b"}}, status=422)
    named = await portal.ask("PATCH", path, {"client": {"hostname": "laptop.lab"}}, status=200)
    other = await make_things(portal)
    taken = {"client": {"hostname": "LAPTOP.lab"}}
    await portal.ask("PATCH", f"/clients/{other['client_id']}", taken, status=422)
    assert (await portal.ask("GET", "/clients?verified=true", status=200))["metadata"]["count"] == 1
    cleared = await portal.ask("PUT", f"{path}/unverify", status=200)

    assert first["data"]["verified_at"] == second["data"]["verified_at"] is not None
    assert named["data"]["hostname"] == "laptop.lab"
    assert cleared["data"]["verified_at"] is None
    assert "created_at" in cleared["data"]
    assert "inserted_at" not in cleared["data"]


async def test_a_gateway_is_no_client(portal: Portal, things: dict[str, str]) -> None:
    await portal.ask("GET", f"/clients/{things['gateway_id']}", status=404)
    await portal.ask("GET", f"/sites/{things['site_id']}/gateways/{things['client_id']}", status=404)


# --- what is read only ---


async def test_providers_and_directories_are_shown_without_secrets(portal: Portal) -> None:
    made = await make_providers(portal)
    for kind, row_id in made.items():
        if kind.startswith(("intune", "iru")):
            continue
        [shown] = (await portal.ask("GET", f"/{kind}?name={kind.split('_')[0]}", status=200))["data"]
        assert shown["id"] == row_id
        assert await portal.ask("GET", f"/{kind}/{row_id}", status=200) == {"data": shown}
        assert "sealed" not in str(shown)
        assert ("is_default" in shown) is kind.endswith("auth_providers")
        await portal.ask("POST", f"/{kind}", {}, status=405)
        await portal.ask("GET", f"/{kind}/{row_id}", status=404, token=portal.other_token)
    [codes] = (await portal.ask("GET", "/email_otp_auth_providers", status=200))["data"]
    assert (codes["name"], codes["issuer"]) == ("Email (OTP)", "firezone")
    assert "is_default" not in codes
    await portal.ask("GET", f"/okta_auth_providers/{made['oidc_auth_providers']}", status=404)
    okta = (await portal.ask("GET", f"/okta_auth_providers/{made['okta_auth_providers']}", status=200))["data"]
    assert (okta["client_id"], okta["okta_domain"]) == ("okta-client", "corp.okta.com")
    google = (await portal.ask("GET", f"/google_directories/{made['google_directories']}", status=200))["data"]
    assert google["domain"] == "corp.example"


async def test_inventories_are_shown_where_operator_and_plan_have_them(portal: Portal) -> None:
    made = await make_providers(portal)
    kinds = [one for one in made if one.startswith(("intune", "iru"))]
    for kind in kinds:
        assert (await portal.ask("GET", f"/{kind}", status=403))["code"] == "feature_missing"
    async with portal.db.unscoped_write() as session:
        session.add(FeatureFlag(feature="device_posture", enabled=True))
    for kind in kinds:
        [shown] = (await portal.ask("GET", f"/{kind}", status=200))["data"]
        assert (await portal.ask("GET", f"/{kind}/{made[kind]}", status=200))["data"] == shown
    assert shown["is_encrypted"] is True

    async def switch_off(unit: UnitOfWork) -> None:
        await set_features(unit, {"device_posture": False})

    await changed(portal, switch_off)
    await portal.ask("GET", f"/{kinds[0]}/{made[kinds[0]]}", status=403)


# --- lists ---


async def test_lists_are_sorted_and_searched_on_demand(portal: Portal) -> None:
    for name in ("beta", "Alpha 50%", "gamma", "alpha"):
        await portal.make("group", name=name)

    async def names(query: str) -> list[str]:
        return [row["name"] for row in (await portal.ask("GET", f"/groups?{query}", status=200))["data"]]

    assert await names("") == ["beta", "Alpha 50%", "gamma", "alpha"]
    assert await names("sort=-inserted_at") == ["alpha", "gamma", "Alpha 50%", "beta"]
    assert sorted(await names("sort=name")) == sorted(await names("sort=-name"))
    assert await names("sort=-name") == list(reversed(await names("sort=name")))
    assert await names("search=ALPHA") == ["Alpha 50%", "alpha"]
    assert await names("search=50%25") == ["Alpha 50%"]
    assert await names("search=0_") == []


async def test_a_cursor_is_of_its_order(portal: Portal) -> None:
    for name in ("a", "b", "c"):
        await portal.make("group", name=name)
    walked, cursor = [], ""
    while cursor is not None:
        page = await portal.ask("GET", f"/groups?sort=-name&limit=1&page_cursor={cursor}", status=200)
        walked += [row["name"] for row in page["data"]]
        last, cursor = cursor, page["metadata"]["next_page"]

    assert walked == ["c", "b", "a"]
    await portal.ask("GET", f"/groups?limit=1&page_cursor={last}", status=400)


@pytest.mark.parametrize(("limit", "shown"), [("0", 1), ("-5", 1), ("101", 100), ("1", 1)])
async def test_a_limit_out_of_range_is_clamped(portal: Portal, limit: str, shown: int) -> None:
    assert (await portal.ask("GET", f"/sites?limit={limit}", status=200))["metadata"]["limit"] == shown


async def test_expired_tokens_and_disabled_owners_get_no_answer(portal: Portal) -> None:
    async def disable(unit: UnitOfWork) -> None:
        await unit.update(await unit.account(), is_disabled=True)

    await changed(portal, disable)
    problem = await portal.ask("GET", "/account", status=401)

    assert problem["code"] == "unauthenticated"
