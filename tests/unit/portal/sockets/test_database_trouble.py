"""A database that is away, hangs, is full or read-only: 503 for who comes, nothing for who is there, nothing lost.

All of it happens for real: PostgreSQL is killed or stopped with a signal, an SQLite file lies on a full file system.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from sqlalchemy import event

from tests.postgres import TEMPLATE, Server, server_or_skip
from tests.unit.portal.conftest import migrate
from tests.unit.portal.helpers import SECRET_KEY, Lab, ManualClock, make_lab
from tests.unit.portal.sockets.harness import PortalUnderTest, Refusal, running_portal
from wardgate.errors import DatabaseUnavailable
from wardgate.ids import AccountId
from wardgate.portal.config import Settings
from wardgate.portal.db.tables import Group
from wardgate.portal.domain import subjects
from wardgate.portal.services import actors, groups, resources, tokens
from wardgate.wire import portal

WAIT_S = 30.0
_POLL_S = 0.05


class Trouble(Protocol):
    """Something that is wrong with a database, until it is mended."""

    def begin(self) -> None:
        """Breaks it."""

    def end(self) -> None:
        """Mends it."""


class Killed:
    """Ended as by a crash: connections just close."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def begin(self) -> None:
        self._server.stop(signal.SIGQUIT)

    def end(self) -> None:
        self._server.start(is_awaited=False)


class Stopped:
    """Takes connections, since the kernel does, and never answers."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def begin(self) -> None:
        for pid in self._server.pids():
            os.kill(pid, signal.SIGSTOP)

    def end(self) -> None:
        for pid in self._server.pids():
            os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server that may be broken."""
    server = server_or_skip()
    try:
        server.start(synchronous_commit="on")  # what is committed outlives the server
        server.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate(server.url(TEMPLATE))
        yield server
    finally:
        server.remove()


@pytest.fixture
def own_url(own_server: Server) -> Iterator[str]:
    name = own_server.create_database()
    yield own_server.url(name)
    own_server.drop_database(name)


@pytest.fixture(params=["killed", "stopped"])
def trouble(request: pytest.FixtureRequest, own_server: Server) -> Trouble:
    return Killed(own_server) if request.param == "killed" else Stopped(own_server)


@pytest.fixture
async def own_portal(own_url: str, clock: ManualClock) -> AsyncIterator[PortalUnderTest]:
    async with running_portal(settings_of(own_url), clock) as under_test:
        yield under_test


async def test_while_postgresql_is_away_nobody_loses_the_connection_and_nothing_is_lost(
    own_portal: PortalUnderTest, trouble: Trouble
) -> None:
    lab = await make_lab(own_portal.hub.db)
    api = await api_of(own_portal, lab)
    gateway, client = await own_portal.gateway(lab), await own_portal.client(lab)
    assert [one.name for one in (await client.take(portal.ClientInit)).resources] == ["Lab"]
    await gateway.take(portal.GatewayInit)
    assert (await api.post("/groups", json={"group": {"name": "Committed"}})).status_code == 201
    await own_portal.refreshed()

    trouble.begin()
    try:
        await is_unavailable(own_portal, api, lab)
        await client.send(ask(lab))
        failed = await client.take(portal.AuthorizationCreationFailed)
        assert failed.reason == "offline"
        assert await client.settle() == []
        assert await gateway.settle() == []
    finally:
        trouble.end()

    await is_available_again(own_portal, api)
    assert "Committed" in [one["name"] for one in (await api.get("/groups")).json()["data"]]
    assert (await api.post("/groups", json={"group": {"name": "Later"}})).status_code == 201
    async with own_portal.hub.db.writing(lab.subject) as unit:
        await resources.update_resource(unit, lab.resource.id, {"name": "Renamed"})
    assert (await client.take(portal.ResourceCreatedOrUpdated)).resource.name == "Renamed"
    await client.send(ask(lab))
    assert await gateway.take(portal.CreateAuthorization)
    assert await own_portal.client(lab, "another")
    await api.aclose()


