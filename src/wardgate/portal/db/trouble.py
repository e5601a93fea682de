"""What keeps a database from answering: it is away, full, read-only or too busy, which a later try may find mended."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from wardgate.errors import DatabaseUnavailable, SettingError

# PostgreSQL's SQLSTATE classes and codes, appendix A of its manual.
_CLASSES: Final = ("08", "53", "58")  # connection lost; out of disk, memory or connections; I/O errors
_SETTINGS: Final = {
    "28000": "the server does not let this user in",
    "28P01": "the server does not accept the password",
    "3D000": "the server has no such database",
    "42501": "the user may not do this",
    "0A000": "the server lacks something",
    "58P01": "the server lacks something",
}
_CODES: Final = {
    "28000": "its server does not let this user in",
    "28P01": "its server does not accept the password",
    "3D000": "its server does not have it",
    "25006": "it is read-only",
    "40001": "other changes were in the way",
    "40P01": "other changes were in the way",
    "53100": "its disk is full",
    "55P03": "it is too busy",
    "57014": "it took too long to answer",
    "57P01": "it is shutting down",
    "57P02": "it is shutting down",
    "57P03": "it is starting or shutting down",
    "57P05": "it ended an idle connection",
}
_SQLITE: Final = {
    "SQLITE_FULL": "its disk is full",
    "SQLITE_READONLY": "it is read-only",
    "SQLITE_BUSY": "it is too busy",
    "SQLITE_LOCKED": "it is too busy",
    "SQLITE_IOERR": "its disk fails",
    "SQLITE_CANTOPEN": "its file cannot be opened",
}


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Lets what a database cannot do for now leave as `DatabaseUnavailable`; every other error as it is.

    Raises:
        DatabaseUnavailable: Nothing was changed, unless the connection was lost in the very commit.
    """
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        why = why_unavailable(error)
        if why is None:
            raise
        raise DatabaseUnavailable(f"the database cannot be used: {why}") from error


@contextmanager
def reported_settings() -> Iterator[None]:
    """At the start, what only another setting or the server's administrator can mend ends the program.

    Raises:
        SettingError: That is so.
        DatabaseUnavailable: The database is away, or too busy.
    """
    try:
        yield
    except (DatabaseUnavailable, DBAPIError) as error:
        cause = error.__cause__ if isinstance(error, DatabaseUnavailable) else error
        original = getattr(cause, "orig", None)
        text = _SETTINGS.get(str(getattr(original, "sqlstate", None)))
        if text is None:
            raise
        first_line, _, _ = str(original).partition("\n")
        raise SettingError(f"database: {text}: {first_line}") from None


def why_unavailable(error: BaseException) -> str | None:
    """What is wrong with the database, if that is what an error is about."""
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, OSError):
        return "it cannot be reached"
    if isinstance(error, PoolTimeout):
        return "all connections are busy"
    if not isinstance(error, DBAPIError):
        return None
    code = getattr(error.orig, "sqlstate", None)
    if isinstance(code, str):
        return _CODES.get(code) or ("it cannot be reached" if code[:2] in _CLASSES else None)
    name = getattr(error.orig, "sqlite_errorname", None)
    if isinstance(name, str):
        return next((text for prefix, text in _SQLITE.items() if name.startswith(prefix)), None)
    if error.connection_invalidated or (isinstance(error, InterfaceError) and "closed" in str(error.orig)):
        return "the connection was lost"  # the driver has the same class for a value that it cannot send
    return "it cannot be reached" if isinstance(error, OperationalError) else None
