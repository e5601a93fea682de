"""No account sees or changes anything of another one: every REST route, with another account's ids wherever they fit.

The walk takes the routes from the application. For each it shows first that the request is a real one (with ids of its
own account it succeeds) and then asks with the other's ids in the path, in the query and in the body. A new route is
walked by itself; if the walk has no id or body for it, the test says which.
"""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from tests.unit.portal.api.conftest import Online, Portal
from tests.unit.portal.helpers import SECRET_KEY, Lab, ManualClock, make_lab
from wardgate.ids import AccountId
from wardgate.portal.api.app import ROUTERS, mount
from wardgate.portal.api.context import ApiContext
from wardgate.portal.app import create_app
from wardgate.portal.config import Settings
from wardgate.portal.db.devices import create_device
from wardgate.portal.db.engine import Database
from wardgate.portal.db.identity_tables import (
    AuthProvider,
    Directory,
    ExternalIdentity,
    FeatureFlag,
    PostureDevice,
    PostureProvider,
)
from wardgate.portal.db.tables import Base, ChangeLog, new_id
from wardgate.portal.domain import subjects
from wardgate.portal.services import actors, groups, policies, resources, sites, tokens
from wardgate.portal.services.policy_tests import create_policy_test

Ids = dict[str, str]
ROUTES = sorted(
    {(method, route.path) for router in ROUTERS for route in router.routes for method in route.methods},  # type: ignore[attr-defined]
    key=lambda one: (one[1], one[0]),
)
NOT_OF_ACCOUNTS = {
    *("/healthz", "/readyz", "/metrics", "/openapi", "/openapi.json", "/swaggerui"),
    *("/client/websocket", "/client/v2/websocket", "/gateway/websocket", "/gateway/v2/websocket", "/relay/websocket"),
    "/ingestion/flow_logs",  # its token names the account, and there is no id to put another one into
}
"""Routes that show and change no rows by id."""

BODIES: dict[str, Any] = {
    "POST /actors": {"actor": {"name": "New", "type": "account_user", "email": "new@corp.example"}},
    "PATCH /actors/{actor_id}": {"actor": {"name": "Changed"}},
    "POST /actors/{actor_id}/client_tokens": {"client_token": {"expires_at": "2027-01-01T00:00:00Z"}},
    "POST /groups": {"group": {"name": "New"}},
    "PATCH /groups/{group_id}": {"group": {"name": "Changed"}},
    "PUT /groups/{group_id}/memberships": {"memberships": [{"actor_id": "{actor_id}"}]},
    "PATCH /groups/{group_id}/memberships": {"memberships": {"add": ["{actor_id}"], "remove": []}},
    "POST /sites": {"site": {"name": "New"}},
    "PATCH /sites/{site_id}": {"site": {"name": "Changed"}},
    "POST /sites/{site_id}/gateways": {"gateway": {"name": "New"}},
    "PATCH /sites/{site_id}/gateways/{gateway_id}": {"gateway": {"name": "Changed"}},
    "POST /resources": {"resource": {"name": "New", "type": "ip", "address": "10.1.1.1", "site_id": "{site_id}"}},
    "PATCH /resources/{resource_id}": {"resource": {"name": "Changed", "site_id": "{site_id}"}},
    "POST /device_pools": {"device_pool": {"name": "New", "type": "static_device_pool"}},
    "PUT /resources/{resource_id}/pool_members": {"pool_members": [{"device_id": "{client_id}"}]},
    "PATCH /resources/{resource_id}/pool_members": {"pool_members": {"add": ["{client_id}"], "remove": []}},
    "POST /policies": {"policy": {"group_id": "{other_group_id}", "resource_id": "{resource_id}"}},
    "PATCH /policies/{policy_id}": {"policy": {"group_id": "{group_id}", "resource_id": "{resource_id}"}},
    "PATCH /clients/{client_id}": {"client": {"name": "Changed"}},
    "POST /policy_tests": {
        "policy_test": {"name": "New", "who": "everyone", "resource": "*", "expectation": "never_reaches"}
    },
    "PATCH /policy_tests/{test_id}": {"policy_test": {"name": "Changed"}},
    "POST /preview": {"method": "DELETE", "path": "/policies/{policy_id}"},
}
QUERIES: dict[str, str] = {
    "GET /explain": "actor_id={actor_id}&resource_id={resource_id}",
    "GET /logs": "type=change",
    "GET /reach": "resource={resource_id}",
}
"""Queries that a route does not work without."""
_ID_IN_QUERY = re.compile(r"(^|_)id$")


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_with_its_own_ids_the_request_is_a_real_one(walk: "Walk", method: str, path: str) -> None:
    async with walk.client() as client:
        response = await walk.ask(client, method, path, walk.own)

    assert response.status_code in (200, 201, 204), f"the walk cannot feed {method} {path}: {response.text}"


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_with_the_ids_of_another_account_it_finds_nothing(walk: "Walk", method: str, path: str) -> None:
    before = await walk.dump()
    async with walk.client() as client:
        for ids, place in walk.mixtures(method, path):
            response = await walk.ask(client, method, path, ids)

            asked = f"{method} {path} with {place}"
            assert response.status_code != 403, f"{asked}: it says that there is something"
            if place == "path":
                assert response.status_code == 404, f"{asked}: {response.text}"
            elif place == "body":
                assert response.status_code in (404, 422), f"{asked}: {response.text}"
            walk.check_answer(response, asked)

    assert await walk.dump() == before


