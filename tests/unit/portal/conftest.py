"""A migrated database of each kind, made once and copied for each test."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from tests.postgres import TEMPLATE, Server, server_or_skip
from tests.unit.portal.helpers import SECRET_KEY, ManualClock
from wardgate.portal.clock import SystemClock
from wardgate.portal.db.engine import Database
from wardgate.portal.db.keyring import key_file_of


@pytest.fixture(scope="session", autouse=True)
def plain_tracebacks() -> None:
    """Tracebacks as the portal logs them: coloured ones with all variables take seconds each."""
    _configure_logs()


def _configure_logs() -> None:
    structlog.reset_defaults()
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()])


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command that ran within a test has set up the logs of its process, and loggers keep that."""
    yield
    if structlog.get_config()["cache_logger_on_first_use"]:  # as a program configures it
        _configure_logs()
        for module in [one for name, one in sys.modules.items() if name.startswith("wardgate.")]:
            for logger in (vars(module).get("log"), vars(module).get("_log")):
                getattr(logger, "__dict__", {}).pop("bind", None)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("portal") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A server with a migrated database to copy."""
    server = server_or_skip()
    try:
        server.start()
        server.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate(server.url(TEMPLATE))
        yield server
    finally:
        server.remove()


def migrate(url: str) -> None:
    async def make() -> None:
        db = Database(url, SystemClock(), SECRET_KEY)
        await db.migrate()
        await db.close()

    asyncio.run(make())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def database_path(migrated: Path, tmp_path: Path) -> Path:
    """An SQLite file, for tests that are about files."""
    path = tmp_path / "portal.db"
    shutil.copy(migrated, path)
    key_file_of(path).write_text(SECRET_KEY)
    key_file_of(path).chmod(0o600)
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated database; `-k "not postgresql"` leaves PostgreSQL out."""
    if request.param == "sqlite":
        yield f"sqlite:///{request.getfixturevalue('database_path')}"
        return
    server: Server = request.getfixturevalue("postgresql")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
async def db(database_url: str, clock: ManualClock) -> AsyncIterator[Database]:
    database = Database(database_url, clock, SECRET_KEY)
    yield database
    await database.close()
