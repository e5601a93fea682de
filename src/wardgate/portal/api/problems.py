"""Every error as `application/problem+json` (RFC 9457), whoever raised it."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from wardgate.errors import Conflict, DatabaseUnavailable, Forbidden, InvalidInput, NotFound
from wardgate.portal.api.context import TooManyRequests, Unauthorized

log = structlog.get_logger("wardgate.portal")
MEDIA_TYPE = "application/problem+json"
STATUS_OF: Mapping[type[Exception], int] = {
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    InvalidInput: 422,
    TooManyRequests: 429,
    DatabaseUnavailable: 503,
}
DATABASE_RETRY_S = 5


class BadRequest(HTTPException):
    """The request is not of the route's form."""

    def __init__(self, detail: str) -> None:
        super().__init__(400, detail)


def problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None, validation_errors: Any = None
) -> JSONResponse:
    """An error's body."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if validation_errors is not None:
        body["validation_errors"] = validation_errors
    return JSONResponse(body, status, dict(headers or {}), MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Renders all errors of an application in that form."""
    for kind in STATUS_OF:
        app.add_exception_handler(kind, _domain_error)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unforeseen)


async def _domain_error(request: Request, error: Exception) -> JSONResponse:
    headers = {"Retry-After": str(math.ceil(error.retry_after_s))} if isinstance(error, TooManyRequests) else None
    if isinstance(error, DatabaseUnavailable):
        log.warning("a request found the database unavailable", path=request.url.path, why=str(error))
        headers = {"Retry-After": str(DATABASE_RETRY_S)}
    if isinstance(error, Unauthorized):
        headers = {"WWW-Authenticate": "Bearer"}
    if isinstance(error, InvalidInput):
        if "page_cursor" in error.fields:
            return problem(400, f"page_cursor {error.fields['page_cursor'][0]}")
        return problem(422, "The data is not acceptable.", validation_errors=error.fields)
    return problem(STATUS_OF[type(error)], str(error), headers=headers)


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    in_fields: dict[str, list[str]] = {}
    for one in error.errors():
        place: Sequence[Any] = one["loc"]
        if place[0] != "body" or len(place) < 3:
            name = ".".join(str(part) for part in place[1:]) or "body"
            return problem(400, f"{name}: {one['msg']}")
        in_fields.setdefault(str(place[2]), []).append(str(one["msg"]))
    return problem(422, "The data is not acceptable.", validation_errors=in_fields)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), headers=error.headers)


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    return problem(500, "The portal met an error that it did not expect; its log says more.")
