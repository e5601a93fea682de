"""Grants: made when asked for, read when a receiver joins, gone when anything they depend on goes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from sqlalchemy import and_, delete, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from wardgate.portal.db import access
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
    await unit.session.execute(older)
    row = PolicyAuthorization(
        account_id=unit.account_id,
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


async def of_receiver(scope: Scope, device_id: str, at: datetime) -> Sequence[PolicyAuthorization]:
    """The unexpired grants with this receiver; one for each client and resource, the one that lasts longest."""
    query = (
        scope.select(PolicyAuthorization)
        .where(PolicyAuthorization.receiving_device_id == device_id, PolicyAuthorization.expires_at > at)
        .order_by(PolicyAuthorization.expires_at, PolicyAuthorization.inserted_at)
    )
    best = {(row.initiating_device_id, row.resource_id): row for row in await scope.all(query)}
    return list(best.values())


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


async def past_of(scope: Scope, device_id: str, public_key: str, at: datetime) -> Past:
    """What a client with this key has, and what it lost since it was last told."""
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
            PolicyAuthorization.initiating_device_id == device_id,
            PolicyAuthorization.initiator_public_key == public_key,
        )
        .order_by(PolicyAuthorization.inserted_at, PolicyAuthorization.id)
    )
    held, lost = [], set()
    for grant, key in (await scope.session.execute(receiver_key)).all():
        if grant.receiver_public_key == key and grant.expires_at > at:
            held.append(grant)
        else:
            lost.add(grant.resource_id)
    ended = await scope.all(scope.select(EndedGrant).where(EndedGrant.initiating_device_id == device_id))
    return Past(held, frozenset(lost | {one.resource_id for one in ended}), bool(ended))


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
