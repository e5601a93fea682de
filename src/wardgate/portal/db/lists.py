"""What the pages list: rows searched, sorted and cut by the database, each list with a constant number of queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import aliased

from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import (
    Actor,
    Device,
    Group,
    Membership,
    Policy,
    PolicyAuthorization,
    Resource,
    Site,
    StaticDevicePoolMember,
)

SIZES: Final = (10, 25, 50)
MAX_PAGE: Final = 10_000
PEOPLE: Final = ("account_user", "account_admin_user")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of a list.

    Attributes:
        text: Words to search for; empty for all.
        sort: One of the list's columns; the first is the default.
        only: Filters by name; what is empty does not filter.
    """

    text: str = ""
    sort: str = ""
    is_descending: bool = False
    page: int = 1
    size: int = SIZES[1]
    only: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a list.

    Attributes:
        total: How many match.
        first: The number of the first row, from 1.
    """

    rows: Sequence[Any]
    total: int
    first: int
    wanted: Wanted

    @property
    def last(self) -> int:
        """The number of the last row."""
        return self.first + len(self.rows) - 1

    @property
    def has_next(self) -> bool:
        """Whether there are rows behind these."""
        return self.last < self.total


async def _part(
    scope: Scope, query: Select[Any], wanted: Wanted, columns: Mapping[str, Any], *, first: Any = None, tie: Any
) -> Part:
    total = await scope.session.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0
    column = columns[wanted.sort] if wanted.sort in columns else next(iter(columns.values()))
    order = column.desc() if wanted.is_descending else column.asc()
    page = min(max(wanted.page, 1), max(1, -(-total // wanted.size)), MAX_PAGE)
    start = (page - 1) * wanted.size
    orders = [] if first is None else [first]
    found = await scope.session.execute(query.order_by(*orders, order, tie).limit(wanted.size).offset(start))
    return Part(list(found.all()), total, start + 1, wanted)


def _contains(text: str, *columns: Any) -> ColumnElement[bool]:
    """Every word is in one of the columns."""
    words = text.lower().split()[:8]
    return and_(*(or_(*(func.lower(column).contains(word, autoescape=True) for column in columns)) for word in words))


def _live(at: datetime) -> Any:
    return PolicyAuthorization.expires_at > at


# --- sites and gateways -----------------------------------------------------------------------------------------------


async def sites(scope: Scope) -> list[tuple[Site, int]]:
    """Every site with its number of resources; the system's comes last."""
    counts = (
        select(Resource.site_id, func.count().label("n"))
        .where(Resource.account_id == scope.account_id)
        .group_by(Resource.site_id)
        .subquery()
    )
    query = (
        scope.select(Site)
        .add_columns(func.coalesce(counts.c.n, 0))
        .outerjoin(counts, counts.c.site_id == Site.id)
        .order_by(Site.managed_by, func.lower(Site.name))
    )
    return [(row[0], row[1]) for row in (await scope.session.execute(query)).all()]


async def gateways(scope: Scope, site_id: str | None = None) -> Sequence[Device]:
    """Gateways by name, of one site or of all."""
    query = scope.select(Device).where(Device.type == "gateway")
    if site_id is not None:
        query = query.where(Device.site_id == site_id)
    return await scope.all(query.order_by(func.lower(Device.name), Device.id))


async def grants_by_receiver(scope: Scope, at: datetime) -> dict[str, int]:
    """How many live grants each gateway holds."""
    query = (
        select(PolicyAuthorization.receiving_device_id, func.count())
        .where(PolicyAuthorization.account_id == scope.account_id, _live(at))
        .group_by(PolicyAuthorization.receiving_device_id)
    )
    return {row[0]: row[1] for row in (await scope.session.execute(query)).all()}


# --- resources --------------------------------------------------------------------------------------------------------


async def resources(scope: Scope, wanted: Wanted) -> Part:
    """Rows of (resource, site or none); the Internet resource is first."""
    query = (
        scope.select(Resource)
        .add_columns(Site)
        .outerjoin(Site, and_(Site.account_id == Resource.account_id, Site.id == Resource.site_id))
    )
    if wanted.text:
        query = query.where(_contains(wanted.text, Resource.name, Resource.address, Resource.address_description))
    for name in ("type", "site_id"):
        if wanted.only.get(name):
            query = query.where(getattr(Resource, name) == wanted.only[name])
    if wanted.only.get("access") == "nobody":
        used = select(Policy.id).where(
            Policy.account_id == Resource.account_id,
            Policy.resource_id == Resource.id,
            Policy.group_id.is_not(None),
            Policy.is_disabled.is_(False),
        )
        query = query.where(~used.exists())
    columns = {
        "name": func.lower(Resource.name),
        "address": func.lower(Resource.address),
        "type": Resource.type,
        "site": func.lower(Site.name),
    }
    return await _part(scope, query, wanted, columns, first=(Resource.type == "internet").desc(), tie=Resource.id)


