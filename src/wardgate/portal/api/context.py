"""What every route needs: the database, who is online, and who asks.

A caller is an API client with a token that is alive. After that comes the rate limit of its account: a token bucket,
shared by all of the account's tokens, in which each request costs ten.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Final, Protocol
from urllib.parse import unquote

from fastapi import Depends, Request

from wardgate.errors import WardgateError
from wardgate.ids import AccountId, DeviceId, SiteId
from wardgate.portal.clock import Clock
from wardgate.portal.db import logs
from wardgate.portal.db.engine import Database
from wardgate.portal.db.logs import RequestSeen
from wardgate.portal.db.refusals import Refusals
from wardgate.portal.db.tokens import Owner, api_token_owner, stamp_api_token
from wardgate.portal.domain import tokens
from wardgate.portal.domain.selection import OnlineGateway
from wardgate.portal.domain.subjects import Location, Subject

REQUEST_COST: Final = 10.0
MAX_BUCKETS: Final = 10_000


class Unauthorized(WardgateError):
    """The request has no token that is alive."""


class TooManyRequests(WardgateError):
    """The account asks too often.

    Attributes:
        retry_after_s: When the next request will pass.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("The account makes too many requests.")
        self.retry_after_s = retry_after_s


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

    async def caller(self, request: Request) -> "Caller":
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
        remote_ip, user_agent = self.trusted_ip(request), request.headers.get("user-agent")
        self._take(owner)
        subject = owner.subject("api", remote_ip, user_agent, self.trusted_location(request))
        subject = replace(subject, force_reason=force_reason(request))
        async with self.db.unscoped_write() as session:  # a request that cannot be logged fails
            await stamp_api_token(session, owner.api_token, at, remote_ip, user_agent)
            logs.write_api_request(session, subject, _seen(request), at, self.db.sequencer)
        return Caller(self, subject)

    def _take(self, owner: Owner) -> None:
        limits = owner.account.limits
        rate = float(limits.get("api_refill_rate") or self.limits.refill_rate)
        capacity = float(limits.get("api_capacity") or self.limits.capacity)
        now = self.clock.now()
        level, at = self._buckets.pop(owner.account.id, (capacity, now))
        level = min(capacity, level + (now - at) * rate)
        passes = level >= REQUEST_COST
        self._buckets[owner.account.id] = (level - REQUEST_COST if passes else level, now)
        while len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if not passes:
            raise TooManyRequests((REQUEST_COST - level) / rate)


def force_reason(request: Request) -> str | None:
    """Why a policy test may break by this request, as `X-Force-Reason` says; percent-encoded if it is not ASCII."""
    return unquote(request.headers.get(FORCE_REASON, "")).strip()[:MAX_REASON] or None


def _seen(request: Request) -> RequestSeen:
    length = request.headers.get("content-length", "")
    return RequestSeen(
        request.method,
        request.url.path,
        int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None,
        getattr(request.state, "request_id", None),
    )


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated request."""

    context: ApiContext
    subject: Subject

    @property
    def db(self) -> Database:
        """The database."""
        return self.context.db


TRIAL: Final = "wardgate.trial"
"""Where the scope of a request that is only tried names its context and its subject: the portal made it itself."""
FORCE_REASON: Final = "x-force-reason"
MAX_REASON: Final = 1024


async def authenticated(request: Request) -> Caller:
    """The dependency that puts a `Caller` into a route."""
    if TRIAL in request.scope:
        return Caller(*request.scope[TRIAL])
    context: ApiContext = request.app.state.api
    return await context.caller(request)


Authenticated = Annotated[Caller, Depends(authenticated)]
