"""What the logs' rows promise of the database: order with many writers, retention, and a migration of filled tables."""

import asyncio
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, select

from tests.unit.portal.helpers import ManualClock, make_lab
from wardgate.portal.db import migrate, purge
from wardgate.portal.db.engine import Database
from wardgate.portal.db.flow_logs import store_flows
from wardgate.portal.db.log_tables import FlowLog, SessionLog
from wardgate.portal.db.tables import ChangeLog, OutboxEntry
from wardgate.portal.domain import log_ids
from wardgate.portal.domain.flow_records import FlowRecord
from wardgate.portal.services import sites


async def test_ids_and_numbers_of_changes_are_in_the_order_of_commits_with_many_writers(db: Database) -> None:
    lab = await make_lab(db)
    committed: list[str] = []

    async def write(number: int) -> None:
        async with db.writing(lab.subject) as unit:
            await sites.create_site(unit, {"name": f"site {number}"})
            await asyncio.sleep(0.001 * (number % 5))
            unit.after_commit(lambda: None)

    await asyncio.gather(*(write(number) for number in range(12)))

    async with db.unscoped() as session:
        changes = (await session.scalars(select(ChangeLog).order_by(ChangeLog.log_id))).all()
        outbox = (await session.scalars(select(OutboxEntry).order_by(OutboxEntry.id))).all()
    committed = [one.after["name"] for one in outbox if one.after and one.object == "sites"]
    logged = [one.after["name"] for one in changes if one.after and one.object == "sites"]
    assert logged == committed
    assert len({log_ids.seed_of(one.log_id) for one in changes if one.object == "sites"}) >= 12
    assert [one.seq for one in changes] == sorted(one.seq for one in changes)


async def test_the_clock_may_step_back(db: Database, clock: ManualClock) -> None:
    lab = await make_lab(db)
    for number in range(3):
        async with db.writing(lab.subject) as unit:
            await sites.create_site(unit, {"name": f"site {number}"})
        clock.advance(-60)

    async with db.unscoped() as session:
        rows = (await session.scalars(select(ChangeLog).order_by(ChangeLog.log_id))).all()
    names = [one.after["name"] for one in rows if one.after and one.object == "sites"]
    assert names[-3:] == ["site 0", "site 1", "site 2"]


async def test_logs_go_with_their_account_in_silence(db: Database) -> None:
    lab = await make_lab(db)
    row = {"account_id": lab.account.id, "context": "client", "subject": {}}
    async with db.unscoped_write() as session:
        for number in range(3):
            log_id = log_ids.random_id("session", bytes([number] * 12))
            session.add(SessionLog(**row, log_id=log_id, seq=number, timestamp=lab.account.inserted_at))
    async with db.writing(lab.subject) as unit:
        await unit.delete_account()

    async with db.unscoped() as session:
        assert (await session.scalars(select(SessionLog))).all() == []
        assert (await session.scalars(select(ChangeLog))).all() == []
        told = set((await session.scalars(select(OutboxEntry.object))).all())
    assert "accounts" in told
    assert not told & {"session_logs", "change_logs"}


async def test_logs_are_kept_for_ninety_days(db: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "_LOG_BATCH", 3)
    lab = await make_lab(db)
    at = clock.utc_now()
    row = {"account_id": lab.account.id, "context": "client", "subject": {}, "timestamp": at}
    async with db.unscoped_write() as session:
        session.add(SessionLog(**row, log_id=log_ids.random_id("session", bytes(12)), seq=1))

    async def count() -> int:
        async with db.unscoped() as session:
            rows = [
                *(await session.scalars(select(SessionLog))).all(),
                *(await session.scalars(select(ChangeLog))).all(),
            ]
            return len(rows)

    await purge.remove_logs(db, at + timedelta(days=89, hours=23))
    assert await count() > 1
    await purge.remove_logs(db, at + timedelta(days=90))
    assert await count() == 0


def test_changes_that_were_logged_before_get_their_numbers_and_may_go_back(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    engine = create_engine(f"sqlite:///{path}")
    config: Config = migrate._config(())

    def to(revision: str, *, back: bool = False) -> None:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            (command.downgrade if back else command.upgrade)(config, revision)

    to("0002")
    ids = [f"c{seed:013x}{'0' * 10}" for seed in (1000, 1000, 2000)]
    ids[1] = ids[1][:-1] + "1"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        for log_id in reversed(ids):
            values = ("a" * 32, log_id, "2026-11-23 12:00:00.000000", "insert", "sites", 0)
            columns = 'account_id, log_id, "timestamp", operation, object, vsn'
            connection.execute(f"INSERT INTO change_logs ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)
    connection.close()
    to("0003")
    with sqlite3.connect(path) as connection:
        numbers = connection.execute("SELECT seq FROM change_logs ORDER BY log_id").fetchall()
    connection.close()
    to("0002", back=True)
    with sqlite3.connect(path) as connection:
        assert len(connection.execute("SELECT log_id FROM change_logs").fetchall()) == 3
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    engine.dispose()

    assert numbers == [(1000 * 1024,), (1000 * 1024 + 1,), (2000 * 1024,)]
    assert not tables & {"session_logs", "api_request_logs", "flow_logs", "log_sinks", "log_sink_cursors"}


async def test_flows_are_kept_for_one_hundred_and_twenty_one_days(db: Database, clock: ManualClock) -> None:
    lab = await make_lab(db)
    at = clock.utc_now()
    ids = ("initiator_device_id", "responder_device_id", "policy_authorization_id", "policy_id", "resource_id")
    shared = {name: str(uuid4()) for name in ids} | {"account_id": lab.account.id, "role": "initiator"}
    times: dict[str, Any] = {"authorized_at": at, "authorization_expires_at": at, "resource_name": "Wiki"}
    records = [FlowRecord("udp", "100.64.0.1", 1, "fd00::1", 53, at - timedelta(days=days)) for days in (0, 1)]
    await store_flows(db, {**shared, **times}, records, at)

    async def starts() -> list[datetime]:
        async with db.unscoped() as session:
            return list((await session.scalars(select(FlowLog.flow_start).order_by(FlowLog.flow_start))).all())

    await purge.remove_flow_logs(db, at + timedelta(days=119, hours=23))
    assert len(await starts()) == 2
    await purge.remove_flow_logs(db, at + timedelta(days=120))
    assert await starts() == [at]
