"""The operator's commands on a database file."""

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wardgate.portal.main import app

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
