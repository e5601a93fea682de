"""Secrets at rest: sealed when the database is migrated, checked at each start, sealed anew under another key."""

import base64
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from tests.unit.portal.helpers import Lab, ManualClock, make_lab
from wardgate.errors import Conflict, SettingError
from wardgate.portal.db import migrate, sealing
from wardgate.portal.db.devices import create_device
from wardgate.portal.db.engine import Database
from wardgate.portal.db.keyring import key_file_of
from wardgate.portal.db.tables import Account, Device

OTHER_KEY = base64.b64encode(bytes(range(32))).decode()
PSK = bytes(range(100, 132))


@pytest.fixture
def db(sqlite_db: Database) -> Database:
    """These tests look into the file, and at the key file beside it."""
    return sqlite_db


async def test_a_secret_is_sealed_in_the_file_and_opens_for_its_owner(db: Database, database_path: Path) -> None:
    lab, device_id = await filled(db)

    stored = value(database_path, "SELECT psk_base FROM devices")
    signing_key = sealing.unseal(db.keyring, lab.account, "ingest_signing_key")

    assert len(stored) == 32 + 1 + 12 + 16
    assert len(signing_key) == 32
    assert signing_key not in bytes_of(database_path)
    assert db.keyring.open(stored, f"devices.psk_base:{device_id}") not in bytes_of(database_path)


async def test_a_database_of_before_is_sealed_once_and_keeps_its_values(
    tmp_path: Path, db: Database, database_path: Path, clock: ManualClock
) -> None:
    lab, device_id = await filled(db)
    await db.close()
    await unsealed(database_path, db)
    with closing(sqlite3.connect(database_path)) as connection:
        connection.execute("UPDATE devices SET psk_base = ?", (PSK,))
        connection.commit()

    opened = Database(f"sqlite:///{database_path}", clock)
    await opened.prepare()
    await opened.prepare()
    async with opened.scoped(lab.subject) as scope:
        device = await scope.get(Device, device_id)
        psk = sealing.unseal(opened.keyring, device, "psk_base")
    await opened.close()

    assert psk == PSK
    assert PSK not in bytes_of(database_path)


async def test_sealing_that_breaks_leaves_the_database_of_before(
    db: Database, database_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(db)
    await db.close()
    await unsealed(database_path, db)
    before = dump(database_path)
    key_file_of(database_path).write_text("no key\n")

    opened = Database(f"sqlite:///{database_path}", clock)
    with pytest.raises(SettingError, match="secret_key"):
        await opened.prepare()
    await opened.close()

    assert dump(database_path) == before


@pytest.mark.parametrize("damage", ["another", "missing", "setting"])
async def test_a_database_does_not_start_with_another_key(
    db: Database, database_path: Path, clock: ManualClock, damage: str
) -> None:
    await filled(db)
    await db.close()
    before, file = dump(database_path), key_file_of(database_path)
    if damage == "another":
        file.write_text(OTHER_KEY)
    elif damage == "missing":
        file.unlink()

    opened = Database(f"sqlite:///{database_path}", clock, OTHER_KEY if damage == "setting" else None)
    with pytest.raises(SettingError, match="key file .* is missing" if damage == "missing" else "not the key"):
        await opened.prepare()
    await opened.close()

    assert dump(database_path) == before
    assert file.exists() is (damage != "missing")


async def test_a_replaced_key_opens_everything_and_the_old_one_nothing(
    db: Database, database_path: Path, clock: ManualClock
) -> None:
    lab, _ = await filled(db)
    old, signing_key = db.keyring, sealing.unseal(db.keyring, lab.account, "ingest_signing_key")

    count = await db.reseal(OTHER_KEY)
    await db.close()
    opened = Database(f"sqlite:///{database_path}", clock)
    await opened.prepare()
    async with opened.unscoped() as session:
        account = await session.get(Account, lab.account.id)
        assert account is not None
        assert sealing.unseal(opened.keyring, account, "ingest_signing_key") == signing_key
        with pytest.raises(SettingError):
            sealing.unseal(old, account, "ingest_signing_key")
    await opened.close()

    assert count == 3  # the signing key, one device, the known word
    assert key_file_of(database_path).read_text().strip() == OTHER_KEY


async def test_a_replacement_that_was_killed_before_or_after_its_commit_still_opens(
    db: Database, database_path: Path, clock: ManualClock
) -> None:
    await filled(db)
    file = key_file_of(database_path)
    old = file.read_text()
    db.keys.write_next(OTHER_KEY)
    await db.close()
    before = Database(f"sqlite:///{database_path}", clock)
    await before.prepare()
    assert file.read_text() == old

    await before.reseal(OTHER_KEY)
    await before.close()
    file.rename(file.with_name(file.name + ".new"))
    file.write_text(old)  # as if it had been killed before the file was replaced
    after = Database(f"sqlite:///{database_path}", clock)
    await after.prepare()
    await after.close()

    assert file.read_text().strip() == OTHER_KEY
    assert not file.with_name(file.name + ".new").exists()


async def test_a_key_is_not_replaced_under_a_portal_that_runs(
    db: Database, database_path: Path, clock: ManualClock
) -> None:
    await filled(db)
    other = Database(f"sqlite:///{database_path}", clock)
    await other.prepare()

    with pytest.raises(Conflict, match="stop the portal"):
        await other.reseal(OTHER_KEY)

    await other.close()
    await db.close()
    again = Database(f"sqlite:///{database_path}", clock)
    await again.prepare()
    await again.close()


async def test_an_older_version_gets_plain_secrets_back_but_only_with_the_key(
    db: Database, database_path: Path
) -> None:
    await filled(db)
    await db.close()
    with pytest.raises(SettingError, match="needs the key"), writing(database_path) as connection:
        downgrade(connection, None)
    assert len(value(database_path, "SELECT psk_base FROM devices")) == 61

    await unsealed(database_path, db)

    assert len(value(database_path, "SELECT psk_base FROM devices")) == 32


def test_columns_of_secrets_are_found_by_their_type() -> None:
    found = {(table.name, column) for table, column in sealing.sealed_columns()}

    assert found >= {("accounts", "ingest_signing_key"), ("devices", "psk_base"), ("secret_keys", "key_check")}


async def filled(db: Database) -> tuple[Lab, str]:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        device = await create_device(unit, type="gateway", site_id=lab.site.id, name="gw")
    return lab, device.id


@contextmanager
def writing(path: Path) -> Iterator[object]:
    """One transaction, of tables as well: by itself the driver begins none for those."""
    from sqlalchemy import create_engine, event

    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def before() -> str:
    """The revision before secrets were sealed."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    revision = ScriptDirectory.from_config(config).get_revision("0006")
    assert revision is not None
    return str(revision.down_revision)


def downgrade(connection: object, keyring: object) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    config.attributes.update(connection=connection, keyring=keyring)
    command.downgrade(config, before())


async def unsealed(path: Path, db: Database) -> None:
    """The database as the version before had it."""
    with writing(path) as connection:
        downgrade(connection, db.keyring)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA user_version = 1")  # any older one


def value(path: Path, query: str) -> bytes:
    with closing(sqlite3.connect(path)) as connection:
        return bytes(connection.execute(query).fetchone()[0])


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def bytes_of(path: Path) -> bytes:
    return b"".join(one.read_bytes() for one in path.parent.iterdir() if one.name != key_file_of(path).name)
