"""What a doctor looks at in a database; nothing is changed."""

import shutil
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from wardgate.errors import WardgateError
from wardgate.portal.db import sealing
from wardgate.portal.db.engine import Database
from wardgate.portal.db.tables import OutboxEntry


@dataclass(frozen=True, slots=True)
class Health:
    """What was found.

    Attributes:
        error: Why the rest is not known.
        write_error: Why it cannot be written.
        free_bytes: Of the disk that the SQLite file lies on.
    """

    error: str | None = None
    version: str = ""
    is_current: bool = False
    is_sealed: bool = False
    key_error: str | None = None
    write_error: str | None = None
    size_bytes: int = 0
    wal_bytes: int = 0
    free_bytes: int | None = None
    outbox_entries: int = 0
    outbox_oldest: datetime | None = None


async def look(db: Database) -> Health:
    """Looks at a database that may be missing, of another version, or away."""
    if db.is_missing:
        return Health(error="it does not exist; `wardgate portal setup` makes one")
    try:
        found = await db.snapshot(lambda connection: _read(db, connection))
    except (SQLAlchemyError, OSError, WardgateError) as error:
        return Health(error=_short(error))
    return replace(found, write_error=await _try_to_write(db)) if found.is_current else found


def _read(db: Database, connection: Connection) -> Health:
    from wardgate.portal.db.migrate import is_current

    current = is_current(connection)
    entries, oldest = 0, None
    if current:
        query = select(func.count(), func.min(OutboxEntry.inserted_at)).select_from(OutboxEntry)
        entries, oldest = connection.execute(query).one()
    key_error = None
    try:
        is_sealed = db.keys.check(connection)
    except WardgateError as error:
        is_sealed, key_error = True, str(error)
    return Health(
        version=_version(connection),
        is_current=current,
        is_sealed=is_sealed and sealing.has_key_check(connection),
        key_error=key_error,
        outbox_entries=entries,
        outbox_oldest=oldest,
        **_sizes(db.file, connection),
    )


def _version(connection: Connection) -> str:
    if connection.dialect.name == "sqlite":
        return f"SQLite {connection.scalar(text('SELECT sqlite_version()'))}"
    return f"PostgreSQL {connection.scalar(text('SHOW server_version'))}"


def _sizes(file: Path | None, connection: Connection) -> dict[str, Any]:
    if file is None:
        return {"size_bytes": connection.scalar(text("SELECT pg_database_size(current_database())")) or 0}
    wal = file.with_name(file.name + "-wal")
    return {
        "size_bytes": file.stat().st_size,
        "wal_bytes": wal.stat().st_size if wal.exists() else 0,
        "free_bytes": shutil.disk_usage(file.parent).free,
    }


class _TakeBack(Exception):
    """Ends a transaction without keeping it."""


async def _try_to_write(db: Database) -> str | None:
    try:
        async with db.unscoped_write() as session:
            await session.execute(text("UPDATE secret_keys SET since = since"))
            raise _TakeBack
    except _TakeBack:
        return None
    except (SQLAlchemyError, OSError, WardgateError) as error:
        return _short(error)


def _short(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0][:300]
