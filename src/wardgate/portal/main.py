"""The `wardgate portal` commands: serve, migrate, and what must exist before the REST API can be used."""

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import structlog
import typer

from wardgate.errors import NotFound, SettingError, WardgateError
from wardgate.ids import AccountId
from wardgate.logs import open_sink
from wardgate.portal.clock import SystemClock
from wardgate.portal.config import read_settings
from wardgate.portal.db.accounts import find_account, find_actor
from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.domain import subjects
from wardgate.portal.domain.subjects import Subject
from wardgate.portal.services import accounts, actors, tokens
from wardgate.portal.services.tokens import Issued

app = typer.Typer(
    help="Run the portal, and set its database up.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # else `[env: …]` in a help text is taken for markup
)

_Database = Annotated[
    str | None,
    typer.Option("--database", help="sqlite:///path or postgresql://… [env: WARDGATE_DATABASE, DATABASE_URL]"),
]
_Account = Annotated[str, typer.Option("--account", help="The account's slug or id.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_T = TypeVar("_T")


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except SettingError as error:
        print(f"wardgate portal: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except WardgateError as error:
        print(f"wardgate portal: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


@app.command()
def serve(
    listen: Annotated[
        str | None, typer.Option("--listen", help="host:port, default 127.0.0.1:8080 [env: WARDGATE_LISTEN]")
    ] = None,
    database: _Database = None,
    external_url: Annotated[
        str | None, typer.Option("--external-url", help="How devices reach this portal [env: WARDGATE_EXTERNAL_URL]")
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
    flags |= {"log_level": log_level, "log_dir": log_dir}
    from wardgate.portal.server import run

    with _reported():
        settings = read_settings(config, **flags)
        configure_logging(settings.log_level, settings.log_dir)
        run(settings)


@app.command()
def migrate(database: _Database = None) -> None:
    """Bring the database to this version."""
    with _reported():
        _run(database, _nothing, may_create=True)
    print("wardgate portal: the database is up to date")


@app.command()
def setup(
    account: Annotated[str, typer.Option("--account", help="The account's slug: letters, digits, underscores.")],
    email: Annotated[str, typer.Option("--email", help="The first admin's e-mail address.")],
    name: Annotated[str | None, typer.Option("--name", help="The first admin's name.")] = None,
    database: _Database = None,
    as_json: _Json = False,
) -> None:
    """Create an account with an admin and an API client; print the API token, once."""
    with _reported():
        made = _run(database, lambda db: _setup(db, account, email, name), may_create=True)
    _show(made, "api_token", f"the account {account} is made; its API token, shown this once:", as_json)


@app.command("api-token")
def api_token(
    account: _Account,
    name: Annotated[str, typer.Option("--name", help="The API client's name.")] = "API",
    database: _Database = None,
    as_json: _Json = False,
) -> None:
    """Create an API client and print its token, once."""
    with _reported():
        made = _run(database, lambda db: _api_token(db, account, name))
    _show(made, "token", "API token, shown this once:", as_json)


@app.command("client-token")
def client_token(
    account: _Account,
    actor: Annotated[str, typer.Option("--actor", help="The person's e-mail address, or an actor's id.")],
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="How long it works.")] = 7,
    database: _Database = None,
    as_json: _Json = False,
) -> None:
    """Create a token for the clients of a person or a service account and print it, once."""
    with _reported():
        made = _run(database, lambda db: _client_token(db, account, actor, days))
    _show(made, "token", "client token, shown this once:", as_json)


@app.command()
def features(
    account: _Account,
    enable: Annotated[list[str] | None, typer.Option("--enable", help="A feature to switch on; repeat it.")] = None,
    disable: Annotated[list[str] | None, typer.Option("--disable", help="A feature to switch off; repeat it.")] = None,
    database: _Database = None,
    as_json: _Json = False,
) -> None:
    """Show an account's features, after switching some on or off; connected devices hear of it when they next join."""
    wanted = dict.fromkeys(enable or (), True) | dict.fromkeys(disable or (), False)
    with _reported():
        shown = _run(database, lambda db: _features(db, account, wanted))
    if as_json:
        print(json.dumps(shown))
        return
    for name, is_on in sorted(shown.items()):
        print(f"{name:<20}{'on' if is_on else 'off'}")


@app.command("relay-token")
def relay_token(database: _Database = None, as_json: _Json = False) -> None:
    """Create a token for relays and print it, once."""
    with _reported():
        made = _run(database, _relay_token)
    _show(made, "token", f"relay token {made['id']}, shown this once:", as_json)


@app.command("revoke-relay-token")
def revoke_relay_token(
    token_id: Annotated[str, typer.Argument(help="The token's id.")], database: _Database = None
) -> None:
    """Revoke a relay token; relays that joined with it are cut off within a second."""
    with _reported():
        _run(database, lambda db: _revoke_relay_token(db, token_id))
    print(f"wardgate portal: relay token {token_id} is revoked")


@app.command()
def jobs(
    run: Annotated[str | None, typer.Option("--run", help="Run this job now, whether it is due or not.")] = None,
    database: _Database = None,
    as_json: _Json = False,
) -> None:
    """Show what the portal does regularly and how it went last; or run one job now."""
    from wardgate.portal.job_command import as_table, list_jobs, run_job

    async def work(db: Database) -> list[dict[str, Any]]:
        if run is not None:
            await run_job(read_settings(database=database), db, run)
        return await list_jobs(db)

    with _reported():
        shown = _run(database, work)
    print(json.dumps(shown) if as_json else as_table(shown))


def _show(made: dict[str, str], secret: str, text: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(made))
        return
    print(f"wardgate portal: {text}", file=sys.stderr)
    print(made[secret])


async def _nothing(db: Database) -> None:
    return None


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
    async with db.writing(await _system_of(db, slug)) as unit:
        issued = await _new_api_client(unit, name)
    return {"id": issued.row.id, "token": issued.text}


async def _client_token(db: Database, slug: str, actor: str, days: int) -> dict[str, str]:
    async with db.writing(await _system_of(db, slug)) as unit:
        row = await find_actor(unit, actor)
        if row is None:
            raise NotFound(f"the account has no actor {actor}")
        fields = {"expires_at": unit.at + timedelta(days=days)}
        issued = await tokens.create_client_token(
            unit, row.id, fields, actor_types=("service_account", "account_user", "account_admin_user")
        )
    return {"id": issued.row.id, "token": issued.text}


async def _features(db: Database, slug: str, wanted: dict[str, bool]) -> dict[str, bool]:
    async with db.writing(await _system_of(db, slug)) as unit:
        account = await accounts.set_features(unit, wanted)
        return {name: bool(account.features.get(name)) for name in accounts.FEATURES}


async def _system_of(db: Database, slug: str) -> Subject:
    account = await find_account(db, slug)
    if account is None:
        raise NotFound(f"there is no account {slug}")
    return subjects.system(AccountId(account.id))


async def _relay_token(db: Database) -> dict[str, str]:
    issued = await tokens.create_relay_token(db)
    return {"id": issued.row.id, "token": issued.text}


async def _revoke_relay_token(db: Database, token_id: str) -> None:
    if not await tokens.delete_relay_token(db, token_id):
        raise NotFound(f"there is no relay token {token_id}")


def _run(database: str | None, work: Callable[[Database], Awaitable[_T]], *, may_create: bool = False) -> _T:
    settings = read_settings(database=database)
    configure_logging("warning")

    async def run() -> _T:
        db = Database(settings.database, SystemClock(), settings.secret_key_text)
        try:
            if db.is_missing and not may_create:
                raise SettingError(f"database: {settings.database} does not exist; `wardgate portal setup` makes one")
            await db.migrate()
            return await work(db)
        finally:
            await db.close()

    return asyncio.run(run())


def configure_logging(level: str, log_dir: Path | None = None) -> None:
    """One line for each event, on standard error: for people on a terminal, else as JSON; in files if asked for."""
    is_terminal = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if is_terminal else structlog.processors.JSONRenderer()
    sink = open_sink("human" if is_terminal else "json", log_dir, "wardgate-portal")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sink),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(logging.WARNING, getattr(logging, level.upper())), stream=sink)
    logging.getLogger("uvicorn.error").addFilter(_is_no_refusal)


def _is_no_refusal(record: logging.LogRecord) -> bool:
    """Leaves out what uvicorn says of a websocket that was answered with a status: we have logged the refusal."""
    return "without completing handshake" not in record.getMessage()
