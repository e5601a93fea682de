"""Who this machine is to the portal: an id that is given, kept in a file, derived from the machine, or made up once."""

import hashlib
import hmac
import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from wardgate.errors import SettingError

CLIENT_KEY: Final = b"e1e465ce763e4759945c650ac334501f"
GATEWAY_KEY: Final = b"753b38f9f96947ef8083802d5909a372"
"""What Firezone's programs derive ids with, so that a machine that changes over keeps its device."""

MACHINE_ID: Final = Path("/etc/machine-id")
MAX_ID_LENGTH: Final = 255
FILE_NAME: Final = "id.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """A device id, as it was configured; the portal is told `portal_login.external_id` of it."""

    id: str
    source: Literal["given", "file", "machine", "new"]


def find_identity(
    given: str | None,
    state_dir: Path,
    key: bytes,
    *,
    machine_id: Path = MACHINE_ID,
    new_uuid: Callable[[], uuid.UUID] = uuid.uuid4,
) -> Identity:
    """The id of this device.

    Args:
        given: The id that was configured, if one was.
        state_dir: Where it is kept if it had to be made up.
        key: Separates clients from gateways on the same machine.
        machine_id: The machine's own id.
        new_uuid: Where a new id comes from.

    Raises:
        SettingError: The given id is empty or too long, or a new one cannot be kept.
    """
    if given is not None:
        return Identity(_checked(given, "--id (WARDGATE_ID)"), "given")
    path = state_dir / FILE_NAME
    kept = _read(path)
    if kept is not None:
        return Identity(_checked(kept, str(path)), "file")
    derived = _derive(machine_id, key)
    if derived is not None:
        return Identity(derived, "machine")
    made = hashlib.sha256(str(new_uuid()).encode()).hexdigest()
    _write(path, made)
    return Identity(made, "new")


def _checked(text: str, setting: str) -> str:
    text = text.strip()
    if not text or len(text) > MAX_ID_LENGTH:
        raise SettingError(f"{setting} is {len(text)} characters long; accepted are 1 to {MAX_ID_LENGTH}")
    return text


def _read(path: Path) -> str | None:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise SettingError(f"{path} cannot be read: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("id"), str):
        raise SettingError(f'{path} holds no {{"id": "..."}}; remove it to get a new id, as a new device')
    return str(data["id"])


def _derive(machine_id: Path, key: bytes) -> str | None:
    try:
        raw = machine_id.read_bytes()
    except OSError:
        return None
    if len(raw.strip()) < 32:  # "uninitialized", or an image's empty file
        return None
    return hmac.new(key, raw, hashlib.sha256).hexdigest()


def _write(path: Path, identity: str) -> None:
    temporary = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(mode=0o770, parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"id": identity}) + "\n")
        temporary.chmod(0o640)
        os.replace(temporary, path)
    except OSError as error:
        raise SettingError(f"--state-dir: {path} cannot be written ({error.strerror})") from None
