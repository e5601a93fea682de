"""Grants after they were made: kept without interruption as long as any policy allows them, ended when none does.

Revocation is deletion, so whoever takes a policy, a membership or a condition away first moves the grants that stand on
another leg as well. A grant keeps its id; only one whose end is another moment is news to its receiver.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from wardgate.portal.db import authorizations
from wardgate.portal.db.authorizations import Basis
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import ClientToken, Device, PolicyAuthorization
from wardgate.portal.domain.authorizations import Granted, authorize


async def redecide(
    unit: UnitOfWork,
    grants: Sequence[PolicyAuthorization],
    *,
    without_policies: Collection[str] = (),
    without_memberships: Collection[str] = (),
    token: ClientToken | None = None,
) -> None:
    """Keeps each grant that a policy still gives, and ends the others.

    Args:
        without_policies: Policies that are about to go.
        without_memberships: Memberships that are about to go.
        token: What the client has signed in with since; grants of the program that asked go over to it.
    """
    for basis in await authorizations.bases(unit, grants, unit.at):
        rules = [
            rule
            for rule in basis.rules
            if rule.policy_id not in without_policies and rule.membership_id not in without_memberships
        ]
        basis = replace(basis, rules=tuple(rules), token=_token_of(basis, token))
        granted, expires_at = _verdict(basis, unit.at)
        if not _can_be_told(basis):
            expires_at = min(expires_at, basis.grant.expires_at)
        is_out_of_reach = expires_at < basis.grant.expires_at and not _can_be_told(basis)
        if granted is None or expires_at <= unit.at or is_out_of_reach:
            await unit.delete(basis.grant)
        else:
            await _move(unit, basis, granted, expires_at)


def grant_circumstances(device: Device) -> tuple[str | None, ...]:
    """What of a client's connection its grants depend on: address, region, and the token with its provider."""
    return (device.last_seen_remote_ip, device.last_seen_remote_ip_location_region, device.client_token_id)


async def redecide_all_of(unit: UnitOfWork, device: Device, token_id: str) -> None:
    """A client came back from another place, or signed in anew: its grants are looked at again."""
    grants = await authorizations.grants_where(unit, initiating_device_id=device.id)
    if grants:
        await redecide(unit, grants, token=await unit.get(ClientToken, token_id))


async def renew(unit: UnitOfWork, device_id: str, token_id: str, until: datetime) -> None:
    """Extends what a client holds and what ends by then, where the policies allow it beyond its end.

    What they say is asked for the moment of the end, so that hours which follow each other are one.

    Args:
        token_id: What the client is connected with.
    """
    token = await unit.find(ClientToken, token_id)
    ending = await authorizations.ending_before(unit, device_id, until)
    due = [one for one in ending if one.expires_at > unit.at]
    for basis in await authorizations.bases(unit, due, unit.at):
        basis = replace(basis, token=_token_of(basis, token))
        if not _can_be_told(basis):
            continue
        granted, expires_at = _verdict(basis, basis.grant.expires_at)
        if granted is not None and expires_at > basis.grant.expires_at:
            await _move(unit, basis, granted, expires_at)


def _token_of(basis: Basis, token: ClientToken | None) -> ClientToken:
    return token if token is not None and basis.is_current_program else basis.token


def _verdict(basis: Basis, at: datetime) -> tuple[Granted | None, datetime]:
    """What holds at that moment; flow-log tokens cannot change under a grant, so other policies do not count."""
    alike = [rule for rule in basis.rules if rule.flow_log_uploads_enabled == basis.uploads_enabled]
    current = replace(basis.current, at=at, auth_provider_id=basis.token.auth_provider_id)
    verdict = authorize(alike, current, basis.token.expires_at)
    if not isinstance(verdict, Granted):
        return None, at
    return verdict, verdict.expires_at or basis.token.expires_at


def _can_be_told(basis: Basis) -> bool:
    """Whether the receiver can be told of another end: that takes the keys of the programs the grant was made for."""
    return basis.is_current_program and basis.is_current_receiver


async def _move(unit: UnitOfWork, basis: Basis, granted: Granted, expires_at: datetime) -> None:
    await unit.update(
        basis.grant,
        silent=expires_at == basis.grant.expires_at,
        policy_id=granted.rule.policy_id,
        membership_id=granted.rule.membership_id,
        token_id=basis.token.id,
        expires_at=expires_at,
    )
