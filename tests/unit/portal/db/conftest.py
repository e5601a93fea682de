"""A database in a file, with its key beside it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.portal.helpers import ManualClock
from wardgate.portal.db.engine import Database


@pytest.fixture
async def sqlite_db(database_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    """For tests that are about files."""
    database = Database(f"sqlite:///{database_path}", clock)
    yield database
    await database.close()
