"""Puts the REST door into an application, with its documents at `/openapi.json` and `/swaggerui`."""

from collections.abc import Callable

from fastapi import FastAPI
from starlette.responses import HTMLResponse, RedirectResponse

from wardgate.portal.api import (
    account,
    actors,
    clients,
    document,
    explanations,
    groups,
    ingestion,
    logs,
    policies,
    policy_tests,
    previews,
    problems,
    providers,
    reach,
    resources,
    sites,
)
from wardgate.portal.api.context import ApiContext
from wardgate.portal.api.front import Front
from wardgate.portal.api.ingestion import Ingestion

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
    providers.router,
    logs.router,
)


def mount(
    app: FastAPI, context: ApiContext, rest_url: str | None = None, ingestion_limits: Ingestion | None = None
) -> None:
    """Adds the routes, the error form, and what stands before all of them.

    Args:
        rest_url: Where the REST API is: requests under other host names are sent there.
        ingestion_limits: How often devices may send flow logs.
    """
    app.state.api = context
    app.state.ingestion = ingestion_limits or Ingestion(context.clock)
    app.state.rest_routes = [route for router in ROUTERS for route in router.routes]
    for router in ROUTERS:
        app.include_router(router)
    app.include_router(ingestion.router)  # devices' door, with bounds of its own
    app.openapi = lambda: document.of(app, rest_url)  # type: ignore[method-assign]
    app.add_api_route("/openapi", lambda: RedirectResponse("/openapi.json", 308), include_in_schema=False)
    app.add_api_route("/swaggerui", lambda: HTMLResponse(document.page(app.openapi())), include_in_schema=False)
    app.add_middleware(Front, is_rest=_rest_paths(), rest_url=rest_url)
    problems.install(app)


def _rest_paths() -> Callable[[str], bool]:
    firsts = {getattr(route, "path", "/").split("/")[1] for router in ROUTERS for route in router.routes}

    def is_rest(path: str) -> bool:
        return path.split("/", 2)[1] in firsts if path.startswith("/") else False

    return is_rest
