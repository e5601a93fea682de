"""The manual names every option and every environment variable that the programs have."""

from pathlib import Path
from typing import Any

import pytest
import typer.main

from wardgate.client import command as client
from wardgate.gateway import command as gateway

MANUAL = Path(__file__).parents[2] / "docs" / "manual"


@pytest.mark.parametrize(("page", "command"), [("client", client), ("gateway", gateway)])
def test_page_names_every_option_with_its_environment(page: str, command: Any) -> None:
    text = (MANUAL / f"wardgate-{page}.md").read_text()

    names = [name for each in commands(typer.main.get_command(command.app)) for name in option_names(each)]

    assert len(names) > 20
    assert [name for name in names if f"`{name}`" not in text and f"**{name}**" not in text] == []


def commands(command: Any) -> list[Any]:
    return list(command.commands.values()) if hasattr(command, "commands") else [command]


def option_names(command: Any) -> list[str]:
    found: list[str] = []
    for parameter in command.params:
        if parameter.name != "help" and parameter.opts[0].startswith("-"):
            variables = parameter.envvar or []
            found += [*parameter.opts, *parameter.secondary_opts, *variables]
    return found
