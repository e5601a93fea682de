"""What happens to a REST request before any route sees it, in the order of the original.

A request id; another host name is sent on; a body is read within bounds and parsed; the media types are looked at. What
comes back gets the headers that belong on every answer, and an error that nobody foresaw becomes a problem. Paths that
are not of the REST API pass, with a request id only.

Source: portal-domain-2, A1 to A3.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import structlog
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wardgate.portal.api.problems import problem
from wardgate.portal.domain import tokens

MAX_BODY: Final = 8_000_000
MAX_BODY_OF_STRANGERS: Final = 64 * 1024
REQUEST_ID: Final = b"x-request-id"
_JSON_TYPES: Final = ("application/json", "application/problem+json", "application/*", "*/*")
_BODY_METHODS: Final = ("POST", "PUT", "PATCH", "DELETE")
_log = structlog.get_logger("wardgate.portal")
Keep = Callable[[int, Headers, bytes], Awaitable[None]]


@dataclass
class Answer:
    """What a route wants of the answer beside its body; it is found at `state.answer` of the request.

    Attributes:
        headers: Go on every answer, problems as well.
        body: What the request brought, parsed.
        keep: Gets status, headers and body of a success before they are sent.
    """

    request_id: str
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    keep: Keep | None = None


class Front:
    """Stands before the routes.

    Args:
        is_rest: Whether a path is of the REST API.
        rest_url: Where the REST API is, if requests under other host names are sent there.
    """

    def __init__(self, app: ASGIApp, is_rest: Callable[[str], bool], rest_url: str | None = None) -> None:
        self._app = app
        self._is_rest = is_rest
        self._rest_url = rest_url.rstrip("/") if rest_url else None
        self._rest_host = (urlsplit(rest_url).hostname or "").lower() if rest_url else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        answer = Answer(_request_id(headers.get("x-request-id")))
        scope.setdefault("state", {})["answer"] = answer
        outlet = _Outlet(send, answer, is_bodyless=False)
        if not self._is_rest(scope["path"]):
            await self._serve(scope, receive, outlet)
            return
        if scope["method"] == "HEAD":
            scope["method"], outlet.is_bodyless = "GET", True
        refusal = self._redirect(scope, headers)
        if refusal is None:
            refusal, receive = await _look_at(scope, headers, receive)
        if refusal is not None:
            await refusal(scope, receive, outlet)
            return
        await self._serve(scope, receive, outlet)

    async def _serve(self, scope: Scope, receive: Receive, outlet: "_Outlet") -> None:
        try:
            await self._app(scope, receive, outlet)
        except Exception:
            _log.exception("a request failed", request_id=outlet.answer.request_id, path=scope["path"])
            if outlet.has_started:
                raise
            await problem("internal_error", "The portal met an error that it did not expect; its log says more.")(
                scope, receive, outlet
            )

    def _redirect(self, scope: Scope, headers: Headers) -> Response | None:
        host = urlsplit(f"//{headers.get('host', '')}").hostname if _is_host(headers.get("host", "")) else None
        if self._rest_host is None or host == self._rest_host:
            return None
        path = scope.get("raw_path") or scope["path"].encode()
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        return RedirectResponse(f"{self._rest_url}{(path + query).decode('ascii', 'replace')}", 308)


class _Outlet:
    """Puts the headers of every answer on it, and hands a success to whoever keeps it."""

    def __init__(self, send: Send, answer: Answer, *, is_bodyless: bool) -> None:
        self._send = send
        self.answer = answer
        self.is_bodyless = is_bodyless
        self.has_started = False
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = [(name.lower().encode(), value.encode()) for name, value in self.answer.headers.items()]
            message["headers"] = [*message["headers"], *extra, (REQUEST_ID, self.answer.request_id.encode())]
            if self.answer.keep is not None and 200 <= message["status"] < 300:
                self._start = message
                return
            self.has_started = True
        elif message["type"] == "http.response.body":
            if self._start is not None:
                self._body += message.get("body", b"")
                if not message.get("more_body"):
                    await self._hand_over(self._start)
                return
            if self.is_bodyless:
                message = {**message, "body": b""}
        await self._send(message)

    async def _hand_over(self, start: Message) -> None:
        assert self.answer.keep is not None
        body, self._start, self.has_started = bytes(self._body), None, True
        try:
            await self.answer.keep(start["status"], Headers(raw=start["headers"]), body)
        except Exception:
            _log.exception("an answer could not be kept", request_id=self.answer.request_id)
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def _request_id(given: str | None) -> str:
    if given is not None and 20 <= len(given) <= 200 and given.isascii() and given.isprintable():
        return given
    return str(uuid4())


def _is_host(text: str) -> bool:
    try:
        return bool(urlsplit(f"//{text}").hostname)
    except ValueError:
        return False


async def _look_at(scope: Scope, headers: Headers, receive: Receive) -> tuple[Response | None, Receive]:
    """Reads and checks the body and the media types; gives what is refused, and the body to be read again."""
    if b"%00" in scope["query_string"] or b"\x00" in scope["query_string"]:
        return problem("invalid_parameter", "The query has a NUL byte."), receive
    body: bytes = b""
    if scope["method"] in _BODY_METHODS:
        limit = MAX_BODY if _may_be_known(headers) else MAX_BODY_OF_STRANGERS
        whole = await _read(receive, headers, limit)
        if whole is None:
            return problem(
                "body_too_large", f"The body has more than {limit} bytes.", accepted=f"{limit} bytes"
            ), receive
        body = whole
    refusal = _check_body(scope, headers, body) if body else None
    if refusal is None and not _accepts_json(headers.get("accept", "*/*")):
        refusal = problem("not_acceptable", "Answers are JSON only.", accepted="application/json")
    return refusal, _again(body, receive)


def _may_be_known(headers: Headers) -> bool:
    """Whether there is something like a token: others are read only a little of."""
    token = tokens.parse(headers.get("authorization", "").partition(" ")[2].strip())
    return token is not None and token.kind == "api"


async def _read(receive: Receive, headers: Headers, limit: int) -> bytes | None:
    declared = headers.get("content-length", "")
    if declared.isdigit() and len(declared) < 20 and int(declared) > limit:
        return None
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > limit:
            return None
        if not message.get("more_body"):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    is_given = False

    async def give() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give


def _check_body(scope: Scope, headers: Headers, body: bytes) -> Response | None:
    kind = headers.get("content-type")
    if kind is None:
        scope["headers"] = [*scope["headers"], (b"content-type", b"application/json")]
    elif not _is_json(kind):
        return problem(
            "unsupported_media_type", f"The body is of the type {kind[:100]!r}.", accepted="application/json in UTF-8"
        )
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
        if b"\\u" in body.lower():
            _refuse_halves(value)
        scope["state"]["answer"].body = value
    except (ValueError, RecursionError) as error:
        text = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        return problem("unreadable_body", f"The body is not JSON: {text}")
    return None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _refuse_halves(value: Any) -> None:
    """Half of a surrogate pair is no text."""
    json.dumps(value, ensure_ascii=False).encode()


def _is_json(kind: str) -> bool:
    media, *parameters = (part.strip().lower() for part in kind.split(";"))
    is_utf8 = all(
        one.removeprefix("charset=").strip('"') == "utf-8" for one in parameters if one.startswith("charset=")
    )
    return is_utf8 and (media == "application/json" or (media.startswith("application/") and media.endswith("+json")))


def _accepts_json(accept: str) -> bool:
    for one in accept.split(",") if accept.strip() else ["*/*"]:
        media, *parameters = (part.strip().lower() for part in one.split(";"))
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        if media in _JSON_TYPES and quality.strip("0.") != "":
            return True
    return False
