"""Limits and the life of accounts, on a database."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from tests.unit.portal.helpers import Lab, ManualClock, make_lab
from wardgate.errors import Conflict, InvalidInput
from wardgate.portal.db.devices import create_device
from wardgate.portal.db.engine import Database
from wardgate.portal.db.tables import Account, Base, ClientToken, OutboxEntry, TenantRow
from wardgate.portal.services import account_life, actors, plans


async def test_an_account_over_its_limit_is_flagged_and_let_in_once_it_made_room(db: Database) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        second = await actors.create_actor(unit, {"name": "Ben", "type": "account_user", "email": "ben@corp.example"})
        account = await plans.set_limits(unit, {"users_count": 1})
    assert account.users_limit_exceeded
    assert await plans.keeps_clients_out(db, account)

    async with db.writing(lab.subject) as unit:
        await actors.update_actor(unit, second.id, {"is_disabled": True})

    assert not await plans.keeps_clients_out(db, account)
    assert not (await read(db, lab)).users_limit_exceeded


async def test_the_job_flags_every_account_by_what_it_has(db: Database) -> None:
    over, under = await make_lab(db), await make_lab(db, slug="other")
    for lab in (over, under):
        async with db.writing(lab.subject) as unit:
            await unit.update(await unit.account(), limits={"sites_count": 0 if lab is over else 1})

    count = await plans.recompute_all(db)

    assert count == 1
    assert (await read(db, over)).sites_limit_exceeded
    assert not (await read(db, under)).sites_limit_exceeded


async def test_people_seen_in_a_month_are_seats(db: Database, clock: ManualClock) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        device = await create_device(unit, type="client", actor_id=lab.actor.id, name="laptop")
        await create_device(unit, type="client", actor_id=lab.actor.id, name="phone", last_seen_at=unit.at)
        await unit.update(device, last_seen_at=unit.at)
        used = (await plans.describe(unit))["monthly_active_users_count"]["used"]
        await plans.set_limits(unit, {"monthly_active_users_count": 0, "users_count": 0})
    assert used == 1
    account = await read(db, lab)
    assert (account.seats_limit_exceeded, account.users_limit_exceeded) == (True, False)

    clock.advance(31 * 24 * 3600.0)
    await plans.recompute_all(db)

    assert not (await read(db, lab)).seats_limit_exceeded


async def test_an_unknown_limit_is_refused(db: Database) -> None:
    lab = await make_lab(db)
    with pytest.raises(InvalidInput, match="toasters"):
        async with db.writing(lab.subject) as unit:
            await plans.set_limits(unit, {"toasters": 1})


async def test_a_scheduled_deletion_disables_at_once_and_can_be_cancelled(db: Database, clock: ManualClock) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        account = await account_life.schedule_deletion(unit)
        assert account.scheduled_deletion_at == clock.utc_now() + timedelta(days=7)
        assert (account.is_disabled, account.disabled_reason) == (True, None)
        assert not await unit.all(unit.select(ClientToken))
        with pytest.raises(Conflict, match="already"):
            await account_life.schedule_deletion(unit)
        with pytest.raises(Conflict, match="cancel"):
            await account_life.enable(unit)

    clock.advance(7 * 24 * 3600.0 - 1)
    assert await account_life.sweep(db, clock.utc_now()) == 0
    async with db.writing(lab.subject) as unit:
        account = await account_life.cancel_deletion(unit)
        with pytest.raises(Conflict, match="not scheduled"):
            await account_life.cancel_deletion(unit)

    assert not account.is_disabled
    clock.advance(100.0)
    assert await account_life.sweep(db, clock.utc_now()) == 0


async def test_the_sweep_removes_the_account_with_all_its_rows_and_no_other(db: Database, clock: ManualClock) -> None:
    lab, other = await make_lab(db), await make_lab(db, slug="other")
    before = await counts(db, other)
    async with db.writing(lab.subject) as unit:
        await account_life.schedule_deletion(unit)
    clock.advance(7 * 24 * 3600.0)

    assert await account_life.sweep(db, clock.utc_now()) == 1
    assert await account_life.sweep(db, clock.utc_now()) == 0

    assert not any((await counts(db, lab)).values())
    assert await counts(db, other) == before
    async with db.unscoped() as session:
        told = (await session.scalars(select(OutboxEntry).where(OutboxEntry.account_id == lab.account.id))).all()
    assert [(one.object, one.operation) for one in told][-1] == ("accounts", "delete")


async def test_only_a_disabled_account_is_deleted_at_once(db: Database) -> None:
    lab = await make_lab(db)
    with pytest.raises(Conflict, match="disabled"):
        async with db.writing(lab.subject) as unit:
            await account_life.delete_now(unit)
    assert any((await counts(db, lab)).values())


async def test_a_locked_account_leaves_its_deletion_to_the_operator(db: Database) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        await account_life.set_locked(unit, True)
        with pytest.raises(Conflict, match="locked"):
            await account_life.schedule_deletion(unit)
        await account_life.schedule_deletion(unit, by_operator=True)
        with pytest.raises(Conflict, match="locked"):
            await account_life.cancel_deletion(unit)
        await account_life.set_locked(unit, False)
        account = await account_life.cancel_deletion(unit)
    assert account.lock_enabled_at is None


async def test_an_account_is_renamed_but_not_to_a_slug_that_is_taken(db: Database) -> None:
    lab, _ = await make_lab(db), await make_lab(db, slug="other")
    async with db.writing(lab.subject) as unit:
        account = await account_life.rename(unit, {"name": "New name", "legal_name": "New Ltd"})
    assert (account.name, account.slug, account.legal_name) == ("New name", "corp", "New Ltd")

    for wrong in ({"slug": "OTHER"}, {"slug": "a b"}, {"name": "x"}):
        with pytest.raises(InvalidInput):
            async with db.writing(lab.subject) as unit:
                await account_life.rename(unit, wrong)
    assert (await read(db, lab)).slug == "corp"


async def read(db: Database, lab: Lab) -> Account:
    async with db.scoped(lab.subject) as scope:
        return await scope.account()


async def counts(db: Database, lab: Lab) -> dict[str, int]:
    """How many rows of each tenant table the account has."""
    found = {}
    async with db.unscoped() as session:
        for mapper in Base.registry.mappers:
            kind = mapper.class_
            if issubclass(kind, TenantRow):
                query = select(func.count()).select_from(kind).where(kind.account_id == lab.account.id)
                found[kind.__tablename__] = await session.scalar(query) or 0
    return found
