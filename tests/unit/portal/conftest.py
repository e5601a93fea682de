"""A migrated database file, made once and copied for each test."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.portal.helpers import ManualClock
from wardgate.portal.clock import SystemClock
from wardgate.portal.db.engine import Database
from wardgate.portal.db.keyring import key_file_of


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("portal") / "template.db"

    async def make() -> None:
        db = Database(f"sqlite:///{path}", SystemClock())
        await db.migrate()
        await db.close()

    asyncio.run(make())
    return path


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def database_path(migrated: Path, tmp_path: Path) -> Path:
    path = tmp_path / "portal.db"
    shutil.copy(migrated, path)
    shutil.copy(key_file_of(migrated), key_file_of(path))
    return path


@pytest.fixture
async def db(database_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{database_path}", clock)
    yield database
    await database.close()
