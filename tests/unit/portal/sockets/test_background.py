"""What the portal does by itself: dispatching, also when a change cannot be, and removing what is over."""

from datetime import timedelta

from sqlalchemy import select

from tests.unit.portal.helpers import Lab
from tests.unit.portal.sockets.harness import PortalUnderTest
from wardgate.portal.db.tables import ClientToken, OutboxEntry, PolicyAuthorization, new_id
from wardgate.portal.jobs import standard_jobs
from wardgate.portal.scheduler import Scheduler
from wardgate.portal.services import policies, tokens
from wardgate.wire import portal


async def test_a_change_that_cannot_be_dispatched_costs_a_reconnect_and_nothing_else(
    server: PortalUnderTest, lab: Lab
) -> None:
    client = await server.client(lab)
    await client.take(portal.ClientInit)
    async with server.hub.db.unscoped_write() as session:
        session.add(
            OutboxEntry(account_id=lab.account.id, commit_id=new_id(), object="resources", operation="update", after={})
        )
    server.hub.db.notify()
    await client.closed()
    assert "disconnect" not in client.events()

    assert lab.policy
    client = await server.client(lab)
    await client.take(portal.ClientInit)
    async with server.hub.db.writing(lab.subject) as unit:
        await policies.delete_policy(unit, lab.policy.id)

    assert await client.take(portal.ResourceDeleted)


async def test_changes_made_by_another_process_are_found(server: PortalUnderTest, lab: Lab) -> None:
    assert lab.policy
    client = await server.client(lab)
    await client.take(portal.ClientInit)
    server.hub.db.commit_listeners.clear()

    async with server.hub.db.writing(lab.subject) as unit:
        await policies.delete_policy(unit, lab.policy.id)

    assert await client.take(portal.ResourceDeleted)


async def test_what_is_over_is_removed(server: PortalUnderTest, lab: Lab) -> None:
    async with server.hub.db.writing(lab.subject) as unit:
        soon = unit.at + timedelta(seconds=30)
        await tokens.create_client_token(unit, lab.actor.id, {"expires_at": soon}, actor_types=("account_user",))
    server.clock.advance(31)

    scheduler = Scheduler(server.hub, standard_jobs())
    for job in standard_jobs():
        assert await scheduler.run_now(job.name) is None

    async with server.hub.db.unscoped() as session:
        left = (await session.scalars(select(ClientToken))).all()
        assert [row.id for row in left] == [lab.client_token_id]
        assert (await session.scalars(select(PolicyAuthorization))).all() == []
