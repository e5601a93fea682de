"""Where a device id comes from."""

import hashlib
import hmac
import json
import uuid
from pathlib import Path

import pytest

from wardgate.client.identity import CLIENT_KEY, GATEWAY_KEY, find_identity
from wardgate.errors import SettingError

MACHINE = b"0123456789abcdef0123456789abcdef\n"
NEW = uuid.UUID("7f1d4f6e-8d0b-4a39-9b53-0f1ce4a0a7c2")


def test_given_id_wins(tmp_path: Path) -> None:
    identity = find_identity(" gw1 ", tmp_path, GATEWAY_KEY, machine_id=machine(tmp_path))

    assert (identity.id, identity.source) == ("gw1", "given")


def test_machine_gives_clients_and_gateways_different_ids(tmp_path: Path) -> None:
    client = find_identity(None, tmp_path, CLIENT_KEY, machine_id=machine(tmp_path))
    gateway = find_identity(None, tmp_path, GATEWAY_KEY, machine_id=machine(tmp_path))

    assert client.id == hmac.new(b"e1e465ce763e4759945c650ac334501f", MACHINE, hashlib.sha256).hexdigest()
    assert gateway.id != client.id
    assert not (tmp_path / "id.json").exists()


@pytest.mark.parametrize("content", [None, b"", b"uninitialized\n"])
def test_machine_without_an_id_gets_one_that_stays(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "machine-id"
    if content is not None:
        path.write_bytes(content)

    first = find_identity(None, tmp_path / "state", CLIENT_KEY, machine_id=path, new_uuid=lambda: NEW)
    second = find_identity(None, tmp_path / "state", CLIENT_KEY, machine_id=path)

    assert first.id == second.id == hashlib.sha256(str(NEW).encode()).hexdigest()
    assert (first.source, second.source) == ("new", "file")
    assert (tmp_path / "state" / "id.json").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("content", ["", "[]", '{"id": 5}', "x"])
def test_broken_file_is_refused_rather_than_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "id.json").write_text(content)

    with pytest.raises(SettingError, match=r"id\.json"):
        find_identity(None, tmp_path, CLIENT_KEY, machine_id=machine(tmp_path))


@pytest.mark.parametrize("given", ["", "  ", "x" * 256])
def test_empty_or_long_id_is_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(SettingError, match="WARDGATE_ID"):
        find_identity(given, tmp_path, CLIENT_KEY)


def test_file_wins_over_the_machine(tmp_path: Path) -> None:
    (tmp_path / "id.json").write_text(json.dumps({"id": "kept"}))

    assert find_identity(None, tmp_path, CLIENT_KEY, machine_id=machine(tmp_path)).id == "kept"


def machine(directory: Path) -> Path:
    path = directory / "machine-id"
    path.write_bytes(MACHINE)
    return path
