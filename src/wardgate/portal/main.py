"""The `wardgate portal` commands: serve, migrate, and what must exist before the REST API can be used."""

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from wardgate.errors import NotFound
from wardgate.ids import AccountId
from wardgate.portal.commands import accounts as accounts_commands
from wardgate.portal.commands import banner as banner_commands
from wardgate.portal.commands import database as database_commands
from wardgate.portal.commands import devices as devices_commands
from wardgate.portal.commands import doctor as doctor_commands
from wardgate.portal.commands import keys as keys_commands
from wardgate.portal.commands import logs as logs_commands
from wardgate.portal.commands.base import (
    AccountOption,
    DatabaseOption,
    JsonOption,
    configure_logging,
    reported,
    run_on,
    system_of,
)
from wardgate.portal.config import read_settings
from wardgate.portal.db.accounts import find_actor
from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.domain import subjects
from wardgate.portal.services import accounts, actors, sign_in, tokens
from wardgate.portal.services.tokens import Issued

app = typer.Typer(
    help="Run the portal, and set its database up.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # else `[env: …]` in a help text is taken for markup
)
for command in (database_commands.migrate, database_commands.backup, database_commands.restore, database_commands.move):
    app.command()(command)
app.add_typer(accounts_commands.app, name="accounts")
app.add_typer(logs_commands.app, name="log-sinks")
app.command("logs")(logs_commands.logs)
app.command("limits")(accounts_commands.limits)
app.command()(devices_commands.readdress)
app.command("banner")(banner_commands.banner)
app.command("doctor")(doctor_commands.doctor)
app.command("rotate-key")(keys_commands.rotate_key)