async def groups_of(scope: Scope, resource_ids: Sequence[str]) -> dict[str, list[Group]]:
    """The groups that enabled policies let reach each resource, by name."""
    query = (
        select(Policy.resource_id, Group)
        .join(Group, and_(Group.account_id == Policy.account_id, Group.id == Policy.group_id))
        .where(
            Policy.account_id == scope.account_id, Policy.resource_id.in_(resource_ids), Policy.is_disabled.is_(False)
        )
        .order_by(func.lower(Group.name))
    )
    found: dict[str, list[Group]] = {}
    for resource_id, group in (await scope.session.execute(query)).all():
        found.setdefault(resource_id, []).append(group)
    return found


async def users_of(scope: Scope, resource_ids: Sequence[str], at: datetime) -> dict[str, int]:
    """How many clients hold a live grant for each resource."""
    query = (
        select(PolicyAuthorization.resource_id, func.count(PolicyAuthorization.initiating_device_id.distinct()))
        .where(
            PolicyAuthorization.account_id == scope.account_id,
            PolicyAuthorization.resource_id.in_(resource_ids),
            _live(at),
        )
        .group_by(PolicyAuthorization.resource_id)
    )
    return {row[0]: row[1] for row in (await scope.session.execute(query)).all()}


async def pool_members(scope: Scope, resource_id: str) -> list[tuple[Device, Actor]]:
    """The clients of a static pool, with their owners."""
    query = (
        select(Device, Actor)
        .join(
            StaticDevicePoolMember,
            and_(StaticDevicePoolMember.account_id == Device.account_id, StaticDevicePoolMember.device_id == Device.id),
        )
        .join(Actor, and_(Actor.account_id == Device.account_id, Actor.id == Device.actor_id))
        .where(Device.account_id == scope.account_id, StaticDevicePoolMember.resource_id == resource_id)
        .order_by(func.lower(Device.name))
    )
    return [(row[0], row[1]) for row in (await scope.session.execute(query)).all()]


# --- policies ---------------------------------------------------------------------------------------------------------


async def policies(scope: Scope, wanted: Wanted) -> Part:
    """Rows of (policy, group or none, resource)."""
    query = (
        scope.select(Policy)
        .add_columns(Group, Resource)
        .outerjoin(Group, and_(Group.account_id == Policy.account_id, Group.id == Policy.group_id))
        .join(Resource, and_(Resource.account_id == Policy.account_id, Resource.id == Policy.resource_id))
    )
    if wanted.text:
        query = query.where(_contains(wanted.text, Group.name, Resource.name, Policy.description))
    if wanted.only.get("status"):
        query = query.where(Policy.is_disabled.is_(wanted.only["status"] == "off"))
    for name in ("group_id", "resource_id"):
        if wanted.only.get(name):
            query = query.where(getattr(Policy, name) == wanted.only[name])
    columns = {"group": func.lower(Group.name), "resource": func.lower(Resource.name), "added": Policy.inserted_at}
    return await _part(scope, query, wanted, columns, tie=Policy.id)


async def count_members(scope: Scope, group_ids: Sequence[str]) -> dict[str, int]:
    """How many members each group has; Everyone's are counted without rows."""
    query = (
        select(Membership.group_id, func.count())
        .where(Membership.account_id == scope.account_id, Membership.group_id.in_(group_ids))
        .group_by(Membership.group_id)
    )
    return {row[0]: row[1] for row in (await scope.session.execute(query)).all()}


async def count_people(scope: Scope) -> int:
    """How many people there are, all of whom are in Everyone."""
    query = select(func.count()).where(Actor.account_id == scope.account_id, Actor.type.in_(PEOPLE))
    return await scope.session.scalar(query) or 0


# --- people, groups, clients ------------------------------------------------------------------------------------------


async def actors(scope: Scope, wanted: Wanted, types: Sequence[str]) -> Part:
    """Rows of (actor,) of some types."""
    query = scope.select(Actor).where(Actor.type.in_(types))
    if wanted.text:
        query = query.where(_contains(wanted.text, Actor.name, Actor.email))
    if wanted.only.get("status"):
        query = query.where(Actor.is_disabled.is_(wanted.only["status"] == "off"))
    if wanted.only.get("type"):
        query = query.where(Actor.type == wanted.only["type"])
    columns = {"name": func.lower(Actor.name), "email": Actor.email, "added": Actor.inserted_at}
    return await _part(scope, query, wanted, columns, tie=Actor.id)


async def groups(scope: Scope, wanted: Wanted) -> Part:
    """Rows of (group,); Everyone is first."""
    query = scope.select(Group)
    if wanted.text:
        query = query.where(_contains(wanted.text, Group.name))
    columns = {"name": func.lower(Group.name), "added": Group.inserted_at}
    return await _part(scope, query, wanted, columns, first=(Group.type == "managed").desc(), tie=Group.id)


