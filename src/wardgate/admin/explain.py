"""`wardgate explain`: why a person can or cannot reach a resource."""

from pathlib import Path
from typing import Annotated

import typer

from wardgate.admin.main import Session, options
from wardgate.admin.why import Actor, At, Device, From, Resource, explain_to

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def explain(
    context: typer.Context,
    actor: Actor,
    resource: Resource,
    at: At = None,
    origin: From = None,
    device: Device = None,
    url: Annotated[
        str, typer.Option("--url", envvar=["WARDGATE_ADMIN_URL"], help="The portal, as http(s)://host[:port].")
    ] = "http://127.0.0.1:8080",
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            envvar=["WARDGATE_API_TOKEN_FILE"],
            help="A file, yours alone, with the API token; else WARDGATE_API_TOKEN.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the API's object as JSON.")] = False,
) -> None:
    """Say why a person can or cannot reach a resource, now or at another time."""
    options(context, url, token_file, as_json)
    session: Session = context.obj
    explain_to(session, actor, resource, at, origin, device)
