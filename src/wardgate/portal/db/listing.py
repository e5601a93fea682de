"""What many clients may reach, read for all of them at once.

The rows are read as columns, not as objects: a portal whose clients all come back looks at every policy.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, and_, select

from wardgate.ids import GroupId, PolicyId, ResourceId
from wardgate.portal.db.access import EVERYONE
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Actor, ClientToken, Device, Group, Membership, Policy
from wardgate.portal.domain.authorizations import PolicyRule
from wardgate.portal.domain.conditions import parse_conditions

CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class GroupRule:
    """An enabled policy as it concerns every member of its group: the rule names no membership.

    Attributes:
        age: Sorts rules from the oldest to the newest.
    """

    age: tuple[datetime, str]
    rule: PolicyRule


@dataclass(frozen=True, slots=True)
class Standing:
    """What of a client decides about its list, besides its connection."""

    actor_type: str
    is_verified: bool
    group_ids: tuple[str, ...]


async def everyone(scope: Scope) -> str | None:
    """The id of the group that all users are in."""
    query = scope.select(Group).with_only_columns(Group.id).where(Group.type == EVERYONE)
    found: str | None = await scope.session.scalar(query)
    return found


async def standings(scope: Scope, clients: Collection[tuple[str, str]]) -> dict[str, Standing]:
    """Of clients, given as device and actor, what there is to know; by device, without those that are gone."""
    devices = await _rows(scope, select(Device.id, Device.verified_at), Device.id, {one for one, _ in clients})
    actor_ids = {actor for _, actor in clients}
    types = dict(await _rows(scope, select(Actor.id, Actor.type), Actor.id, actor_ids))
    groups: dict[str, list[str]] = {}
    query = select(Membership.actor_id, Membership.group_id)
    for actor_id, group_id in await _rows(scope, query, Membership.actor_id, actor_ids):
        groups.setdefault(actor_id, []).append(group_id)
    verified = dict(devices)
    return {
        device_id: Standing(types[actor_id], verified[device_id] is not None, tuple(groups.get(actor_id, ())))
        for device_id, actor_id in clients
        if device_id in verified and actor_id in types
    }


async def rules_of_groups(scope: Scope, group_ids: Iterable[str]) -> dict[str, tuple[GroupRule, ...]]:
    """The enabled policies of each of these groups; a group without any has an empty tuple."""
    wanted = set(group_ids)
    found: dict[str, list[GroupRule]] = {group_id: [] for group_id in wanted}
    for rule in await _rules(scope, Policy.group_id, wanted):
        found[rule.rule.group_id].append(rule)
    return {group_id: tuple(rules) for group_id, rules in found.items()}


async def rules_of_resources(scope: Scope, resource_ids: Iterable[str]) -> list[GroupRule]:
    """The enabled policies for any of these resources, oldest first."""
    return sorted(await _rules(scope, Policy.resource_id, set(resource_ids)), key=lambda one: one.age)


async def members_of(scope: Scope, group_ids: Iterable[str], actor_ids: Collection[str]) -> dict[str, set[str]]:
    """The actors in each of these groups; of others than the given actors some may be left out."""
    found: dict[str, set[str]] = {group_id: set() for group_id in group_ids}
    if not found:
        return found
    query = select(Membership.group_id, Membership.actor_id)
    if len(actor_ids) <= CHUNK:
        query = query.where(Membership.actor_id.in_(sorted(actor_ids)))
    for group_id, actor_id in await _rows(scope, query, Membership.group_id, set(found)):
        found[group_id].add(actor_id)
    return found


async def types_of(scope: Scope, actor_ids: Iterable[str]) -> dict[str, str]:
    """The type of each of these actors."""
    return dict(await _rows(scope, select(Actor.id, Actor.type), Actor.id, set(actor_ids)))


async def memberships(scope: Scope, actor_ids: Iterable[str], group_ids: Collection[str]) -> dict[tuple[str, str], str]:
    """The ids of the memberships of these actors in these groups, by both."""
    query = select(Membership.actor_id, Membership.group_id, Membership.id)
    if len(group_ids) <= CHUNK:
        query = query.where(Membership.group_id.in_(sorted(group_ids)))
    found = await _rows(scope, query, Membership.actor_id, set(actor_ids))
    return {(actor_id, group_id): row_id for actor_id, group_id, row_id in found}


async def client_tokens(scope: Scope, token_ids: Iterable[str]) -> set[str]:
    """Those of these tokens that are still there."""
    return {row[0] for row in await _rows(scope, select(ClientToken.id), ClientToken.id, set(token_ids))}


async def _rules(scope: Scope, column: Any, wanted: set[str]) -> list[GroupRule]:
    query = select(
        Policy.id,
        Policy.resource_id,
        Policy.group_id,
        Policy.conditions,
        Policy.flow_log_uploads_enabled,
        Policy.inserted_at,
    ).where(Policy.is_disabled.is_(False), Policy.group_id.is_not(None))
    found = []
    for policy_id, resource_id, group_id, conditions, uploads, inserted_at in await _rows(scope, query, column, wanted):
        parsed = parse_conditions(conditions) if conditions else ()
        rule = PolicyRule(PolicyId(policy_id), ResourceId(resource_id), GroupId(group_id), None, parsed, uploads)
        found.append(GroupRule((inserted_at, policy_id), rule))
    return found


async def _rows(scope: Scope, query: Select[*tuple[Any, ...]], column: Any, wanted: set[str]) -> list[Any]:
    """All rows of the account with one of these values."""
    table = column.class_
    ids = sorted(wanted)
    found: list[Any] = []
    for start in range(0, len(ids), CHUNK):
        some = and_(table.account_id == scope.account_id, column.in_(ids[start : start + CHUNK]))
        found += (await scope.session.execute(query.where(some))).all()
    return found
