"""Which files are opened."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.postgres import Server
from tests.unit.portal.helpers import SECRET_KEY, ManualClock
from wardgate.errors import DatabaseUnavailable, SettingError
from wardgate.portal.db.engine import Database


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hello, this is not a database at all" * 10, "not an SQLite database"),
        (b"SQLite format 3\x00" + bytes(84), "belongs to another program"),
        (b"SQLite format 3\x00", "not an SQLite database"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_untouched(
    tmp_path: Path, clock: ManualClock, content: bytes, said: str
) -> None:
    path = tmp_path / "other.db"
    path.write_bytes(content)

    with pytest.raises(SettingError, match=said):
        Database(f"sqlite:///{path}", clock)

    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_the_database_of_another_program_is_refused_untouched(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    content = path.read_bytes()

    with pytest.raises(SettingError, match="another program"):
        Database(f"sqlite:///{path}", clock)

    assert path.read_bytes() == content


def test_a_newer_database_is_refused_untouched(database_path: Path, clock: ManualClock) -> None:
    connection = sqlite3.connect(database_path)
    connection.execute("PRAGMA user_version = 9999")
    connection.close()
    content = database_path.read_bytes()

    with pytest.raises(SettingError, match="newer version"):
        Database(f"sqlite:///{database_path}", clock)

    assert database_path.read_bytes() == content


async def test_an_unknown_revision_is_refused(database_path: Path, clock: ManualClock) -> None:
    connection = sqlite3.connect(database_path)
    connection.execute("UPDATE alembic_version SET version_num = 'future'")
    connection.commit()
    connection.close()
    db = Database(f"sqlite:///{database_path}", clock)

    with pytest.raises(SettingError, match="newer version"):
        await db.migrate()

    await db.close()


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://host/db", "sqlite:////no/such/directory/x.db"])
def test_a_wrong_url_is_a_setting_error(url: str, clock: ManualClock) -> None:
    with pytest.raises(SettingError, match="database"):
        Database(url, clock)


async def test_a_server_that_does_not_know_the_database_or_the_user_is_a_setting_error(postgresql: Server) -> None:
    wrong_user = postgresql.url("postgres").replace("wardgate@", "nobody@")

    for url, said in ((postgresql.url("missing"), "no such database"), (wrong_user, "does not let this user in")):
        db = Database(url, ManualClock(), SECRET_KEY)
        for work in (db.prepare, db.migrate):
            with pytest.raises(SettingError, match=said):
                await work()
        await db.close()


async def test_a_server_that_is_away_is_no_setting_error_since_it_may_come(postgresql: Server) -> None:
    url = postgresql.url("postgres").replace(f":{postgresql.port}/", ":1/")
    db = Database(url, ManualClock(), SECRET_KEY)

    for work in (db.prepare, db.migrate):
        with pytest.raises(DatabaseUnavailable, match="cannot be reached"):
            await work()
    await db.close()


async def test_a_user_who_may_not_make_tables_is_told(postgresql: Server, clock: ManualClock) -> None:
    await postgresql.execute_now("DROP ROLE IF EXISTS reader")
    await postgresql.execute_now("CREATE ROLE reader LOGIN")
    db = Database(postgresql.url("postgres").replace("wardgate@", "reader@"), clock, SECRET_KEY)

    with pytest.raises(SettingError, match="may not do this: permission denied"):
        await db.migrate()

    await db.close()


async def test_migrating_twice_changes_nothing(db: Database) -> None:
    await db.migrate()
    assert await db.is_available()


async def test_a_database_whose_portal_was_killed_at_its_first_start_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "portal.db"
    killed = Database(f"sqlite:///{path}", ManualClock())
    other = sqlite3.connect(path)  # keeps what is written in the log
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("SELECT * FROM sqlite_schema").fetchall()
    await killed.migrate()
    copy = tmp_path / "copy.db"
    for suffix in ("", "-wal", ".key"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    await killed.close()
    other.close()

    opened = Database(f"sqlite:///{copy}", ManualClock())
    await opened.prepare()

    assert await opened.is_available()
    await opened.close()
