"""Grants: made when asked for, read when a receiver joins, gone when anything they depend on goes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import delete, select

from wardgate.ids import MembershipId
from wardgate.portal.db import listing
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.tables import PolicyAuthorization, new_id
from wardgate.portal.domain.authorizations import Granted, PolicyRule
from wardgate.portal.domain.subjects import USER_TYPES


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
) -> PolicyAuthorization:
    """Stores a grant in place of an older one between the same two; whoever made it delivers it."""
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


async def of_initiator(scope: Scope, device_id: str, at: datetime) -> Sequence[PolicyAuthorization]:
    """The unexpired grants that this client asked for."""
    query = scope.select(PolicyAuthorization).where(
        PolicyAuthorization.initiating_device_id == device_id, PolicyAuthorization.expires_at > at
    )
    return await scope.all(query)


async def delete_where(unit: UnitOfWork, **columns: str) -> None:
    """Ends all grants with these values; receivers are told through the outbox."""
    query = unit.select(PolicyAuthorization).filter_by(**columns)
    for row in await unit.all(query):
        await unit.delete(row)


async def purge_expired(unit: UnitOfWork, at: datetime) -> None:
    """Removes grants that are over, silently: their receivers have ended them by themselves."""
    await unit.session.execute(
        delete(PolicyAuthorization).where(
            PolicyAuthorization.account_id == unit.account_id, PolicyAuthorization.expires_at <= at
        )
    )
