"""Puts the REST door into an application, with its document at `/openapi.json`."""

from uuid import uuid4

from fastapi import FastAPI
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wardgate.portal.api import (
    account,
    actors,
    clients,
    explanations,
    groups,
    logs,
    policies,
    policy_tests,
    previews,
    problems,
    reach,
    resources,
    sites,
)
from wardgate.portal.api.context import ApiContext

ROUTERS = (
    account.router,
    actors.router,
    groups.router,
    sites.router,
    resources.router,
    policies.router,
    clients.router,
    explanations.router,
    policy_tests.router,
    previews.router,
    reach.router,
    logs.router,
)
REQUEST_ID = b"x-request-id"


class RequestIds:
    """Gives every answer an `x-request-id`: the caller's own if it has 20 to 200 characters."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == REQUEST_ID), b"")
        request_id = given if 20 <= len(given) <= 200 else str(uuid4()).encode()
        scope.setdefault("state", {})["request_id"] = request_id.decode("latin-1")

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (REQUEST_ID, request_id)]
            await send(message)

        await self._app(scope, receive, send_with_id)


def mount(app: FastAPI, context: ApiContext) -> None:
    """Adds the routes, the error form and request ids."""
    app.state.api = context
    for router in ROUTERS:
        app.include_router(router)
    app.add_api_route("/openapi", lambda: RedirectResponse("/openapi.json", 308), include_in_schema=False)
    app.add_middleware(RequestIds)
    problems.install(app)
    policy_tests.install(app)
