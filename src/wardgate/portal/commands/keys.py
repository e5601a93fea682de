"""`wardgate portal rotate-key`: every secret of the database under another key."""

import base64
import json
import secrets
from pathlib import Path
from typing import Annotated

import typer

from wardgate.errors import SettingError
from wardgate.portal.commands.base import DatabaseOption, JsonOption, reported, run_on
from wardgate.portal.db.engine import Database
from wardgate.portal.db.keyring import KEY_SIZE, decode_key


def rotate_key(
    new_key_file: Annotated[
        Path | None,
        typer.Option("--new-key-file", help="A file with the new key in base64; else a random one is made."),
    ] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Seal every secret of the database with a new key; the portals must be stopped."""
    with reported():
        given = _read(new_key_file) if new_key_file else None
        done = run_on(database, lambda db: _rotate(db, given))
    if as_json:
        print(json.dumps(done))
        return
    print(f"wardgate portal: {done['sealed']} secrets are sealed with the new key")
    if done["key_file"] is None:
        print("wardgate portal: set WARDGATE_SECRET_KEY to the new key before a portal starts")
    else:
        print(f"wardgate portal: {done['key_file']} holds the new key: back it up; older backups need the old one")


async def _rotate(db: Database, key: str | None) -> dict[str, str | int | None]:
    if key is None:
        if db.keys.file is None:
            raise SettingError("secret_key: it comes from a setting, so the new one must be given with --new-key-file")
        key = base64.b64encode(secrets.token_bytes(KEY_SIZE)).decode()
    sealed = await db.reseal(key)
    return {"sealed": sealed, "key_file": str(db.keys.file) if db.keys.file else None}


def _read(path: Path) -> str:
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"--new-key-file: {path} cannot be read: {error}") from None
    decode_key(text)
    return text
