"""Removing what is over."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, select

from wardgate.ids import AccountId
from wardgate.portal.db.engine import Database
from wardgate.portal.db.tables import ApiToken, ChangeLog, ClientToken, GatewayToken, PolicyAuthorization
from wardgate.portal.domain import subjects

LOG_RETENTION: Final = timedelta(days=90)
ROTATED_LIFETIME: Final = timedelta(hours=4)
_BATCH: Final = 1000


async def remove_grants(db: Database, at: datetime) -> None:
    """Removes expired grants. Receivers end them by themselves, so nobody is told."""
    async with db.unscoped_write() as session:
        await session.execute(delete(PolicyAuthorization).where(PolicyAuthorization.expires_at <= at))


async def remove_change_logs(db: Database, at: datetime) -> None:
    """Removes old rows of the change log."""
    async with db.unscoped_write() as session:
        await session.execute(delete(ChangeLog).where(ChangeLog.timestamp <= at - LOG_RETENTION))


async def remove_tokens(db: Database, at: datetime) -> None:
    """Removes expired tokens and rotated gateway tokens past their time, as if somebody revoked them."""
    async with db.unscoped() as session:
        client_tokens = await session.scalars(select(ClientToken).where(ClientToken.expires_at <= at).limit(_BATCH))
        api_tokens = await session.scalars(select(ApiToken).where(ApiToken.expires_at <= at).limit(_BATCH))
        rotated = await session.scalars(
            select(GatewayToken).where(GatewayToken.rotated_at <= at - ROTATED_LIFETIME).limit(_BATCH)
        )
        over: list[ClientToken | ApiToken | GatewayToken] = [*client_tokens, *api_tokens, *rotated]
    for token in over:
        async with db.writing(subjects.system(AccountId(token.account_id))) as unit:
            row = await unit.find(type(token), token.id)
            if row is not None:
                await unit.delete(row)
