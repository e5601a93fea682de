"""An account with rows in its logs, a receiver on loopback, and deliveries that reach it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import select

from tests.unit.portal.helpers import Lab, ManualClock, make_lab
from tests.unit.portal.sinks.receiver import Receiver, running
from wardgate.portal.db import log_sinks
from wardgate.portal.db.engine import Database
from wardgate.portal.db.log_tables import LogSink, LogSinkCursor
from wardgate.portal.db.tables import ChangeLog
from wardgate.portal.services import sites
from wardgate.portal.services.log_sinks import create_sink
from wardgate.portal.sinks.client import Client
from wardgate.portal.sinks.delivery import Delivery
from wardgate.portal.sinks.destinations import Operator

SETTLE_S = 31.0


@dataclass
class Bench:
    """Ways to write logs, to deliver them, and to look at what came of it."""

    db: Database
    clock: ManualClock
    lab: Lab
    receiver: Receiver
    delivery: Delivery
    counted: list[str]
    made: int = field(default=0)

    async def sink(self, kind: str = "http", **given: Any) -> LogSink:
        if kind == "http":
            given = {"endpoint_url": f"{self.receiver.url}/in", "enabled_streams": ["change"], **given}
        async with self.db.writing(self.lab.subject) as unit:
            return await create_sink(unit, kind, given, may_be_private=True)

    async def changes(self, count: int) -> list[str]:
        """Makes so many changes, lets them settle, and gives their ids."""
        names = [f"site {self.made + number}" for number in range(count)]
        self.made += count
        for name in names:
            async with self.db.writing(self.lab.subject) as unit:
                await sites.create_site(unit, {"name": name})
        self.clock.advance(SETTLE_S)
        async with self.db.unscoped() as session:
            query = select(ChangeLog).where(ChangeLog.account_id == self.lab.account.id).order_by(ChangeLog.log_id)
            rows = (await session.scalars(query)).all()
        return [row.log_id for row in rows if row.after and row.after.get("name") in names and row.object == "sites"]

    async def run(self) -> None:
        """One run of the job, a minute after the one before."""
        await self.delivery.run()
        self.clock.advance(60)

    async def row(self, sink: LogSink) -> LogSink:
        async with self.db.scoped(self.lab.subject) as scope:
            return await scope.get(LogSink, sink.id)

    async def cursors(self, sink: LogSink) -> dict[tuple[str, str], LogSinkCursor]:
        found: Sequence[LogSinkCursor] = await log_sinks.progress(self.db, sink.account_id)
        return {(one.stream, one.kind): one for one in found if one.sink_id == sink.id}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running(Receiver()) as one:
        yield one


@pytest.fixture
async def bench(db: Database, clock: ManualClock, receiver: Receiver) -> Bench:
    lab = await make_lab(db)
    clock.advance(SETTLE_S)
    counted: list[str] = []
    operator = Operator(allows_private=True)
    client = lambda: Client(allows_private=True, timeout_s=2.0)  # noqa: E731
    return Bench(db, clock, lab, receiver, Delivery(db, clock, operator, client, counted.append), counted)
