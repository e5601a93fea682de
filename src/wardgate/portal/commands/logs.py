"""`wardgate portal logs` and `wardgate portal log-sinks ...`: the logs, and where they are sent."""

import asyncio
import json
import os
import tomllib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from wardgate.errors import InvalidInput, SettingError, WardgateError
from wardgate.portal.clock import SystemClock
from wardgate.portal.commands.base import AccountOption, DatabaseOption, JsonOption, reported, run_on, system_of
from wardgate.portal.config import read_settings
from wardgate.portal.db import log_sinks as cursors
from wardgate.portal.db.engine import Database
from wardgate.portal.db.log_tables import LogSink, LogSinkCursor
from wardgate.portal.db.logs import LogQuery, log_page, logs_since
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.domain import log_ids
from wardgate.portal.domain.log_ids import STREAMS, Stream
from wardgate.portal.domain.sink_settings import FIELDS, PRODUCTS
from wardgate.portal.services import log_sinks
from wardgate.portal.services.log_objects import iso_utc, log_object
from wardgate.portal.sinks.client import Client
from wardgate.portal.sinks.delivery import Delivery
from wardgate.portal.sinks.destinations import operator_of
from wardgate.portal.sinks.outcomes import Accepted

app = typer.Typer(help="Send logs to other systems.", no_args_is_help=True, rich_markup_mode=None)

_FOLLOW_EVERY_S: Final = 1.0
_Which = Annotated[str, typer.Argument(metavar="SINK", help="The sink's name or id.")]
_Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="One setting; repeat it. Secrets cannot be given here."),
]
_SecretFiles = Annotated[
    list[str] | None,
    typer.Option("--secret-file", metavar="NAME=FILE", help="A secret, as the file has it; repeat it."),
]
_SecretEnvironment = Annotated[
    list[str] | None,
    typer.Option("--secret-env", metavar="NAME=VARIABLE", help="A secret, as the environment has it; repeat it."),
]
_File = Annotated[Path | None, typer.Option("--file", help="A TOML or JSON file with settings, secrets as well.")]
_Streams = Annotated[
    list[str] | None, typer.Option("--stream", help=f"{', '.join(STREAMS)}; repeat it. All unless given.")
]


