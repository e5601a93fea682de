"""The pages' application: what is public, what needs a session, and how trouble looks.

It takes every path that is neither the REST API's nor a component's. A page of an account is found by its slug or id.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import quote

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wardgate.errors import Conflict, Forbidden, InvalidInput, NotFound
from wardgate.ids import AccountId
from wardgate.portal.api.problems import problem
from wardgate.portal.db.accounts import find_account
from wardgate.portal.services.sign_in import find_session
from wardgate.portal.web import security
from wardgate.portal.web.context import Handler, Page, WebContext
from wardgate.portal.web.pages import (
    audit,
    clients,
    explain,
    groups,
    overview,
    people,
    policies,
    resources,
    sign_in,
    sign_up,
    sites,
)
from wardgate.portal.web.render import STATIC

log = structlog.get_logger("wardgate.portal")
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".woff2": "font/woff2"}
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_SAFE: Final = ("GET", "HEAD")
_SENTENCES: Final = {
    403: "This is not allowed.",
    404: "There is no such page, or it is not yours to see.",
    405: "This page takes no such request.",
    429: "Too many tries. Wait some minutes.",
}
ACCOUNT_PAGES: Final = (overview, sites, resources, policies, people, groups, clients, audit, explain)


class WebDoor:
    """Sends what is the pages' to the pages, and everything else on."""

    def __init__(self, app: ASGIApp, *, pages: ASGIApp, others: Iterable[str]) -> None:
        """Makes a door.

        Args:
            others: The first parts of the paths that are not the pages'.
        """
        self._app, self._pages = app, pages
        self._others = frozenset(others)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and scope["path"].removeprefix("/").partition("/")[0] not in self._others
        await (self._pages if is_page else self._app)(scope, receive, send)


def first_parts(routes: Iterable[Any]) -> set[str]:
    """The first part of each route's path, such as `sites` of `/sites/{id}`."""
    parts: set[str] = set()
    for route in routes:
        if isinstance(path := getattr(route, "path", None), str):
            parts.add(path.removeprefix("/").partition("/")[0])
        elif (router := getattr(route, "original_router", None)) is not None:
            parts |= first_parts(router.routes)
    return parts - {""}


def create_pages(context: WebContext) -> ASGIApp:
    """All pages."""
    routes = [Route("/static/{name:path}", _static, methods=["GET"])]
    routes += [
        Route(path, _public(context, handler), methods=methods)
        for module in (sign_up, sign_in)
        for methods, path, handler in module.ROUTES
    ]
    for module in ACCOUNT_PAGES:
        for methods, path, page_handler in module.ROUTES:
            routes.append(Route(f"/{{account}}{path}", _signed_in(context, page_handler), methods=methods))
    handlers: dict[Any, Any] = {
        HTTPException: lambda request, error: _trouble(context, request, error.status_code, error.detail),
        Exception: lambda request, error: _failure(context, request, error),
        NotFound: lambda request, error: _trouble(context, request, 404),
        Forbidden: lambda request, error: _trouble(context, request, 403, _said(error)),
        Conflict: lambda request, error: _trouble(context, request, 409, _said(error)),
        InvalidInput: lambda request, error: _trouble(context, request, 422, _said(error)),
    }
    return _Headers(Starlette(routes=routes, exception_handlers=handlers))


class _Headers:
    """Adds what guards every page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"]] + [
                    (name.encode(), value.encode())
                    for name, value in security.HEADERS.items()
                    if name.encode() not in present
                ]
            await send(message)

        await self._app(scope, receive, send_guarded)


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    path = STATIC / name
    suffix = "." + name.rpartition(".")[2]
    if ".." in name or "\\" in name or "\x00" in name or suffix not in _TYPES or not path.is_file():
        return PlainTextResponse("There is no such file.\n", 404)
    caching = _FOR_EVER if "v" in request.query_params else "no-cache"
    return FileResponse(str(path), media_type=_TYPES[suffix], headers={"cache-control": caching})


def _public(context: WebContext, handler: "sign_in.PublicHandler") -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        if request.method not in _SAFE and not security.is_own_form(request):
            raise HTTPException(403, "This form came from another site.")
        return await handler(context, request)

    return endpoint


def _signed_in(context: WebContext, handler: Handler) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        if request.method not in _SAFE and not security.is_own_form(request):
            raise HTTPException(403, "This form came from another site.")
        account = await find_account(context.db, request.path_params["account"])
        if account is None:
            raise HTTPException(404)
        account_id = AccountId(account.id)
        now = context.clock.utc_now()
        cookie = request.cookies.get(security.session_cookie(account_id))
        session_id = context.signer("session").read(cookie, now)
        found = None
        if isinstance(session_id, str):
            async with context.db.scoped(context.subject(request, account_id)) as scope:
                found = await find_session(scope, session_id, now)
        if found is None:
            here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            back = f"?back={quote(here, safe='')}" if request.method in _SAFE else ""
            return context.go(f"/{account.slug}/sign-in{back}")
        request.state.is_known = True
        subject = context.subject(request, account_id, found.actor, found.session.auth_provider_id)
        return await handler(Page(context, request, account, found.actor, subject, found.session.id, now))

    return endpoint


def _said(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def _trouble(context: WebContext, request: Request, status: int, detail: str | None = None) -> Response:
    context.hub.metrics.pages_refused.labels(str(status)).inc()
    sentence = _SENTENCES.get(status, "This did not work.")
    if detail and detail not in ("Not Found", "Method Not Allowed", "Forbidden"):
        sentence = detail
    if "text/html" not in request.headers.get("accept", ""):
        return problem(status, sentence)  # a program that came to the wrong door
    return context.show(request, "error.html", status, code=status, sentence=sentence, reference=None)


def _failure(context: WebContext, request: Request, error: Exception) -> Response:
    reference = request.headers.get("x-request-id", "")
    context.hub.metrics.failures.labels("page").inc()
    log.error("a page failed", path=request.url.path, request_id=reference, exc_info=error)
    return context.show(
        request, "error.html", 500, code=500, sentence="Something broke on our side.", reference=reference
    )
