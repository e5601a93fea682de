"""Migrations; apart from `engine.py`, since importing Alembic takes longer than most commands do.

All steps of one run are one transaction on both databases, tables included: one that fails leaves everything as it was.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from wardgate.errors import SettingError
from wardgate.portal.db.keyring import Keyring
from wardgate.portal.db.sqlite_file import APPLICATION_ID

HEAD: Final = "head"
BASE: Final = "base"
_SCRIPTS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x57_41_52_44_4D_49_47  # "WARDMIG": of PostgreSQL's advisory locks
_LOCK_WAIT: Final = "30s"


@dataclass(frozen=True, slots=True)
class Step:
    """A migration that was done, up or down."""

    revision: str
    name: str
    is_up: bool


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a run did: nothing, if the database was there already.

    Attributes:
        before: The revision that it had; `None` for an empty database.
    """

    before: str | None
    after: str | None
    steps: tuple[Step, ...]


def _config(versions: Sequence[Path]) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.set_main_option("version_locations", os.pathsep.join(str(one) for one in (_SCRIPTS / "versions", *versions)))
    config.set_main_option("path_separator", "os")
    return config


def revisions(versions: Sequence[Path] = ()) -> list[str]:
    """Every revision, the newest first."""
    return [script.revision for script in ScriptDirectory.from_config(_config(versions)).walk_revisions()]


def current(connection: Connection) -> str | None:
    """The revision that a database has; `None` for an empty one."""
    heads = MigrationContext.configure(connection).get_current_heads()
    return heads[0] if heads else None


def is_current(connection: Connection) -> bool:
    """Whether the tables are of this version.

    Raises:
        SettingError: They are of a newer one.
    """
    found, known = current(connection), revisions()
    if found is not None and found not in known:
        raise SettingError("database: it was made by a newer version of Wardgate; it was left untouched")
    return found == known[0]


def migrate(
    connection: Connection, to: str = HEAD, *, keyring: Keyring | None = None, versions: Sequence[Path] = ()
) -> Migrated:
    """Brings the tables to a revision, up or down, inside the connection's transaction.

    Args:
        keyring: Opens the secrets, for going back to a version that has them plain.
        versions: Directories with more revisions.

    Raises:
        SettingError: The tables are of a newer version, or there is no such revision.
    """
    known = revisions(versions)
    target = known[0] if to == HEAD else to
    if target not in (*known, BASE):
        raise SettingError(f"--to: there is no revision {to}; there are {', '.join(reversed(known))}")
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'"))
    before = current(connection)
    if before is not None and before not in known:
        raise SettingError("database: it was made by a newer version of Wardgate; it was left untouched")
    config = _config(versions)
    config.attributes.update(connection=connection, keyring=keyring)
    is_up = target != BASE and (before is None or known.index(target) < known.index(before))
    (command.upgrade if is_up else command.downgrade)(config, target)
    after = current(connection)
    if connection.dialect.name == "sqlite":
        _finish_sqlite(connection, len(known) - known.index(after) if after else 0)
    return Migrated(before, after, _steps(versions, known, before, after))


def _finish_sqlite(connection: Connection, version: int) -> None:
    """References are not enforced while tables are made anew; so they are checked before the commit."""
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if broken:
        raise SettingError(f"database: rows of {broken[0][0]} would point to nothing; it was left untouched")
    connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.exec_driver_sql(f"PRAGMA user_version = {version}")


def _steps(versions: Sequence[Path], known: list[str], before: str | None, after: str | None) -> tuple[Step, ...]:
    oldest_first = known[::-1]
    first = oldest_first.index(before) + 1 if before else 0
    last = oldest_first.index(after) + 1 if after else 0
    names = {one.revision: one.doc for one in ScriptDirectory.from_config(_config(versions)).walk_revisions()}
    if first <= last:
        return tuple(Step(one, names[one], True) for one in oldest_first[first:last])
    return tuple(Step(one, names[one], False) for one in reversed(oldest_first[last:first]))
