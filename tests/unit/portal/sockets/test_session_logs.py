"""Connects leave a row in the session log, in the transaction that admits them."""

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from tests.unit.portal.helpers import Lab, make_lab
from tests.unit.portal.sockets.harness import PortalUnderTest
from wardgate.portal.db.devices import create_device
from wardgate.portal.db.engine import Database
from wardgate.portal.db.log_tables import SessionLog
from wardgate.portal.db.logs import write_session
from wardgate.portal.db.tables import Device


async def sessions(server: PortalUnderTest) -> list[SessionLog]:
    async with server.hub.db.unscoped() as session:
        return list((await session.scalars(select(SessionLog).order_by(SessionLog.seq))).all())


async def test_a_client_and_a_gateway_leave_what_they_connected_with(server: PortalUnderTest, lab: Lab) -> None:
    client = await server.client(lab)
    gateway = await server.gateway(lab)

    rows = await sessions(server)

    by_context = {row.context: row for row in rows}
    assert sorted(by_context) == ["client", "gateway"]
    assert all(row.log_id.startswith("5") and row.timestamp == server.clock.utc_now() for row in rows)
    subject = by_context["client"].subject
    assert (subject["actor_id"], subject["actor_email"]) == (lab.actor.id, "mia@corp.example")
    assert (subject["token_id"], subject["ip"]) == (lab.client_token_id, "127.0.0.1")
    assert {"device_id", "ip_region", "ip_lat", "user_agent", "auth_provider_id"} <= set(subject)
    assert set(by_context["gateway"].subject) == {
        "gateway_id",
        "token_id",
        "ip",
        "ip_region",
        "ip_city",
        "ip_lat",
        "ip_lon",
        "user_agent",
    }
    assert by_context["gateway"].subject["token_id"] == lab.site_token_id
    await client.close()
    await gateway.close()


async def test_a_device_is_not_admitted_without_its_row_in_the_log(db: Database) -> None:
    lab = await make_lab(db)
    async with db.unscoped_write() as session:
        await (await session.connection()).exec_driver_sql("DROP TABLE session_logs")

    async def connect() -> None:
        async with db.writing(lab.subject) as unit:
            device = await create_device(
                unit, type="client", actor_id=lab.actor.id, firezone_id="laptop", name="laptop"
            )
            write_session(unit, device, lab.client_token_id)

    with pytest.raises(DBAPIError):
        await connect()

    async with db.scoped(lab.subject) as scope:
        assert await scope.all(scope.select(Device)) == []
