"""What the benchmark puts into a database in bulk is what the services would have put there."""

import shutil
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.portal_fill import Size, fill
from sqlalchemy import select

from tests.unit.portal.helpers import ManualClock
from wardgate.ids import AccountId
from wardgate.portal.db.access import rules_of_actor
from wardgate.portal.db.devices import create_device
from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import as_json
from wardgate.portal.db.sealing import unseal
from wardgate.portal.db.tables import Actor, Base, ChangeLog, Device
from wardgate.portal.domain import subjects
from wardgate.portal.services import accounts, actors, groups, policies, resources, sites, tokens

SIZE = Size(agents=20, gateways=5, resources=40, memberships=60)


async def test_rows_in_bulk_look_like_those_of_the_services(migrated: Path, tmp_path: Path, clock: ManualClock) -> None:
    shutil.copy(migrated, tmp_path / "filled.db")
    shutil.copy(migrated, tmp_path / "served.db")
    filled = Database(f"sqlite:///{tmp_path}/filled.db", clock)
    served = Database(f"sqlite:///{tmp_path}/served.db", clock)
    await fill(filled, SIZE)
    await make_through_services(served)

    assert await shapes(filled) == await shapes(served)
    assert await logged(filled) == await logged(served)
    await filled.close()
    await served.close()


async def test_as_much_as_asked_for_and_each_client_reaches_what_it_is_said_to(db: Database) -> None:
    found = await fill(db, SIZE)

    async with db.unscoped() as session:
        counts = Counter((await session.scalars(select(ChangeLog.object))).all())
    assert counts["memberships"] == SIZE.memberships
    assert counts["resources"] == SIZE.resources + 1  # and the Internet
    assert counts["devices"] == SIZE.agents + SIZE.gateways
    async with db.scoped(subjects.system(AccountId(found.account_id))) as scope:
        for spec in found.clients:
            device = (await scope.session.scalars(scope.select(Device).filter_by(firezone_id=spec.external_id))).one()
            assert len(unseal(db.keyring, device, "psk_base")) == 32
            rules = await rules_of_actor(scope, await scope.get(Actor, device.actor_id or ""))
            assert sorted(rule.resource_id for rule in rules) == sorted(spec.resource_ids)


async def make_through_services(db: Database) -> None:
    """One of everything that the benchmark has."""
    account = await accounts.create_account(
        db, {"slug": "swarm"}, {"name": "Ada", "type": "account_admin_user", "email": "ada@swarm.example"}
    )
    async with db.writing(subjects.system(AccountId(account.id))) as unit:
        robot = await actors.create_actor(unit, {"name": "API", "type": "api_client"}, ("api_client",))
        await tokens.create_api_token(unit, robot.id, {})
        site = await sites.create_site(unit, {"name": "Vienna"})
        person = await actors.create_actor(unit, {"name": "Mia", "type": "account_user", "email": "m@swarm.example"})
        group = await groups.create_group(unit, {"name": "Team"})
        await groups.change_members(unit, group.id, add=[person.id])
        for number, (kind, address) in enumerate((("dns", "a.example"), ("cidr", "10.1.0.0/24"), ("ip", "10.2.0.1"))):
            fields: dict[str, Any] = {"name": kind, "type": kind, "address": address, "site_id": site.id}
            filters = [{"protocol": "tcp", "ports": ["443", "8000-8100"]}]
            await resources.create_resource(unit, {**fields, "filters": filters})
            row = await resources.create_resource(unit, fields)
            conditions = [{"property": "remote_ip", "operator": "is_in_cidr", "values": ["127.0.0.0/8"]}]
            given = {"group_id": group.id, "resource_id": row.id, "conditions": conditions if number else []}
            await policies.create_policy(unit, given)
        await tokens.create_site_token(unit, site.id)
        expires_at = (unit.at + timedelta(days=30)).isoformat()
        await tokens.create_client_token(unit, person.id, {"expires_at": expires_at}, actor_types=("account_user",))
        await create_device(unit, type="client", actor_id=person.id, firezone_id="client-0", name="client-0")
        await create_device(unit, type="gateway", site_id=site.id, firezone_id="gateway-0", name="gateway-0")


async def shapes(db: Database) -> dict[str, set[tuple[tuple[str, str], ...]]]:
    """Of each table, how its rows are filled: the type of each column's value, and short texts as they are."""
    found: dict[str, set[tuple[tuple[str, str], ...]]] = {}
    async with db.unscoped() as session:
        for mapper in Base.registry.mappers:
            kind = mapper.class_
            if kind.__tablename__ in ("outbox", "change_logs"):
                continue  # the outbox is emptied by the portal, the log is compared by itself
            for row in (await session.scalars(select(kind))).all():
                shape = tuple((name, shape_of(name, value)) for name, value in sorted(as_json(row).items()))
                found.setdefault(kind.__tablename__, set()).add(shape)
    return found


def shape_of(name: str, value: Any) -> str:
    """A value, as far as it is the same for all rows made in one way."""
    if name in ("type", "ip_stack", "managed_by", "entity_type") or isinstance(value, bool):
        return str(value)
    if name in ("filters", "conditions"):
        return str(value) if value else "empty"
    return type(value).__name__


async def logged(db: Database) -> set[tuple[str, str, tuple[str, ...], bool, bool]]:
    """What kinds of rows the change log has: object, operation, columns, and whether it says who."""
    async with db.unscoped() as session:
        rows = (await session.scalars(select(ChangeLog))).all()
    return {
        (row.object, row.operation, tuple(sorted(row.after or {})), row.before is None, row.subject is None)
        for row in rows
    }
