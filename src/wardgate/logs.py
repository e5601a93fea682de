"""How programs log: structured lines on stderr, for people or as JSON, and in files if asked for."""

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO, cast

import structlog

from wardgate.io.log_files import LogFiles
from wardgate.io.log_sink import LogSink, Stderr, Target, install


def configure_logs(log_format: str, level: str, log_dir: Path | None = None, base: str = "wardgate") -> None:
    """Sets logging up for the whole process.

    Args:
        log_format: `human` or `json`.
        level: `debug`, `info`, `warning` or `error`.
        log_dir: Where files are written besides; `None` for nowhere.
        base: How their names begin.

    Raises:
        SettingError: The directory cannot be written.
    """
    renderer: Any
    if log_format == "json":
        renderer = [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        renderer = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    sink = open_sink(log_format, log_dir, base)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.UnicodeDecoder(),
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sink),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(stream=sink, level=max(logging.WARNING, logging.getLevelName(level.upper())))


def open_sink(log_format: str, log_dir: Path | None, base: str) -> TextIO:
    """The process's sink, for loggers that want a file.

    Raises:
        SettingError: The directory cannot be written.
    """
    targets: list[Target] = [Stderr()]
    if log_dir is not None:
        files = LogFiles(log_dir, base)
        files.prepare()
        targets.append(files)
    describe = _loss_as_json if log_format == "json" else _loss_for_people
    return cast(TextIO, install(LogSink(targets, describe)))


def _loss_for_people(count: int) -> str:
    return f"{_moment()} [warning  ] lines of the log were lost         lines={count}\n"


def _loss_as_json(count: int) -> str:
    loss = {"lines": count, "event": "lines of the log were lost", "level": "warning", "timestamp": _moment()}
    return json.dumps(loss) + "\n"


def _moment() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
