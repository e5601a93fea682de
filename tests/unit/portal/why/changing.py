"""A small account, and random changes of it that are made through the services."""

import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.unit.portal.helpers import SECRET_KEY, ManualClock
from wardgate.errors import WardgateError
from wardgate.ids import AccountId
from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Actor, Group, Policy, Resource, Site, TenantRow
from wardgate.portal.domain import subjects
from wardgate.portal.domain.subjects import Subject
from wardgate.portal.services import accounts, actors, groups, policies, resources, sites

TIME = {"property": "current_utc_datetime", "operator": "is_in_day_of_week_time_ranges"}
CONDITIONS: list[list[dict[str, Any]]] = [
    [],
    [{"property": "client_verified", "operator": "is", "values": ["true"]}],
    [{"property": "remote_ip_location_region", "operator": "is_in", "values": ["DE", "PT"]}],
    [{**TIME, "values": ["M/09:00-17:00/Europe/Berlin", "T/true/UTC"]}],
    [{**TIME, "values": ["M/12:00-20:00/Europe/Berlin"]}],
    [{**TIME, "values": ["M//UTC"]}],
    [
        {"property": "client_verified", "operator": "is", "values": ["true"]},
        {**TIME, "values": ["W/00:00-06:00,18:00-24:00/Asia/Tokyo"]},
    ],
]


@dataclass(frozen=True)
class Operation:
    """One change, as numbers that choose among what is there."""

    kind: str
    one: int
    other: int
    third: int


KINDS = (
    "new_actor",
    "delete_actor",
    "toggle_actor",
    "new_group",
    "rename_group",
    "delete_group",
    "join",
    "leave",
    "new_resource",
    "change_resource",
    "delete_resource",
    "new_policy",
    "change_policy",
    "toggle_policy",
    "delete_policy",
    "new_site",
    "delete_site",
)
operations = st.builds(Operation, st.sampled_from(KINDS), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))


