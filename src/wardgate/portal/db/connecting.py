"""From a URL to an engine: driver, pool, time limits, and how SQLite is set up."""

from typing import Any, Final

from sqlalchemy import URL, Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from wardgate.errors import SettingError

DEFAULT_POOL: Final = 10
DEFAULT_TIMEOUT_S: Final = 20.0
_CONNECT_S: Final = 5.0
_DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_PRAGMAS: Final = (
    "journal_mode=WAL",
    "foreign_keys=ON",
    "synchronous=NORMAL",
    "temp_store=MEMORY",
    "cache_size=-8192",  # KiB for each connection
    "journal_size_limit=67108864",  # the log shrinks to this after a long transaction
)


def parse_url(url: str) -> URL:
    """The URL with the driver that we use.

    Raises:
        SettingError: It is not one of a database that we know.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingError("database: must be a URL such as sqlite:///wardgate.db or postgresql://…") from None
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None:
        raise SettingError(f"database: {parsed.get_backend_name()!r} is not one of sqlite, postgresql")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise SettingError("database: must name a file, such as sqlite:///wardgate.db")
    return parsed.set(drivername=driver)


def shown_url(url: str) -> str:
    """The URL without its password."""
    return make_url(url).render_as_string(hide_password=True)


def create_engine(url: URL, pool: int = DEFAULT_POOL, timeout_s: float = DEFAULT_TIMEOUT_S) -> AsyncEngine:
    """An engine whose waits all end.

    Args:
        pool: Connections that are kept; as many more are opened for a burst.
        timeout_s: How long a statement may take; 0 for no limit.

    Raises:
        SettingError: The driver is not installed.
    """
    is_sqlite = url.get_backend_name() == "sqlite"
    wait_s = timeout_s / 2 or DEFAULT_TIMEOUT_S
    arguments = {} if is_sqlite else _postgresql_arguments(timeout_s)
    try:
        engine = create_async_engine(
            url,
            pool_size=pool,
            max_overflow=pool,
            pool_timeout=wait_s,
            pool_pre_ping=not is_sqlite,
            pool_use_lifo=True,
            connect_args=arguments,
        )
    except ModuleNotFoundError as error:
        raise SettingError(f"database: the Python package {error.name} is needed for this URL") from None
    if is_sqlite:
        busy_ms = int(wait_s * 1000)
        event.listen(engine.sync_engine, "connect", lambda connection, record: _set_up_sqlite(connection, busy_ms))
        event.listen(engine.sync_engine, "begin", _on_begin)
    return engine


def _postgresql_arguments(timeout_s: float) -> dict[str, Any]:
    """The server ends what takes too long; should it hang itself, the driver gives up a second later."""
    milliseconds = int(timeout_s * 1000)
    limits = {"application_name": "wardgate-portal", "timezone": "UTC"}
    if milliseconds:
        limits |= {
            "statement_timeout": str(milliseconds),
            "lock_timeout": str(milliseconds // 2),
            "idle_in_transaction_session_timeout": str(3 * milliseconds),
        }
    return {
        "timeout": min(_CONNECT_S, timeout_s or _CONNECT_S),
        "command_timeout": timeout_s + 1 if timeout_s else None,
        "server_settings": limits,
    }


def _set_up_sqlite(connection: Any, busy_ms: int) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={busy_ms}", *_PRAGMAS):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("checks_references", True):
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")  # has no effect inside a transaction
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("write", False) else "BEGIN")
