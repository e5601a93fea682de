"""Writing the session and API request logs, and reading pages of all four logs."""

import base64
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from wardgate.errors import InvalidInput
from wardgate.portal.db.log_tables import ApiRequestLog, FlowLog, SessionLog
from wardgate.portal.db.paging import DEFAULT_LIMIT, MAX_LIMIT
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.tables import ChangeLog, Device
from wardgate.portal.domain import log_ids
from wardgate.portal.domain.log_ids import Sequencer, Stream
from wardgate.portal.domain.subjects import Subject

AnyLog = ChangeLog | SessionLog | ApiRequestLog | FlowLog
TABLES: Final[dict[Stream, type[AnyLog]]] = {
    "change": ChangeLog,
    "session": SessionLog,
    "api_request": ApiRequestLog,
    "flow": FlowLog,
}
_ORDER: Final[dict[Stream, tuple[Any, ...]]] = {
    "change": (ChangeLog.log_id,),
    "session": (SessionLog.timestamp, SessionLog.log_id),
    "api_request": (ApiRequestLog.inserted_at, ApiRequestLog.log_id),
    "flow": (FlowLog.flow_start, FlowLog.log_id),
}
"""What the pages of a log are sorted by; the newest comes first."""


@dataclass(frozen=True, slots=True)
class RequestSeen:
    """What the log keeps of an API request besides who made it."""

    method: str
    path: str
    content_length: int | None
    request_id: str | None


def write_session(unit: UnitOfWork, device: Device, token_id: str) -> None:
    """Logs that a device connects, in the transaction that keeps what it connected with."""
    subject: dict[str, Any]
    if device.type == "client":
        subject = {**unit.subject.for_log(), "device_id": device.id, "token_id": token_id}
    else:
        subject = {"gateway_id": device.id, "token_id": token_id, **unit.subject.origin_for_log()}
    unit.session.add(
        SessionLog(
            account_id=unit.account_id,
            log_id=log_ids.random_id("session", secrets.token_bytes(12)),
            seq=unit.sequencer.next(unit.at),
            timestamp=unit.at,
            context=device.type,
            subject=subject,
        )
    )


def write_portal_session(unit: UnitOfWork) -> None:
    """Logs that somebody signed in to the pages, in the transaction that keeps the session."""
    unit.session.add(
        SessionLog(
            account_id=unit.account_id,
            log_id=log_ids.random_id("session", secrets.token_bytes(12)),
            seq=unit.sequencer.next(unit.at),
            timestamp=unit.at,
            context="portal",
            subject=unit.subject.for_log(),
        )
    )


def write_api_request(
    session: AsyncSession, subject: Subject, seen: RequestSeen, at: datetime, sequencer: Sequencer
) -> None:
    """Logs a request that an API client may make."""
    place = subject.location
    session.add(
        ApiRequestLog(
            account_id=subject.account_id,
            log_id=log_ids.random_id("api_request", secrets.token_bytes(12)),
            seq=sequencer.next(at),
            inserted_at=at,
            actor_id=subject.actor_id,
            api_token_id=subject.token_id,
            method=seen.method[:16],
            path=seen.path.replace("\x00", "\ufffd")[:2048],
            content_length=seen.content_length,
            request_id=(seen.request_id or "")[:255] or None,
            user_agent=(subject.user_agent or "")[:255] or None,
            ip=subject.remote_ip,
            ip_region=(place.region or "")[:255] or None,
            ip_city=(place.city or "")[:255] or None,
            ip_lat=place.lat,
            ip_lon=place.lon,
        )
    )


async def logs_since(scope: Scope, stream: Stream, seq: int, limit: int = 1000) -> Sequence[AnyLog]:
    """The rows of a log from a sequence number on, in that order."""
    table: Any = TABLES[stream]
    query = select(table).where(table.account_id == scope.account_id, table.seq >= seq)
    rows: Sequence[AnyLog] = (await scope.session.scalars(query.order_by(table.seq).limit(limit))).all()
    return rows


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which rows of a log.

    Attributes:
        begin: The earliest instant; a flow counts if it was open at any time of the window.
        actor_id: Who acted; of a flow, whose device began it.
        actor_email: The same by e-mail address; requests of the API have none.
    """

    stream: Stream
    begin: datetime
    end: datetime
    actor_id: str | None = None
    actor_email: str | None = None


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some rows of a log, how many there are in all, and where the neighbours begin."""

    rows: Sequence[AnyLog]
    count: int
    limit: int
    next_page: str | None
    prev_page: str | None


