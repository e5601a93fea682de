"""What policies say about an actor, and the resources they are about."""

from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, and_, or_, select

from wardgate.ids import ActorId, ClientId, GroupId, MembershipId, PolicyId, ResourceId, SiteId
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Actor, Device, Group, Membership, Policy, Resource, Site, StaticDevicePoolMember
from wardgate.portal.domain.authorizations import PolicyRule
from wardgate.portal.domain.conditions import parse_conditions
from wardgate.portal.domain.explain import PolicyFacts
from wardgate.portal.domain.resources import PoolMember, ResourceFacts
from wardgate.portal.domain.subjects import USER_TYPES

EVERYONE = "managed"
"""The type of the one group that all users are in without being listed."""


async def rules_of_actor(scope: Scope, actor: Actor, resource_id: str | None = None) -> list[PolicyRule]:
    """All enabled policies of groups that the actor is in, or those of one resource; oldest first."""
    membership = and_(
        Membership.account_id == Policy.account_id,
        Membership.group_id == Policy.group_id,
        Membership.actor_id == actor.id,
    )
    query = (
        select(Policy, Membership.id)
        .join(Group, and_(Group.account_id == Policy.account_id, Group.id == Policy.group_id))
        .outerjoin(Membership, membership)
        .where(Policy.account_id == scope.account_id, Policy.is_disabled.is_(False), _concerns(actor))
        .order_by(Policy.inserted_at, Policy.id)
    )
    if resource_id is not None:
        query = query.where(Policy.resource_id == resource_id)
    rows = (await scope.session.execute(query)).all()
    return [rule for policy, membership_id in rows if (rule := rule_of(policy, membership_id)) is not None]


def _concerns(actor: Actor) -> ColumnElement[bool]:
    if actor.type in USER_TYPES:
        return or_(Membership.id.is_not(None), Group.type == EVERYONE)
    return Membership.id.is_not(None)


def rule_of(policy: Policy, membership_id: str | None) -> PolicyRule | None:
    """A policy row as a rule; none if it is an orphan."""
    if policy.group_id is None:
        return None
    return PolicyRule(
        PolicyId(policy.id),
        ResourceId(policy.resource_id),
        GroupId(policy.group_id),
        MembershipId(membership_id) if membership_id else None,
        parse_conditions(policy.conditions),
        policy.flow_log_uploads_enabled,
    )


async def policies_about(scope: Scope, actor: Actor, resource_id: str) -> list[PolicyFacts]:
    """Every policy of a resource, also those that do not concern the actor: for explanations."""
    membership = and_(
        Membership.account_id == Policy.account_id,
        Membership.group_id == Policy.group_id,
        Membership.actor_id == actor.id,
    )
    query = (
        select(Policy, Group, Membership.id)
        .outerjoin(Group, and_(Group.account_id == Policy.account_id, Group.id == Policy.group_id))
        .outerjoin(Membership, membership)
        .where(Policy.account_id == scope.account_id, Policy.resource_id == resource_id)
        .order_by(Policy.inserted_at, Policy.id)
        .limit(1000)
    )
    facts = []
    for policy, group, membership_id in (await scope.session.execute(query)).all():
        in_everyone = group is not None and group.type == EVERYONE and actor.type in USER_TYPES
        rule = rule_of(policy, membership_id) if membership_id or in_everyone else None
        group_id = GroupId(policy.group_id) if policy.group_id else None
        conditions = parse_conditions(policy.conditions)
        name = group.name if group else None
        facts.append(PolicyFacts(PolicyId(policy.id), group_id, name, policy.is_disabled, rule, conditions))
    return facts


