"""Where devices upload their flow logs: `POST /ingestion/flow_logs`, with limits of its own and outside of OpenAPI.

The order of checks is that of portal-domain-2 A7: the rate of the address, the size, the shape, and then the token.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from wardgate.portal.api.context import ApiContext
from wardgate.portal.api.problems import BadRequest, TooManyRequests, Unauthorized, problem
from wardgate.portal.clock import Clock
from wardgate.portal.db.flow_logs import store_flows
from wardgate.portal.domain.flow_records import MalformedUpload, Upload, read_upload
from wardgate.portal.services.flow_logs import read_attribution

MAX_BODY: Final = 10_000_000
_MAX_HELD: Final = 64_000_000
_READ_WITHIN_S: Final = 60.0
_MAX_BUCKETS: Final = 50_000


router = APIRouter()


class _TooLarge(Exception):
    """The body is above `MAX_BODY`."""


class _Busy(Exception):
    """The bodies that are being read fill the memory set aside for them."""


@dataclass
class Ingestion:
    """The door's limits: a token bucket for each source address, and the bytes of all bodies that are held at once.

    Attributes:
        count: Told of each request's outcome.
    """

    clock: Clock
    refill_rate: float = 1.0
    capacity: float = 1.0
    count: Callable[[str], None] = lambda outcome: None
    _buckets: OrderedDict[str | None, tuple[float, float]] = field(default_factory=OrderedDict)
    _held: int = 0

    def take(self, remote_ip: str | None) -> None:
        """Counts one request.

        Raises:
            TooManyRequests: There were too many from this address.
        """
        now = self.clock.now()
        level, at = self._buckets.pop(remote_ip, (self.capacity, now))
        level = min(self.capacity, level + (now - at) * self.refill_rate)
        passes = level >= 1
        self._buckets[remote_ip] = (level - 1 if passes else level, now)
        while len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if not passes:
            raise TooManyRequests(max(1.0, (1 - level) / self.refill_rate))

    async def read(self, request: Request) -> bytes:
        """The body, of which no more is read than is accepted.

        Raises:
            _TooLarge: It is above `MAX_BODY`.
            _Busy: All bodies together are above their bound.
            TimeoutError: It did not come in time.
        """
        length = request.headers.get("content-length", "0")
        if len(length) > 18 or (length.isascii() and length.isdigit() and int(length) > MAX_BODY):
            raise _TooLarge
        body = bytearray()
        try:
            async with asyncio.timeout(_READ_WITHIN_S):
                async for chunk in request.stream():
                    if len(body) + len(chunk) > MAX_BODY:
                        raise _TooLarge
                    if self._held + len(chunk) > _MAX_HELD:
                        raise _Busy
                    self._held += len(chunk)
                    body += chunk
        finally:
            self._held -= len(body)
        return bytes(body)


@router.post("/ingestion/flow_logs", include_in_schema=False)
async def ingest_flow_logs(request: Request) -> Response:
    """Stores the flows that one side of a grant reports."""
    context: ApiContext = request.app.state.api
    ingestion: Ingestion = request.app.state.ingestion
    status = 500
    try:
        ingestion.take(context.trusted_ip(request))
        response = await _ingest(request, context, ingestion)
        status = response.status_code
    except TooManyRequests as error:
        status = 429
        after = str(math.ceil(error.retry_after_s))
        response = problem(429, "The address uploads too often.", headers={"Retry-After": after})
    except (Unauthorized, BadRequest) as error:
        status = 401 if isinstance(error, Unauthorized) else 400
        raise
    finally:
        ingestion.count(str(status))
    return response


async def _ingest(request: Request, context: ApiContext, ingestion: Ingestion) -> Response:
    try:
        upload = await asyncio.to_thread(read_upload, await ingestion.read(request))
    except _TooLarge:
        return problem(413, f"The body may have at most {MAX_BODY} bytes.")
    except _Busy:
        return problem(503, "Too many uploads at once.", headers={"Retry-After": "1"})
    except TimeoutError:
        raise BadRequest(f"The body must arrive within {_READ_WITHIN_S:.0f} seconds.") from None
    except (MalformedUpload, ClientDisconnect) as error:
        raise BadRequest(str(error)) from None
    at = context.clock.utc_now()
    attribution = await read_attribution(context.db, _bearer(request), at)
    if attribution is None:
        raise Unauthorized("The flow-log token is missing, not genuine or over, or does not allow uploads.")
    request.state.is_known = True
    if upload.authorization_ids - {attribution["policy_authorization_id"]}:
        errors = {"policy_authorization_id": ["must be that of the token"]}
        return problem(422, "A record is of another authorization; nothing was stored.", validation_errors=errors)
    await store_flows(context.db, attribution, upload.records, at)
    return _answer(upload)


def _answer(upload: Upload) -> Response:
    if upload.errors:
        detail = f"{len(upload.errors)} records are not acceptable; the others were stored."
        return problem(422, detail, validation_errors=upload.errors)
    return JSONResponse({"data": {"status": "ok"}})


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
