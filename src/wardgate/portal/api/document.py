"""The API's own description, OpenAPI 3.1: as FastAPI makes it from the routes, with every answer that they really give.

Answers that all routes share (problems, headers) are described once, under `components`.
"""

from copy import deepcopy
from html import escape
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from wardgate.portal.api.codes import CODES, FIELD_CODES
from wardgate.portal.api.problems import MEDIA_TYPE

_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457. `code` names the rule; some codes come with more members.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": list(CODES)},
    },
}
_VALIDATION_PROBLEM: Final[dict[str, Any]] = {
    "allOf": [{"$ref": "#/components/schemas/Problem"}],
    "type": "object",
    "properties": {
        "validation_errors": {
            "type": "object",
            "description": "Sentences by field; lists of objects have a map for each object.",
            "additionalProperties": {"type": "array"},
        },
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "code", "message", "given"],
                "properties": {
                    "field": {"type": "string", "examples": ["filters[1].ports"]},
                    "code": {"type": "string", "enum": list(FIELD_CODES)},
                    "message": {"type": "string"},
                    "given": {"description": "What the request had there."},
                    "accepted": {"type": "string"},
                },
            },
        },
    },
}
_HEADERS: Final[dict[str, Any]] = {
    "RequestId": {"description": "The caller's own if it has 20 to 200 characters.", "schema": {"type": "string"}},
    "RateLimitLimit": {"description": "Requests that can be made at once.", "schema": {"type": "integer"}},
    "RateLimitRemaining": {"description": "Of them, how many are left.", "schema": {"type": "integer"}},
    "RateLimitReset": {"description": "Seconds until all are back.", "schema": {"type": "integer"}},
    "ETag": {"description": "Names this state of the thing.", "schema": {"type": "string"}},
    "Location": {"description": "Where the new thing is.", "schema": {"type": "string"}},
    "RetryAfter": {"description": "Seconds until a request passes.", "schema": {"type": "integer"}},
    "Allow": {"description": "The methods that the path has.", "schema": {"type": "string"}},
    "Deprecation": {"description": "The route will go.", "schema": {"type": "string", "const": "true"}},
    "Sunset": {"description": "When it goes.", "schema": {"type": "string"}},
    "WWWAuthenticate": {"description": "Bearer.", "schema": {"type": "string"}},
}
_NAMES: Final = {
    "RequestId": "x-request-id",
    "RateLimitLimit": "RateLimit-Limit",
    "RateLimitRemaining": "RateLimit-Remaining",
    "RateLimitReset": "RateLimit-Reset",
    "RetryAfter": "Retry-After",
    "WWWAuthenticate": "WWW-Authenticate",
}
_RATE: Final = ("RateLimitLimit", "RateLimitRemaining", "RateLimitReset")
_ALWAYS: Final = (401, 406, 414, 429, 431, 500, 503)
_CONDITIONS: Final = {
    "if-none-match": "ETags of states that the caller has: answered with 304 if the thing is in one of them.",
    "if-match": "ETags of states that may be changed: else the answer is 412.",
    "idempotency-key": "Sent again within 24 hours, it gets the first answer, and nothing is done twice.",
}
_WITHOUT_LOCATION: Final = ("client_tokens", "gateway_tokens", "token", "rotate")