async def test_a_change_whose_news_the_outage_held_up_is_told_afterwards(
    own_portal: PortalUnderTest, own_server: Server
) -> None:
    """The change is committed, and the database is gone before the portal has read it for its channels."""
    lab = await make_lab(own_portal.hub.db)
    client = await own_portal.client(lab)
    await client.take(portal.ClientInit)
    trouble = Killed(own_server)

    async with own_portal.hub.db.writing(lab.subject) as unit:
        await resources.update_resource(unit, lab.resource.id, {"name": "Renamed"})
        unit.after_commit(trouble.begin)
    try:
        await unavailable(own_portal)
    finally:
        trouble.end()

    assert (await client.take(portal.ResourceCreatedOrUpdated)).resource.name == "Renamed"


async def test_a_portal_whose_postgresql_went_while_a_request_ran_answers_503(
    own_portal: PortalUnderTest, own_server: Server
) -> None:
    lab = await make_lab(own_portal.hub.db)
    trouble = Killed(own_server)

    async def add() -> None:
        async with own_portal.hub.db.writing(lab.subject) as unit:
            await groups.create_group(unit, {"name": "Half"})
            trouble.begin()

    try:
        with pytest.raises(DatabaseUnavailable, match="cannot be used"):
            await add()
    finally:
        trouble.end()

    await available(own_portal)
    assert "Half" not in await names_of_groups(own_portal, lab)