@app.command("add")
def add(
    kind: Annotated[str, typer.Argument(metavar="TYPE", help=", ".join(PRODUCTS))],
    account: AccountOption,
    name: Annotated[str | None, typer.Option("--name", help="What it is called; the product unless given.")] = None,
    stream: _Streams = None,
    retroactive: Annotated[bool, typer.Option("--retroactive", help="Send what is there already, too.")] = False,
    settings: _Settings = None,
    secret_file: _SecretFiles = None,
    secret_env: _SecretEnvironment = None,
    file: _File = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a sink; it is sent to within a minute."""

    async def make(unit: UnitOfWork) -> LogSink:
        return await log_sinks.create_sink(unit, kind, given, may_be_private=private)

    with reported():
        given = _given(settings, secret_file, secret_env, file)
        given |= _named(name, stream) | ({"retroactive": True} if retroactive else {})
        private = read_settings(database=database).log_sinks_allow_private
        made = run_on(database, lambda db: _write(db, account, make))
    _show(made, as_json)


@app.command("edit")
def edit(
    sink: _Which,
    account: AccountOption,
    name: Annotated[str | None, typer.Option("--name", help="What it is called.")] = None,
    stream: _Streams = None,
    retroactive: Annotated[
        bool | None, typer.Option("--retroactive/--no-retroactive", help="For streams that were not sent yet.")
    ] = None,
    settings: _Settings = None,
    secret_file: _SecretFiles = None,
    secret_env: _SecretEnvironment = None,
    file: _File = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a sink and enable it, also one that was disabled by errors; what is not given stays."""

    async def save(unit: UnitOfWork) -> LogSink:
        found = await log_sinks.get_sink(unit, sink)
        return await log_sinks.update_sink(unit, found, given, may_be_private=private)

    with reported():
        given = _given(settings, secret_file, secret_env, file) | _named(name, stream)
        given |= {} if retroactive is None else {"retroactive": retroactive}
        private = read_settings(database=database).log_sinks_allow_private
        saved = run_on(database, lambda db: _write(db, account, save))
    _show(saved, as_json)


@app.command("list")
def list_sinks(account: AccountOption, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Show an account's sinks, how far they are, and what went wrong."""
    with reported():
        shown = run_on(database, lambda db: _list(db, account))
    if as_json:
        print(json.dumps(shown))
        return
    for one in shown:
        print(f"{one['name']:<24}{one['type']:<10}{one['status']:<10}{','.join(one['enabled_streams'])}")
        print(f"    {one['id']}  delivered {one['delivered']}")
        if one["backfill_total"] is not None:
            print(f"    earlier rows: {one['backfill_done']} of {one['backfill_total']}")
        if one["error_message"]:
            print(f"    since {one['errored_at']}: {one['error_message']}")


@app.command("enable")
def enable(sink: _Which, account: AccountOption, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Go on sending; a sink that was disabled by errors has to be edited."""
    _switch(sink, account, database, as_json, log_sinks.enable_sink)


@app.command("disable")
def disable(sink: _Which, account: AccountOption, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Send nothing until it is enabled again, and then go on where it stopped."""
    _switch(sink, account, database, as_json, log_sinks.disable_sink)


@app.command("delete")
def delete(sink: _Which, account: AccountOption, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Delete a sink with its secrets."""
    _switch(sink, account, database, as_json, log_sinks.delete_sink)


@app.command("sync-now")
def sync_now(
    sink: _Which, account: AccountOption, database: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """Send what there is now instead of within a minute."""
    with reported():
        shown = run_on(database, lambda db: _sync(db, database, account, sink))
    _show(shown, as_json)
    if shown["error_message"]:
        raise typer.Exit(1)


@app.command("test")
def try_out(sink: _Which, account: AccountOption, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Send one event of the type `test` and say what the destination made of it; nothing is kept of it."""
    with reported():
        said = run_on(database, lambda db: _try_out(db, database, account, sink))
    print(json.dumps(said) if as_json else f"{said['outcome']}{': ' + said['detail'] if said['detail'] else ''}")
    if said["outcome"] != "accepted":
        raise typer.Exit(1)


def logs(
    account: AccountOption,
    kind: Annotated[str, typer.Option("--type", help=", ".join(STREAMS))],
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="How many of the newest.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes, until interrupted.")] = False,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the newest rows of a log, the oldest of them first; with `--json` one object a line."""
    with reported():
        if kind not in STREAMS:
            raise InvalidInput({"type": [f"must be one of {', '.join(STREAMS)}"]})
        show = _print_json if as_json else _print_row
        try:
            run_on(database, lambda db: _read(db, account, kind, limit, show, follow=follow))
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


async def _read(
    db: Database, account: str, kind: Stream, limit: int, show: Callable[[dict[str, Any]], None], *, follow: bool
) -> None:
    subject, now = await system_of(db, account), SystemClock().utc_now()
    wanted = LogQuery(kind, now - timedelta(days=366), now + timedelta(days=366))
    async with db.scoped(subject) as scope:
        rows = list(reversed((await log_page(scope, wanted, limit=limit)).rows))
    seen: dict[str, int] = {row.log_id: row.seq for row in rows}
    for row in rows:
        show(log_object(row))
    since = log_ids.seq_at(now - cursors.SETTLED)
    while follow:
        await asyncio.sleep(_FOLLOW_EVERY_S)
        async with db.scoped(subject) as scope:
            rows = list(await logs_since(scope, kind, since))
        for row in rows:
            if seen.get(row.log_id) != row.seq:
                seen[row.log_id] = row.seq
                show(log_object(row))
        since = log_ids.seq_at(SystemClock().utc_now() - cursors.SETTLED)
        seen = {log_id: seq for log_id, seq in seen.items() if seq >= since}


def _print_json(shown: dict[str, Any]) -> None:
    print(json.dumps(shown), flush=True)


def _print_row(shown: dict[str, Any]) -> None:
    head = f"{shown['timestamp'][:19].replace('T', ' ')}  {shown['log_id']}  "
    subject = shown.get("subject") or {}
    who = subject.get("actor_email") or subject.get("actor_name") or subject.get("gateway_id") or "the portal"
    match shown["type"]:
        case "change":
            name = (shown["after"] or shown["before"] or {}).get("name") or ""
            print(f"{head}{who}  {shown['operation']} {shown['object']} {name}".rstrip(), flush=True)
        case "session":
            print(f"{head}{shown['context']}  {who}  {subject.get('ip')}", flush=True)
        case "api_request":
            print(f"{head}{shown['ip']}  {shown['method']} {shown['path']}", flush=True)
        case _:
            end = shown["flow_end"] or "open"
            target = f"{shown['protocol']} {shown['inner_dst_ip']}:{shown['inner_dst_port']}"
            print(f"{head}{shown['initiator_actor_email']}  {shown['resource_name']}  {target}  {end}", flush=True)


async def _write(db: Database, account: str, work: Callable[[UnitOfWork], Awaitable[LogSink]]) -> dict[str, Any]:
    async with db.writing(await system_of(db, account)) as unit:
        return _shown(await work(unit), [])


async def _list(db: Database, account: str) -> list[dict[str, Any]]:
    subject = await system_of(db, account)
    progress = await cursors.progress(db, subject.account_id)
    async with db.scoped(subject) as scope:
        return [
            _shown(sink, [one for one in progress if one.sink_id == sink.id])
            for sink in await log_sinks.list_sinks(scope)
        ]


def _switch(
    name: str,
    account: str,
    database: str | None,
    as_json: bool,
    action: Callable[[UnitOfWork, LogSink], Awaitable[None]],
) -> None:
    async def work(unit: UnitOfWork) -> LogSink:
        sink = await log_sinks.get_sink(unit, name)
        await action(unit, sink)
        return sink

    with reported():
        shown = run_on(database, lambda db: _write(db, account, work))
    _show(shown, as_json)


async def _sync(db: Database, database: str | None, account: str, name: str) -> dict[str, Any]:
    subject = await system_of(db, account)
    async with db.scoped(subject) as scope:
        sink = await log_sinks.get_sink(scope, name)
    if sink.id not in {one.id for one in await cursors.due(db)}:
        raise WardgateError("the log sink or its account is disabled, or the plan has no log sinks")
    await _delivery(db, database).deliver(sink)
    return next(one for one in await _list(db, account) if one["id"] == sink.id)


async def _try_out(db: Database, database: str | None, account: str, name: str) -> dict[str, str | None]:
    async with db.scoped(await system_of(db, account)) as scope:
        sink = await log_sinks.get_sink(scope, name)
    outcome = await _delivery(db, database).try_out(sink)
    detail = outcome.warning if isinstance(outcome, Accepted) else outcome.detail
    return {"outcome": type(outcome).__name__.lower(), "detail": detail}


def _delivery(db: Database, database: str | None) -> Delivery:
    operator = operator_of(read_settings(database=database))
    return Delivery(db, SystemClock(), operator, lambda: Client(operator.allows_private))


def _named(name: str | None, streams: list[str] | None) -> dict[str, Any]:
    given: dict[str, Any] = {} if name is None else {"name": name}
    return given | ({} if streams is None else {"enabled_streams": streams})


def _given(
    settings: list[str] | None, files: list[str] | None, variables: list[str] | None, path: Path | None
) -> dict[str, Any]:
    """Settings of a file, of options, and secrets of files and the environment; what comes later wins."""
    given = _read_file(path) if path else {}
    secrets = {name for fields in FIELDS.values() for name, field in fields.items() if field.is_secret}
    for name, value in _pairs(settings):
        if name in secrets:
            raise SettingError(f"{name}: a secret is given by --secret-file, --secret-env or --file, not by --set")
        given[name] = value
    for name, value in _pairs(files):
        given[name] = _read_secret(name, Path(value))
    for name, value in _pairs(variables):
        if value not in os.environ:
            raise SettingError(f"{name}: the environment has no {value}")
        given[name] = os.environ[value]
    return given


def _pairs(texts: list[str] | None) -> list[tuple[str, str]]:
    pairs = []
    for text in texts or ():
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise SettingError(f"{name}: must be NAME=VALUE")
        pairs.append((name.strip().replace("-", "_"), value))
    return pairs


def _read_secret(name: str, path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{name}: {path} cannot be read: {error}") from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        value = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise SettingError(f"file: {path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise SettingError(f"file: {path} must hold settings by name")
    return {name.replace("-", "_"): setting for name, setting in value.items()}


def _show(shown: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(shown))
        return
    print(f"{shown['name']}  {shown['type']}  {shown['status']}  {shown['id']}")
    if "external_id" in shown["settings"]:
        print(f"    the role's trust policy must demand sts:ExternalId {shown['settings']['external_id']}")
    if shown["error_message"]:
        print(f"    {shown['error_message']}")


def _shown(sink: LogSink, progress: list[LogSinkCursor]) -> dict[str, Any]:
    backfills = [one for one in progress if one.kind == "backfill"]
    status = "disabled" if sink.is_disabled else "error" if sink.error_message else "active"
    return {
        "id": sink.id,
        "type": sink.type,
        "name": sink.name,
        "enabled_streams": sink.enabled_streams,
        "retroactive": sink.retroactive,
        "settings": sink.settings,
        "status": status,
        "disabled_reason": sink.disabled_reason,
        "error_message": sink.error_message,
        "errored_at": _iso(sink.errored_at),
        "delivered": sum(one.synced_count for one in progress),
        "backfill_total": sum(one.backfill_total or 0 for one in backfills) if backfills else None,
        "backfill_done": sum(one.synced_count for one in backfills) if backfills else None,
    }


def _iso(at: datetime | None) -> str | None:
    return iso_utc(at) if at else None
