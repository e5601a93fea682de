"""Both ends of a grant upload what they saw, with the tokens that they were given."""

import httpx
from sqlalchemy import select

from tests.unit.portal.domain.test_flow_records import CLOSE
from tests.unit.portal.helpers import Lab
from tests.unit.portal.sockets.harness import PortalUnderTest
from wardgate.ids import ResourceId
from wardgate.portal.db.log_tables import FlowLog
from wardgate.wire import portal


async def test_both_ends_of_a_grant_report_a_flow_with_their_tokens(server: PortalUnderTest, lab: Lab) -> None:
    gateway, client = await server.gateway(lab), await server.client(lab)
    await gateway.take(portal.GatewayInit)
    await client.take(portal.ClientInit)
    await client.send(portal.RequestAuthorization(resource_id=ResourceId(lab.resource.id)))
    request = await gateway.take(portal.CreateAuthorization)
    await gateway.send(portal.AuthorizationAcknowledged(ref=request.ref))
    await gateway.next(portal.REPLY)
    answer = await client.take(portal.AuthorizationCreated)

    async with httpx.AsyncClient(base_url=server.url.replace("ws:", "http:")) as http:
        for token in (request.flow_logs_ingest_token, answer.flow_logs_ingest_token):
            assert token
            headers = {"Authorization": f"Bearer {token}"}
            response = await http.post("/ingestion/flow_logs", json={"flow_logs": [CLOSE]}, headers=headers)
            assert response.status_code == 200, response.text
            refused = await http.post("/ingestion/flow_logs", json={"flow_logs": [CLOSE]}, headers=headers)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            server.clock.advance(1)

    async with server.hub.db.unscoped() as session:
        rows = (await session.scalars(select(FlowLog).order_by(FlowLog.role))).all()
    assert [row.role for row in rows] == ["initiator", "responder"]
    for row in rows:
        assert (row.account_id, row.resource_id, row.resource_name) == (lab.account.id, lab.resource.id, "Lab")
        assert (row.initiator_actor_id, row.initiator_actor_email) == (lab.actor.id, "mia@corp.example")
        assert (row.initiator_client_version, row.initiator_device_os_name) == ("1.5.11", "Debian")
        assert row.responder_device_id == answer.gateway_id
        assert row.log_id.startswith("f")
