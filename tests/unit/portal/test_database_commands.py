"""`migrate`, `backup`, `restore` and `move` as an operator types them."""

import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.postgres import Server
from tests.unit.portal.helpers import SECRET_KEY
from wardgate.portal.main import app

SETUP = ["setup", "--account", "corp", "--email", "admin@corp.example", "--json"]


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'portal.db'}"
    succeed(*SETUP, "--database", url)
    return url


@pytest.fixture
def empty_url(postgresql: Server) -> Iterator[str]:
    name = postgresql.create_database("template0")
    yield postgresql.url(name)
    postgresql.drop_database(name)


def test_an_installation_moves_to_postgresql_and_back_and_proves_it(
    sqlite_url: str, empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (tmp_path / "portal.db").read_bytes()
    key_file = tmp_path / "portal.db.key"

    there = json.loads(succeed("move", "--from", sqlite_url, "--to", empty_url, "--json"))
    monkeypatch.setenv("WARDGATE_SECRET_KEY", key_file.read_text().strip())
    token = json.loads(
        succeed("client-token", "--account", "corp", "--actor", "admin@corp.example", "--database", empty_url, "--json")
    )
    back_url = f"sqlite:///{tmp_path / 'back.db'}"
    back = json.loads(succeed("move", "--from", empty_url, "--to", back_url, "--json"))

    assert (tmp_path / "portal.db").read_bytes() == before
    assert there["same"]
    assert rows_of(there)["accounts"] == (1, 1)
    assert rows_of(there)["actors"] == (2, 2)
    assert there["secret_key"] == f'set WARDGATE_SECRET_KEY="$(cat {key_file})" for every portal of {empty_url}'
    assert token["token"].startswith(".wgc_")
    assert back["same"]
    assert rows_of(back)["client_tokens"] == (1, 1)
    assert not (tmp_path / "back.db.key").exists()


def test_a_move_says_table_by_table_that_both_sides_are_the_same(sqlite_url: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["move", "--from", sqlite_url, "--to", f"sqlite:///{tmp_path / 'new.db'}"])

    assert done.exit_code == 0
    lines = [line.split() for line in done.stdout.splitlines()[1:]]
    assert ["actors", "2", "2", "same"] in [[line[0], line[1], line[3], line[5]] for line in lines]
    assert all(line[-1] == "same" and line[2] == line[4] for line in lines)
    assert f"install -m 600 {tmp_path / 'portal.db.key'} {tmp_path / 'new.db.key'}" in done.stderr


def test_a_moved_file_starts_with_its_key_and_not_without(sqlite_url: str, tmp_path: Path) -> None:
    new_url = f"sqlite:///{tmp_path / 'new.db'}"
    succeed("move", "--from", sqlite_url, "--to", new_url)

    without = CliRunner().invoke(app, ["relay-token", "--database", new_url])
    shutil.copy(tmp_path / "portal.db.key", tmp_path / "new.db.key")

    assert without.exit_code == 2
    assert "key file" in without.stderr
    succeed("relay-token", "--database", new_url)


def test_a_move_to_a_filled_database_or_from_none_is_refused(sqlite_url: str, tmp_path: Path) -> None:
    other_url = f"sqlite:///{tmp_path / 'other.db'}"
    succeed(*SETUP, "--database", other_url)
    before = (tmp_path / "other.db").read_bytes()

    filled = CliRunner().invoke(app, ["move", "--from", sqlite_url, "--to", other_url])
    nothing = CliRunner().invoke(app, ["move", "--from", f"sqlite:///{tmp_path / 'no.db'}", "--to", sqlite_url])

    assert filled.exit_code == 1
    assert "not empty" in filled.stderr
    assert (tmp_path / "other.db").read_bytes() == before
    assert nothing.exit_code == 2
    assert "does not exist" in nothing.stderr


def test_a_backup_is_private_and_restores_what_was_there(
    sqlite_url: str, empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "backup"
    monkeypatch.setenv("WARDGATE_SECRET_KEY", (tmp_path / "portal.db.key").read_text().strip())

    written = json.loads(succeed("backup", str(file), "--database", sqlite_url, "--json"))
    restored = json.loads(succeed("restore", str(file), "--database", empty_url, "--json"))
    again = CliRunner().invoke(app, ["restore", str(file), "--database", empty_url])

    assert written["bytes"] == file.stat().st_size
    assert written["tables"] == restored["tables"]
    assert written["tables"]["actors"]["rows"] == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert again.exit_code == 1
    assert "not empty" in again.stderr


def test_a_backup_of_a_mistyped_database_makes_none(tmp_path: Path) -> None:
    path = tmp_path / "mistyped.db"

    done = CliRunner().invoke(app, ["backup", str(tmp_path / "backup"), "--database", f"sqlite:///{path}"])

    assert done.exit_code == 2
    assert "does not exist" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_migrating_says_each_step_in_both_directions(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDGATE_SECRET_KEY", SECRET_KEY)
    database = ["--database", database_url]

    down = json.loads(succeed("migrate", "--to", "0001", "--json", *database))
    up = succeed("migrate", *database)
    nothing = json.loads(succeed("migrate", "--json", *database))
    unknown = CliRunner().invoke(app, ["migrate", "--to", "4711", *database])

    assert down["to"] == "0001"
    assert {step["direction"] for step in down["steps"]} == {"down"}
    assert "applied 0002: " in up
    assert up.endswith("the database is up to date\n")
    assert nothing == {"steps": []}
    assert unknown.exit_code == 2
    assert "no revision 4711" in unknown.stderr


def succeed(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


def rows_of(done: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {one["table"]: (one["from"]["rows"], one["to"]["rows"]) for one in done["tables"]}
