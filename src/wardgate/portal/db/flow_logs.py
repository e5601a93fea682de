"""Storing flows: a close takes the place of the open row, and whatever comes after the close is ignored.

Source: portal-domain-2 A7, portal-domain-3 B5.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from sqlalchemy import inspect
from sqlalchemy.dialects import postgresql, sqlite

from wardgate.portal.db.engine import Database
from wardgate.portal.db.log_tables import FlowLog
from wardgate.portal.domain import log_ids
from wardgate.portal.domain.flow_records import FlowRecord

_CHUNK: Final = 500
_KEY: Final = [str(column.key) for column in inspect(FlowLog).primary_key]
_RENEWED: Final = ("seq", "flow_end", "last_packet", "outers", "rx_packets", "tx_packets", "rx_bytes", "tx_bytes")


async def store_flows(
    db: Database, attribution: Mapping[str, Any], records: Sequence[FlowRecord], at: datetime
) -> None:
    """Stores records of one side of a grant. Doing so again changes nothing, so a part may have been stored before.

    Args:
        attribution: The columns that all of them share, from the token.
    """
    insert = sqlite.insert(FlowLog) if db.is_sqlite else postgresql.insert(FlowLog)
    statement = insert.on_conflict_do_update(
        index_elements=_KEY,
        set_={name: insert.excluded[name] for name in _RENEWED},
        where=FlowLog.flow_end.is_(None) & insert.excluded.flow_end.is_not(None),
    )
    in_order = sorted(records, key=lambda record: record.identity)  # so that two uploads cannot wait for each other
    for start in range(0, len(in_order), _CHUNK):
        rows = [_row(db, attribution, record, at) for record in in_order[start : start + _CHUNK]]
        async with db.unscoped_write() as session:
            connection = await session.connection()
            await connection.execute(statement, rows)


def _row(db: Database, attribution: Mapping[str, Any], record: FlowRecord, at: datetime) -> dict[str, Any]:
    seq = db.sequencer.next(at)
    return {
        **attribution,
        **asdict(record),
        "outers": [dict(one) for one in record.outers],
        "log_id": log_ids.random_id("flow", secrets.token_bytes(12)),
        "inserted_at": at,
        "seq": seq,
        "start_seq": seq,
    }