@app.command()
def serve(
    listen: Annotated[
        str | None, typer.Option("--listen", help="host:port, default 127.0.0.1:8080 [env: WARDGATE_LISTEN]")
    ] = None,
    database: DatabaseOption = None,
    external_url: Annotated[
        str | None, typer.Option("--external-url", help="How devices reach this portal [env: WARDGATE_EXTERNAL_URL]")
    ] = None,
    nats_url: Annotated[
        str | None,
        typer.Option(
            "--nats-url", help="NATS servers, with commas, where there are several portals [env: WARDGATE_NATS_URL]"
        ),
    ] = None,
    drain_s: Annotated[
        float | None,
        typer.Option("--drain-s", help="Over how many seconds sockets are closed at the end [env: WARDGATE_DRAIN_S]"),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", help="debug, info, warning or error [env: WARDGATE_LOG_LEVEL]")
    ] = None,
    log_dir: Annotated[
        Path | None, typer.Option("--log-dir", help="Where log files are written besides [env: WARDGATE_LOG_DIR]")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file with settings by name.")] = None,
) -> None:
    """Serve devices and the REST API until stopped."""
    flags: dict[str, Any] = {"listen": listen, "database": database, "external_url": external_url}
    flags |= {"log_level": log_level, "log_dir": log_dir, "nats_url": nats_url, "drain_s": drain_s}
    from wardgate.portal.server import run

    with reported():
        settings = read_settings(config, **flags)
        configure_logging(settings.log_level, settings.log_dir)
        run(settings)


@app.command()
def setup(
    account: Annotated[str, typer.Option("--account", help="The account's slug: letters, digits, underscores.")],
    email: Annotated[str, typer.Option("--email", help="The first admin's e-mail address.")],
    name: Annotated[str | None, typer.Option("--name", help="The first admin's name.")] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create an account with an admin and an API client; print the API token, once."""
    with reported():
        made = run_on(database, lambda db: _setup(db, account, email, name), may_create=True)
    _show(made, "api_token", f"the account {account} is made; its API token, shown this once:", as_json)


@app.command("api-token")
def api_token(
    account: AccountOption,
    name: Annotated[str, typer.Option("--name", help="The API client's name.")] = "API",
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create an API client and print its token, once."""
    with reported():
        made = run_on(database, lambda db: _api_token(db, account, name))
    _show(made, "token", "API token, shown this once:", as_json)


@app.command("client-token")
def client_token(
    account: AccountOption,
    actor: Annotated[str, typer.Option("--actor", help="The person's e-mail address, or an actor's id.")],
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="How long it works.")] = 7,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a token for the clients of a person or a service account and print it, once."""
    with reported():
        made = run_on(database, lambda db: _client_token(db, account, actor, days))
    _show(made, "token", "client token, shown this once:", as_json)


@app.command("sign-in-link")
def sign_in_link(
    account: AccountOption,
    email: Annotated[str, typer.Option("--email", help="The admin's e-mail address, or an actor's id.")],
    external_url: Annotated[
        str | None, typer.Option("--external-url", help="How people reach this portal [env: WARDGATE_EXTERNAL_URL]")
    ] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a link that signs an admin in to the pages: once, within 15 minutes."""
    with reported():
        base = read_settings(external_url=external_url).external_url or "http://localhost:8080"
        made = run_on(database, lambda db: _sign_in_link(db, account, email, base.rstrip("/")))
    _show(made, "url", f"a link for {email}, good once and for 15 minutes:", as_json)


@app.command()
def features(
    account: AccountOption,
    enable: Annotated[list[str] | None, typer.Option("--enable", help="A feature to switch on; repeat it.")] = None,
    disable: Annotated[list[str] | None, typer.Option("--disable", help="A feature to switch off; repeat it.")] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show an account's features, after switching some on or off; connected devices hear of it when they next join."""
    wanted = dict.fromkeys(enable or (), True) | dict.fromkeys(disable or (), False)
    with reported():
        shown = run_on(database, lambda db: _features(db, account, wanted))
    if as_json:
        print(json.dumps(shown))
        return
    for name, is_on in sorted(shown.items()):
        print(f"{name:<20}{'on' if is_on else 'off'}")


@app.command("relay-token")
def relay_token(database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Create a token for relays and print it, once."""
    with reported():
        made = run_on(database, _relay_token)
    _show(made, "token", f"relay token {made['id']}, shown this once:", as_json)


@app.command("revoke-relay-token")
def revoke_relay_token(
    token_id: Annotated[str, typer.Argument(help="The token's id.")], database: DatabaseOption = None
) -> None:
    """Revoke a relay token; relays that joined with it are cut off within a second."""
    with reported():
        run_on(database, lambda db: _revoke_relay_token(db, token_id))
    print(f"wardgate portal: relay token {token_id} is revoked")


@app.command()
def jobs(
    run: Annotated[str | None, typer.Option("--run", help="Run this job now, whether it is due or not.")] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the portal does regularly and how it went last; or run one job now."""
    from wardgate.portal.job_command import as_table, list_jobs, run_job

    async def work(db: Database) -> list[dict[str, Any]]:
        if run is not None:
            await run_job(read_settings(database=database), db, run)
        return await list_jobs(db)

    with reported():
        shown = run_on(database, work)
    print(json.dumps(shown) if as_json else as_table(shown))


def _show(made: dict[str, str], secret: str, text: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(made))
        return
    print(f"wardgate portal: {text}", file=sys.stderr)
    print(made[secret])


async def _setup(db: Database, slug: str, email: str, name: str | None) -> dict[str, str]:
    fields = {"name": name or email.partition("@")[0], "type": "account_admin_user", "email": email}
    account = await accounts.create_account(db, {"slug": slug}, admin={**fields, "allow_email_otp_sign_in": True})
    async with db.writing(subjects.system(AccountId(account.id))) as unit:
        issued = await _new_api_client(unit, "setup")
    return {"account_id": account.id, "api_token": issued.text}


async def _new_api_client(unit: UnitOfWork, name: str) -> Issued:
    client = await actors.create_actor(unit, {"name": name, "type": "api_client"}, ("api_client",))
    return await tokens.create_api_token(unit, client.id, {"name": name})


async def _api_token(db: Database, slug: str, name: str) -> dict[str, str]:
    async with db.writing(await system_of(db, slug)) as unit:
        issued = await _new_api_client(unit, name)
    return {"id": issued.row.id, "token": issued.text}


async def _client_token(db: Database, slug: str, actor: str, days: int) -> dict[str, str]:
    async with db.writing(await system_of(db, slug)) as unit:
        row = await find_actor(unit, actor)
        if row is None:
            raise NotFound(f"the account has no actor {actor}")
        fields = {"expires_at": unit.at + timedelta(days=days)}
        issued = await tokens.create_client_token(
            unit, row.id, fields, actor_types=("service_account", "account_user", "account_admin_user")
        )
    return {"id": issued.row.id, "token": issued.text}


async def _sign_in_link(db: Database, slug: str, email: str, base: str) -> dict[str, str]:
    subject, link = await system_of(db, slug), await sign_in.new_link()
    async with db.writing(subject) as unit:
        passcode = await sign_in.start_link(unit, email, link)
        account = await unit.account()
    base = base.replace("wss://", "https://", 1).replace("ws://", "http://", 1)
    return {"url": f"{base}/{account.slug}/sign-in/link/{passcode.id}.{passcode.text}"}


async def _features(db: Database, slug: str, wanted: dict[str, bool]) -> dict[str, bool]:
    async with db.writing(await system_of(db, slug)) as unit:
        account = await accounts.set_features(unit, wanted)
        return {name: bool(account.features.get(name)) for name in accounts.FEATURES}


async def _relay_token(db: Database) -> dict[str, str]:
    issued = await tokens.create_relay_token(db)
    return {"id": issued.row.id, "token": issued.text}


async def _revoke_relay_token(db: Database, token_id: str) -> None:
    if not await tokens.delete_relay_token(db, token_id):
        raise NotFound(f"there is no relay token {token_id}")
