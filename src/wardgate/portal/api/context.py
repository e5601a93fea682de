"""What every route needs: the database, who is online, and who asks.

A caller is an API client with a token that is alive. After that comes the rate limit of its account: a token bucket,
shared by all of the account's tokens, in which each request costs ten.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Final, Protocol, TypeVar
from urllib.parse import unquote

from fastapi import Depends, Request, Response
from pydantic import BaseModel

from wardgate.ids import AccountId, DeviceId, SiteId
from wardgate.portal.api.idempotency import Idempotency
from wardgate.portal.api.objects import Data
from wardgate.portal.api.problems import NotModified, PreconditionFailed, TooManyRequests, Unauthorized
from wardgate.portal.clock import Clock
from wardgate.portal.db import logs
from wardgate.portal.db.engine import Database
from wardgate.portal.db.logs import RequestSeen
from wardgate.portal.db.refusals import Refusals
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.tokens import Owner, api_token_owner, stamp_api_token
from wardgate.portal.domain import tokens
from wardgate.portal.domain.selection import OnlineGateway
from wardgate.portal.domain.subjects import Location, Subject

_Item = TypeVar("_Item", bound=BaseModel)
REQUEST_COST: Final = 10.0
MAX_BUCKETS: Final = 10_000


class Presence(Protocol):
    """Who is connected now."""

    def is_online(self, account_id: AccountId, device_id: DeviceId) -> bool:
        """Whether a client or gateway is connected."""

    def gateways_of(self, account_id: AccountId, site_id: SiteId) -> Sequence[OnlineGateway]:
        """The site's gateways that are connected."""


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """The bucket of an account that has no limits of its own.

    The original's figures (10 and 200) allow one request a second, which a script of a few commands meets at once; here
    they are twenty times that.
    """

    refill_rate: float = 200.0
    capacity: float = 4000.0


@dataclass
class ApiContext:
    """The doors' shared tools; one for each application.

    Attributes:
        trusted_ip: Gives the address a request came from.
        refusals: What was refused on this node and is not written yet.
        trusted_location: Gives the place it came from.
    """

    db: Database
    clock: Clock
    presence: Presence
    limits: ApiLimits = ApiLimits()
    trusted_ip: Callable[[Request], str | None] = lambda request: request.client.host if request.client else None
    refusals: Refusals | None = None
    trusted_location: Callable[[Request], Location] = lambda request: Location()
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    async def caller(self, request: Request, response: Response) -> "Caller":
        """Who asks.

        Raises:
            Unauthorized: Nobody who may.
            TooManyRequests: The account is over its rate.
        """
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        token = tokens.parse(text.strip()) if scheme.lower() == "bearer" else None
        if token is None or token.kind != "api":
            raise Unauthorized("The request needs `Authorization: Bearer` with an API token.")
        at = self.clock.utc_now()
        async with self.db.unscoped() as session:
            owner = await api_token_owner(session, token, at)
        if owner is None or owner.api_token is None:
            raise Unauthorized("The API token is unknown, revoked or expired, or its owner is disabled.")
        request.state.is_known = True
        remote_ip, user_agent = self.trusted_ip(request), request.headers.get("user-agent")
        self._take(owner, request)
        subject = owner.subject("api", remote_ip, user_agent, self.trusted_location(request))
        subject = replace(subject, force_reason=force_reason(request))
        async with self.db.unscoped_write() as session:  # a request that cannot be logged fails
            await stamp_api_token(session, owner.api_token, at, remote_ip, user_agent)
            logs.write_api_request(session, subject, _seen(request), at, self.db.sequencer)
        caller = Caller(self, subject, request, response)
        await caller.idempotency.begin()
        return caller

    def _take(self, owner: Owner, request: Request) -> None:
        limits = owner.account.limits
        rate = float(limits.get("api_refill_rate") or self.limits.refill_rate)
        capacity = float(limits.get("api_capacity") or self.limits.capacity)
        now = self.clock.now()
        level, at = self._buckets.pop(owner.account.id, (capacity, now))
        level = min(capacity, level + (now - at) * rate)
        passes = level >= REQUEST_COST
        level = level - REQUEST_COST if passes else level
        self._buckets[owner.account.id] = (level, now)
        while len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        _tell_rate(request, level, capacity, rate)
        if not passes:
            raise TooManyRequests((REQUEST_COST - level) / rate)


