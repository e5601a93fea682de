"""Every secret of a database under one key: sealed by the migration, checked at each start, sealed anew on demand.

A column of the type `Secret` holds sealed values; the place of one is `table.column:id`. One row holds a sealed word
that is known, so that a wrong key is found at the start and not when the first device connects. As long as there is no
such row, all secrets of the database are plain: the row comes into being in the transaction that seals them.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Table, bindparam, func, inspect, select, text, update
from sqlalchemy.orm import Mapped, mapped_column

from wardgate.errors import Conflict, SettingError
from wardgate.portal.db.keyring import Keyring
from wardgate.portal.db.tables import Base, secret_place
from wardgate.portal.db.types import Secret

_CHECK_ID: Final = 1
_CHECK_WORD: Final = b"wardgate"
_LOCK: Final = 0x57_41_52_44_4B_45_59  # "WARDKEY": of PostgreSQL's advisory locks


class SecretKey(Base):
    """Which key seals this database: a known word, sealed."""

    __tablename__ = "secret_keys"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key_check: Mapped[bytes] = mapped_column(Secret)
    since: Mapped[datetime]


def unseal(keyring: Keyring, row: Base, column: str) -> bytes:
    """The secret in a column of a row.

    Raises:
        SettingError: It was sealed with another key.
    """
    return keyring.open(getattr(row, column), secret_place(row.__tablename__, column, row.id))  # type: ignore[attr-defined]


def seal(keyring: Keyring, plaintext: bytes, table: type[Base], column: str, row_id: str) -> bytes:
    """A secret as a column of a row keeps it."""
    return keyring.seal(plaintext, secret_place(table.__tablename__, column, row_id))


def can_seal(connection: Connection) -> bool:
    """Whether the tables are of a version that has its secrets sealed."""
    return inspect(connection).has_table(SecretKey.__tablename__)


def has_key_check(connection: Connection) -> bool:
    """Whether the secrets of this database are sealed."""
    if not inspect(connection).has_table(SecretKey.__tablename__):
        return False
    return connection.scalar(select(func.count()).select_from(SecretKey)) == 1


def opens(connection: Connection, keyring: Keyring) -> bool:
    """Whether the key is the one that this database is sealed with."""
    sealed = connection.scalar(select(SecretKey.key_check).where(SecretKey.id == _CHECK_ID))
    try:
        return sealed is not None and keyring.open(sealed, _check_place()) == _CHECK_WORD
    except SettingError:
        return False


def seal_all(connection: Connection, keyring: Keyring) -> int:
    """Seals what is plain, unless this was done already; how many values."""
    _lock(connection)
    if has_key_check(connection):
        return 0
    count = _rewrite(connection, keyring.seal)
    check = keyring.seal(_CHECK_WORD, _check_place())
    connection.execute(SecretKey.__table__.insert().values(id=_CHECK_ID, key_check=check, since=datetime.now(UTC)))  # type: ignore[attr-defined]
    return count


def unseal_all(connection: Connection, keyring: Keyring) -> None:
    """Makes all secrets plain again, for an older version.

    Raises:
        SettingError: The key is another one; nothing is changed then.
    """
    if has_key_check(connection):
        connection.execute(SecretKey.__table__.delete())  # type: ignore[attr-defined]
        _rewrite(connection, keyring.open)


def reseal_all(connection: Connection, old: Keyring, new: Keyring) -> int:
    """Seals everything under another key; how many values.

    Raises:
        Conflict: Something else uses the database: it would go on with the old key.
        SettingError: The old key is not the one that it was sealed with.
    """
    _lock(connection)
    _refuse_if_used(connection)
    if not opens(connection, old):
        raise wrong_key()
    count = _rewrite(connection, lambda value, place: new.seal(old.open(value, place), place))
    connection.execute(update(SecretKey).values(since=datetime.now(UTC)))
    return count


def wrong_key() -> SettingError:
    """What is said of a key that does not open the database."""
    return SettingError(
        "secret_key: it is not the key that this database was sealed with; nothing was changed. Give the key that "
        "was backed up with it, in WARDGATE_SECRET_KEY or in the key file beside the database"
    )


def missing_key(path: Path) -> SettingError:
    """What is said if the key file is gone."""
    return SettingError(
        f"secret_key: the database is sealed, and its key file {path} is missing; put it back from the backup, or "
        "give the key in WARDGATE_SECRET_KEY"
    )


def _check_place() -> str:
    return secret_place(SecretKey.__tablename__, "key_check", _CHECK_ID)


def _rewrite(connection: Connection, change: Callable[[bytes, str], bytes]) -> int:
    """Changes every secret that the tables of this database have."""
    count, there = 0, set(inspect(connection).get_table_names())
    for table, column in sealed_columns():
        if table.name not in there:
            continue
        key = list(table.primary_key.columns)
        rows = connection.execute(select(*key, table.c[column]).where(table.c[column].is_not(None))).all()
        changed = [
            {
                **{f"key_{part.name}": value for part, value in zip(key, row[:-1], strict=True)},
                "secret": change(row[-1], secret_place(table.name, column, row._mapping["id"])),
            }
            for row in rows
        ]
        if changed:
            same = [part == bindparam(f"key_{part.name}", type_=part.type) for part in key]
            secret = bindparam("secret", type_=table.c[column].type)
            connection.execute(update(table).where(*same).values({column: secret}), changed)
        count += len(changed)
    return count


def sealed_columns() -> Iterator[tuple[Table, str]]:
    """Every table and column that holds sealed values."""
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if isinstance(column.type, Secret):
                yield table, column.name


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def refuse_if_open(path: Path) -> None:
    """Looks whether another program has an SQLite file open, by asking for it alone.

    Raises:
        Conflict: It has.
    """
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("PRAGMA journal_mode=DELETE").fetchone()  # nobody else may have it open for this
        except sqlite3.OperationalError:
            raise Conflict(f"{path} is in use: stop the portal first") from None


def _refuse_if_used(connection: Connection) -> None:
    """On PostgreSQL others are seen; an SQLite file is asked for before the transaction begins."""
    if connection.dialect.name != "postgresql":
        return
    others = connection.scalar(
        text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    )
    if others:
        raise Conflict(f"{others} other connections use the database: stop every portal first")
