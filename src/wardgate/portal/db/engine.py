"""Opening a database: only ours, never a newer one, and migrated before use.

SQLite runs in WAL mode with one writer at a time; who waits for the writer waits in the event loop, not in a thread.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from wardgate.errors import SettingError
from wardgate.portal.clock import Clock
from wardgate.portal.db import access_guard, sealing
from wardgate.portal.db.keyring import Keyring, decode_key
from wardgate.portal.db.keys import Keys
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.snapshots import Snapshots
from wardgate.portal.db.sqlite_file import NEWEST_REVISION, NEWEST_VERSION, checked_version
from wardgate.portal.domain.log_ids import Sequencer
from wardgate.portal.domain.subjects import Subject


class Trial:
    """Stands for the database while changes are only tried: all of them are made in one unit of work."""

    def __init__(self, unit: UnitOfWork) -> None:
        self._unit = unit

    @asynccontextmanager
    async def writing(self, subject: Subject) -> AsyncIterator[UnitOfWork]:
        """Changes rows within the trial."""
        yield self._unit

    @asynccontextmanager
    async def scoped(self, subject: Subject) -> AsyncIterator[Scope]:
        """Reads what the trial has changed."""
        yield self._unit


_DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


class Database:
    """The portal's tables, behind scopes and units of work."""

    def __init__(self, url: str, clock: Clock, secret_key: str | None = None) -> None:
        """Checks the file; nothing is opened or changed yet.

        Args:
            secret_key: Base64 of the key that seals secrets; an SQLite file without one gets a key file beside it.

        Raises:
            SettingError: The URL is not one of a database, or the file is not ours or from a newer version.
        """
        parsed = _parse(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._path = Path(parsed.database) if self.is_sqlite and parsed.database else None
        self._version = checked_version(self._path) if self._path else 0
        self._clock = clock
        self._engine = _create_engine(parsed, self.is_sqlite)
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        self._writer = asyncio.Lock() if self.is_sqlite else None
        self.keys = Keys(self._path, secret_key)
        self.sequencer = Sequencer()
        self.commit_listeners: list[Callable[[], None]] = []
        self.snapshots = Snapshots()

    @property
    def keyring(self) -> Keyring:
        """What seals and opens the secrets of this database.

        Raises:
            SettingError: There is no key, and no place where one could be made.
        """
        return self.keys.keyring

    async def migrate(self) -> None:
        """Brings the tables to this version and seals the secrets in them, all or nothing.

        Raises:
            SettingError: The tables are of a newer version, or the key is not theirs.
        """
        if self._version == NEWEST_VERSION and await self._has_newest_revision() and await self._is_sealed():
            return
        from wardgate.portal.db.migrate import upgrade

        if self._path is not None and self.is_missing:
            self._path.touch(mode=0o600)  # it will hold the devices' secrets
        async with self._engine.execution_options(write=True).begin() as connection:
            await connection.run_sync(self.keys.check)
            await connection.run_sync(upgrade)
            await connection.run_sync(lambda sync: sealing.seal_all(sync, self.keyring))
        self._version = NEWEST_VERSION

    async def _is_sealed(self) -> bool:
        async with self._engine.connect() as connection:
            return await connection.run_sync(self.keys.check)

    async def reseal(self, key: str) -> int:
        """Seals every secret with another key, all or nothing; how many there were.

        Args:
            key: Base64 of the new key. If the old one is in the key file, the file holds the new one afterwards.

        Raises:
            Conflict: A portal uses the database.
            SettingError: The old key is not the database's, or the new one is none.
        """
        new, old = Keyring(decode_key(key)), self.keyring
        self.keys.write_next(key)
        if self._path is not None:
            await self._engine.dispose()
            sealing.refuse_if_open(self._path)
        async with self._engine.execution_options(write=True).begin() as connection:
            count = await connection.run_sync(sealing.reseal_all, old, new)
        self.keys.take_next(new)
        return count

    @property
    def is_missing(self) -> bool:
        """Whether there is no such SQLite file yet; migrating makes it."""
        return self._path is not None and not self._path.exists()

    async def _has_newest_revision(self) -> bool:
        async with self._engine.connect() as connection:
            found = await connection.execute(text("SELECT version_num FROM alembic_version"))
            return list(found.scalars()) == [NEWEST_REVISION]

    async def prepare(self) -> None:
        """Migrates an SQLite file; a server's tables are migrated by hand, and only checked here.

        Raises:
            SettingError: The tables are of another version.
        """
        if self.is_sqlite:
            await self.migrate()
            return
        from wardgate.portal.db.migrate import is_current

        try:
            async with self._engine.connect() as connection:
                is_ready = await connection.run_sync(is_current) and await connection.run_sync(self.keys.check)
        except (SQLAlchemyError, OSError) as error:
            raise SettingError(f"database: it cannot be reached: {error}") from None
        if not is_ready:
            raise SettingError("database: its tables are of another version: run `wardgate portal migrate` first")

    async def close(self) -> None:
        """Lets go of all connections."""
        await self._engine.dispose()

    @asynccontextmanager
    async def scoped(self, subject: Subject) -> AsyncIterator[Scope]:
        """Reads in the subject's account."""
        async with self._sessions() as session:
            yield Scope(session, subject, self.keyring)

    @asynccontextmanager
    async def unscoped(self) -> AsyncIterator[AsyncSession]:
        """Reads and writes across accounts: for system code that has no subject yet."""
        async with self._sessions() as session:
            yield session

    @asynccontextmanager
    async def unscoped_write(self) -> AsyncIterator[AsyncSession]:
        """Writes outside of any account, and commits; such changes reach no channel."""
        async with self._writer or nullcontext(), self._write_session() as session:
            yield session
            await session.commit()

    @asynccontextmanager
    async def writing(self, subject: Subject) -> AsyncIterator[UnitOfWork]:
        """Changes rows in the subject's account; commits on leaving, with an outbox row for each change.

        Callbacks given to `after_commit` run before the next writer starts, so their order is that of the commits.

        Raises:
            PolicyTestFailed: A policy test would no longer hold, and the subject gave no reason to force it.
        """
        async with self._writer or nullcontext():
            async with self._write_session() as session:
                unit = UnitOfWork(session, subject, self._clock.utc_now(), self.keyring, self.sequencer)
                yield unit
                await access_guard.check(unit, self.snapshots)
                await unit.record()
                await session.commit()
            for callback in unit.committed:
                callback()
        if unit.has_changes:
            self.notify()

    @asynccontextmanager
    async def trial(self, subject: Subject) -> AsyncIterator[UnitOfWork]:
        """Changes rows to see what would come of it; nothing of it stays, and nobody is told."""
        async with self._writer or nullcontext(), self._write_session() as session:
            yield UnitOfWork(session, subject, self._clock.utc_now(), self.keyring, self.sequencer)

    def notify(self) -> None:
        """Wakes whoever looks at the outbox."""
        for listener in self.commit_listeners:
            listener()

    async def is_available(self) -> bool:
        """Whether the database answers a trivial question."""
        try:
            async with self._engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except (SQLAlchemyError, OSError):
            return False
        return True

    def _write_session(self) -> AsyncSession:
        return self._sessions(bind=self._engine.execution_options(write=True))


def _parse(url: str) -> Any:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SettingError("database: must be a URL such as sqlite:///wardgate.db or postgresql://…") from None
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None:
        raise SettingError(f"database: {parsed.get_backend_name()!r} is not one of sqlite, postgresql")
    return parsed.set(drivername=driver)


def _create_engine(url: Any, is_sqlite: bool) -> AsyncEngine:
    try:
        engine = create_async_engine(url, pool_pre_ping=not is_sqlite)
    except ModuleNotFoundError as error:
        raise SettingError(f"database: the Python package {error.name} is needed for this URL") from None
    if is_sqlite:
        event.listen(engine.sync_engine, "connect", _on_connect)
        event.listen(engine.sync_engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=NORMAL", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    is_writing = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")
