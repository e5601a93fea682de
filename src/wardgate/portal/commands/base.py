"""What the operator's commands share: options, the database, and how errors are said."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import structlog
import typer

from wardgate.errors import NotFound, SettingError, WardgateError
from wardgate.ids import AccountId
from wardgate.logs import open_sink
from wardgate.portal.clock import SystemClock
from wardgate.portal.config import read_settings
from wardgate.portal.db.accounts import find_account
from wardgate.portal.db.engine import Database
from wardgate.portal.domain import subjects
from wardgate.portal.domain.subjects import Subject

DatabaseOption = Annotated[
    str | None,
    typer.Option("--database", help="sqlite:///path or postgresql://… [env: WARDGATE_DATABASE, DATABASE_URL]"),
]
AccountOption = Annotated[str, typer.Option("--account", help="The account's slug or id.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_NO_NEWS = ("without completing handshake", "Invalid HTTP request", "Unsupported upgrade request")
_T = TypeVar("_T")


@contextmanager
def reported() -> Iterator[None]:
    """Says an error in one line, and ends with its status."""
    try:
        yield
    except SettingError as error:
        print(f"wardgate portal: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except WardgateError as error:
        print(f"wardgate portal: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


def run_on(database: str | None, work: Callable[[Database], Awaitable[_T]], *, may_create: bool = False) -> _T:
    """Does something with the database of the settings, migrated."""
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
    logging.getLogger("uvicorn.error").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Leaves out what uvicorn says of refusals, which we count and log ourselves: strangers could fill the log."""
    return not any(words in record.getMessage() for words in _NO_NEWS)


async def system_of(db: Database, slug: str) -> Subject:
    """The portal itself, in an account that is named by slug or id.

    Raises:
        NotFound: There is none.
    """
    account = await find_account(db, slug)
    if account is None:
        raise NotFound(f"there is no account {slug}")
    return subjects.system(AccountId(account.id))
