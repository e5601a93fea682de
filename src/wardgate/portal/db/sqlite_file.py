"""Whose SQLite file this is, and of which version, by its header alone."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from wardgate.errors import SettingError

_MIGRATIONS: Final = sorted(one.name for one in (Path(__file__).parent / "migrations" / "versions").glob("[0-9]*.py"))
NEWEST_VERSION: Final = len(_MIGRATIONS)
NEWEST_REVISION: Final = _MIGRATIONS[-1].partition("_")[0]
APPLICATION_ID: Final = 0x57_41_52_44  # "WARD", at offset 68 of the file
_SQLITE_MAGIC: Final = b"SQLite format 3\x00"


def checked_version(path: Path) -> int:
    """The version of the tables in a file, 0 for none; only looks, so that a file which is not ours stays as it is.

    Raises:
        SettingError: The file is not ours, or from a newer version.
    """
    if not path.parent.is_dir():
        raise SettingError(f"database: the directory {path.parent} does not exist")
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise SettingError(f"database: {path} cannot be read: {error.strerror}") from None
    if not header:
        return 0
    if not header.startswith(_SQLITE_MAGIC) or len(header) < 100:
        raise SettingError(f"database: {path} is not an SQLite database; it was left untouched")
    owner, version = int.from_bytes(header[68:72], "big"), int.from_bytes(header[60:64], "big")
    if owner == 0 and path.with_name(path.name + "-wal").exists():
        owner, version = _unwritten_header(path)
    if owner != APPLICATION_ID:
        raise SettingError(f"database: {path} belongs to another program; it was left untouched")
    if version > NEWEST_VERSION:
        raise SettingError(f"database: {path} was made by a newer version of Wardgate; it was left untouched")
    return version


def _unwritten_header(path: Path) -> tuple[int, int]:
    """Owner and version as the write-ahead log has them: a portal that was killed did not copy them to the file."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            values = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    except sqlite3.Error:
        return 0, 0
    return int(values[0]), int(values[1])