async def resource_facts(scope: Scope, resource_ids: Iterable[str]) -> dict[ResourceId, ResourceFacts]:
    """Resources with their sites and members, in the order asked for."""
    wanted = list(resource_ids)
    rows: dict[str, tuple[Resource, Site | None]] = {}
    for start in range(0, len(wanted), 500):
        query = (
            select(Resource, Site)
            .outerjoin(Site, and_(Site.account_id == Resource.account_id, Site.id == Resource.site_id))
            .where(Resource.account_id == scope.account_id, Resource.id.in_(wanted[start : start + 500]))
        )
        rows |= {resource.id: (resource, site) for resource, site in (await scope.session.execute(query)).all()}
    pools = [resource.id for resource, _ in rows.values() if resource.type == "static_device_pool"]
    members = await _members(scope, pools) if pools else {}
    return {
        ResourceId(one): _facts(*rows[one], members.get(one, ())) for one in wanted if one in rows
    }  # an id that is gone is left out


def is_same(resource: Resource, facts: ResourceFacts) -> bool:
    """Whether a resource still is what its receivers were or would be told."""
    stored = (resource.type, resource.address, resource.ip_stack, resource.site_id, list(resource.filters))
    return stored == (facts.type, facts.address, facts.ip_stack, facts.site_id, list(facts.filters))


def _facts(resource: Resource, site: Site | None, members: Sequence[PoolMember]) -> ResourceFacts:
    return ResourceFacts(
        ResourceId(resource.id),
        resource.type,
        resource.name,
        resource.address,
        resource.address_description,
        resource.ip_stack,
        tuple(resource.filters),
        SiteId(site.id) if site else None,
        site.name if site else None,
        tuple(members),
    )


async def _members(scope: Scope, pools: Sequence[str]) -> dict[str, list[PoolMember]]:
    query = (
        select(StaticDevicePoolMember.resource_id, Device.id, Device.ipv4, Device.ipv6)
        .join(
            Device,
            and_(Device.account_id == StaticDevicePoolMember.account_id, Device.id == StaticDevicePoolMember.device_id),
        )
        .where(StaticDevicePoolMember.account_id == scope.account_id, StaticDevicePoolMember.resource_id.in_(pools))
        .order_by(StaticDevicePoolMember.inserted_at, Device.id)
    )
    members: dict[str, list[PoolMember]] = {}
    for resource_id, device_id, ipv4, ipv6 in (await scope.session.execute(query)).all():
        members.setdefault(resource_id, []).append(PoolMember(ClientId(device_id), ipv4, ipv6))
    return members


async def actors_of_groups(scope: Scope, group_ids: Iterable[str]) -> set[ActorId] | None:
    """The actors in any of these groups; `None` stands for all of them, when Everyone is among the groups."""
    wanted = sorted(group_ids)
    if not wanted:
        return set()
    groups = await scope.all(scope.select(Group).where(Group.id.in_(wanted)))
    if any(group.type == EVERYONE for group in groups):
        return None
    query = (
        select(Membership.actor_id)
        .where(Membership.account_id == scope.account_id, Membership.group_id.in_([group.id for group in groups]))
        .distinct()
    )
    return {ActorId(one) for one in (await scope.session.scalars(query)).all()}


async def groups_of_resources(scope: Scope, resource_ids: Iterable[str]) -> set[GroupId]:
    """The groups that have a policy for any of these resources."""
    wanted = sorted(resource_ids)
    if not wanted:
        return set()
    query = (
        select(Policy.group_id)
        .where(
            Policy.account_id == scope.account_id,
            Policy.resource_id.in_(wanted),
            Policy.group_id.is_not(None),
        )
        .distinct()
    )
    return {GroupId(one) for one in (await scope.session.scalars(query)).all() if one is not None}


async def resources_of_sites(scope: Scope, site_ids: Iterable[str]) -> set[str]:
    """The resources behind any of these sites."""
    wanted = sorted(site_ids)
    if not wanted:
        return set()
    query = select(Resource.id).where(Resource.account_id == scope.account_id, Resource.site_id.in_(wanted))
    return set((await scope.session.scalars(query)).all())


async def pools_of_devices(scope: Scope, device_ids: Iterable[str]) -> set[str]:
    """The static pools that hold any of these devices."""
    wanted = sorted(device_ids)
    if not wanted:
        return set()
    members = scope.select(StaticDevicePoolMember).where(StaticDevicePoolMember.device_id.in_(wanted))
    return {one.resource_id for one in await scope.all(members)}
