"""Grants: made when asked for, read when a receiver joins, gone when anything they depend on goes."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import delete, func, select

from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.tables import PolicyAuthorization
from wardgate.portal.domain.authorizations import Granted


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
