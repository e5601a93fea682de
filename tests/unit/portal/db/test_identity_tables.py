"""The identity tables come and go without touching what was there; what hangs on a provider goes with it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text

from tests.unit.portal.helpers import Lab, make_lab
from wardgate.portal.db.engine import Database
from wardgate.portal.db.identity_tables import AuthProvider, Directory
from wardgate.portal.db.keyring import Keyring
from wardgate.portal.db.migrate import migrate
from wardgate.portal.db.tables import Actor, ChangeLog, ClientToken, new_id

REFERENCES = {"actors": "created_by_directory_id", "groups": "directory_id", "client_tokens": "auth_provider_id"}


async def test_rows_survive_the_migration_down_and_up(sqlite_db: Database, engine: Engine) -> None:
    await make_lab(sqlite_db)
    before, references = rows(engine), references_of(engine)

    to(engine, "0001", sqlite_db.keyring)
    assert not set(REFERENCES.items()) & set(references_of(engine))
    assert rows(engine) == before
    to(engine, "head")

    assert rows(engine) == before
    assert references_of(engine) == references
    assert set(REFERENCES.items()) <= set(references)
    with engine.connect() as connection:
        assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
        assert list(connection.execute(text("PRAGMA foreign_key_check"))) == []


async def test_the_change_log_names_a_provider_as_the_api_does_and_keeps_its_secret_back(db: Database) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        await unit.insert(provider(lab, settings={"okta_domain": "corp.okta.com"}, sealed_secret=b"x"))
    async with db.unscoped() as session:
        row = (await session.get(ChangeLog, (lab.account.id, await newest(session)))) or pytest.fail("no row")

    assert row.object == "okta_auth_providers"
    assert row.after
    assert (row.after["okta_domain"], row.after["client_secret"]) == ("corp.okta.com", "[redacted]")
    assert not {"settings", "sealed_secret", "type"} & set(row.after)


async def test_a_deleted_provider_takes_its_tokens_along(db: Database) -> None:
    lab = await make_lab(db)
    one = provider(lab)
    async with db.writing(lab.subject) as unit:
        await unit.insert(one)
        await unit.update(await unit.get(ClientToken, lab.client_token_id), auth_provider_id=one.id)
        await unit.delete(one)

        assert await unit.find(ClientToken, lab.client_token_id) is None


async def test_a_deleted_directory_takes_along_who_it_made(db: Database) -> None:
    lab = await make_lab(db)
    directory = Directory(
        account_id=lab.account.id, id=new_id(), type="google", name="Google", external_key="corp.example"
    )
    async with db.writing(lab.subject) as unit:
        await unit.insert(directory)
        await unit.update(await unit.get(Actor, lab.actor.id), created_by_directory_id=directory.id)
        await unit.delete(directory)

        assert await unit.find(Actor, lab.actor.id) is None


@pytest.fixture
def engine(database_path: Path) -> Iterator[Engine]:
    made = create_engine(f"sqlite:///{database_path}")
    event.listen(made, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
    yield made
    made.dispose()


def provider(lab: Lab, **columns: Any) -> AuthProvider:
    given = {"type": "okta", "name": "Okta", "issuer": "https://corp.okta.com", "client_id": "c", **columns}
    return AuthProvider(account_id=lab.account.id, id=new_id(), **given)


async def newest(session: Any) -> str:
    found = await session.execute(text("SELECT log_id FROM change_logs WHERE object = 'okta_auth_providers'"))
    return str(found.scalar_one())


def to(engine: Engine, revision: str, keyring: Keyring | None = None) -> None:
    with engine.begin() as connection:
        migrate(connection, revision, keyring=keyring)


def rows(engine: Engine) -> dict[str, list[Any]]:
    with engine.connect() as connection:
        return {
            table: [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2"))]
            for table in (*REFERENCES, "memberships", "devices", "policies", "resources", "sites")
        }


def references_of(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        return [
            (table, str(row[3]))
            for table in REFERENCES
            for row in connection.execute(text(f"PRAGMA foreign_key_list({table})"))
        ]
