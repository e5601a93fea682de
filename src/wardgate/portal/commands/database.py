"""`wardgate portal migrate`, `backup`, `restore` and `move`: all of a database at once."""

import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from wardgate.errors import SettingError, WardgateError
from wardgate.portal.clock import SystemClock
from wardgate.portal.commands.base import DatabaseOption, JsonOption, configure_logging, reported
from wardgate.portal.config import read_settings
from wardgate.portal.db import backup as backups
from wardgate.portal.db.backup_file import TableSum
from wardgate.portal.db.connecting import shown_url
from wardgate.portal.db.engine import Database

_SHOWN: Final = 16
_T = TypeVar("_T")


def migrate(
    to: Annotated[
        str | None,
        typer.Option("--to", help="A revision such as 0003, also an older one: what only newer ones keep is lost."),
    ] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the database to this version, or to a revision."""
    with reported():
        done = _run(_url(database), lambda db: db.migrate(to))
    if as_json:
        steps = [
            {"revision": one.revision, "name": one.name, "direction": "up" if one.is_up else "down"}
            for one in (done.steps if done else ())
        ]
        print(json.dumps({"from": done.before, "to": done.after, "steps": steps} if done else {"steps": []}))
        return
    for step in done.steps if done else ():
        print(f"wardgate portal: {'applied' if step.is_up else 'took back'} {step.revision}: {step.name}")
    print("wardgate portal: the database is up to date" if to is None else f"wardgate portal: the database is at {to}")


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it; a file of that name is replaced.")],
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all of the database into one file, while the portal runs."""
    with reported():
        done = _run(_existing(_url(database)), lambda db: backups.backup(db, file, _Progress()))
        if as_json:
            print(json.dumps({"file": str(file), "bytes": file.stat().st_size, "tables": _as_json(done)}))
            return
    rows = sum(one.rows for one in done.values())
    print(f"wardgate portal: {rows} rows of {len(done)} tables are in {file} ({file.stat().st_size} bytes)")
    print("wardgate portal: keep the secret key with it, in another place: it is not in the file")


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `backup` wrote, from either kind of database.")],
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fill an empty database from a backup; the portal must be stopped."""
    with reported():
        done = _run(_url(database), lambda db: backups.restore(db, file, _Progress()))
    if as_json:
        print(json.dumps({"file": str(file), "tables": _as_json(done)}))
        return
    rows = sum(one.rows for one in done.values())
    print(f"wardgate portal: {rows} rows of {len(done)} tables are restored, read back and compared")


def move(
    source: Annotated[str, typer.Option("--from", help="The database to move; it stays as it is.")],
    target: Annotated[str, typer.Option("--to", help="An empty database, or an SQLite file that is not there yet.")],
    as_json: JsonOption = False,
) -> None:
    """Move an installation to another database and prove it; the portals must be stopped."""
    with reported():
        before, after, key = asyncio.run(_move(source, target))
        is_same = before == after
        if as_json:
            tables = [
                {
                    "table": name,
                    "from": _sum_as_json(before.get(name)),
                    "to": _sum_as_json(after.get(name)),
                    "same": before.get(name) == after.get(name),
                }
                for name in sorted({*before, *after})
            ]
            print(json.dumps({"same": is_same, "tables": tables, "secret_key": key}))
        else:
            print(_comparison(before, after))
            print(f"wardgate portal: {key}", file=sys.stderr)
        if not is_same:
            raise WardgateError(
                "the source changed while it was moved: stop every portal, and move to an empty database"
            )


async def _move(source: str, target: str) -> tuple[dict[str, TableSum], dict[str, TableSum], str]:
    configure_logging("warning")
    setting = read_settings().secret_key_text
    old = Database(_existing(source), SystemClock(), setting, timeout_s=0)
    try:
        await old.snapshot(old.keys.check)
        new = Database(target, SystemClock(), setting, timeout_s=0)
        new_file, new.keys = new.keys.file, old.keys  # what is sealed stays sealed
        try:
            with tempfile.TemporaryDirectory(prefix="wardgate-move-") as directory:
                file = Path(directory, "backup")
                await backups.backup(old, file, _Progress("reading "))
                await backups.restore(new, file, _Progress("writing "))
            after = await backups.checksums(new)
            before = await backups.checksums(old)
            key = _what_to_do_with_the_key(old.keys.file, new_file, target)
        finally:
            await new.close()
    finally:
        await old.close()
    return before, after, key


def _what_to_do_with_the_key(old: Path | None, new: Path | None, target: str) -> str:
    """How the portal at the new place gets the key that the secrets are sealed with."""
    if old is None:
        return "the secrets stay sealed with the key in WARDGATE_SECRET_KEY: keep it set"
    if new is None:
        return f'set WARDGATE_SECRET_KEY="$(cat {old})" for every portal of {shown_url(target)}'
    return f"copy the key before the portal starts: install -m 600 {old} {new}"


def _comparison(before: Mapping[str, TableSum], after: Mapping[str, TableSum]) -> str:
    lines = [f"{'TABLE':<32}{'ROWS':>10}  {'CHECKSUM':<{_SHOWN}}  {'ROWS':>10}  {'CHECKSUM':<{_SHOWN}}"]
    none = TableSum(0, "-")
    for name in sorted({*before, *after}):
        one, other = before.get(name, none), after.get(name, none)
        shown = (
            f"{one.rows:>10}  {one.checksum[:_SHOWN]:<{_SHOWN}}  {other.rows:>10}  {other.checksum[:_SHOWN]:<{_SHOWN}}"
        )
        lines.append(f"{name:<32}{shown}  {'same' if one == other else 'DIFFERENT'}")
    return "\n".join(lines)


def _as_json(tables: Mapping[str, TableSum]) -> dict[str, Any]:
    return {name: _sum_as_json(total) for name, total in tables.items()}


def _sum_as_json(total: TableSum | None) -> dict[str, Any] | None:
    return {"rows": total.rows, "checksum": total.checksum} if total else None


class _Progress:
    """Says on a terminal how far it is."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def __call__(self, table: str, rows: int) -> None:
        if rows and sys.stderr.isatty():
            print(f"{self._prefix}{table}: {rows} rows", file=sys.stderr)


def _url(database: str | None) -> str:
    return read_settings(database=database).database


def _existing(url: str) -> str:
    if Database(url, SystemClock()).is_missing:
        raise SettingError(f"database: {url} does not exist")
    return url


def _run(url: str, work: Callable[[Database], Awaitable[_T]]) -> _T:
    """Does something without a time limit, and without migrating first."""
    configure_logging("warning")
    setting = read_settings().secret_key_text

    async def run() -> _T:
        db = Database(url, SystemClock(), setting, timeout_s=0)
        try:
            return await work(db)
        finally:
            await db.close()

    return asyncio.run(run())
