"""All of a database into a file and back, and the proof that two databases hold the same.

What is kept is every table but those by which running portals agree (`TRANSIENT`): a restored database starts with
none of that. Rows are streamed, so that memory does not grow with the database.
"""

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection, Table, func, inspect, select
from sqlalchemy.exc import StatementError

from wardgate import __version__
from wardgate.errors import Conflict, InvalidBackup, SettingError
from wardgate.portal.db import migrate, sealing
from wardgate.portal.db.backup_file import (
    Adder,
    Header,
    Progress,
    Row,
    TableStart,
    TableSum,
    Writer,
    encode,
    read_header,
    read_tables,
    verify,
)
from wardgate.portal.db.engine import Database
from wardgate.portal.db.tables import Base
from wardgate.portal.db.trouble import why_unavailable
from wardgate.portal.db.types import Id, IpText, JsonValue, UtcDateTime

TRANSIENT: Final = frozenset({"outbox", "outbox_state", "jobs"})
"""Tables that belong to running portals, and are not kept."""

_EMPTY_HAS: Final = frozenset({"secret_keys"})
_BATCH: Final = 500
_PROGRESS_EVERY: Final = 10_000
_TYPES: Final[dict[str, Any]] = {
    "uuid": Id,
    "datetime": UtcDateTime(),
    "ip": IpText(),
    "json": JsonValue,
    "bytes": sa.LargeBinary(),
    "bool": sa.Boolean(),
    "int": sa.BigInteger(),
    "float": sa.Double(),
    "text": sa.Text(),
}


def _ignore(table: str, rows: int) -> None:
    pass


