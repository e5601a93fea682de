"""Grants: made when asked for, read when a receiver joins, gone when anything they depend on goes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

from sqlalchemy import and_, delete, func, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from wardgate.ids import MembershipId
from wardgate.portal.db import access, listing
from wardgate.portal.db.grant_tables import EndedGrant
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.tables import (
    Actor,
    ClientToken,
    Device,
    Group,
    Membership,
    Policy,
    PolicyAuthorization,
    TenantRow,
    new_id,
)
from wardgate.portal.db.types import UtcDateTime
from wardgate.portal.domain.authorizations import Granted, PolicyRule
from wardgate.portal.domain.conditions import Circumstances
from wardgate.portal.domain.subjects import USER_TYPES

_R = TypeVar("_R", bound=TenantRow)
ENDED_RETENTION: Final = timedelta(days=30)
_CHUNK: Final = 500


async def record(
    unit: UnitOfWork,
    granted: Granted,
    *,
    token_id: str,
    initiating_device_id: str,
    receiving_device_id: str,
    initiator_remote_ip: str | None,
    initiator_user_agent: str | None,
    receiver_remote_ip: str | None,
    expires_at: datetime,
    keys: tuple[str | None, str | None] = (None, None),
    use_iceless: bool = False,
) -> PolicyAuthorization:
    """Stores a grant in place of an older one between the same two; whoever made it delivers it.

    Args:
        keys: The public keys of initiator and receiver, which both ends have to be told with every renewal.
    """
    older = delete(PolicyAuthorization).where(
        PolicyAuthorization.account_id == unit.account_id,
        PolicyAuthorization.initiating_device_id == initiating_device_id,
        PolicyAuthorization.receiving_device_id == receiving_device_id,
        PolicyAuthorization.resource_id == granted.rule.resource_id,
    )
    known = asked_of(unit)
    pair = (initiating_device_id, receiving_device_id, str(granted.rule.resource_id))
    if known is None or pair in known.granted:
        await unit.session.flush()
        await unit.session.execute(older)
    if known is not None:
        known.granted.add(pair)
    row = PolicyAuthorization(
        account_id=unit.account_id,
        id=new_id(),
        policy_id=granted.rule.policy_id,
        resource_id=granted.rule.resource_id,
        token_id=token_id,
        membership_id=granted.rule.membership_id,
        initiating_device_id=initiating_device_id,
        receiving_device_id=receiving_device_id,
        initiator_remote_ip=initiator_remote_ip,
        initiator_user_agent=initiator_user_agent[:255] if initiator_user_agent else None,
        receiver_remote_ip=receiver_remote_ip,
        initiator_public_key=keys[0],
        receiver_public_key=keys[1],
        use_iceless=use_iceless,
        expires_at=expires_at,
        inserted_at=unit.at,
    )
    await unit.insert(row, silent=True)
    return row


@dataclass(frozen=True, slots=True)
class Asked:
    """What decides about many requests at once.

    Attributes:
        rules: The enabled policies that link an actor to a resource, oldest first, by both.
        granted: Initiator, receiver and resource of the grants that these initiators have.
    """

    rules: dict[tuple[str, str], list[PolicyRule]]
    granted: set[tuple[str, str, str]]


async def read_asked(unit: UnitOfWork, asks: Sequence[tuple[str, str, str]]) -> Asked:
    """What decides about requests, each given as actor, device and resource."""
    actors = {actor for actor, _, _ in asks}
    everyone = await listing.everyone(unit)
    types = await listing.types_of(unit, actors)
    found = await listing.rules_of_resources(unit, {resource for _, _, resource in asks})
    groups = {one.rule.group_id for one in found}
    memberships = await listing.memberships(unit, actors, groups)
    by_resource: dict[str, list[PolicyRule]] = {}
    for one in found:
        by_resource.setdefault(one.rule.resource_id, []).append(one.rule)
    rules: dict[tuple[str, str], list[PolicyRule]] = {}
    for actor, _, resource in asks:
        rules[actor, resource] = some = []
        for rule in by_resource.get(resource, ()):
            membership = memberships.get((actor, rule.group_id))
            if membership is not None or (rule.group_id == everyone and types.get(actor) in USER_TYPES):
                some.append(replace(rule, membership_id=MembershipId(membership) if membership else None))
    query = select(
        PolicyAuthorization.initiating_device_id,
        PolicyAuthorization.receiving_device_id,
        PolicyAuthorization.resource_id,
    ).where(
        PolicyAuthorization.account_id == unit.account_id,
        PolicyAuthorization.initiating_device_id.in_({device for _, device, _ in asks}),
    )
    granted = {(row[0], row[1], row[2]) for row in (await unit.session.execute(query)).all()}
    return Asked(rules, granted)


def asked_of(unit: UnitOfWork) -> Asked | None:
    """What was read for all requests of a transaction; `None` if this one has it for itself."""
    found: Asked | None = unit.shared.get(read_asked) if unit.shared is not None else None
    return found


async def of_receiver(scope: Scope, device_id: str, at: datetime) -> Sequence[PolicyAuthorization]:
    """The unexpired grants with this receiver; one for each client and resource, the one that lasts longest."""
    return (await of_receivers(scope, [device_id], at)).get(device_id, [])


async def of_receivers(scope: Scope, device_ids: Sequence[str], at: datetime) -> dict[str, list[PolicyAuthorization]]:
    """The same for many receivers, by receiver."""
    query = (
        scope.select(PolicyAuthorization)
        .where(PolicyAuthorization.receiving_device_id.in_(device_ids), PolicyAuthorization.expires_at > at)
        .order_by(PolicyAuthorization.expires_at, PolicyAuthorization.inserted_at)
    )
    rows = await scope.all(query)
    best = {(row.receiving_device_id, row.initiating_device_id, row.resource_id): row for row in rows}
    found: dict[str, list[PolicyAuthorization]] = {}
    for row in best.values():
        found.setdefault(row.receiving_device_id, []).append(row)
    return found


@dataclass(frozen=True, slots=True)
class Past:
    """What a client had when it last was here.

    Attributes:
        held: Grants between the programs that still run: both ends know them.
        lost: Resources of grants that are no more, or that the receiver's new program does not know.
        has_ended: Whether there are records of ended grants to forget.
    """

    held: Sequence[PolicyAuthorization]
    lost: frozenset[str]
    has_ended: bool


NOTHING_PAST: Final = Past((), frozenset(), False)


async def pasts_of(scope: Scope, keys: Mapping[str, str], at: datetime) -> dict[str, Past]:
    """What clients, given with their keys, have and lost since they were last told; nothing of those without either."""
    receiver_key = (
        select(PolicyAuthorization, Device.public_key)
        .join(
            Device,
            and_(
                Device.account_id == PolicyAuthorization.account_id,
                Device.id == PolicyAuthorization.receiving_device_id,
            ),
        )
        .where(
            PolicyAuthorization.account_id == scope.account_id,
            PolicyAuthorization.initiating_device_id.in_(sorted(keys)),
        )
        .order_by(PolicyAuthorization.inserted_at, PolicyAuthorization.id)
    )
    held: dict[str, list[PolicyAuthorization]] = {}
    lost: dict[str, set[str]] = {}
    for grant, key in (await scope.session.execute(receiver_key)).all():
        device_id = grant.initiating_device_id
        if grant.initiator_public_key != keys[device_id]:
            continue
        if grant.receiver_public_key == key and grant.expires_at > at:
            held.setdefault(device_id, []).append(grant)
        else:
            lost.setdefault(device_id, set()).add(grant.resource_id)
    ended: set[str] = set()
    for one in await scope.all(scope.select(EndedGrant).where(EndedGrant.initiating_device_id.in_(sorted(keys)))):
        ended.add(one.initiating_device_id)
        lost.setdefault(one.initiating_device_id, set()).add(one.resource_id)
    return {
        device_id: Past(held.get(device_id, ()), frozenset(lost.get(device_id, ())), device_id in ended)
        for device_id in {*held, *lost}
    }


async def forget_ended(unit: UnitOfWork, device_id: str) -> None:
    """The client has been told."""
    same = delete(EndedGrant).where(
        EndedGrant.account_id == unit.account_id, EndedGrant.initiating_device_id == device_id
    )
    await unit.session.execute(same)


async def ending_before(scope: Scope, device_id: str, at: datetime) -> Sequence[PolicyAuthorization]:
    """The grants that this client asked for and that end by then."""
    query = scope.select(PolicyAuthorization).where(
        PolicyAuthorization.initiating_device_id == device_id, PolicyAuthorization.expires_at <= at
    )
    return await scope.all(query)


@dataclass(frozen=True, slots=True)
class Basis:
    """What one grant rests on: who has it, from where, by which policies of its resource.

    Attributes:
        current: Of the connection that the client has or had last; `at` is to be filled in.
        uploads_enabled: What the flow-log tokens of both ends say.
        is_current_program: Whether the client still runs as the program that asked.
        is_current_receiver: Whether the receiver still runs as the program that was told.
    """

    grant: PolicyAuthorization
    rules: tuple[PolicyRule, ...]
    current: Circumstances
    token: ClientToken
    uploads_enabled: bool
    is_current_program: bool
    is_current_receiver: bool


async def bases(scope: Scope, grants: Sequence[PolicyAuthorization], at: datetime) -> list[Basis]:
    """What these grants rest on, read for all of them together."""
    devices = {one.initiating_device_id for one in grants} | {one.receiving_device_id for one in grants}
    clients = await _by_id(scope, Device, devices)
    tokens = await _by_id(scope, ClientToken, {one.token_id for one in grants})
    actors = await _by_id(scope, Actor, {one.actor_id for one in clients.values() if one.actor_id})
    policies = await _by_id(scope, Policy, {one.policy_id for one in grants})
    links = await _links(scope, {one.resource_id for one in grants}, set(actors))
    found = []
    for grant in grants:
        client, token = clients[grant.initiating_device_id], tokens[grant.token_id]
        actor = actors[client.actor_id or ""]
        current = Circumstances(
            at,
            client.last_seen_remote_ip,
            client.last_seen_remote_ip_location_region,
            token.auth_provider_id,
            client.verified_at is not None,
        )
        found.append(
            Basis(
                grant,
                tuple(_rules(links.get(grant.resource_id, ()), actor)),
                current,
                token,
                policies[grant.policy_id].flow_log_uploads_enabled,
                client.public_key == grant.initiator_public_key,
                clients[grant.receiving_device_id].public_key == grant.receiver_public_key,
            )
        )
    return found


_Link = tuple[Policy, str, dict[str, str]]
"""A policy, the type of its group, and the memberships of the group by actor."""


async def _links(scope: Scope, resource_ids: set[str], actor_ids: set[str]) -> dict[str, list[_Link]]:
    links: dict[str, list[_Link]] = {}
    memberships: dict[str, dict[str, str]] = {}
    for some in _chunks(actor_ids):
        for row in await scope.all(scope.select(Membership).where(Membership.actor_id.in_(some))):
            memberships.setdefault(row.group_id, {})[row.actor_id] = row.id
    for some in _chunks(resource_ids):
        query = (
            select(Policy, Group.type)
            .join(Group, and_(Group.account_id == Policy.account_id, Group.id == Policy.group_id))
            .where(Policy.account_id == scope.account_id, Policy.is_disabled.is_(False), Policy.resource_id.in_(some))
            .order_by(Policy.inserted_at, Policy.id)
        )
        for policy, kind in (await scope.session.execute(query)).all():
            links.setdefault(policy.resource_id, []).append((policy, kind, memberships.get(policy.group_id or "", {})))
    return links


def _rules(links: Iterable[_Link], actor: Actor) -> Iterator[PolicyRule]:
    if actor.is_disabled:
        return
    for policy, kind, members in links:
        membership_id = members.get(actor.id)
        if membership_id is None and not (kind == access.EVERYONE and actor.type in USER_TYPES):
            continue
        rule = access.rule_of(policy, membership_id)
        if rule is not None:
            yield rule


async def _by_id(scope: Scope, table: type[_R], ids: set[str]) -> dict[str, _R]:
    found: dict[str, _R] = {}
    for some in _chunks(ids):
        found |= {row.id: row for row in await scope.all(scope.select(table).where(table.id.in_(some)))}
    return found


def _chunks(ids: set[str]) -> Iterator[list[str]]:
    ordered = sorted(ids)
    return (ordered[start : start + _CHUNK] for start in range(0, len(ordered), _CHUNK))


async def delete_where(unit: UnitOfWork, **columns: str) -> None:
    """Ends all grants with these values; receivers are told through the outbox."""
    for row in await grants_where(unit, **columns):
        await unit.delete(row)


async def grants_where(scope: Scope, **columns: str) -> Sequence[PolicyAuthorization]:
    """All grants with these values, the oldest first."""
    query = scope.select(PolicyAuthorization).filter_by(**columns)
    return await scope.all(query.order_by(PolicyAuthorization.inserted_at, PolicyAuthorization.id))


async def end_expired(session: AsyncSession, at: datetime) -> None:
    """Removes grants that are over, silently: their receivers have ended them by themselves.

    Clients that were away meanwhile will be told, if they are back within `ENDED_RETENTION`.
    """
    # Those that somebody is deleting right now are left out: waiting for them could become a deadlock.
    locked = (
        select(PolicyAuthorization.id).where(PolicyAuthorization.expires_at <= at).with_for_update(skip_locked=True)
    )
    ids = list((await session.scalars(locked)).all())
    columns = ["account_id", "id", "initiating_device_id", "resource_id", "inserted_at"]
    for start in range(0, len(ids), _CHUNK):
        some = PolicyAuthorization.id.in_(ids[start : start + _CHUNK])
        over = select(
            PolicyAuthorization.account_id,
            PolicyAuthorization.id,
            PolicyAuthorization.initiating_device_id,
            PolicyAuthorization.resource_id,
            literal(at, UtcDateTime),
        ).where(some)
        await session.execute(insert(EndedGrant).from_select(columns, over))
        await session.execute(delete(PolicyAuthorization).where(some))
    await session.execute(delete(EndedGrant).where(EndedGrant.inserted_at <= at - ENDED_RETENTION))


async def policies_in_use(scope: Scope, policy_ids: Iterable[str], at: datetime) -> dict[str, int]:
    """How many unexpired grants each policy has given."""
    query = (
        select(PolicyAuthorization.policy_id, func.count())
        .where(
            PolicyAuthorization.account_id == scope.account_id,
            PolicyAuthorization.policy_id.in_(sorted(policy_ids)),
            PolicyAuthorization.expires_at > at,
        )
        .group_by(PolicyAuthorization.policy_id)
    )
    return {row[0]: row[1] for row in (await scope.session.execute(query)).all()}


async def latest_between(
    scope: Scope, device_id: str | None, resource_id: str, at: datetime
) -> PolicyAuthorization | None:
    """The grant of a client for a resource that lasts, and lasts longest."""
    if device_id is None:
        return None
    query = (
        scope.select(PolicyAuthorization)
        .where(
            PolicyAuthorization.initiating_device_id == device_id,
            PolicyAuthorization.resource_id == resource_id,
            PolicyAuthorization.expires_at > at,
        )
        .order_by(PolicyAuthorization.expires_at.desc(), PolicyAuthorization.id)
        .limit(1)
    )
    return (await scope.session.scalars(query)).one_or_none()
