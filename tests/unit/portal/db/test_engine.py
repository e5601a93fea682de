"""Which files are opened, and that the migrations make the tables."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from tests.unit.portal.helpers import ManualClock
from wardgate.errors import SettingError
from wardgate.portal.db.engine import Database
from wardgate.portal.db.tables import Base


def test_migrations_make_exactly_the_tables(migrated: Path) -> None:
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    engine.dispose()

    assert differences == []


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


async def test_migrating_twice_changes_nothing(db: Database) -> None:
    await db.migrate()
    assert await db.is_available()


async def test_a_database_whose_portal_was_killed_at_its_first_start_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "portal.db"
    killed = Database(f"sqlite:///{path}", ManualClock())
    await killed.migrate()
    copy = tmp_path / "copy.db"
    for suffix in ("", "-wal", ".key"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    await killed.close()

    opened = Database(f"sqlite:///{copy}", ManualClock())
    await opened.prepare()

    assert await opened.is_available()
    await opened.close()
