"""The form of a backup: all tables as JSON lines in one gzip file, the same from SQLite and from PostgreSQL.

The first line is the header, the last one says that the file is complete and what all lines before it hash to. Between
them each table has a line with its name and typed columns, a line (a JSON array) for each row, and a line with the
number of rows and their checksum. Documented in docs/operating.md.

A table's checksum is the sum of the SHA-256 of all rows in canonical form, modulo 2^256: two databases that hold the
same rows have the same, whatever order they give them in.
"""

import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

from wardgate.errors import InvalidBackup, SettingError

FORMAT: Final = 1
_KIND: Final = "wardgate-backup"
_MAX_LINE: Final = 64 * 2**20
_EXACT: Final = 2**53
Row = tuple[Any, ...]
Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Header:
    """Where a backup comes from.

    Attributes:
        revision: Of the tables.
        made_at: ISO 8601, UTC.
    """

    version: str
    revision: str
    made_at: str
    database: str


@dataclass(frozen=True, slots=True)
class TableSum:
    """How many rows a table has, and what they hash to."""

    rows: int
    checksum: str


class Adder:
    """Makes a table's checksum of its rows."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, kinds: Sequence[str], row: Sequence[Any]) -> None:
        """Takes a row in the form of the file."""
        canonical = [_canonical(value) if kind == "json" else value for kind, value in zip(kinds, row, strict=True)]
        digest = hashlib.sha256(_dump(canonical, sort=True)).digest()
        self._sum = (self._sum + int.from_bytes(digest)) % 2**256
        self.rows += 1

    def total(self) -> TableSum:
        """What came so far."""
        return TableSum(self.rows, f"{self._sum:064x}")


def encode(kind: str, value: Any) -> Any:
    """A value of a column as the file has it."""
    if value is None:
        return None
    if kind == "datetime":
        return value.isoformat()
    if kind == "bytes":
        return base64.b64encode(value).decode()
    return value


def decode(kind: str, value: Any) -> Any:
    """The value that a column takes.

    Raises:
        InvalidBackup: It has not the form of its kind.
    """
    if value is None:
        return None
    try:
        if kind == "datetime":
            return datetime.fromisoformat(value)
        if kind == "bytes":
            return base64.b64decode(value, validate=True)
    except (ValueError, TypeError):
        raise InvalidBackup(f"the file is damaged: {str(value)[:40]!r} is no {kind}") from None
    return value


class Writer:
    """Writes a backup, one table after the other.

    Raises:
        SettingError: From each of its calls: the file cannot be written.
    """

    def __init__(self, file: IO[bytes], header: Header) -> None:
        self._file = gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0)
        self._hash = hashlib.sha256()
        self._rows = self._tables = 0
        self._put({"kind": _KIND, "format": FORMAT, **_as_dict(header)})

    def write_table(self, name: str, columns: Sequence[tuple[str, str]], rows: Iterator[Row]) -> TableSum:
        """Writes a table's rows, whose values are as the database gives them."""
        kinds = [kind for _, kind in columns]
        adder = Adder()
        self._put({"table": name, "columns": columns})
        for row in rows:
            encoded = [encode(kind, value) for kind, value in zip(kinds, row, strict=True)]
            adder.add(kinds, encoded)
            self._put(encoded)
        total = adder.total()
        self._put({"end": name, "rows": total.rows, "checksum": total.checksum})
        self._rows += total.rows
        self._tables += 1
        return total

    def finish(self) -> None:
        """Says that this is all."""
        self._put({"complete": True, "tables": self._tables, "rows": self._rows, "sha256": self._hash.hexdigest()})
        with _reported_writing():
            self._file.close()

    def _put(self, value: Any) -> None:
        line = _dump(value) + b"\n"
        self._hash.update(line)
        with _reported_writing():
            self._file.write(line)


@contextmanager
def _reported_writing() -> Iterator[None]:
    """Keeps a full disk under the file apart from one under the database."""
    try:
        yield
    except OSError as error:
        raise SettingError(f"the backup cannot be written: {error.strerror or error}") from None


@dataclass(frozen=True, slots=True)
class TableStart:
    """A table begins: its name, and its columns with their kinds."""

    name: str
    columns: tuple[tuple[str, str], ...]


def read_header(path: Path) -> Header:
    """Where a backup comes from.

    Raises:
        InvalidBackup: The file is none.
    """
    for line in _lines(path):
        return _header(line)
    raise InvalidBackup(f"{path} is empty")