@pytest.mark.parametrize("path", [path for method, path in ROUTES if method == "GET" and "{" not in path])
async def test_lists_filtered_by_the_ids_of_another_account_are_empty(walk: "Walk", path: str) -> None:
    names = [name for name in query_names(path) if _ID_IN_QUERY.search(name)]
    async with walk.client() as client:
        whole = await walk.ask(client, "GET", path, walk.own)
        walk.check_answer(whole, f"GET {path}")
        for name in names:
            given = walk.foreign.get(name) or walk.foreign["firezone_id"]
            query = urlencode({**({"type": "api_request"} if path == "/logs" else {}), name: given})
            response = await client.get(f"{path}?{query}")

            walk.check_answer(response, f"GET {path}?{name}")
            assert response.status_code in (200, 400, 404, 422), response.text
            if response.status_code == 200 and path != "/explain":
                assert response.json()["data"] == [], f"GET {path}?{name}"


async def test_an_id_in_capitals_is_still_another_accounts(walk: "Walk") -> None:
    async with walk.client() as client:
        response = await client.get(f"/sites/{walk.foreign['site_id'].upper()}")

    assert response.status_code == 404


def test_every_route_of_the_application_is_walked_or_named(database_path: Path) -> None:
    app = create_app(Settings(database=f"sqlite:///{database_path}", secret_key=SECRET_KEY))
    walked = {path for _, path in ROUTES}

    documented = {(method.upper(), path) for path, of in app.openapi()["paths"].items() for method in of}
    others = {path for route in app.routes if (path := getattr(route, "path", None))}

    assert {path for _, path in documented} - walked - NOT_OF_ACCOUNTS == set()
    assert others - walked - NOT_OF_ACCOUNTS == set()
    assert len(ROUTES) > 60