def force_reason(request: Request) -> str | None:
    """Why a policy test may break by this request, as `X-Force-Reason` says; percent-encoded if it is not ASCII."""
    return unquote(request.headers.get(FORCE_REASON, "")).strip()[:MAX_REASON] or None


def _tell_rate(request: Request, level: float, capacity: float, rate: float) -> None:
    """What is left, in requests, and in how many seconds all of it is back."""
    request.state.answer.headers |= {
        "RateLimit-Limit": str(int(capacity / REQUEST_COST)),
        "RateLimit-Remaining": str(int(level / REQUEST_COST)),
        "RateLimit-Reset": str(math.ceil((capacity - level) / rate)),
    }


def _seen(request: Request) -> RequestSeen:
    length = request.headers.get("content-length", "")
    return RequestSeen(
        request.method,
        request.url.path,
        int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None,
        request.state.answer.request_id,
    )


class Caller:
    """An authenticated request, and what its answer gets beside the body."""

    def __init__(self, context: ApiContext, subject: Subject, request: Request, response: Response) -> None:
        self.context = context
        self.subject = subject
        self.request = request
        self.idempotency = Idempotency(context.db, subject, request, context.clock.utc_now())
        self._response = response

    @property
    def db(self) -> Database:
        """The database."""
        return self.context.db

    def reading(self) -> AbstractAsyncContextManager[Scope]:
        """Reads in the caller's account."""
        return self.db.scoped(self.subject)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[UnitOfWork]:
        """Changes the caller's account; the request's idempotency key is used up with the changes, or not at all."""
        async with self.db.writing(self.subject) as unit:
            await self.idempotency.claim(unit)
            yield unit
        self.idempotency.committed()

    def found(self, shown: _Item) -> Data[_Item]:
        """One thing as an answer, with its ETag.

        Raises:
            NotModified: The caller has exactly this (`If-None-Match`).
        """
        tag = etag_of(shown)
        if self.request.method == "GET" and matches(self.request.headers.get("if-none-match"), tag):
            raise NotModified(tag)
        self._response.headers["ETag"] = tag
        return Data(data=shown)

    def created(self, shown: _Item, path: str) -> Data[_Item]:
        """A new thing as an answer, with its place and ETag."""
        self._response.headers["Location"] = path
        self._response.headers["ETag"] = etag_of(shown)
        return Data(data=shown)

    def deprecated(self, sunset: str) -> None:
        """Says that the route will go."""
        self._response.headers["Deprecation"] = "true"
        self._response.headers["Sunset"] = sunset

    async def expect(self, current: Callable[[], Awaitable[BaseModel]]) -> None:
        """Lets a change pass if it is of what the caller knows (`If-Match`).

        Args:
            current: Gives the thing as it is now; asked only if the caller has a condition.

        Raises:
            PreconditionFailed: It is another.
        """
        condition = self.request.headers.get("if-match")
        if condition is None:
            return
        tag = etag_of(await current())
        if not matches(condition, tag):
            raise PreconditionFailed(f"It has changed: its ETag is {tag} now.", etag=tag)


def etag_of(shown: BaseModel) -> str:
    """A strong validator of a thing as the API shows it."""
    return f'"{hashlib.sha256(shown.model_dump_json().encode()).hexdigest()[:32]}"'


def matches(condition: str | None, tag: str) -> bool:
    """Whether a list of ETags, or `*`, has this one."""
    if condition is None:
        return False
    return condition.strip() == "*" or tag in [one.strip() for one in condition.split(",")]


TRIAL: Final = "wardgate.trial"
"""Where the scope of a request that is only tried names its context and its subject: the portal made it itself."""
FORCE_REASON: Final = "x-force-reason"
MAX_REASON: Final = 1024


async def authenticated(request: Request, response: Response) -> Caller:
    """The dependency that puts a `Caller` into a route."""
    if TRIAL in request.scope:
        trial_context, subject = request.scope[TRIAL]
        return Caller(trial_context, subject, request, response)
    context: ApiContext = request.app.state.api
    return await context.caller(request, response)


Authenticated = Annotated[Caller, Depends(authenticated)]
