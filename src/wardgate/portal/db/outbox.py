"""The outbox: committed changes in their order, until they are dispatched."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import delete, select

from wardgate.portal.db.engine import Database
from wardgate.portal.db.tables import OutboxEntry

BATCH: Final = 500


async def oldest(db: Database) -> Sequence[OutboxEntry]:
    """The oldest entries, with none of a commit left out."""
    async with db.unscoped() as session:
        entries = list((await session.scalars(select(OutboxEntry).order_by(OutboxEntry.id).limit(BATCH))).all())
        if len(entries) == BATCH:
            same = select(OutboxEntry).where(
                OutboxEntry.commit_id == entries[-1].commit_id, OutboxEntry.id > entries[-1].id
            )
            entries += (await session.scalars(same.order_by(OutboxEntry.id))).all()
    return entries


async def remove(db: Database, entries: Sequence[OutboxEntry]) -> None:
    """Forgets entries that were dispatched."""
    ids = [entry.id for entry in entries]
    async with db.unscoped_write() as session:
        for start in range(0, len(ids), BATCH):
            await session.execute(delete(OutboxEntry).where(OutboxEntry.id.in_(ids[start : start + BATCH])))
