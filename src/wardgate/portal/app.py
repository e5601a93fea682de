"""The ASGI application: routes, and what runs beside them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from wardgate import __version__
from wardgate.portal.api.app import mount
from wardgate.portal.api.context import ApiContext
from wardgate.portal.changes import Dispatcher
from wardgate.portal.channels.hub import Hub
from wardgate.portal.clock import Clock, SystemClock
from wardgate.portal.config import Settings
from wardgate.portal.db.engine import Database
from wardgate.portal.jobs import prune_channels, standard_jobs
from wardgate.portal.scheduler import Scheduler
from wardgate.portal.sockets.connect import location_of, remote_ip
from wardgate.portal.sockets.endpoints import Sockets

_PRUNE_EVERY: Final = timedelta(minutes=1)


@dataclass
class _State:
    is_ready: bool = False


def create_app(
    settings: Settings, *, clock: Clock | None = None, configure: Callable[[Hub], None] | None = None
) -> FastAPI:
    """Builds the portal: one application with three doors.

    Args:
        clock: Where time comes from; a test brings its own.
        configure: Called with the hub before anything runs.

    Raises:
        SettingError: The database is not ours, or of a newer version.
    """
    clock = clock or SystemClock()
    hub = Hub(settings, Database(settings.database, clock, settings.secret_key_text), clock)
    if configure:
        configure(hub)
    state = _State()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await hub.db.prepare()
        dispatcher = Dispatcher(hub)
        await dispatcher.start()
        scheduler = Scheduler(hub, standard_jobs() if hub.jobs is None else hub.jobs)
        tasks = [asyncio.create_task(work) for work in (dispatcher.run(), scheduler.run(), _prune_channels(hub))]
        state.is_ready = True
        try:
            yield
        finally:
            state.is_ready = False
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await hub.refusals.flush()
            await hub.db.close()

    app = FastAPI(title="Wardgate", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.hub = hub
    app.router.routes.extend(Sockets(hub).routes())
    _add_health(app, hub, state)
    trusted_ip = partial(remote_ip, proxies=settings.proxy_networks)
    trusted_location = partial(location_of, proxies=settings.proxy_networks)
    context = ApiContext(
        hub.db,
        clock,
        hub.presence,
        trusted_ip=trusted_ip,
        trusted_location=trusted_location,
        refusals=hub.refusals,
    )
    mount(app, context)
    return app


def _add_health(app: FastAPI, hub: Hub, state: _State) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "version": app.version}

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> JSONResponse:
        status = "ready" if state.is_ready else "starting"
        if state.is_ready:
            status = status if await hub.db.is_available() else "database_unavailable"
        return JSONResponse({"status": status, "version": app.version}, 200 if status == "ready" else 503)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(hub.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def _prune_channels(hub: Hub) -> None:
    while True:
        await asyncio.sleep(_PRUNE_EVERY.total_seconds())
        prune_channels(hub)


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """How uvicorn serves the portal: components send pings of their own, and tokens make headers long."""
    return {
        "host": settings.host,
        "port": settings.port,
        "loop": "uvloop",
        "ws": "websockets-sansio",
        "ws_max_size": 1024 * 1024,
        "ws_ping_interval": None,
        "ws_per_message_deflate": False,
        "h11_max_incomplete_event_size": 64 * 1024,
        "timeout_graceful_shutdown": 5,
        "proxy_headers": False,
        "server_header": False,
        "log_config": None,
        "access_log": False,
    }
