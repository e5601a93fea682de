"""The `wardgate` command: one program for every part, each loaded only when it is used."""

import gc
import importlib
import importlib.util
from typing import Annotated, Any, Final, NamedTuple

import typer
import typer.core
import typer.main

from wardgate import __version__


class Part(NamedTuple):
    """A part's command: where it is, and a line about it that needs no import."""

    module: str
    help: str


PARTS: Final = {
    "client": Part("wardgate.client.command", "Reach private applications from this computer."),
    "gateway": Part("wardgate.gateway.command", "Run a gateway: the way into the networks that this host reaches."),
    "relay": Part("wardgate.relay.main", "Run a relay: STUN and TURN over UDP, joined to the portal."),
    "portal": Part("wardgate.portal.main", "Run the portal, and set its database up."),
    "admin": Part("wardgate.admin.main", "Manage an account through the portal's REST API."),
    "explain": Part("wardgate.admin.explain", "Why a person can or cannot reach a resource, now or at another time."),
    "lab": Part("wardgate.lab.cli", "A small internet in network namespaces, to try things in."),
}


class Root(typer.core.TyperGroup):
    """Loads a part when it is asked for; one whose module is not there is not listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The parts that are installed."""
        return [name for name, part in PARTS.items() if _is_there(part.module)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The part's command."""
        part = PARTS.get(cmd_name)
        if part is None or not _is_there(part.module):
            return None
        command = typer.main.get_command(_load(part.module).app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Lists the parts without loading them."""
        with formatter.section("Parts"):
            formatter.write_dl([(name, PARTS[name].help) for name in self.list_commands(ctx)])


def _load(module: str) -> Any:
    """Imports a part; what importing makes is there to stay, so no collection need look at it, now or later."""
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.freeze()
        gc.enable()


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


app = typer.Typer(cls=Root, add_completion=False, no_args_is_help=True, rich_markup_mode=None)


def _show_version(value: bool) -> None:
    if value:
        print(f"wardgate {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Zero-trust access to private applications and subnets, resource by resource, without an open port.

    Each part has its own help: wardgate PART --help. Settings are flags, environment variables (WARDGATE_*, and
    Firezone's names) or a TOML file (--config); tokens are never given on the command line. A wrong setting ends a
    program with status 2, anything else that goes wrong with status 1.
    """


def main() -> None:
    """Runs the command line."""
    app(prog_name="wardgate")


if __name__ == "__main__":
    main()
