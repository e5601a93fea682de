"""Removing what is over."""

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from wardgate.ids import AccountId
from wardgate.portal.db import authorizations
from wardgate.portal.db.engine import Database
from wardgate.portal.db.identity_tables import IdempotencyKey, OneTimePasscode, PortalSession
from wardgate.portal.db.log_tables import ApiRequestLog, FlowLog, SessionLog
from wardgate.portal.db.tables import ApiToken, ChangeLog, ClientToken, GatewayToken
from wardgate.portal.domain import subjects

LOG_RETENTION: Final = timedelta(days=90)
FLOW_LOG_RETENTION: Final = timedelta(days=121)
ROTATED_LIFETIME: Final = timedelta(hours=4)
_BATCH: Final = 1000
_LOG_BATCH: Final = 5000


async def remove_grants(db: Database, at: datetime) -> None:
    """Removes expired grants. Receivers end them by themselves, so nobody is told."""
    async with db.unscoped_write() as session:
        await authorizations.end_expired(session, at)


async def remove_logs(db: Database, at: datetime) -> None:
    """Removes old rows of the change, session and API request logs."""
    for column in (ChangeLog.timestamp, SessionLog.timestamp, ApiRequestLog.inserted_at):
        await _remove_until(db, column, at - LOG_RETENTION)


async def remove_flow_logs(db: Database, at: datetime) -> None:
    """Removes old flows."""
    await _remove_until(db, FlowLog.flow_start, at - FLOW_LOG_RETENTION)


async def _remove_until(db: Database, column: InstrumentedAttribute[datetime], at: datetime) -> None:
    """Removes the rows of a log up to an instant, so few at once that other writers have their turn."""
    table: Any = column.class_
    old = select(table.account_id, table.log_id).where(column <= at).limit(_LOG_BATCH)
    statement = delete(table).where(tuple_(table.account_id, table.log_id).in_(old)).returning(table.log_id)
    while True:
        async with db.unscoped_write() as session:
            removed = (await session.execute(statement)).scalars().all()
        if len(removed) < _LOG_BATCH:
            return


async def remove_tokens(db: Database, at: datetime) -> None:
    """Removes expired tokens and rotated gateway tokens past their time, as if somebody revoked them.

    Sessions, passcodes and idempotency keys that are over are looked at before they are used, so they go in silence.
    """
    async with db.unscoped_write() as session:
        for column in (PortalSession.expires_at, OneTimePasscode.expires_at, IdempotencyKey.expires_at):
            await session.execute(delete(column.class_).where(column <= at))
    async with db.unscoped() as session:
        client_tokens = await session.scalars(select(ClientToken).where(ClientToken.expires_at <= at).limit(_BATCH))
        api_tokens = await session.scalars(select(ApiToken).where(ApiToken.expires_at <= at).limit(_BATCH))
        rotated = await session.scalars(
            select(GatewayToken).where(GatewayToken.rotated_at <= at - ROTATED_LIFETIME).limit(_BATCH)
        )
        tokens: list[ClientToken | ApiToken | GatewayToken] = [*client_tokens, *api_tokens, *rotated]
    for token in tokens:
        async with db.writing(subjects.system(AccountId(token.account_id))) as unit:
            row = await unit.find(type(token), token.id)
            if row is not None:
                await unit.delete(row)
