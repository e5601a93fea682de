"""Opening a database: only ours, never a newer one, and migrated before use.

SQLite runs in WAL mode with one writer at a time; PostgreSQL has one writer for each account. Who waits for a writer
waits in the event loop, not in a thread.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from wardgate.errors import DatabaseUnavailable, SettingError
from wardgate.portal.clock import Clock
from wardgate.portal.db import access_guard, sealing
from wardgate.portal.db.connecting import DEFAULT_POOL, DEFAULT_TIMEOUT_S, create_engine, parse_url
from wardgate.portal.db.keyring import Keyring, decode_key
from wardgate.portal.db.keys import Keys
from wardgate.portal.db.locks import AccountLocks
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.snapshots import Snapshots
from wardgate.portal.db.sqlite_file import NEWEST_REVISION, NEWEST_VERSION, checked_version
from wardgate.portal.db.timing import time_queries
from wardgate.portal.db.trouble import reported_settings, translated, why_unavailable
from wardgate.portal.domain.log_ids import Sequencer
from wardgate.portal.domain.subjects import Subject

if TYPE_CHECKING:
    from wardgate.portal.db.migrate import Migrated

_HEALTH_WAIT_S = 3.0
_T = TypeVar("_T")


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


class Database:
    """The portal's tables, behind scopes and units of work."""

    def __init__(
        self,
        url: str,
        clock: Clock,
        secret_key: str | None = None,
        *,
        pool: int = DEFAULT_POOL,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        """Checks the file; nothing is opened or changed yet.

        Args:
            secret_key: Base64 of the key that seals secrets; an SQLite file without one gets a key file beside it.
            pool: Connections that are kept; as many more are opened for a burst.
            timeout_s: How long a statement may take; 0 for no limit.

        Raises:
            SettingError: The URL is not one of a database, or the file is not ours or from a newer version.
        """
        parsed = parse_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._path = Path(parsed.database) if self.is_sqlite and parsed.database else None
        self._version = checked_version(self._path) if self._path else 0
        self._clock = clock
        self._engine = create_engine(parsed, pool, timeout_s)
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        self._writer = asyncio.Lock() if self.is_sqlite else None
        self._locks = AccountLocks()
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

    async def migrate(self, to: str | None = None, *, versions: Sequence[Path] = ()) -> "Migrated | None":
        """Brings the tables to this version, and seals the secrets in them; all or nothing.

        Args:
            to: The revision to go to, if not the newest: also back, with the loss of what only newer ones keep.
            versions: Directories with more revisions.

        Returns:
            What was done; nothing, if there was nothing to do.

        Raises:
            SettingError: The tables are of a newer version, or the key is not theirs, or there is no such revision.
            DatabaseUnavailable: It is away, or too busy.
        """
        with reported_settings():
            if to is None and not versions and await self._is_ready():
                return None
            from wardgate.portal.db import migrate

            with self.new_file():
                done = await self.transact(
                    lambda connection: self._migrate(connection, to or migrate.HEAD, versions), checks_references=False
                )
        if self._path is not None:
            self._version = checked_version(self._path)
        return done if done.steps else None

    async def _is_ready(self) -> bool:
        return self._version == NEWEST_VERSION and await self._has_newest_revision() and await self._is_sealed()

    def _migrate(self, connection: Connection, to: str, versions: Sequence[Path]) -> "Migrated":
        from wardgate.portal.db import migrate

        if to == migrate.HEAD:
            done = migrate.migrate(connection, to, versions=versions)
            if not self.keys.check(connection):
                sealing.seal_all(connection, self.keyring)
            return done
        keyring = self.keyring if self.keys.check(connection) else None
        done = migrate.migrate(connection, to, keyring=keyring, versions=versions)
        if sealing.can_seal(connection):
            sealing.seal_all(connection, self.keyring)
        return done

    async def transact(self, work: Callable[[Connection], _T], *, checks_references: bool = True) -> _T:
        """Does something to all of the database in one transaction.

        Args:
            checks_references: Whether SQLite enforces references, and cascades; PostgreSQL always does.

        Raises:
            DatabaseUnavailable: It is away, or too busy.
        """
        engine = self._engine.execution_options(write=True, checks_references=checks_references)
        try:
            async with translated(), self._writer or nullcontext(), engine.begin() as connection:
                return await connection.run_sync(work)
        finally:
            if not checks_references:
                await self._engine.dispose()  # the setting belongs to the connection

    async def snapshot(self, work: Callable[[Connection], _T]) -> _T:
        """Reads all of the database as it is at one moment, while others go on writing.

        Raises:
            DatabaseUnavailable: It is away, or too busy.
        """
        options = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        async with translated(), self._engine.execution_options(**options).connect() as connection:
            return await connection.run_sync(work)

    async def _is_sealed(self) -> bool:
        async with translated(), self._engine.connect() as connection:
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
        await self._engine.dispose()
        if self._path is not None:
            sealing.refuse_if_open(self._path)
        async with self._engine.execution_options(write=True).begin() as connection:
            count = await connection.run_sync(sealing.reseal_all, old, new)
        self.keys.take_next(new)
        return count

    @contextmanager
    def new_file(self) -> Iterator[None]:
        """Makes the SQLite file if there is none, for its owner alone; it goes again if what follows fails."""
        path = self._path if self.is_missing else None
        if path is not None:
            path.touch(mode=0o600)  # it will hold the devices' secrets
        try:
            yield
        except BaseException:
            if path is not None:
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
            raise

    @property
    def file(self) -> Path | None:
        """The SQLite file, if it is one."""
        return self._path

    @property
    def is_missing(self) -> bool:
        """Whether there is no such SQLite file yet; migrating makes it."""
        return self._path is not None and not self._path.exists()

    async def _has_newest_revision(self) -> bool:
        async with translated(), self._engine.connect() as connection:
            found = await connection.execute(text("SELECT version_num FROM alembic_version"))
            return list(found.scalars()) == [NEWEST_REVISION]

    async def prepare(self) -> None:
        """Migrates an SQLite file; a server's tables are migrated by hand, and only checked here.

        Raises:
            SettingError: The tables are of another version, or the server does not let us in.
            DatabaseUnavailable: It is away: starting again later may do.
        """
        if self.is_sqlite:
            await self.migrate()
            return
        from wardgate.portal.db.migrate import is_current

        with reported_settings():
            is_ready = await self.snapshot(is_current) and await self.snapshot(self.keys.check)
        if not is_ready:
            raise SettingError("database: its tables are of another version: run `wardgate portal migrate` first")

    def time_queries(self, seen: Callable[[str, float], None]) -> None:
        """Calls back with every statement and how many seconds it took."""
        time_queries(self._engine, seen)

    async def close(self) -> None:
        """Lets go of all connections."""
        await self._engine.dispose()

    @asynccontextmanager
    async def scoped(self, subject: Subject) -> AsyncIterator[Scope]:
        """Reads in the subject's account.

        Raises:
            DatabaseUnavailable: It is away, or too busy; so say all four of these.
        """
        async with translated(), self._session() as session:
            yield Scope(session, subject, self.keyring)

    @asynccontextmanager
    async def unscoped(self) -> AsyncIterator[AsyncSession]:
        """Reads and writes across accounts: for system code that has no subject yet."""
        async with translated(), self._session() as session:
            yield session

    @asynccontextmanager
    async def unscoped_write(self) -> AsyncIterator[AsyncSession]:
        """Writes outside of any account, and commits; such changes reach no channel."""
        async with translated(), self._writer or nullcontext(), self._session(is_writing=True) as session:
            yield session
            await session.commit()

    @asynccontextmanager
    async def writing(self, subject: Subject, *, shares: bool = False) -> AsyncIterator[UnitOfWork]:
        """Changes rows in the subject's account; commits on leaving, with an outbox row for each change.

        Nobody else changes the account meanwhile. Callbacks given to `after_commit` run before the next writer of the
        account starts, so their order is that of the commits.

        Args:
            shares: Lets others that share write beside this one, for what comes often and decides by reading alone:
                grants, and sessions of devices.

        Raises:
            PolicyTestFailed: A policy test would no longer hold, and the subject gave no reason to force it.
        """
        async with translated(), self._turn(subject, shares):
            async with self._session(is_writing=True) as session:
                if not self.is_sqlite:
                    await _keep_other_portals_out(session, subject, shares)
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
        async with translated(), self._turn(subject, False), self._session(is_writing=True) as session:
            if not self.is_sqlite:
                await _keep_other_portals_out(session, subject, False)
            yield UnitOfWork(session, subject, self._clock.utc_now(), self.keyring, self.sequencer)

    def _turn(self, subject: Subject, shares: bool) -> AbstractAsyncContextManager[None]:
        return self._writer or self._locks.hold(subject.account_id, shares=shares)

    @asynccontextmanager
    async def _session(self, *, is_writing: bool = False) -> AsyncIterator[AsyncSession]:
        engine = self._engine.execution_options(write=True) if is_writing else self._engine
        async with self._sessions(bind=engine) as session:
            try:
                yield session
            except (DBAPIError, OSError) as error:
                # What hangs or is gone can be asked for no rollback; the server makes one when it notices.
                if isinstance(error, OSError) or (not self.is_sqlite and why_unavailable(error)):
                    await session.invalidate()
                raise

    def notify(self) -> None:
        """Wakes whoever looks at the outbox."""
        for listener in self.commit_listeners:
            listener()

    async def is_available(self) -> bool:
        """Whether the database answers a trivial question."""
        try:
            async with asyncio.timeout(_HEALTH_WAIT_S), self.unscoped() as session:
                await session.execute(text("SELECT 1"))
        except (DatabaseUnavailable, SQLAlchemyError, TimeoutError):
            return False
        return True


async def _keep_other_portals_out(session: AsyncSession, subject: Subject, shares: bool) -> None:
    """Takes the account's advisory lock until the transaction ends, alone or shared."""
    key = UUID(subject.account_id).int % 2**63
    function = "pg_advisory_xact_lock_shared" if shares else "pg_advisory_xact_lock"
    await session.execute(text(f"SELECT {function}(:key)"), {"key": key})
