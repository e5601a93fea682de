"""Finding the owner of a token that was shown; the only reads that start without a subject."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from wardgate.ids import AccountId, ActorId, TokenId
from wardgate.portal.db.tables import Account, Actor, ApiToken, ClientToken, Device, GatewayToken, RelayToken, Site
from wardgate.portal.domain.subjects import Location, Subject
from wardgate.portal.domain.tokens import ParsedToken, is_genuine

STAMP_EVERY: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose token it is: rows as they were at that moment."""

    account: Account
    actor: Actor | None = None
    client_token: ClientToken | None = None
    gateway_token: GatewayToken | None = None
    api_token: ApiToken | None = None
    site: Site | None = None
    device: Device | None = None

    def subject(
        self, kind: str, remote_ip: str | None, user_agent: str | None, location: Location | None = None
    ) -> Subject:
        """The subject that the token's bearer acts as."""
        actor, token = self.actor, self.client_token or self.gateway_token or self.api_token
        return Subject(
            AccountId(self.account.id),
            kind,  # type: ignore[arg-type]
            actor_id=ActorId(actor.id) if actor else None,
            actor_type=actor.type if actor else None,  # type: ignore[arg-type]
            actor_name=actor.name if actor else None,
            actor_email=actor.email if actor else None,
            token_id=TokenId(token.id) if token else None,
            auth_provider_id=self.client_token.auth_provider_id if self.client_token else None,
            remote_ip=remote_ip,
            user_agent=user_agent,
            location=location or Location(),
        )


async def client_token_owner(session: AsyncSession, token: ParsedToken, at: datetime) -> Owner | None:
    """The actor of a client token, unless it is over or its actor or account is disabled."""
    row = await session.get(ClientToken, (token.account_id, token.token_id))
    if row is None or not is_genuine(token, row.secret_salt, row.secret_hash) or row.expires_at <= at:
        return None
    account = await session.get(Account, row.account_id)
    actor = await session.get(Actor, (row.account_id, row.actor_id))
    if account is None or actor is None or account.is_disabled or actor.is_disabled:
        return None
    return Owner(account, actor=actor, client_token=row)


async def gateway_token_owner(session: AsyncSession, token: ParsedToken) -> Owner | None:
    """The site or the one gateway of a gateway token."""
    row = await session.get(GatewayToken, (token.account_id, token.token_id))
    if row is None or not is_genuine(token, row.secret_salt, row.secret_hash):
        return None
    account = await session.get(Account, row.account_id)
    device = await session.get(Device, (row.account_id, row.device_id)) if row.device_id else None
    site_id = device.site_id if device else row.site_id
    site = await session.get(Site, (row.account_id, site_id)) if site_id else None
    if account is None or site is None:
        return None
    return Owner(account, gateway_token=row, site=site, device=device)


async def api_token_owner(session: AsyncSession, token: ParsedToken, at: datetime) -> Owner | None:
    """The API client of a REST token, unless it is over or disabled."""
    row = await session.get(ApiToken, (token.account_id, token.token_id))
    if row is None or not is_genuine(token, row.secret_salt, row.secret_hash):
        return None
    if row.expires_at is not None and row.expires_at <= at:
        return None
    account = await session.get(Account, row.account_id)
    actor = await session.get(Actor, (row.account_id, row.actor_id))
    if account is None or actor is None or account.is_disabled or actor.is_disabled or actor.type != "api_client":
        return None
    return Owner(account, actor=actor, api_token=row)


async def is_relay_token(session: AsyncSession, token: ParsedToken) -> bool:
    """Whether a relay with this token may serve."""
    row = await session.get(RelayToken, token.token_id)
    return row is not None and is_genuine(token, row.secret_salt, row.secret_hash)


async def stamp_api_token(
    session: AsyncSession, row: ApiToken, at: datetime, remote_ip: str | None, user_agent: str | None
) -> None:
    """Notes the last use of an API token; at most once in `STAMP_EVERY`."""
    if row.last_seen_at is not None and at - row.last_seen_at < STAMP_EVERY:
        return
    seen = {"last_seen_at": at, "last_seen_remote_ip": remote_ip, "last_seen_user_agent": (user_agent or "")[:255]}
    same = update(ApiToken).where(ApiToken.account_id == row.account_id, ApiToken.id == row.id)
    await session.execute(same.values(**seen))