async def backup(db: Database, path: Path, progress: Progress = _ignore) -> dict[str, TableSum]:
    """Writes a database into a file, as it is at one moment; what was written, by table.

    The file appears under its name when it is complete; only its owner may read it.

    Raises:
        SettingError: The tables are of another version, or the file cannot be written.
        DatabaseUnavailable: The database is away.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            done = await db.snapshot(lambda connection: _write(connection, file, progress))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise SettingError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
    return done


def _write(connection: Connection, file: Any, progress: Progress) -> dict[str, TableSum]:
    revision = _current(connection)
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    writer = Writer(file, Header(__version__, revision, made_at, connection.dialect.name))
    done = {}
    for table in _kept():
        columns = _columns(table)
        done[table.name] = writer.write_table(table.name, columns, _rows(connection, table, progress))
    writer.finish()
    return done


async def checksums(db: Database, progress: Progress = _ignore) -> dict[str, TableSum]:
    """How many rows each table has, and what they hash to.

    Raises:
        SettingError: The tables are of another version.
        DatabaseUnavailable: The database is away.
    """

    def read(connection: Connection) -> dict[str, TableSum]:
        _current(connection)
        return {table.name: _sum(connection, table, progress) for table in _kept()}

    return await db.snapshot(read)


async def restore(db: Database, path: Path, progress: Progress = _ignore) -> dict[str, TableSum]:
    """Fills an empty database from a file, and brings it to this version; all or nothing.

    Everything is read back and compared before the commit.

    Raises:
        InvalidBackup: The file is damaged, cut off or from a newer version.
        Conflict: The database is not empty.
        SettingError: The key is not the one that the secrets in the backup were sealed with.
        DatabaseUnavailable: The database is away.
    """
    header = read_header(path)
    if header.revision not in migrate.revisions():
        raise InvalidBackup(f"the backup is of a newer version of Wardgate ({header.version}): restore it with that")
    with db.new_file():
        await db.snapshot(_refuse_if_filled)
        expected = verify(path, lambda table, rows: progress(f"checking {table}", rows))
        return await db.transact(
            lambda connection: _restore(connection, db, path, header.revision, expected, progress),
            checks_references=False,
        )


def _restore(
    connection: Connection,
    db: Database,
    path: Path,
    revision: str,
    expected: dict[str, TableSum],
    progress: Progress,
) -> dict[str, TableSum]:
    _refuse_if_filled(connection)
    _drop_tables(connection)
    migrate.migrate(connection, revision)
    _compare(connection, _insert(connection, path, progress), expected)
    migrate.migrate(connection)
    if not db.keys.check(connection):
        sealing.seal_all(connection, db.keyring)
    return {table.name: _sum(connection, table, _ignore) for table in _kept()}


def _compare(connection: Connection, tables: Sequence[TableStart], expected: dict[str, TableSum]) -> None:
    """Reads back what was inserted."""
    # PostgreSQL's cursors stay open, and their tables cannot be changed, until what they were opened in is rolled back.
    reading = connection.begin_nested()
    for start in tables:
        rows = _stream(connection, select(*_table_of(start).c), start.name, _ignore)
        if _sum_rows(start.columns, rows) != expected[start.name]:
            raise InvalidBackup(f"the rows of {start.name} in the database are not those of the file")
    reading.rollback()


def _drop_tables(connection: Connection) -> None:
    if sealing.can_seal(connection):
        connection.execute(sa.delete(sealing.SecretKey))  # it seals nothing, and going back would ask for its key
    migrate.migrate(connection, migrate.BASE)


def _refuse_if_filled(connection: Connection) -> None:
    there = set(inspect(connection).get_table_names())
    if "alembic_version" not in there:
        if there:
            raise Conflict("the database holds tables of another program; it was left untouched")
        return
    if migrate.current(connection) not in (None, *migrate.revisions()):
        raise SettingError("database: it was made by a newer version of Wardgate; it was left untouched")
    for name in sorted(there - TRANSIENT - _EMPTY_HAS - {"alembic_version"}):
        count = connection.scalar(select(func.count()).select_from(sa.table(name)))
        if count:
            raise Conflict(f"the database is not empty: {name} has {count} rows; it was left untouched")


def _insert(connection: Connection, path: Path, progress: Progress) -> list[TableStart]:
    """Puts the rows of all tables in; which these were."""
    tables: list[TableStart] = []
    batch: list[dict[str, Any]] = []
    count = 0

    def store() -> None:
        nonlocal batch, count
        if tables:
            _store(connection, _table_of(tables[-1]), batch)
            count += len(batch)
            progress(tables[-1].name, count)
        batch = []

    for item in read_tables(path):
        if isinstance(item, TableStart):
            store()
            tables.append(item)
            count = 0
            continue
        batch.append(dict(zip((name for name, _ in tables[-1].columns), item, strict=True)))
        if len(batch) == _BATCH:
            store()
    store()
    return tables


def _store(connection: Connection, table: Any, batch: Sequence[dict[str, Any]]) -> None:
    if not batch:
        return
    try:
        connection.execute(table.insert(), batch)
    except StatementError as error:
        if why_unavailable(error):
            raise
        why = str(error.orig).splitlines()[0] if error.orig else str(error)
        raise InvalidBackup(f"{table.name} has rows that this database does not take: {why}") from None


def _table_of(start: TableStart) -> Any:
    unknown = sorted({kind for _, kind in start.columns} - set(_TYPES))
    if unknown:
        raise InvalidBackup(f"the backup has values of a kind that this version does not know: {unknown[0]}")
    return sa.table(start.name, *(sa.column(name, _TYPES[kind]) for name, kind in start.columns))


def _current(connection: Connection) -> str:
    revision = migrate.current(connection)
    if revision != migrate.revisions()[0]:
        raise SettingError(
            f"database: its tables are of another version ({revision or 'none'}): run `wardgate portal migrate` first, "
            "or use the version that it belongs to"
        )
    return revision


def _kept() -> list[Table]:
    """Tables in an order in which references are met."""
    return [table for table in Base.metadata.sorted_tables if table.name not in TRANSIENT]


def _columns(table: Table) -> list[tuple[str, str]]:
    return [(column.name, _kind(column)) for column in table.columns]


def _kind(column: sa.Column[Any]) -> str:
    kind = column.type
    known: list[tuple[Any, str]] = [
        (UtcDateTime, "datetime"),
        (IpText, "ip"),
        (sa.JSON, "json"),
        (sa.Uuid, "uuid"),
        (sa.Boolean, "bool"),
        (sa.Integer, "int"),
        (sa.Float, "float"),
        (sa.String, "text"),
    ]
    for type_, name in known:
        if isinstance(kind, type_):
            return name
    impl = getattr(kind, "impl", kind)
    assert isinstance(impl, sa.LargeBinary), f"{column} has a type that no backup knows: {kind!r}"
    return "bytes"


def _rows(connection: Connection, table: Table, progress: Progress) -> Iterator[Row]:
    return _stream(connection, select(*table.columns), table.name, progress)


def _stream(connection: Connection, query: Any, name: str, progress: Progress) -> Iterator[Row]:
    result = connection.execute(query, execution_options={"yield_per": _BATCH})
    count = 0
    for count, row in enumerate(result, 1):
        yield tuple(row)
        if count % _PROGRESS_EVERY == 0:
            progress(name, count)
    progress(name, count)


def _sum(connection: Connection, table: Table, progress: Progress) -> TableSum:
    return _sum_rows(_columns(table), _rows(connection, table, progress))


def _sum_rows(columns: Sequence[tuple[str, str]], rows: Iterator[Row]) -> TableSum:
    kinds = [kind for _, kind in columns]
    adder = Adder()
    for row in rows:
        adder.add(kinds, [encode(kind, value) for kind, value in zip(kinds, row, strict=True)])
    return adder.total()
