"""Idempotency keys of an account: claimed with the change, answered afterwards, forgotten after a day."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError

from wardgate.portal.db.identity_tables import IdempotencyKey
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.sealing import seal, unseal
from wardgate.portal.db.tables import new_id

LIFETIME: Final = timedelta(hours=24)
MAX_KEYS: Final = 10_000
_DROPPED_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer as it was sent."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Known:
    """A key that was used."""

    request_hash: str
    answer: KeptAnswer | None


async def find(scope: Scope, key: str, at: datetime) -> Known | None:
    """What the account used the key for, unless that was a day ago."""
    query = scope.select(IdempotencyKey).where(IdempotencyKey.key == key, IdempotencyKey.expires_at > at)
    row = (await scope.session.scalars(query)).one_or_none()
    if row is None:
        return None
    answer = None
    if row.status is not None and row.answer is not None:
        answer = KeptAnswer(row.status, row.headers, unseal(scope.keyring, row, "answer"))
    return Known(row.request_hash, answer)


async def claim(unit: UnitOfWork, key: str, request_hash: str) -> str | None:
    """Writes the key down in this unit of work; gives the row's id, or `None` if somebody else has it."""
    table = IdempotencyKey
    over = delete(table).where(table.account_id == unit.account_id, table.key == key, table.expires_at <= unit.at)
    await unit.session.execute(over)
    await _make_room(unit)
    row = IdempotencyKey(
        account_id=unit.account_id,
        id=new_id(),
        key=key,
        request_hash=request_hash,
        headers={},
        inserted_at=unit.at,
        expires_at=unit.at + LIFETIME,
    )
    unit.session.add(row)
    try:
        await unit.session.flush()
    except IntegrityError:
        return None
    return row.id


async def keep(unit: UnitOfWork, row_id: str, answer: KeptAnswer) -> None:
    """Keeps the answer that belongs to a key."""
    row = await unit.find(IdempotencyKey, row_id)
    if row is not None:
        row.status, row.headers = answer.status, answer.headers
        row.answer = seal(unit.keyring, answer.body, IdempotencyKey, "answer", row_id)
        await unit.session.flush()


async def _make_room(unit: UnitOfWork) -> None:
    table = IdempotencyKey
    count = select(func.count()).where(table.account_id == unit.account_id)
    if (await unit.session.scalar(count) or 0) < MAX_KEYS:
        return
    oldest = (
        select(table.id).where(table.account_id == unit.account_id).order_by(table.expires_at).limit(_DROPPED_AT_ONCE)
    )
    ids = list(await unit.session.scalars(oldest))
    await unit.session.execute(delete(table).where(table.account_id == unit.account_id, table.id.in_(ids)))