async def test_a_read_only_postgresql_is_read_and_not_written(own_portal: PortalUnderTest, own_server: Server) -> None:
    lab = await make_lab(own_portal.hub.db)
    api = await api_of(own_portal, lab)
    database = own_portal.hub.settings.database.rpartition("/")[2]

    await own_server.execute_now(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    await own_portal.hub.db._engine.dispose()  # what is connected keeps what it began with
    written = await api.post("/groups", json={"group": {"name": "No"}})
    await own_server.execute_now(f"ALTER DATABASE {database} SET default_transaction_read_only = off")
    await own_portal.hub.db._engine.dispose()

    is_problem(written)
    assert (await api.post("/groups", json={"group": {"name": "Yes"}})).status_code == 201
    assert "No" not in await names_of_groups(own_portal, lab)
    await api.aclose()


# --- SQLite -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


async def test_on_a_full_disk_an_sqlite_portal_answers_503_and_goes_on_when_there_is_room(
    small_disk: Path, migrated: Path, clock: ManualClock
) -> None:
    database = small_disk / "portal.db"
    copy(migrated, database)
    async with running_portal(settings_of(f"sqlite:///{database}"), clock) as under_test:
        lab = await make_lab(under_test.hub.db)
        api = await api_of(under_test, lab)
        gateway, client = await under_test.gateway(lab), await under_test.client(lab)
        await client.take(portal.ClientInit)
        await gateway.take(portal.GatewayInit)

        committed, refused = await fill_up(small_disk, api)
        is_problem(refused)
        with pytest.raises(Refusal) as caught:
            await under_test.client(lab, "another")
        assert (caught.value.status, caught.value.problem["code"]) == (503, "database_unavailable")
        assert "Engineering" in await names_of_groups(under_test, lab)  # what is there can be read
        assert await client.settle() == []
        assert await gateway.settle() == []

        (small_disk / "ballast").unlink()
        assert (await api.post("/groups", json={"group": {"name": "Later"}})).status_code == 201
        await under_test.client(lab, "another")
        names = await names_of_groups(under_test, lab)
        assert {*committed, "Later"} <= set(names)
        await client.send(ask(lab))
        assert await gateway.take(portal.CreateAuthorization)
        await api.aclose()


async def fill_up(disk: Path, api: httpx.AsyncClient) -> tuple[list[str], httpx.Response]:
    """Takes all room there is and adds groups until one is refused; those that were confirmed, and the refusal."""
    fill_with_ballast(disk)
    committed: list[str] = []
    async with asyncio.timeout(WAIT_S):
        while True:
            name = f"group-{len(committed)} " + "x" * 200
            response = await api.post("/groups", json={"group": {"name": name}})
            if response.status_code != 201:
                return committed, response
            committed.append(name)
            fill_with_ballast(disk)


def fill_with_ballast(disk: Path) -> None:
    with (disk / "ballast").open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


async def test_a_read_only_sqlite_is_read_and_not_written(database_path: Path, clock: ManualClock) -> None:
    async with running_portal(settings_of(f"sqlite:///{database_path}"), clock) as under_test:
        lab = await make_lab(under_test.hub.db)
        api = await api_of(under_test, lab)
        is_read_only = True

        def set_mode(connection: Any, *_: Any) -> None:
            connection.execute(f"PRAGMA query_only={'ON' if is_read_only else 'OFF'}")

        event.listen(under_test.hub.db._engine.sync_engine, "checkout", set_mode)
        refused = await api.post("/groups", json={"group": {"name": "No"}})
        read = await names_of_groups(under_test, lab)
        is_read_only = False
        accepted = await api.post("/groups", json={"group": {"name": "Yes"}})

        is_problem(refused)
        assert "Engineering" in read
        assert accepted.status_code == 201
        assert "No" not in await names_of_groups(under_test, lab)
        await api.aclose()


async def test_an_sqlite_that_another_program_locks_answers_503_and_loses_nothing(
    database_path: Path, clock: ManualClock
) -> None:
    import sqlite3

    async with running_portal(settings_of(f"sqlite:///{database_path}"), clock) as under_test:
        lab = await make_lab(under_test.hub.db)
        api = await api_of(under_test, lab)
        other = sqlite3.connect(database_path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        refused = await api.post("/groups", json={"group": {"name": "No"}})
        other.execute("ROLLBACK")
        other.close()

        is_problem(refused)
        assert (await api.post("/groups", json={"group": {"name": "Yes"}})).status_code == 201
        await api.aclose()


# --- what they share --------------------------------------------------------------------------------------------------


def settings_of(url: str) -> Settings:
    return Settings(
        listen="127.0.0.1:0",
        database=url,
        secret_key=SECRET_KEY,
        connect_capacity=1000,
        database_timeout=1,
        database_pool=2,
    )


async def api_of(under_test: PortalUnderTest, lab: Lab) -> httpx.AsyncClient:
    async with under_test.hub.db.writing(subjects.system(AccountId(lab.account.id))) as unit:
        actor = await actors.create_actor(unit, {"name": "robot", "type": "api_client"}, ("api_client",))
        token = (await tokens.create_api_token(unit, actor.id, {})).text
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=under_test.url.replace("ws:", "http:"), headers=headers, timeout=WAIT_S)


def ask(lab: Lab) -> portal.RequestAuthorization:
    return portal.RequestAuthorization.model_validate({"resource_id": lab.resource.id, "connected_gateway_ids": []})


async def is_unavailable(under_test: PortalUnderTest, api: httpx.AsyncClient, lab: Lab) -> None:
    async with asyncio.timeout(WAIT_S):
        is_problem(await api.get("/groups"))
        is_problem(await api.post("/groups", json={"group": {"name": "No"}}))
        with pytest.raises(Refusal) as caught:
            await under_test.client(lab, "another")
        ready = await api.get("/readyz")
    assert caught.value.status == 503
    assert caught.value.problem["code"] == "database_unavailable"
    assert caught.value.headers["retry-after"] == "5"
    assert ready.status_code == 503
    assert ready.json()["status"] == "database_unavailable"
    assert (await api.get("/healthz")).status_code == 200


async def is_available_again(under_test: PortalUnderTest, api: httpx.AsyncClient) -> None:
    await available(under_test)
    assert (await api.get("/readyz")).json()["status"] == "ready"


async def available(under_test: PortalUnderTest) -> None:
    await until(under_test, is_available=True)


async def unavailable(under_test: PortalUnderTest) -> None:
    await until(under_test, is_available=False)


async def until(under_test: PortalUnderTest, *, is_available: bool) -> None:
    for _ in range(int(WAIT_S / _POLL_S)):
        if await under_test.hub.db.is_available() == is_available:
            return
        await asyncio.sleep(_POLL_S)
    raise TimeoutError


def is_problem(response: httpx.Response) -> None:
    assert response.status_code == 503, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "5"
    assert response.json()["status"] == 503


async def names_of_groups(under_test: PortalUnderTest, lab: Lab) -> list[str]:
    async with under_test.hub.db.scoped(lab.subject) as scope:
        return [group.name for group in await scope.all(scope.select(Group))]


def copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())