class Walk:
    """Two accounts that have one of everything, and requests with the ids of either."""

    def __init__(self, portal: Portal, token: str, own: Ids, foreign: Ids, account_id: str) -> None:
        self._portal = portal
        self._token = token
        self.own = own
        self.foreign = foreign
        self._account_id = account_id
        self._secrets = {value for value in foreign.values() if value not in own.values()}

    def client(self) -> httpx.AsyncClient:
        return self._portal.client(self._token)

    async def ask(self, client: httpx.AsyncClient, method: str, path: str, ids: Ids) -> httpx.Response:
        """One request; ids go wherever its path, query and body name them."""
        ids = {**ids, **self._for_route(path, ids)}
        query = QUERIES.get(f"{method} {path}")
        target = path + (f"?{query}" if query else "")
        body = body_of(method, path)
        text = json.dumps(body) if body is not None else None
        for name in placeholders(method, path):
            assert name in ids, f"the walk has no {name} for {method} {path}"
            target = target.replace(f"{{{name}}}", ids[name])
            text = text.replace(f"{{{name}}}", ids[name]) if text else None
        headers = {"Content-Type": "application/json"} if text else None
        return await client.request(method, target, content=text, headers=headers)

    def mixtures(self, method: str, path: str) -> Iterator[tuple[Ids, str]]:
        """Every way to put foreign ids among own ones, and where the first foreign one is."""
        in_path = re.findall(r"\{(\w+)\}", path)
        others = [name for name in placeholders(method, path) if name not in in_path]
        for choice in product((False, True), repeat=len(in_path) + len(others)):
            names = [name for name, is_foreign in zip([*in_path, *others], choice, strict=True) if is_foreign]
            if not names:
                continue
            place = "path" if set(names) & set(in_path) else "body" if body_of(method, path) else "query"
            own, foreign = ({**ids, **self._for_route(path, ids)} for ids in (self.own, self.foreign))
            yield {**{f"fixed {name}": "" for name in names}, **own, **{name: foreign[name] for name in names}}, place

    @staticmethod
    def _for_route(path: str, ids: Ids) -> Ids:
        """What a name means in some paths only; ids that a mixture fixed stay as they are."""
        meant: Ids = {}
        if path.startswith("/actors/{actor_id}/client_tokens"):
            meant = {"actor_id": ids["service_account_id"], "token_id": ids["client_token_id"]}
        elif path.startswith("/sites/{site_id}/gateway_tokens"):
            meant = {"token_id": ids["site_token_id"]}
        elif path == "/sites/{site_id}/gateways/{gateway_id}/token":
            meant = {"gateway_id": ids["fresh_gateway_id"]}
        elif path.endswith("/pool_members"):
            meant = {"resource_id": ids["pool_id"]}
        elif path.endswith("/{id}"):
            meant = {"id": ids[path.split("/")[1]]}
        return {name: value for name, value in meant.items() if f"fixed {name}" not in ids}

    def check_answer(self, response: httpx.Response, asked: str) -> None:
        """The answer holds nothing of the other account but what was asked for."""
        request = str(response.request.url) + response.request.content.decode()
        leaked = [one for one in self._secrets if one in response.text and one.lower() not in request.lower()]
        assert leaked == [], f"{asked}: {response.text}"
        assert "foreign" not in response.text or "foreign" in request, f"{asked}: {response.text}"

    async def dump(self) -> dict[str, list[Any]]:
        """All rows of the other account."""
        found = {}
        async with self._portal.db.unscoped() as session:
            for table in Base.metadata.sorted_tables:
                column = table.c.get("account_id") if table.name != "accounts" else table.c.id
                if column is not None:
                    rows = await session.execute(select(table).where(column == self._account_id))
                    found[table.name] = sorted((tuple(row) for row in rows), key=repr)
        return found


@dataclass(frozen=True)
class Filled:
    """A database with two accounts that have one of everything."""

    path: Path
    own: Ids
    token: str
    foreign: Ids
    other_token: str
    account_id: str


