"""`wardgate portal doctor`: what is wrong with an installation, and what to do."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from wardgate.errors import SettingError
from wardgate.portal import doctor as checks
from wardgate.portal.clock import SystemClock
from wardgate.portal.commands.base import DatabaseOption, JsonOption, configure_logging
from wardgate.portal.config import names_in_file, read_settings
from wardgate.portal.db.engine import Database
from wardgate.portal.doctor import Finding


def doctor(
    config: Annotated[Path | None, typer.Option("--config", help="The TOML file that `serve` gets.")] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at settings, database, key, bus, clock, certificates and files; change nothing."""
    configure_logging("error")
    found = _examine(config, database)
    if as_json:
        print(json.dumps([one.as_json() for one in found]))
    else:
        for one in found:
            print(f"{one.state:<8} {one.check}: {one.text}" + (f"; {one.advice}" if one.advice else ""))
    raise typer.Exit(checks.exit_status(found))


def _examine(config: Path | None, database: str | None) -> list[Finding]:
    try:
        settings = read_settings(config, database=database)
    except SettingError as error:
        return [Finding("settings", "problem", str(error), "mend it where it is set")]
    flags = ["database"] if database else []
    found = checks.check_settings(settings, flags, names_in_file(config))
    db = checks.open_database(settings, SystemClock())
    if isinstance(db, Finding):
        return [*found, db]

    async def run(opened: Database) -> list[Finding]:
        try:
            return await checks.examine(settings, opened, SystemClock())
        finally:
            await opened.close()

    return [*found, *asyncio.run(run(db))]
