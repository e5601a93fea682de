"""Tokens: made and shown once, rotated, revoked. Revoking one ends every connection made with it."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from wardgate.errors import Conflict, NotFound, invalid
from wardgate.ids import TokenId
from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import Scope, UnitOfWork, as_json
from wardgate.portal.db.tables import (
    Actor,
    ApiToken,
    ClientToken,
    Device,
    GatewayToken,
    OutboxEntry,
    RelayToken,
    Site,
    TenantRow,
    new_id,
)
from wardgate.portal.domain import tokens
from wardgate.portal.domain.tokens import NewToken, TokenKind
from wardgate.portal.services import limits

_INSTANT: Final = "an ISO 8601 instant in the future, such as 2030-01-31T12:00:00Z"


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token's row, and the text that is shown once."""

    row: Any
    text: str

    def __repr__(self) -> str:
        return f"Issued(id={self.row.id!r})"


async def create_client_token(
    unit: UnitOfWork,
    actor_id: str,
    fields: Mapping[str, Any],
    *,
    auth_provider_id: str | None = None,
    nonce: str = "",
    actor_types: tuple[str, ...] = ("service_account",),
) -> Issued:
    """Makes a token for the clients of an actor.

    Args:
        fields: `expires_at`, an ISO 8601 instant in the future.
        actor_types: Which actors may get one; the REST API gives them to service accounts only.

    Raises:
        NotFound: There is no such actor, or it is of another type.
        InvalidInput: The expiry is missing or over.
    """
    await limits.check_open(unit)
    actor = await unit.get(Actor, actor_id)
    if actor.type not in actor_types:
        raise NotFound("client tokens are made for service accounts only")
    expires_at = _expiry(unit, fields, needed=True)
    new = _new("client", unit, nonce)
    row = ClientToken(
        account_id=unit.account_id,
        id=new.id,
        actor_id=actor.id,
        auth_provider_id=auth_provider_id,
        secret_salt=new.salt,
        secret_hash=new.hash,
        expires_at=expires_at,
    )
    await unit.insert(row)
    return Issued(row, new.text)


async def get_client_token(scope: Scope, actor_id: str, token_id: str) -> ClientToken:
    """A token of an actor.

    Raises:
        NotFound: The actor has no such token.
    """
    row = await scope.get(ClientToken, token_id)
    if row.actor_id != actor_id.lower():
        raise NotFound("the actor has no such token")
    return row


async def delete_client_token(unit: UnitOfWork, actor_id: str, token_id: str) -> None:
    """Revokes one token of an actor.

    Raises:
        NotFound: The actor has no such token.
    """
    await unit.delete(await get_client_token(unit, actor_id, token_id))


async def delete_client_tokens(unit: UnitOfWork, actor_id: str) -> int:
    """Revokes all tokens of an actor and says how many there were.

    Raises:
        NotFound: There is no such actor.
    """
    actor = await unit.get(Actor, actor_id)
    return await _delete_all(unit, await unit.all(unit.select(ClientToken).where(ClientToken.actor_id == actor.id)))


async def create_site_token(unit: UnitOfWork, site_id: str) -> Issued:
    """Makes a token for any number of gateways of a site.

    Raises:
        NotFound: There is no such site.
    """
    await limits.check_open(unit)
    site = await unit.get(Site, site_id)
    return await _gateway_token(unit, site_id=site.id)


async def create_gateway_token(unit: UnitOfWork, gateway_id: str) -> Issued:
    """Makes the token of one gateway.

    Raises:
        NotFound: There is no such gateway.
        Conflict: It has one already: rotate it.
    """
    gateway = await _gateway(unit, gateway_id)
    if await _active(unit, gateway):
        raise Conflict("the gateway has a token already: rotate it", "token_exists")
    await limits.check_open(unit)
    return await _gateway_token(unit, device_id=gateway.id)


async def rotate_gateway_token(unit: UnitOfWork, gateway_id: str) -> Issued:
    """Makes a new token for one gateway; the old one works until the new one is used, at most 4 hours.

    Raises:
        NotFound: There is no such gateway.
    """
    await limits.check_open(unit)
    gateway = await _gateway(unit, gateway_id)
    active = await _active(unit, gateway)
    if active is not None:
        query = unit.select(GatewayToken).where(
            GatewayToken.device_id == gateway.id, GatewayToken.rotated_at.is_not(None)
        )
        is_pending = bool(await unit.all(query))
        if is_pending or gateway.gateway_token_id != active.id:
            await unit.delete(active)
        else:
            await unit.update(active, rotated_at=unit.at)
    return await _gateway_token(unit, device_id=gateway.id)


