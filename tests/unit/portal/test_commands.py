"""The operator's commands on a database file."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from wardgate.portal.clock import SystemClock
from wardgate.portal.commands.base import system_of
from wardgate.portal.db.engine import Database
from wardgate.portal.main import app
from wardgate.portal.services import sites

SETUP = ["setup", "--account", "corp", "--email", "admin@corp.example", "--json"]


def test_setup_makes_a_private_file_that_the_other_commands_use(tmp_path: Path) -> None:
    path = tmp_path / "portal.db"
    database = ["--database", f"sqlite:///{path}"]

    made = CliRunner().invoke(app, [*SETUP, *database])
    token = CliRunner().invoke(
        app, ["client-token", "--account", "corp", "--actor", "admin@corp.example", "--json", *database]
    )
    shown = CliRunner().invoke(app, ["features", "--account", "corp", "--disable", "iceless", "--json", *database])

    assert json.loads(made.stdout)["api_token"].startswith(".wga_")
    assert json.loads(token.stdout)["token"].startswith(".wgc_")
    assert json.loads(shown.stdout)["iceless"] is False
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("command", [["relay-token"], ["api-token", "--account", "corp"]])
def test_a_mistyped_database_is_not_made(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "mistyped.db"

    done = CliRunner().invoke(app, [*command, "--database", f"sqlite:///{path}"])

    assert done.exit_code == 2
    assert "does not exist" in done.stderr
    assert not path.exists()


def test_an_accounts_life_is_in_the_operators_hands(tmp_path: Path) -> None:
    database = ["--database", f"sqlite:///{tmp_path / 'portal.db'}"]
    CliRunner().invoke(app, [*SETUP, *database])

    def run(*command: str) -> Any:
        done = CliRunner().invoke(app, [*command, "--json", *database])
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    limits = run("limits", "corp", "--set", "users_count=0", "--set", "sites_count=unlimited")
    assert limits["limits"]["users_count"] == {"limit": 0, "used": 1}
    assert limits["exceeded"]["users_limit_exceeded"] is True
    assert run("accounts", "disable", "corp", "--reason", "unpaid")["disabled_reason"] == "unpaid"
    assert run("accounts", "enable", "corp")["state"] == "active"
    assert run("accounts", "lock", "corp")["lock_enabled_at"] is not None
    assert run("accounts", "unlock", "corp")["lock_enabled_at"] is None
    assert run("accounts", "delete", "corp")["state"] == "to be deleted"
    assert run("accounts", "cancel-deletion", "corp")["state"] == "active"
    assert run("accounts", "rename", "corp", "--slug", "firm", "--name", "Firm")["slug"] == "firm"
    refused = CliRunner().invoke(app, ["accounts", "delete", "firm", "--now", *database])
    assert (refused.exit_code, "disabled" in refused.stderr) == (1, True)
    run("accounts", "disable", "firm")
    run("accounts", "delete", "firm", "--now")
    assert run("accounts", "list") == []
    assert run("accounts", "create", "anew")["slug"] == "anew"


def test_a_device_gets_other_tunnel_addresses(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'portal.db'}"
    CliRunner().invoke(app, [*SETUP, "--database", url])
    device = asyncio.run(_gateway(url))

    done = CliRunner().invoke(app, ["readdress", "corp", device, "--ipv4", "100.64.7.7", "--database", url])
    refused = CliRunner().invoke(app, ["readdress", "corp", device, "--ipv4", "10.0.0.1", "--database", url])

    assert (done.exit_code, "has 100.64.7.7 and fd00:" in done.stdout) == (0, True)
    assert (refused.exit_code, "100.64.0.0/11" in refused.stderr) == (1, True)


async def _gateway(url: str) -> str:
    db = Database(url, SystemClock())
    async with db.writing(await system_of(db, "corp")) as unit:
        site = await sites.create_site(unit, {"name": "Vienna"})
        gateway = await sites.create_gateway(unit, site.id, {})
    await db.close()
    return gateway.id


def test_a_new_key_is_made_beside_the_file_or_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, new = tmp_path / "portal.db", tmp_path / "new"
    database = ["--database", f"sqlite:///{path}"]
    CliRunner().invoke(app, [*SETUP, *database])
    key = tmp_path / "portal.db.key"
    first = key.read_text()

    made = CliRunner().invoke(app, ["rotate-key", "--json", *database])
    second = key.read_text()
    monkeypatch.setenv("WARDGATE_SECRET_KEY", second.strip())
    unnamed = CliRunner().invoke(app, ["rotate-key", *database])
    new.write_text(first)
    given = CliRunner().invoke(app, ["rotate-key", "--new-key-file", str(new), *database])
    monkeypatch.setenv("WARDGATE_SECRET_KEY", first.strip())
    works = CliRunner().invoke(app, ["accounts", "list", *database])

    assert json.loads(made.stdout) == {"sealed": 2, "key_file": str(key)}
    assert second != first
    assert (unnamed.exit_code, "--new-key-file" in unnamed.stderr) == (2, True)
    assert "WARDGATE_SECRET_KEY" in given.stdout
    assert works.exit_code == 0


def test_a_banner_is_shown_until_it_is_replaced_or_taken_away(tmp_path: Path) -> None:
    database = ["--database", f"sqlite:///{tmp_path / 'portal.db'}"]
    CliRunner().invoke(app, [*SETUP, *database])

    def run(*options: str) -> Any:
        return json.loads(CliRunner().invoke(app, ["banner", "--json", *options, *database]).stdout)

    assert run() is None
    assert run("--set", "Down at noon", "--colour", "warning") == {"message": "Down at noon", "colour": "warning"}
    assert run("--set", "Up again") == {"message": "Up again", "colour": "info"}
    wrong = CliRunner().invoke(app, ["banner", "--set", "x", "--colour", "mauve", *database])
    assert (wrong.exit_code, "colour" in wrong.stderr) == (1, True)
    assert run()["message"] == "Up again"
    assert run("--clear") is None
