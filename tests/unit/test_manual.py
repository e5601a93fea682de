"""The manual names every command, every option and every environment variable that the programs have."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from wardgate.admin import explain
from wardgate.admin import main as admin
from wardgate.client import command as client
from wardgate.gateway import command as gateway
from wardgate.lab import cli as lab
from wardgate.portal import main as portal
from wardgate.portal.config import Settings
from wardgate.relay import main as relay

MANUAL = Path(__file__).parents[2] / "docs" / "manual"
PAGES = [
    ("client", client.app, 20),
    ("gateway", gateway.app, 20),
    ("relay", relay.app, 20),
    ("portal", portal.app, 20),
    ("admin", admin.app, 40),
    ("explain", explain.app, 5),
    ("lab", lab.app, 5),
]
COMPLETION = ("--install-completion", "--show-completion")


@pytest.mark.parametrize(("page", "app", "least"), PAGES)
def test_page_names_every_command_and_option_with_its_environment(page: str, app: typer.Typer, least: int) -> None:
    text = read(page)

    names = list(names_of(typer.main.get_command(app)))

    assert len(names) > least
    assert [name for name in names if f"`{name}`" not in text and f"**{name}**" not in text] == []


@pytest.mark.parametrize(("page", "app", "least"), PAGES)
def test_page_names_no_option_that_is_not_there(page: str, app: typer.Typer, least: int) -> None:
    known = {*names_of(typer.main.get_command(app)), "--help", "--json", "--external-url"}

    named = set(re.findall(r"[`*](-{1,2}[a-z][a-z0-9-]*)[`*]", read(page)))

    assert named - known == set()


def test_portal_page_names_the_variables_of_every_setting() -> None:
    text = read("portal")

    names = [str(one) for field in Settings.model_fields.values() for one in field.validation_alias.choices[1:]]  # type: ignore[union-attr]

    assert len(names) > 15
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_page_is_linked() -> None:
    assert [page for page, _, _ in PAGES if f"(wardgate-{page}.md)" not in (MANUAL / "wardgate.md").read_text()] == []


def read(page: str) -> str:
    return (MANUAL / f"wardgate-{page}.md").read_text()


def names_of(command: Any, path: str = "") -> Iterator[str]:
    """Names of commands below this one, as they are typed, and of all options."""
    for parameter in command.params:
        if parameter.name != "help" and parameter.opts[0].startswith("-") and parameter.opts[0] not in COMPLETION:
            yield from [*parameter.opts, *parameter.secondary_opts, *(parameter.envvar or [])]
    for name, below in getattr(command, "commands", {}).items():
        if not hasattr(below, "commands"):
            yield f"{path}{name}"
        yield from names_of(below, f"{path}{name} ")