async def end_rotation(unit: UnitOfWork, used: GatewayToken) -> None:
    """Revokes the rotated token of a gateway once the new one is used."""
    if used.device_id is None or used.rotated_at is not None:
        return
    query = unit.select(GatewayToken).where(
        GatewayToken.device_id == used.device_id, GatewayToken.rotated_at.is_not(None)
    )
    await _delete_all(unit, await unit.all(query))


async def delete_gateway_token(unit: UnitOfWork, site_id: str, token_id: str) -> None:
    """Revokes a token of a site, or of one of its gateways.

    Raises:
        NotFound: The site has no such token.
    """
    row = await unit.get(GatewayToken, token_id)
    device = await unit.find(Device, row.device_id) if row.device_id else None
    if site_id.lower() != (device.site_id if device else row.site_id):
        raise NotFound("the site has no such token")
    await unit.delete(row)


async def delete_site_tokens(unit: UnitOfWork, site_id: str) -> int:
    """Revokes all tokens that serve any gateway of a site, and says how many there were.

    Raises:
        NotFound: There is no such site.
    """
    site = await unit.get(Site, site_id)
    return await _delete_all(unit, await unit.all(unit.select(GatewayToken).where(GatewayToken.site_id == site.id)))


async def create_api_token(unit: UnitOfWork, actor_id: str, fields: Mapping[str, Any]) -> Issued:
    """Makes a REST token for an API client; without `expires_at` it lasts until revoked.

    Raises:
        NotFound: There is no such API client.
        InvalidInput: The expiry is over.
    """
    actor = await unit.get(Actor, actor_id)
    if actor.type != "api_client":
        raise NotFound("there is no such API client")
    await limits.check_open(unit)
    await limits.check_room(unit, ["api_tokens_per_client"], actor_id=actor.id)
    expires_at = _expiry(unit, fields, needed=False)
    new = _new("api", unit)
    row = ApiToken(
        account_id=unit.account_id,
        id=new.id,
        actor_id=actor.id,
        name=str(fields.get("name") or actor.name)[:255],
        secret_salt=new.salt,
        secret_hash=new.hash,
        expires_at=expires_at,
    )
    await unit.insert(row)
    return Issued(row, new.text)


async def create_relay_token(db: Database) -> Issued:
    """Makes a token for relays, which serve all accounts."""
    new = tokens.create("relay", None, TokenId(new_id()), secrets.token_bytes)
    row = RelayToken(id=new.id, secret_salt=new.salt, secret_hash=new.hash)
    async with db.unscoped_write() as session:
        session.add(row)
    return Issued(row, new.text)


async def delete_relay_token(db: Database, token_id: str) -> bool:
    """Revokes a relay token; whether there was one. Relays that joined with it are cut off."""
    async with db.unscoped_write() as session:
        row = await session.get(RelayToken, token_id)
        if row is not None:
            before = as_json(row)
            await session.delete(row)
            session.add(
                OutboxEntry(commit_id=new_id(), object=RelayToken.__tablename__, operation="delete", before=before)
            )
    db.notify()
    return row is not None


async def _gateway_token(unit: UnitOfWork, **owner: str) -> Issued:
    new = _new("gateway", unit)
    row = GatewayToken(account_id=unit.account_id, id=new.id, secret_salt=new.salt, secret_hash=new.hash, **owner)
    await unit.insert(row)
    return Issued(row, new.text)


async def _gateway(unit: UnitOfWork, gateway_id: str) -> Device:
    device = await unit.get(Device, gateway_id)
    if device.type != "gateway":
        raise NotFound("there is no such gateway")
    return device


async def _active(unit: UnitOfWork, gateway: Device) -> GatewayToken | None:
    query = unit.select(GatewayToken).where(GatewayToken.device_id == gateway.id, GatewayToken.rotated_at.is_(None))
    return (await unit.session.scalars(query)).one_or_none()


async def _delete_all(unit: UnitOfWork, rows: Any) -> int:
    some: list[TenantRow] = list(rows)
    for row in some:
        await unit.delete(row)
    return len(some)


def _new(kind: TokenKind, unit: UnitOfWork, nonce: str = "") -> NewToken:
    return tokens.create(kind, unit.account_id, TokenId(new_id()), secrets.token_bytes, nonce)


def _expiry(unit: UnitOfWork, fields: Mapping[str, Any], *, needed: bool) -> datetime | None:
    value = fields.get("expires_at")
    if value is None:
        if needed:
            raise invalid("expires_at", "can't be blank", "required", _INSTANT)
        return None
    try:
        expires_at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise invalid("expires_at", "is not an ISO 8601 instant", "invalid", _INSTANT) from None
    if expires_at.tzinfo is None:
        expires_at = expires_at.replace(tzinfo=UTC)
    if expires_at <= unit.at:
        raise invalid("expires_at", "must be in the future", "in_the_past", _INSTANT)
    return expires_at