def verify(path: Path, progress: Progress = lambda table, rows: None) -> dict[str, TableSum]:
    """Reads all of a file and checks it; what it holds, by table.

    Raises:
        InvalidBackup: It is damaged or cut off.
    """
    adder, name, found = Adder(), "", dict[str, TableSum]()
    kinds: tuple[str, ...] = ()
    for item in _items(path):
        if isinstance(item, TableStart):
            adder, kinds, name = Adder(), tuple(kind for _, kind in item.columns), item.name
        elif isinstance(item, TableSum):
            if item != adder.total():
                raise InvalidBackup(f"the file is damaged: the rows of {name} are not those that were written")
            found[name] = item
            progress(name, item.rows)
        else:
            if len(item) != len(kinds):
                raise InvalidBackup(f"the file is damaged: a row of {name} has {len(item)} columns of {len(kinds)}")
            adder.add(kinds, item)
    return found


def read_tables(path: Path) -> Iterator[TableStart | Row]:
    """The tables of a file that was verified: each followed by its rows, decoded.

    Raises:
        InvalidBackup: It is damaged or cut off.
    """
    kinds: tuple[str, ...] = ()
    for item in _items(path):
        if isinstance(item, TableStart):
            kinds = tuple(kind for _, kind in item.columns)
            yield item
        elif isinstance(item, tuple):
            yield tuple(decode(kind, value) for kind, value in zip(kinds, item, strict=True))


def _items(path: Path) -> Iterator[TableStart | TableSum | Row]:
    seen = hashlib.sha256()
    is_complete = False
    for number, line in enumerate(_lines(path)):
        if is_complete:
            raise InvalidBackup("the file is damaged: it goes on after its end")
        value = _parse(line)
        if isinstance(value, list):
            yield tuple(value)
        elif number == 0:
            _header(line)
        elif "complete" in value:
            if value.get("sha256") != seen.hexdigest():
                raise InvalidBackup("the file is damaged: it is not what was written")
            is_complete = True
        else:
            yield _item(value)
        seen.update(line)
    if not is_complete:
        raise InvalidBackup("the file is cut off: its end is missing")


def _item(value: dict[str, Any]) -> TableStart | TableSum:
    try:
        if "table" in value:
            return TableStart(str(value["table"]), tuple((str(name), str(kind)) for name, kind in value["columns"]))
        return TableSum(int(value["rows"]), str(value["checksum"]))
    except (KeyError, ValueError, TypeError):
        raise InvalidBackup("the file is damaged: a line is none of a backup") from None


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as file:
            while line := file.readline(_MAX_LINE):
                if not line.endswith(b"\n"):
                    raise InvalidBackup("the file is cut off or damaged: a line has no end")
                yield line
    except EOFError:
        raise InvalidBackup("the file is cut off: its end is missing") from None
    except (gzip.BadGzipFile, zlib.error):
        raise InvalidBackup(f"{path} is no backup of Wardgate, or it is damaged") from None
    except OSError as error:
        raise InvalidBackup(f"{path} cannot be read: {error.strerror or error}") from None


def _parse(line: bytes) -> Any:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, (list, dict)):
        raise InvalidBackup("the file is damaged: a line is none of a backup")
    return value


def _header(line: bytes) -> Header:
    value = _parse(line)
    if not isinstance(value, dict) or value.get("kind") != _KIND:
        raise InvalidBackup("the file is no backup of Wardgate")
    if value.get("format") != FORMAT:
        raise InvalidBackup(f"the backup has the format {value.get('format')}; this version reads {FORMAT}")
    return Header(*(str(value.get(name)) for name in Header.__slots__))


def _as_dict(header: Header) -> dict[str, str]:
    return {name: getattr(header, name) for name in Header.__slots__}


def _dump(value: Any, *, sort: bool = False) -> bytes:
    # A lone surrogate is kept: it is written as an escape.
    return json.dumps(value, separators=(",", ":"), sort_keys=sort, ensure_ascii=True).encode()


def _canonical(value: Any) -> Any:
    """Numbers in the one form that both databases give back."""
    if isinstance(value, dict):
        return {key: _canonical(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_canonical(one) for one in value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if abs(value) <= _EXACT:
        return int(value) if value == int(value) else value
    return repr(float(value))
