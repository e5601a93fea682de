"""Rows in every table there is, whatever its constraints: also in tables that are yet to be written."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, product
from typing import Any, Final
from uuid import UUID, uuid5

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    String,
    Table,
    Uuid,
    func,
    select,
)
from sqlalchemy.exc import IntegrityError

from wardgate.portal.db.keyring import Keyring
from wardgate.portal.db.tables import Base, secret_place
from wardgate.portal.db.types import IpText, Secret, UtcDateTime

ROWS: Final = 6
_MAX_TRIES: Final = 3000
_NAMESPACE: Final = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
_START: Final = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
Row = dict[str, Any]


def fill(connection: Connection, keyring: Keyring) -> dict[str, int]:
    """Puts some rows into every table that has none; how many each table has then.

    Constraints are met by trying: columns that a check names take each word in it, or nothing, until rows go in.
    """
    rows: dict[str, list[Row]] = {}
    for table in Base.metadata.sorted_tables:
        count = connection.scalar(select(func.count()).select_from(table)) or 0
        rows[table.name] = [] if count else _fill(connection, table, rows, keyring)
        if count:
            rows[table.name] = [dict(row._mapping) for row in connection.execute(select(table))]
        assert rows[table.name], f"no row that {table.name} takes was found: a constraint is too clever for filling.py"
    return {name: len(some) for name, some in rows.items()}


def _fill(connection: Connection, table: Table, rows: dict[str, list[Row]], keyring: Keyring) -> list[Row]:
    made: list[Row] = []
    for number, choice in enumerate(islice(_choices(table), _MAX_TRIES)):
        row = {column.name: _value(column, number) for column in table.columns if not _is_given(column)}
        row |= _references(table, rows, number)
        for name, option in choice.items():
            row[name] = row[name] if option is _KEEP else option
        for column in table.columns:
            if isinstance(column.type, Secret) and row.get(column.name) is not None:
                row[column.name] = keyring.seal(b"secret", secret_place(table.name, column.name, row["id"]))
        try:
            with connection.begin_nested():
                connection.execute(table.insert(), row)
        except IntegrityError:
            continue
        made.append(row)
        if len(made) == ROWS:
            break
    return made


_KEEP: Final = object()


def _choices(table: Table) -> Iterator[Row]:
    """Combinations of values for the columns that checks are about; at last the plain row several times."""
    checks = [str(one.sqltext) for one in table.constraints if isinstance(one, CheckConstraint)]
    options: dict[str, list[Any]] = {}
    for column in table.columns:
        about = [text for text in checks if re.search(rf"\b{column.name}\b", text)]
        if not about:
            continue
        words = [word for text in about for word in re.findall(r"'([^']*)'", text)]
        options[column.name] = [*(dict.fromkeys(words) if isinstance(column.type, String) else ()), _KEEP]
        if column.nullable:
            options[column.name].append(None)
    for values in product(*options.values()):
        yield dict(zip(options, values, strict=True))
    for _ in range(ROWS):
        yield {}


def _is_given(column: Column[Any]) -> bool:
    """Whether the database numbers the rows itself."""
    return column.primary_key and column.autoincrement is True


def _references(table: Table, rows: dict[str, list[Row]], number: int) -> Row:
    """Columns that point to rows of one account, as far as their tables are filled."""
    accounts = rows.get("accounts", [])
    account_id = accounts[number % len(accounts)]["id"] if accounts else None
    values: Row = {}
    for constraint in table.foreign_key_constraints:
        parents = rows.get(constraint.referred_table.name, [])
        if "account_id" in constraint.column_keys and len(constraint.column_keys) > 1:
            parents = [row for row in parents if row["account_id"] == account_id]
        elif constraint.referred_table.name == "accounts":
            parents = [row for row in parents if row["id"] == account_id]
        for element in constraint.elements:
            parent = parents[number % len(parents)] if parents else None
            name = element.parent.name
            if parent is not None:
                values[name] = parent[element.column.name]
            elif name != "account_id":
                values[name] = None
    return values


def _value(column: Column[Any], number: int) -> Any:
    kind = column.type
    if column.name == "log_id":  # the one text with a form that migrations look at
        return f"c{number:023x}"
    if isinstance(kind, UtcDateTime):
        return _START + timedelta(hours=number)
    if isinstance(kind, IpText):
        return f"fd00::{number + 1:x}" if "6" in column.name else f"100.64.0.{number % 250 + 1}"
    if isinstance(kind, JSON):
        return {"words": ["ü", None, number], "deep": {"is": True, "number": 1.5}}
    if isinstance(kind, Uuid):
        return str(uuid5(_NAMESPACE, f"{column.table.name}.{column.name}.{number}"))
    if isinstance(kind, Secret):
        return b""  # sealed when the row has its id
    if isinstance(kind, LargeBinary):
        return bytes([0, 255, number % 256])
    if isinstance(kind, Boolean):
        return number % 2 == 0
    if isinstance(kind, Integer):
        return number + 1
    if isinstance(kind, Float):
        return number + 0.25
    assert isinstance(kind, String), f"{column}: filling.py knows no value of {kind!r}"
    length = kind.length or 20
    return f"{number}{column.name} ä'\"\\"[:length] if length > 6 else f"{number:0{length}}"
