"""Every error as `application/problem+json` (RFC 9457), whoever raised it.

The members `type`, `title`, `status`, `detail` and `validation_errors` are the original's. Ours are `code`, which names
the rule (`codes.py`), what belongs to that code, and `errors` beside `validation_errors`: one object for each mistake
with the field, what was given and what is accepted.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match

from wardgate.errors import DatabaseUnavailable, DomainError, FieldProblem, InvalidInput
from wardgate.portal.api.codes import CODES
from wardgate.portal.domain.checks import BLANK

log = structlog.get_logger("wardgate.portal")
DATABASE_RETRY_S: Final = 5
MEDIA_TYPE: Final = "application/problem+json"
_CODE_OF_STATUS: Final = {
    400: "malformed_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    412: "precondition_failed",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "validation_failed",
    429: "rate_limited",
    503: "unavailable",
}
_LISTS: Final = ("memberships", "pool_members")
_MAX_GIVEN: Final = 500
_INDEX: Final = re.compile(r"([^\[]+)\[([0-9]+)\]", re.ASCII)


class BadRequest(HTTPException):
    """The request is not of the route's form."""

    def __init__(self, detail: str, code: str = "malformed_request") -> None:
        super().__init__(400, detail)
        self.code = code


class Unauthorized(DomainError):
    """The request has no token that is alive."""

    code = "unauthenticated"


class TooManyRequests(DomainError):
    """The account asks too often.

    Attributes:
        retry_after_s: When the next request will pass.
    """

    code = "rate_limited"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("The account makes too many requests.")
        self.retry_after_s = retry_after_s


class PreconditionFailed(DomainError):
    """The thing is in another state than the caller thinks."""

    code = "precondition_failed"


class NotModified(Exception):
    """The caller has the current state already."""

    def __init__(self, etag: str) -> None:
        super().__init__(etag)
        self.etag = etag


class Replayed(Exception):
    """The request was answered before; this is the answer."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(status)
        self.answer = Response(body, status, dict(headers), "application/json")


def problem(
    kind: int | str, detail: str, *, headers: Mapping[str, str] | None = None, **members: object
) -> JSONResponse:
    """An error's answer.

    Args:
        kind: One of `CODES`, or a status, which stands for its most general code.
        members: More members of the body.
    """
    code = kind if isinstance(kind, str) else _CODE_OF_STATUS.get(kind, "internal_error")
    status = CODES[code][0] if isinstance(kind, str) else kind
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, "code": code}
    return JSONResponse({**body, **members}, status, dict(headers or {}), MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Renders all errors of an application in that form."""
    app.add_exception_handler(DomainError, _domain_error)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(NotModified, _not_modified)
    app.add_exception_handler(Replayed, _replayed)


async def _domain_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DomainError)
    headers = {}
    if isinstance(error, TooManyRequests):
        headers = {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
    elif isinstance(error, DatabaseUnavailable):
        log.warning("a request found the database unavailable", path=request.url.path, why=str(error))
        headers = {"Retry-After": str(DATABASE_RETRY_S)}
    elif isinstance(error, Unauthorized):
        headers = {"WWW-Authenticate": "Bearer"}
    if isinstance(error, InvalidInput):
        if "page_cursor" in error.fields:
            return problem("invalid_cursor", f"page_cursor {error.fields['page_cursor'][0]}")
        return _invalid(request, error.problems)
    code = error.code if error.code in CODES else "internal_error"
    return problem(code, str(error), headers=headers, **error.details)


async def _replayed(request: Request, error: Exception) -> Response:
    assert isinstance(error, Replayed)
    error.answer.headers["Idempotency-Replayed"] = "true"
    return error.answer


async def _not_modified(request: Request, error: Exception) -> Response:
    assert isinstance(error, NotModified)
    return Response(status_code=304, headers={"ETag": error.etag})


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    """Pydantic's errors: of the path, the query and the form are 400; inside the body's object they are of fields."""
    assert isinstance(error, RequestValidationError)
    found: list[FieldProblem] = []
    for one in error.errors():
        place: Sequence[Any] = one["loc"]
        if place[0] == "path":
            return problem("invalid_id", f"{place[-1]} is not a UUID.")
        if place[0] != "body":
            name = ".".join(str(part) for part in place[1:])
            return problem("invalid_parameter", f"{name}: {one['msg']}", accepted=_accepted(one))
        if len(place) < 3:
            wrapper = str(place[1]) if len(place) > 1 and one["type"] != "json_invalid" else "an object"
            return problem("malformed_request", f"The body needs {wrapper}: {one['msg']}")
        message, code = (BLANK, "required") if one["type"] == "missing" else (str(one["msg"]), "invalid")
        found.append(FieldProblem(_path(place[2:]), message, code, _accepted(one)))
    return _invalid(request, found)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return problem("no_such_route", "There is no such path.")
    if error.status_code == 405:
        allowed = ", ".join(_methods([*request.app.state.rest_routes, *request.app.routes], request.scope))
        return problem("method_not_allowed", f"The path has {allowed}.", headers={"Allow": allowed})
    kind = error.code if isinstance(error, BadRequest) else error.status_code
    return problem(kind, str(error.detail), headers=error.headers)


def _methods(routes: Iterable[BaseRoute], scope: Any) -> list[str]:
    """The methods of every route with that path."""
    found: set[str] = set()
    for route in routes:
        if route.matches(scope)[0] is Match.PARTIAL:
            found |= set(getattr(route, "methods", None) or ())
    return sorted(found | {"HEAD"} if "GET" in found else found)


def _invalid(request: Request, found: Sequence[FieldProblem]) -> JSONResponse:
    body = getattr(getattr(request.state, "answer", None), "body", None)
    errors = [
        {"field": one.field, "code": one.code, "message": one.message, "given": given(body, one.field)}
        | ({"accepted": one.accepted} if one.accepted else {})
        for one in found
    ]
    return problem("validation_failed", "The data is not acceptable.", validation_errors=nested(found), errors=errors)


def nested(found: Iterable[FieldProblem]) -> dict[str, Any]:
    """Mistakes as the original shows them: `filters[1].ports` is a list of maps, of which the second has `ports`."""
    fields: dict[str, Any] = {}
    for one in found:
        first, _, rest = one.field.partition(".")
        match = _INDEX.fullmatch(first)
        name = match[1] if match else first
        if match is None or name in _LISTS:
            current = fields.setdefault(name, [])
            current.append(one.message)
            continue
        maps = fields.setdefault(name, [])
        index = int(match[2])
        maps.extend({} for _ in range(index + 1 - len(maps)))
        if isinstance(maps[index], dict):
            maps[index].setdefault(rest.partition("[")[0] or "base", []).append(one.message)
    return fields


def given(body: Any, place: str) -> Any:
    """What the body has at a field; long values are cut, and what is not there is `None`."""
    value = next(iter(body.values())) if isinstance(body, dict) and len(body) == 1 else body
    for part in place.replace("[", ".[").split("."):
        if part.startswith("[") and isinstance(value, list):
            index = int(part[1:-1])
            value = value[index] if index < len(value) else None
        elif isinstance(value, dict):
            value = value.get(part)
        elif not (isinstance(value, list) and part in _LISTS):
            return None
    text = json.dumps(value)
    return value if len(text) <= _MAX_GIVEN else text[:_MAX_GIVEN] + "…"


def _path(parts: Sequence[Any]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".")


def _accepted(one: Mapping[str, Any]) -> str | None:
    context = one.get("ctx") or {}
    return str(context["expected"]) if "expected" in context else None
