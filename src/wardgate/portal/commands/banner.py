"""`wardgate portal banner`: what the operator tells all admins."""

import json
from typing import Annotated, Any

import typer

from wardgate.portal.commands.base import DatabaseOption, JsonOption, reported, run_on
from wardgate.portal.db.engine import Database
from wardgate.portal.services import banners


def banner(
    message: Annotated[str | None, typer.Option("--set", help="Replaces the banner that there is.")] = None,
    colour: Annotated[str, typer.Option("--colour", help=", ".join(banners.COLOURS))] = "info",
    clear: Annotated[bool, typer.Option("--clear", help="Takes it away.")] = False,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what all admins are told, after setting it or taking it away."""
    with reported():
        shown = run_on(database, lambda db: _banner(db, message, colour, clear))
    if as_json:
        print(json.dumps(shown))
    else:
        print(f"{shown['colour']}: {shown['message']}" if shown else "wardgate portal: there is no banner")


async def _banner(db: Database, message: str | None, colour: str, clear: bool) -> dict[str, Any] | None:
    if clear or message is not None:
        await banners.replace(db, None if clear else message, colour)
    found = await banners.current(db)
    return {"message": found.message, "colour": found.colour} if found is not None else None
