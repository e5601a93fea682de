"""Connects leave a row in the session log, in the transaction that admits them."""

import pytest
from sqlalchemy import select

from tests.unit.portal.helpers import Lab
from tests.unit.portal.sockets.harness import PortalUnderTest, Refusal
from wardgate.portal.db.log_tables import SessionLog
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


async def test_a_connect_that_cannot_be_logged_is_refused(server: PortalUnderTest, lab: Lab) -> None:
    async with server.hub.db.unscoped_write() as session:
        connection = await session.connection()
        await connection.exec_driver_sql("DROP TABLE session_logs")

    with pytest.raises(Refusal) as caught:
        await server.client(lab)

    assert caught.value.status >= 500
    async with server.hub.db.scoped(lab.subject) as scope:
        assert await scope.all(scope.select(Device)) == []