async def find_log(scope: Scope, log_id: str) -> AnyLog | None:
    """The row with that id, in either case of letters."""
    stream = log_ids.stream_of(log_id.lower())
    if stream is None:
        return None
    table: Any = TABLES[stream]
    query = select(table).where(table.account_id == scope.account_id, table.log_id == log_id.lower())
    row: AnyLog | None = (await scope.session.scalars(query)).one_or_none()
    return row


async def log_page(scope: Scope, wanted: LogQuery, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None) -> LogPage:
    """One page of a log, the newest first.

    Raises:
        InvalidInput: The cursor is not one that an earlier page of this log gave.
    """
    limit = max(1, min(MAX_LIMIT, limit))
    columns = _ORDER[wanted.stream]
    query = _matching(scope, wanted)
    count = await scope.session.scalar(select(func.count()).select_from(query.subquery())) or 0
    direction, place = _read(cursor, wanted.stream) if cursor else ("n", None)
    is_backward = direction == "p"
    if place is not None:
        query = query.where(_beyond(columns, place, ascending=is_backward))
    order = [column if is_backward else column.desc() for column in columns]
    rows: list[AnyLog] = list((await scope.session.scalars(query.order_by(*order).limit(limit + 1))).all())
    has_more = len(rows) > limit
    rows = rows[:limit]
    if is_backward:
        rows.reverse()
    has_next = is_backward or has_more
    has_previous = has_more if is_backward else place is not None
    return LogPage(
        rows,
        count,
        limit,
        _write("n", columns, rows[-1]) if rows and has_next else None,
        _write("p", columns, rows[0]) if rows and has_previous else None,
    )


def _matching(scope: Scope, wanted: LogQuery) -> Select[Any]:
    table: Any = TABLES[wanted.stream]
    query = select(table).where(table.account_id == scope.account_id)
    if wanted.stream == "flow":
        query = query.where(
            FlowLog.flow_start <= wanted.end, or_(FlowLog.flow_end.is_(None), FlowLog.flow_end >= wanted.begin)
        )
    else:
        at = ApiRequestLog.inserted_at if wanted.stream == "api_request" else table.timestamp
        query = query.where(at >= wanted.begin, at <= wanted.end)
    for name, value in (("actor_id", wanted.actor_id), ("actor_email", wanted.actor_email)):
        if value is not None:
            query = query.where(_actor_column(wanted.stream, name) == value)
    return query


def _actor_column(stream: Stream, name: str) -> Any:
    if stream == "flow":
        return getattr(FlowLog, f"initiator_{name}")
    if stream == "api_request":
        return getattr(ApiRequestLog, name)
    table: Any = TABLES[stream]
    return table.subject[name].as_string()


def _beyond(
    columns: tuple[InstrumentedAttribute[Any], ...], place: tuple[Any, ...], *, ascending: bool
) -> ColumnElement[bool]:
    first, value = columns[0], place[0]
    step: ColumnElement[bool] = first > value if ascending else first < value
    if len(columns) == 1:
        return step
    return or_(step, and_(first == value, _beyond(columns[1:], place[1:], ascending=ascending)))


def _write(direction: str, columns: tuple[InstrumentedAttribute[Any], ...], row: AnyLog) -> str:
    values = [getattr(row, column.key) for column in columns]
    shown = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    text = json.dumps([direction, *shown], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(cursor: str, stream: Stream) -> tuple[str, tuple[Any, ...]]:
    try:
        text = base64.b64decode(cursor.replace("-", "+").replace("_", "/") + "=" * (-len(cursor) % 4), validate=True)
        direction, *values = json.loads(text)
        if direction not in ("n", "p") or len(values) != len(_ORDER[stream]):
            raise ValueError(direction)
        if log_ids.stream_of(values[-1]) != stream:
            raise ValueError(values[-1])
        place = [_aware(one) for one in values[:-1]] + values[-1:]
    except (ValueError, TypeError, RecursionError, OverflowError):
        raise InvalidInput({"page_cursor": ["is invalid"]}) from None
    return direction, tuple(place)


def _aware(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None or at.utcoffset() is None or at.year < 2:
        raise ValueError("is no instant")
    return at