def of(app: FastAPI, rest_url: str | None = None) -> dict[str, Any]:
    """The document; made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            openapi_version="3.1.0",
            routes=app.routes,
            description="What an admin can do in the portal, for programs. Problem codes: docs/problems.md.",
            servers=[{"url": rest_url}] if rest_url else None,
        )
        app.openapi_schema = _completed(made)
    return app.openapi_schema


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"], schemas["ValidationProblem"] = deepcopy(_PROBLEM), deepcopy(_VALIDATION_PROBLEM)
    components["headers"] = deepcopy(_HEADERS)
    components["responses"] = {f"Problem{status}": _problem_answer(status) for status in _statuses()}
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "description": "An API token."}}
    document["security"] = [{"token": []}]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(path, method, operation)
    return document


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    success = "201" if "201" in operation["responses"] else "200"
    is_single = _is_single(path, method)
    shown = operation["responses"][success]
    names = ["RequestId", *_RATE]
    names += ["ETag"] if is_single and method != "delete" else []
    if method == "post" and path.rsplit("/", 1)[1] not in _WITHOUT_LOCATION:
        names += ["Location", "ETag"]
    names += ["Deprecation", "Sunset"] if operation.get("deprecated") else []
    shown["headers"] = _headers(names)
    answers = {success: shown}
    if method == "get" and is_single:
        answers["304"] = {"description": "Not Modified", "headers": _headers(["RequestId", *_RATE, "ETag"])}
    answers |= {
        str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in statuses_of(path, method)
    }
    operation["responses"] = answers
    parameters = operation.setdefault("parameters", [])
    for name in _conditions_of(method, is_single):
        schema = (
            {"type": "string"} if name != "idempotency-key" else {"type": "string", "minLength": 1, "maxLength": 255}
        )
        parameters.append({"name": name, "in": "header", "schema": schema, "description": _CONDITIONS[name]})


def statuses_of(path: str, method: str) -> list[int]:
    """The problems that a route may answer with."""
    found = {*_ALWAYS, 400}
    if "{" in path:
        found |= {404}
    if path in ("/explain", "/reach"):
        found |= {404, 422} | ({409} if path == "/reach" else set())
    if method != "get":
        found |= {403, 408, 409, 413, 415, 422} | ({404} if path == "/policies" else set())
    if "intune" in path or "iru" in path:
        found |= {403}
    if "if-match" in _conditions_of(method, _is_single(path, method)):
        found |= {412}
    return sorted(found)


def _conditions_of(method: str, is_single: bool) -> list[str]:
    if method == "post":
        return ["idempotency-key"]
    if not is_single:
        return []
    return ["if-none-match"] if method == "get" else ["if-match"]


def _is_single(path: str, method: str) -> bool:
    """Whether a route is about one thing that has an ETag."""
    if method == "post" or "gateway_tokens" in path or path.endswith(("memberships", "pool_members")):
        return False
    return path.endswith(("}", "verify")) or path == "/account"


def _statuses() -> list[int]:
    return sorted({status for status, _ in CODES.values()})


def _problem_answer(status: int) -> dict[str, Any]:
    codes = [f"`{code}`: {text}" for code, (one, text) in CODES.items() if one == status]
    names = ["RequestId", *([] if status == 401 else _RATE)]
    names += {429: ["RetryAfter"], 503: ["RetryAfter"], 401: ["WWWAuthenticate"], 405: ["Allow"]}.get(status, [])
    schema = "ValidationProblem" if status == 422 else "Problem"
    return {
        "description": " ".join(codes),
        "headers": _headers(names),
        "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _headers(names: list[str]) -> dict[str, Any]:
    return {_NAMES.get(name, name): {"$ref": f"#/components/headers/{name}"} for name in names}


def page(document: dict[str, Any]) -> str:
    """The document for people: one page without scripts, and without anything from elsewhere."""
    rows = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            words = escape(operation.get("description") or operation.get("summary", ""))
            fields = ", ".join(one["name"] for one in operation.get("parameters", []) if one["in"] == "query")
            rows.append(
                f"<tr><td><code>{method.upper()}</code></td><td><code>{escape(path)}</code></td>"
                f"<td>{words}</td><td><code>{escape(fields)}</code></td></tr>"
            )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>REST API</title><style>'
        "body{font-family:sans-serif;margin:2em}td{padding:.3em .8em;vertical-align:top;border-top:1px solid #ccc}"
        '</style></head><body><h1>REST API</h1><p>For programs: <a href="/openapi.json">openapi.json</a></p>'
        f"<table><tr><th></th><th>Path</th><th></th><th>Query</th></tr>{''.join(rows)}</table></body></html>\n"
    )
