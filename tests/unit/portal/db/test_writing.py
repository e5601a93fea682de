"""Several who write at once, on one node and on two."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tests.unit.portal.helpers import SECRET_KEY, Lab, ManualClock, make_lab
from wardgate.errors import Conflict, InvalidInput
from wardgate.ids import AccountId
from wardgate.portal.db import devices
from wardgate.portal.db.engine import Database
from wardgate.portal.db.locks import AccountLocks
from wardgate.portal.db.tables import Actor, Device, Group, Membership, OutboxEntry, PolicyAuthorization, new_id
from wardgate.portal.services import actors, groups, policies

WAIT_S = 20.0


@pytest.fixture
async def other_db(database_url: str, clock: ManualClock, db: Database) -> AsyncIterator[Database]:
    """The same database, as another portal has it."""
    if db.is_sqlite:
        pytest.skip("one portal has an SQLite file for itself")
    database = Database(database_url, clock, SECRET_KEY)
    yield database
    await database.close()


@pytest.fixture
async def lab(db: Database) -> Lab:
    return await make_lab(db)


async def test_two_portals_that_make_devices_at_once_give_each_its_own_addresses(
    db: Database, other_db: Database, lab: Lab
) -> None:
    async def make(database: Database, number: int) -> tuple[str, str]:
        async with database.writing(lab.subject, shares=True) as unit:
            device = await devices.create_device(
                unit, start=7, type="client", actor_id=lab.actor.id, firezone_id=f"id-{number}", name="laptop"
            )
            await asyncio.sleep(0)  # the other one is in the middle of the same
            return device.ipv4, device.ipv6

    async with asyncio.timeout(WAIT_S):
        made = await asyncio.gather(*(make((db, other_db)[number % 2], number) for number in range(16)))

    assert len({ipv4 for ipv4, _ in made}) == len({ipv6 for _, ipv6 in made}) == 16


async def test_a_device_that_connects_to_two_portals_at_once_is_one_device(
    db: Database, other_db: Database, lab: Lab
) -> None:
    columns: dict[str, Any] = {"type": "client", "actor_id": lab.actor.id, "firezone_id": "same", "name": "laptop"}

    async def make(database: Database) -> str:
        async with database.writing(lab.subject, shares=True) as unit:
            return (await devices.create_device(unit, **columns)).id

    async with asyncio.timeout(WAIT_S):
        made = await asyncio.gather(*(make(one) for one in (db, other_db) * 4))

    assert len(set(made)) == 1
    async with db.scoped(lab.subject) as scope:
        assert len(await scope.all(scope.select(Device))) == 1


async def test_who_checks_and_changes_sees_what_the_one_before_did(db: Database, lab: Lab) -> None:
    await rename_in_turn([db] * 10, lab)


async def test_who_checks_and_changes_sees_what_the_other_portal_did(
    db: Database, other_db: Database, lab: Lab
) -> None:
    await rename_in_turn([db, other_db] * 5, lab)


async def rename_in_turn(databases: list[Database], lab: Lab) -> None:
    names: list[str] = []

    async def rename(database: Database) -> None:
        async with database.writing(lab.subject) as unit:
            group = await unit.get(Group, lab.group.id)
            names.append(group.name)
            await asyncio.sleep(0.01)
            await unit.update(group, name=group.name + "+")

    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*(rename(one) for one in databases))

    assert names == ["Engineering" + "+" * number for number in range(10)]


async def test_what_shares_the_account_waits_for_who_does_not_and_not_for_its_kind(db: Database, lab: Lab) -> None:
    if db.is_sqlite:
        pytest.skip("SQLite has one writer, whatever it does")
    together = asyncio.Barrier(2)
    is_inside = asyncio.Event()
    order: list[str] = []

    async def share() -> None:
        async with db.writing(lab.subject, shares=True):
            await together.wait()  # both are inside, or this never ends
            is_inside.set()
            await asyncio.sleep(0.01)
        order.append("shared")

    async def alone() -> None:
        await is_inside.wait()
        async with db.writing(lab.subject):
            order.append("alone")

    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(share(), share(), alone())

    assert order == ["shared", "shared", "alone"]


async def test_a_policy_that_goes_while_another_portal_grants_takes_the_grant_along_and_says_so(
    db: Database, other_db: Database, lab: Lab
) -> None:
    """Deleted by a cascade alone, the grant would stay on its gateway."""
    assert lab.policy is not None
    policy_id, is_granted = lab.policy.id, asyncio.Event()

    async def grant() -> None:
        async with db.writing(lab.subject, shares=True) as unit:
            client = await devices.create_device(
                unit, type="client", actor_id=lab.actor.id, firezone_id="laptop", name="laptop"
            )
            gateway = await devices.create_device(
                unit, type="gateway", site_id=lab.site.id, firezone_id="gw", name="gw"
            )
            row = PolicyAuthorization(
                account_id=unit.account_id,
                policy_id=policy_id,
                resource_id=lab.resource.id,
                token_id=lab.client_token_id,
                initiating_device_id=client.id,
                receiving_device_id=gateway.id,
                expires_at=unit.at + timedelta(hours=1),
            )
            await unit.insert(row, silent=True)
            is_granted.set()
            await asyncio.sleep(0.1)  # the other one wants to delete by now

    async def revoke() -> None:
        await is_granted.wait()
        async with other_db.writing(lab.subject) as unit:
            await policies.delete_policy(unit, policy_id)

    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(grant(), revoke())

    async with db.scoped(lab.subject) as scope:
        assert await scope.all(scope.select(PolicyAuthorization)) == []
        told = [(one.object, one.operation) for one in await outbox(scope.session)]
    assert ("policy_authorizations", "delete") in told


async def test_a_unit_goes_on_after_a_row_that_was_taken(db: Database, lab: Lab) -> None:
    async with db.writing(lab.subject) as unit:
        with pytest.raises(InvalidInput, match="name has already been taken"):
            await groups.create_group(unit, {"name": "Engineering"})
        await groups.create_group(unit, {"name": "Support"})
        group = await unit.get(Group, lab.group.id)
        with pytest.raises(InvalidInput, match="name has already been taken"):
            await unit.update(group, unique="name", name="Support")
        assert group.name == "Engineering"
        await unit.update(group, unique="name", name="Engineers")

    async with db.scoped(lab.subject) as scope:
        names = sorted(group.name for group in await scope.all(scope.select(Group)))
    assert names == ["Engineers", "Everyone", "Support"]


async def test_what_refers_to_a_row_that_is_gone_is_a_conflict_and_not_taken(db: Database, lab: Lab) -> None:
    async with db.writing(lab.subject) as unit:
        row = Membership(account_id=unit.account_id, actor_id=new_id(), group_id=lab.group.id)
        with pytest.raises(Conflict, match="deleted"):
            await unit.insert(row, unique="actor_id")


async def test_a_unit_that_fails_leaves_nothing(db: Database, lab: Lab) -> None:
    async def fail() -> None:
        async with db.writing(lab.subject) as unit:
            await actors.create_actor(unit, {"name": "Eve", "type": "service_account"})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()

    async with db.scoped(lab.subject) as scope:
        assert [actor.name for actor in await scope.all(scope.select(Actor))] == ["Mia"]
        assert all((entry.after or {}).get("name") != "Eve" for entry in await outbox(scope.session))


async def outbox(session: AsyncSession) -> list[OutboxEntry]:
    return list(await session.scalars(select(OutboxEntry)))


async def test_who_gives_up_waiting_lets_the_next_one_in() -> None:
    locks, account = AccountLocks(), AccountId("one")
    entered = asyncio.Event()

    async def wait_for_it() -> None:
        async with locks.hold(account, shares=False):
            entered.set()

    async with asyncio.timeout(WAIT_S):
        async with locks.hold(account, shares=True):
            impatient = asyncio.create_task(wait_for_it())
            await asyncio.sleep(0)
            impatient.cancel()
            await asyncio.gather(impatient, return_exceptions=True)
            async with locks.hold(account, shares=True):
                pass  # the impatient one is in nobody's way
        await wait_for_it()

    assert entered.is_set()