@dataclass
class Changing:
    """An account whose database is thrown away afterwards."""

    db: Database
    clock: ManualClock
    subject: Subject
    names: list[int] = field(default_factory=lambda: [0])

    async def make(self, operation: Operation) -> bool:
        """Makes a change; whether it was not refused."""
        try:
            async with self.db.writing(self.subject) as unit:
                await self.within(unit, operation)
        except WardgateError:
            return False
        return True

    async def within(self, unit: UnitOfWork, operation: Operation) -> None:
        """Makes a change in a unit of work."""
        self.names[0] += 1
        work: Callable[[UnitOfWork, Operation], Awaitable[Any]] = getattr(self, f"_{operation.kind}")
        await work(unit, operation)

    def _name(self) -> str:
        return f"thing {self.names[0]}"

    async def _pick(self, unit: UnitOfWork, table: type[TenantRow], number: int) -> str:
        rows = await unit.all(unit.select(table).order_by(table.inserted_at, table.id))
        return rows[number % len(rows)].id if rows else ""

    async def _new_actor(self, unit: UnitOfWork, do: Operation) -> None:
        kind = ("account_user", "account_admin_user", "service_account")[do.one % 3]
        fields = {"name": self._name(), "type": kind}
        if kind != "service_account":
            fields["email"] = f"p{self.names[0]}@corp.example"
        await actors.create_actor(unit, fields)

    async def _delete_actor(self, unit: UnitOfWork, do: Operation) -> None:
        await actors.delete_actor(unit, await self._pick(unit, Actor, do.one))

    async def _toggle_actor(self, unit: UnitOfWork, do: Operation) -> None:
        actor = await unit.get(Actor, await self._pick(unit, Actor, do.one))
        await actors.update_actor(unit, actor.id, {"is_disabled": not actor.is_disabled})

    async def _new_group(self, unit: UnitOfWork, do: Operation) -> None:
        await groups.create_group(unit, {"name": self._name()})

    async def _rename_group(self, unit: UnitOfWork, do: Operation) -> None:
        await groups.update_group(unit, await self._pick(unit, Group, do.one), {"name": self._name()})

    async def _delete_group(self, unit: UnitOfWork, do: Operation) -> None:
        await groups.delete_group(unit, await self._pick(unit, Group, do.one))

    async def _join(self, unit: UnitOfWork, do: Operation) -> None:
        group_id, actor_id = await self._pick(unit, Group, do.one), await self._pick(unit, Actor, do.other)
        await groups.change_members(unit, group_id, add=[actor_id])

    async def _leave(self, unit: UnitOfWork, do: Operation) -> None:
        group_id, actor_id = await self._pick(unit, Group, do.one), await self._pick(unit, Actor, do.other)
        await groups.change_members(unit, group_id, remove=[actor_id])

    async def _new_resource(self, unit: UnitOfWork, do: Operation) -> None:
        fields = {"name": self._name(), "type": "cidr", "address": f"10.{do.other}.0.0/16"}
        await resources.create_resource(unit, {**fields, "site_id": await self._pick(unit, Site, do.one)})

    async def _change_resource(self, unit: UnitOfWork, do: Operation) -> None:
        fields = {"name": self._name()} if do.other % 2 else {"address": f"10.{do.third}.0.0/16"}
        await resources.update_resource(unit, await self._pick(unit, Resource, do.one), fields)

    async def _delete_resource(self, unit: UnitOfWork, do: Operation) -> None:
        await resources.delete_resource(unit, await self._pick(unit, Resource, do.one))

    async def _new_policy(self, unit: UnitOfWork, do: Operation) -> None:
        group_id, resource_id = await self._pick(unit, Group, do.one), await self._pick(unit, Resource, do.other)
        conditions = CONDITIONS[do.third % len(CONDITIONS)]
        await policies.create_policy(unit, {"group_id": group_id, "resource_id": resource_id, "conditions": conditions})

    async def _change_policy(self, unit: UnitOfWork, do: Operation) -> None:
        fields: dict[str, Any] = {"conditions": CONDITIONS[do.other % len(CONDITIONS)]}
        if do.third % 3 == 0:
            fields = {"group_id": await self._pick(unit, Group, do.other)}
        await policies.update_policy(unit, await self._pick(unit, Policy, do.one), fields)

    async def _toggle_policy(self, unit: UnitOfWork, do: Operation) -> None:
        policy = await unit.get(Policy, await self._pick(unit, Policy, do.one))
        await policies.update_policy(unit, policy.id, {"is_disabled": not policy.is_disabled})

    async def _delete_policy(self, unit: UnitOfWork, do: Operation) -> None:
        await policies.delete_policy(unit, await self._pick(unit, Policy, do.one))

    async def _new_site(self, unit: UnitOfWork, do: Operation) -> None:
        await sites.create_site(unit, {"name": self._name()})

    async def _delete_site(self, unit: UnitOfWork, do: Operation) -> None:
        await sites.delete_site(unit, await self._pick(unit, Site, do.one))


async def open_account(template: Path, folder: Path) -> Changing:
    """An account with three people in two groups, a site with two resources and two policies."""
    path = folder / "portal.db"
    shutil.copy(template, path)
    clock = ManualClock()
    db = Database(f"sqlite:///{path}", clock, SECRET_KEY)
    admin = {"name": "Ann", "type": "account_admin_user", "email": "ann@corp.example"}
    account = await accounts.create_account(db, {"slug": "corp"}, admin=admin)
    changing = Changing(db, clock, subjects.system(AccountId(account.id)))
    start = [
        Operation("new_actor", 0, 0, 0),
        Operation("new_actor", 2, 0, 0),
        Operation("new_group", 0, 0, 0),
        Operation("new_group", 0, 0, 0),
        Operation("new_site", 0, 0, 0),
        *(Operation("join", group, actor, 0) for group in (1, 2) for actor in (1, 2)),
        *(Operation("new_resource", 1, number, 0) for number in (1, 2)),
        Operation("new_policy", 0, 1, 3),
        Operation("new_policy", 1, 2, 0),
        Operation("new_policy", 2, 1, 4),
    ]
    for operation in start:
        clock.advance(1)
        assert await changing.make(operation), operation
    return changing
