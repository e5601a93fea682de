"""Signing in to the pages: codes by e-mail, links for once, and the sessions they end in.

A code or a link is a passcode: hashed, good for 15 minutes, three attempts, each counted before it is compared. Whoever
is unknown gets the same answers in the same time. Source: portal-domain sections 1.8, 3.1, 3.2 and 3.7.
"""

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error
from sqlalchemy import select

from wardgate.errors import Forbidden, NotFound
from wardgate.portal.db.accounts import find_actor
from wardgate.portal.db.engine import Database
from wardgate.portal.db.identity_tables import AuthProvider, OneTimePasscode, PortalSession
from wardgate.portal.db.logs import write_portal_session
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.tables import Actor, new_id
from wardgate.portal.domain.subjects import USER_TYPES
from wardgate.portal.services.providers import create_provider

PASSCODE_LIFETIME: Final = timedelta(minutes=15)
MAX_ATTEMPTS: Final = 3
CODE_LENGTH: Final = 6
CODE_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz123456789"  # without l, o and 0, which people confuse
ADMIN: Final = "account_admin_user"
_LINK_BYTES: Final = 24
_hasher: Final = PasswordHasher()
_hashing: Final = ThreadPoolExecutor(2, thread_name_prefix="hashing")
"""A hash takes 50 ms and 64 MB on purpose: never in the event loop, and no more than two at once."""
_NOBODY: Final = _hasher.hash("nobody has this passcode")


@dataclass(frozen=True, slots=True)
class Secret:
    """What will be a passcode: its text, which is handed over, and the hash of it, which is stored."""

    text: str = field(repr=False)
    hash: str


async def new_code() -> Secret:
    """Six letters and digits, to be typed."""
    return await _secret("".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_LENGTH)))


async def new_link() -> Secret:
    """The end of a link."""
    return await _secret(secrets.token_urlsafe(_LINK_BYTES))


async def _secret(text: str) -> Secret:
    return Secret(text, await asyncio.get_running_loop().run_in_executor(_hashing, _hasher.hash, text))


async def _is_right(code_hash: str, text: str) -> bool:
    try:
        return await asyncio.get_running_loop().run_in_executor(_hashing, _hasher.verify, code_hash, text)
    except Argon2Error:
        return False


@dataclass(frozen=True, slots=True)
class Passcode:
    """A code that was made, and who it is for.

    Attributes:
        text: What is mailed; it is not stored.
    """

    id: str
    actor: Actor
    text: str

    def __repr__(self) -> str:
        return f"Passcode(id={self.id!r})"


async def start_code(unit: UnitOfWork, email: str, code: Secret) -> Passcode | None:
    """Stores a code for the person with that address; `None` if nobody there may sign in with one."""
    actor = await find_actor(unit, email.strip())
    if actor is None or actor.is_disabled or not actor.allow_email_otp_sign_in or actor.type not in USER_TYPES:
        return None
    return await _passcode(unit, actor, code)


async def start_link(unit: UnitOfWork, email_or_id: str, link: Secret) -> Passcode:
    """Stores a link for once, for an admin who cannot be mailed: an operator hands it over.

    Raises:
        NotFound: There is no such person.
        Forbidden: They are no admin, or disabled.
    """
    actor = await find_actor(unit, email_or_id)
    if actor is None:
        raise NotFound(f"the account has no actor {email_or_id}")
    if actor.type != ADMIN or actor.is_disabled:
        raise Forbidden(f"{actor.email or actor.name} is not an enabled admin")
    return await _passcode(unit, actor, link)


async def _passcode(unit: UnitOfWork, actor: Actor, secret: Secret) -> Passcode:
    for older in await unit.all(unit.select(OneTimePasscode).where(OneTimePasscode.actor_id == actor.id)):
        await unit.delete(older)
    row = OneTimePasscode(
        account_id=unit.account_id,
        id=new_id(),
        actor_id=actor.id,
        code_hash=secret.hash,
        attempts=0,
        expires_at=unit.at + PASSCODE_LIFETIME,
    )
    await unit.insert(row)
    return Passcode(row.id, actor, secret.text)


async def take_passcode(db: Database, scope: Scope, passcode_id: str, text: str, at: datetime) -> Actor | None:
    """The actor of a passcode, which is used up with that; `None` if it is wrong, over or used up."""
    found: tuple[str, str] | None = None
    async with db.writing(scope.subject) as unit:  # the attempt counts whatever becomes of it
        row = await unit.find(OneTimePasscode, passcode_id)
        if row is not None and row.expires_at > at and row.attempts < MAX_ATTEMPTS:
            found = row.code_hash, row.actor_id
            await unit.update(row, silent=True, attempts=row.attempts + 1)
    code_hash, actor_id = found or (_NOBODY, "")
    if not await _is_right(code_hash, text.strip()) or found is None:
        return None
    async with db.writing(scope.subject) as unit:
        row = await unit.find(OneTimePasscode, passcode_id)
        actor = await unit.find(Actor, actor_id)
        if row is None or actor is None or actor.is_disabled:
            return None
        await unit.delete(row)
    return actor


async def open_session(unit: UnitOfWork, actor: Actor) -> PortalSession:
    """Signs an admin in; the unit's subject says from where.

    Raises:
        Forbidden: They are no admin.
    """
    if actor.type != ADMIN or actor.is_disabled:
        raise Forbidden("only admins may use the pages")
    provider = await email_provider(unit)
    place = unit.subject.location
    row = PortalSession(
        account_id=unit.account_id,
        id=new_id(),
        actor_id=actor.id,
        auth_provider_id=provider.id,
        user_agent=(unit.subject.user_agent or "")[:255] or None,
        remote_ip=unit.subject.remote_ip,
        remote_ip_location_region=place.region,
        remote_ip_location_city=place.city,
        remote_ip_location_lat=place.lat,
        remote_ip_location_lon=place.lon,
        expires_at=unit.at + timedelta(seconds=provider.portal_session_lifetime_secs),
    )
    await unit.insert(row)
    write_portal_session(unit)
    return row


async def email_provider(unit: UnitOfWork) -> AuthProvider:
    """The account's sign-in by e-mail; accounts of earlier versions get theirs now."""
    query = unit.select(AuthProvider).where(AuthProvider.type == "email_otp")
    provider = (await unit.session.scalars(query)).one_or_none()
    if provider is None:
        provider = await create_provider(unit, "email_otp", {})
    return provider


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session that lives, and whose it is."""

    session: PortalSession
    actor: Actor


async def find_session(scope: Scope, session_id: str, at: datetime) -> SignedIn | None:
    """The session with that id, if it is not over and its admin still is one."""
    query = (
        select(PortalSession, Actor)
        .join(Actor, (Actor.account_id == PortalSession.account_id) & (Actor.id == PortalSession.actor_id))
        .join(
            AuthProvider,
            (AuthProvider.account_id == PortalSession.account_id) & (AuthProvider.id == PortalSession.auth_provider_id),
        )
        .where(
            PortalSession.account_id == scope.account_id,
            PortalSession.id == session_id,
            PortalSession.expires_at > at,
            Actor.type == ADMIN,
            Actor.is_disabled.is_(False),
            AuthProvider.is_disabled.is_(False),
        )
    )
    found = (await scope.session.execute(query)).one_or_none()
    return None if found is None else SignedIn(*found)


async def end_session(unit: UnitOfWork, session_id: str) -> None:
    """Signs out."""
    row = await unit.find(PortalSession, session_id)
    if row is not None:
        await unit.delete(row)