@pytest.fixture(scope="session")
def filled(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """Made once, and copied for each request."""
    path = tmp_path_factory.mktemp("isolation") / "filled.db"
    shutil.copy(migrated, path)

    async def make() -> Filled:
        clock = ManualClock()
        db = Database(f"sqlite:///{path}", clock, SECRET_KEY)
        async with db.unscoped_write() as session:
            session.add(FeatureFlag(feature="device_posture", enabled=True))
        own, token, _ = await fill(db, "own")
        clock.advance(10.0)  # ids of logs come from the clock
        foreign, other_token, account_id = await fill(db, "foreign")
        await db.close()
        return Filled(path, own, token, foreign, other_token, account_id)

    return asyncio.run(make())


@pytest.fixture
async def walk(filled: Filled, tmp_path: Path, clock: ManualClock) -> AsyncIterator["Walk"]:
    path = tmp_path / "portal.db"
    shutil.copy(filled.path, path)
    clock.advance(20.0)
    db = Database(f"sqlite:///{path}", clock, SECRET_KEY)
    app = FastAPI()
    mount(app, ApiContext(db, clock, Online()))
    portal = Portal(app, db, Online(), filled.token, filled.other_token)
    yield Walk(portal, filled.token, filled.own, filled.foreign, filled.account_id)
    await db.close()


async def fill(db: Database, slug: str) -> tuple[Ids, str, str]:
    """An account with one of everything; names hold the slug."""
    lab = await make_lab(db, slug=slug)
    async with db.writing(lab.subject) as unit:
        robot = await actors.create_actor(unit, {"name": f"{slug} robot", "type": "api_client"}, ("api_client",))
        api_token = await tokens.create_api_token(unit, robot.id, {})
        service = await actors.create_actor(unit, {"name": f"{slug} service", "type": "service_account"})
        client_token = await tokens.create_client_token(unit, service.id, {"expires_at": "2027-01-01T00:00:00Z"})
        group = await groups.create_group(unit, {"name": f"{slug} group"})
        gateway = await sites.create_gateway(unit, lab.site.id, {"name": f"{slug} gateway"})
        await tokens.create_gateway_token(unit, gateway.id)
        fresh = await sites.create_gateway(unit, lab.site.id, {"name": f"{slug} fresh"})
        firezone_id = f"{slug}-device"
        client = await create_device(
            unit, type="client", actor_id=lab.actor.id, name=f"{slug} client", firezone_id=firezone_id
        )
        pool = await resources.create_resource(
            unit, {"name": f"{slug} pool", "type": "static_device_pool"}, ("static_device_pool",)
        )
        await resources.set_pool_members(unit, pool.id, [client.id])
        await policies.create_policy(unit, {"group_id": lab.group.id, "resource_id": pool.id})
    kinds = await fill_identities(db, lab, slug)
    async with db.unscoped() as session:
        logs = (await session.scalars(select(ChangeLog.log_id).where(ChangeLog.account_id == lab.account.id))).all()
    assert lab.policy is not None
    ids = {
        "actor_id": lab.actor.id,
        "service_account_id": service.id,
        "client_token_id": client_token.row.id,
        "group_id": lab.group.id,
        "other_group_id": group.id,
        "site_id": lab.site.id,
        "site_token_id": lab.site_token_id,
        "gateway_id": gateway.id,
        "fresh_gateway_id": fresh.id,
        "client_id": client.id,
        "resource_id": lab.resource.id,
        "pool_id": pool.id,
        "policy_id": lab.policy.id,
        "log_id": logs[0],
        "firezone_id": firezone_id,
        **kinds,
    }
    return ids, api_token.text, lab.account.id


async def fill_identities(db: Database, lab: Lab, slug: str) -> Ids:
    """Providers, directories, identities and inventories; each under the first part of its path."""
    ids: Ids = {}

    def row(kind: Any, path: str, **columns: Any) -> Any:
        ids[path] = new_id()
        return kind(account_id=lab.account.id, id=ids[path], **columns)

    rows: list[Any] = []
    for kind in ("google", "entra", "okta", "oidc"):
        facts = {"name": f"{slug} {kind}", "issuer": f"https://{slug}.example/{kind}", "client_id": f"{slug}-{kind}"}
        rows.append(row(AuthProvider, f"{kind}_auth_providers", type=kind, **facts))
    for kind in ("google", "entra", "okta"):
        facts = {"name": f"{slug} {kind}", "external_key": f"{slug}-{kind}.example"}
        rows.append(row(Directory, f"{kind}_directories", type=kind, **facts))
    for kind in ("intune", "iru"):
        facts = {"name": f"{slug} {kind}", "external_key": f"{slug}-{kind}"}
        provider = row(PostureProvider, f"{kind}_posture_providers", type=kind, **facts)
        rows.append(provider)
        rows.append(
            row(PostureDevice, f"{kind}_devices", type=kind, posture_provider_id=provider.id, name=f"{slug} {kind}")
        )
    identity = row(ExternalIdentity, "identity_id", actor_id=lab.actor.id, issuer="https://idp.example", idp_id=slug)
    directory = ids["google_directories"]
    identity.directory_id = directory
    async with db.writing(subjects.system(AccountId(lab.account.id))) as unit:
        for one in [*rows, identity]:
            await unit.insert(one)
        _, snapshot = await db.snapshots.current(unit)
        never = {"name": f"{slug} never", "who": "everyone", "resource": f"{slug}*", "expectation": "never_reaches"}
        ids["test_id"] = (await create_policy_test(unit, never, snapshot)).id
        (by_mail,) = await unit.all(unit.select(AuthProvider).where(AuthProvider.type == "email_otp"))
        await unit.update(by_mail, name=f"{slug} e-mail")
    ids["email_otp_auth_providers"] = by_mail.id
    return {**ids, "directory_id": directory}


def body_of(method: str, path: str) -> Any:
    """A body that the route takes."""
    same = "PATCH" if method == "PUT" and f"PUT {path}" not in BODIES else method
    return BODIES.get(f"{same} {path}")


def placeholders(method: str, path: str) -> list[str]:
    text = f"{path} {QUERIES.get(f'{method} {path}', '')} {json.dumps(body_of(method, path))}"
    return list(dict.fromkeys(re.findall(r"\{(\w+)\}", text)))


def query_names(path: str) -> list[str]:
    for router in ROUTERS:
        for route in router.routes:
            if getattr(route, "path", None) == path and "GET" in route.methods:  # type: ignore[attr-defined]
                return [one.name for one in route.dependant.query_params]  # type: ignore[attr-defined]
    return []
