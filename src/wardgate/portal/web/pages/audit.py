"""The audit log: changes, sign-ins and connects, requests of the API."""

from datetime import timedelta
from typing import Any, Final

from starlette.responses import Response

from wardgate.errors import NotFound
from wardgate.portal.db.logs import LogQuery, find_log, log_page
from wardgate.portal.db.tables import ChangeLog
from wardgate.portal.web import words
from wardgate.portal.web.context import Handler, Page

STREAMS: Final[dict[str, Any]] = {
    "change": "Changes",
    "session": "Sign-ins and connects",
    "api_request": "API requests",
}
RETENTION: Final = timedelta(days=90)


async def index(page: Page) -> Response:
    """One stream, the newest first."""
    stream: Any = page.query("stream") if page.query("stream") in STREAMS else "change"
    email = page.query("who") or None
    asked = LogQuery(stream, page.now - RETENTION, page.now, actor_email=None if stream == "api_request" else email)
    async with page.db.scoped(page.subject) as scope:
        found = await log_page(scope, asked, limit=50, cursor=page.query("cursor") or None)
    return page.show("audit/list.html", streams=STREAMS, stream=stream, found=found, who=email or "", words=words)


async def show(page: Page) -> Response:
    """One change: before and after."""
    async with page.db.scoped(page.subject) as scope:
        row = await find_log(scope, page.id())
    if not isinstance(row, ChangeLog):
        raise NotFound("the log has no such change")
    return page.show("audit/show.html", row=row, sentence=words.change(row), differences=words.differences(row))


ROUTES: Final[list[tuple[list[str], str, Handler]]] = [
    (["GET"], "/audit", index),
    (["GET"], "/audit/{id}", show),
]
