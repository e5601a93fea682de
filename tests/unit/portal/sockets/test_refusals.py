"""What clients were refused over their websockets is still known when somebody asks why."""

from sqlalchemy import select

from tests.unit.portal.helpers import Lab
from tests.unit.portal.sockets.harness import PortalUnderTest
from tests.unit.portal.sockets.test_access import ask
from wardgate.portal.db.access_tables import RefusedRequest
from wardgate.wire import portal


async def test_a_request_without_a_gateway_is_kept(server: PortalUnderTest, lab: Lab) -> None:
    client = await server.client(lab)
    for _ in range(3):
        await ask(lab, client)
        await client.take(portal.AuthorizationCreationFailed)

    server.clock.advance(3)

    await server.hub.refusals.wait_written()
    rows = await kept(server)
    assert [(row.actor_id, row.resource_id, row.reason, row.count) for row in rows] == [
        (lab.actor.id, lab.resource.id, "offline", 3)
    ]


async def kept(server: PortalUnderTest) -> list[RefusedRequest]:
    async with server.hub.db.unscoped() as session:
        return list((await session.scalars(select(RefusedRequest))).all())