async def groups_of_actors(scope: Scope, actor_ids: Sequence[str]) -> dict[str, list[Group]]:
    """The groups with rows for each actor, by name."""
    query = (
        select(Membership.actor_id, Group)
        .join(Group, and_(Group.account_id == Membership.account_id, Group.id == Membership.group_id))
        .where(Membership.account_id == scope.account_id, Membership.actor_id.in_(actor_ids))
        .order_by(func.lower(Group.name))
    )
    found: dict[str, list[Group]] = {}
    for actor_id, group in (await scope.session.execute(query)).all():
        found.setdefault(actor_id, []).append(group)
    return found


async def members(scope: Scope, group_id: str, limit: int = 500) -> Sequence[Actor]:
    """The first members of a group, by name."""
    query = (
        scope.select(Actor)
        .join(Membership, and_(Membership.account_id == Actor.account_id, Membership.actor_id == Actor.id))
        .where(Membership.group_id == group_id)
        .order_by(func.lower(Actor.name), Actor.id)
        .limit(limit)
    )
    return await scope.all(query)


async def resources_of(scope: Scope, group_ids: Sequence[str]) -> list[tuple[Policy, Group, Resource]]:
    """What some groups may reach, and by which policy."""
    query = (
        select(Policy, Group, Resource)
        .join(Group, and_(Group.account_id == Policy.account_id, Group.id == Policy.group_id))
        .join(Resource, and_(Resource.account_id == Policy.account_id, Resource.id == Policy.resource_id))
        .where(Policy.account_id == scope.account_id, Policy.group_id.in_(group_ids))
        .order_by(func.lower(Resource.name), func.lower(Group.name))
    )
    return [(row[0], row[1], row[2]) for row in (await scope.session.execute(query)).all()]


async def clients(scope: Scope, wanted: Wanted, actor_id: str | None = None) -> Part:
    """Rows of (client, its owner)."""
    query = (
        scope.select(Device)
        .add_columns(Actor)
        .join(Actor, and_(Actor.account_id == Device.account_id, Actor.id == Device.actor_id))
        .where(Device.type == "client")
    )
    if actor_id is not None:
        query = query.where(Device.actor_id == actor_id)
    if wanted.text:
        query = query.where(_contains(wanted.text, Device.name, Actor.name, Actor.email))
    if wanted.only.get("trust"):
        is_verified = wanted.only["trust"] == "verified"
        query = query.where(Device.verified_at.is_not(None) if is_verified else Device.verified_at.is_(None))
    columns = {"name": func.lower(Device.name), "owner": func.lower(Actor.name), "seen": Device.last_seen_at}
    return await _part(scope, query, wanted, columns, tie=Device.id)


async def grants(
    scope: Scope, at: datetime, *, limit: int = 100, **columns: str
) -> list[tuple[PolicyAuthorization, Resource, Device, Actor, Device]]:
    """Live grants, the newest first: with resource, client, its owner, and the gateway or peer."""
    client, receiver = aliased(Device), aliased(Device)
    query = (
        select(PolicyAuthorization, Resource, client, Actor, receiver)
        .join(
            Resource,
            and_(Resource.account_id == PolicyAuthorization.account_id, Resource.id == PolicyAuthorization.resource_id),
        )
        .join(
            client,
            and_(
                client.account_id == PolicyAuthorization.account_id,
                client.id == PolicyAuthorization.initiating_device_id,
            ),
        )
        .join(Actor, and_(Actor.account_id == client.account_id, Actor.id == client.actor_id))
        .join(
            receiver,
            and_(
                receiver.account_id == PolicyAuthorization.account_id,
                receiver.id == PolicyAuthorization.receiving_device_id,
            ),
        )
        .where(PolicyAuthorization.account_id == scope.account_id, _live(at))
        .filter_by(**columns)
        .order_by(PolicyAuthorization.inserted_at.desc())
        .limit(limit)
    )
    return [(row[0], row[1], row[2], row[3], row[4]) for row in (await scope.session.execute(query)).all()]


async def count_grants(scope: Scope, at: datetime, **columns: str) -> int:
    """How many live grants there are."""
    query = (
        select(func.count())
        .select_from(PolicyAuthorization)
        .where(PolicyAuthorization.account_id == scope.account_id, _live(at))
        .filter_by(**columns)
    )
    return await scope.session.scalar(query) or 0


async def counts(scope: Scope) -> dict[str, int]:
    """How many resources, policies, gateways and clients there are."""
    tables: dict[str, Any] = {
        "resources": select(func.count()).where(Resource.account_id == scope.account_id),
        "policies": select(func.count()).where(Policy.account_id == scope.account_id),
        "gateways": select(func.count()).where(Device.account_id == scope.account_id, Device.type == "gateway"),
        "clients": select(func.count()).where(Device.account_id == scope.account_id, Device.type == "client"),
    }
    query = select(*(one.scalar_subquery().label(name) for name, one in tables.items()))
    row = (await scope.session.execute(query)).one()
    return dict(zip(tables, row, strict=True))


async def options(scope: Scope, table: type[Any], limit: int = 1000) -> Sequence[Any]:
    """The first rows of a table by name, for a select."""
    return await scope.all(scope.select(table).order_by(func.lower(table.name), table.id).limit(limit))
