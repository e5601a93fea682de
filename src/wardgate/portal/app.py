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
from wardgate.errors import SettingError
from wardgate.portal.api.app import mount
from wardgate.portal.api.context import ApiContext
from wardgate.portal.api.ingestion import Ingestion
from wardgate.portal.bounds import Bounds
from wardgate.portal.changes import Dispatcher
from wardgate.portal.channels.hub import Hub
from wardgate.portal.clock import Clock, SystemClock
from wardgate.portal.cluster.cluster import Cluster
from wardgate.portal.config import Settings
from wardgate.portal.db.engine import Database
from wardgate.portal.domain.subjects import Location
from wardgate.portal.guard import Guard
from wardgate.portal.jobs import prune_channels, standard_jobs
from wardgate.portal.mail import SmtpMailer
from wardgate.portal.observe import Observe
from wardgate.portal.protocols import BoundedHttp, BoundedWebSocket
from wardgate.portal.scheduler import Scheduler
from wardgate.portal.sockets.connect import location_of, remote_ip
from wardgate.portal.sockets.endpoints import Sockets
from wardgate.portal.tracing import Tracing
from wardgate.portal.watch import watch_clock

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
        SettingError: The database is not ours, or of a newer version, or cannot be shared with other portals.
    """
    if settings.nats_url and settings.database.startswith("sqlite"):
        raise SettingError("nats_url: several portals need PostgreSQL; with SQLite there can be one, without a bus")
    clock = clock or SystemClock()
    hub = Hub(settings, open_database(settings, clock), clock)
    if configure:
        configure(hub)
    hub.db.time_queries(hub.metrics.seen_query)
    if settings.otel_endpoint and hub.tracing is None:
        hub.tracing = Tracing(settings.otel_endpoint, __version__)
        hub.db.time_queries(hub.tracing.query)
    state = _State()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await hub.db.prepare()
        dispatcher = Dispatcher(hub)
        await dispatcher.start()
        await _join_cluster(hub, dispatcher)
        scheduler = Scheduler(hub, standard_jobs() if hub.jobs is None else hub.jobs)
        tasks = [
            asyncio.create_task(work)
            for work in (dispatcher.run(), scheduler.run(), _prune_channels(hub), watch_clock(hub))
        ]
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
            if hub.cluster is not None:
                await hub.cluster.close()
            await hub.db.close()
            if hub.tracing is not None:
                await asyncio.to_thread(hub.tracing.close)

    app = FastAPI(title="Wardgate", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.hub = hub
    app.router.routes.extend(Sockets(hub).routes())
    _add_health(app, hub, settings, state)
    bounds = app.state.bounds = Bounds(settings, clock, hub.metrics)
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
    limits = Ingestion(clock, settings.ingestion_refill_rate, settings.ingestion_capacity, _counter(hub))
    mount(app, context, settings.rest_api_url, limits)
    _add_pages(app, hub, trusted_ip, trusted_location)
    app.add_middleware(Guard, bounds=bounds, trusted_ip=trusted_ip, locate=trusted_location)
    app.add_middleware(Observe, metrics=hub.metrics, tracing=hub.tracing)
    return app


def _add_pages(
    app: FastAPI, hub: Hub, trusted_ip: Callable[[Any], str | None], trusted_location: Callable[[Any], Location]
) -> None:
    """Puts the pages behind every path that is not another door's."""
    from wardgate.portal.web.context import WebContext  # commands that serve nothing do without templates
    from wardgate.portal.web.door import WebDoor, create_pages, first_parts

    settings = hub.settings
    mailer = SmtpMailer.of(settings.smtp_url.get_secret_value(), settings.mail_from) if settings.smtp_url else None
    context = WebContext(hub, mailer, trusted_ip, trusted_location)
    app.state.web = context
    others = first_parts(app.router.routes)
    app.add_middleware(WebDoor, pages=create_pages(context), others=others)


def _counter(hub: Hub) -> Callable[[str], None]:
    return lambda status: hub.metrics.flow_uploads.labels(status).inc()


def open_database(settings: Settings, clock: Clock) -> Database:
    """The database of the settings, with their limits.

    Raises:
        SettingError: It is not ours, or of a newer version.
    """
    return Database(
        settings.database,
        clock,
        settings.secret_key_text,
        pool=settings.database_pool,
        timeout_s=settings.database_timeout,
    )


async def _join_cluster(hub: Hub, dispatcher: Dispatcher) -> None:
    """Connects to the other portals, if there may be any."""
    bus = hub.bus
    if bus is None and hub.settings.nats_url:
        from wardgate.portal.cluster.nats_bus import nats_bus

        bus = nats_bus(hub.settings, hub.node_id, hub.metrics)
    if bus is None:
        return
    cluster = Cluster(
        hub.node_id, bus, hub.presence, clock=hub.clock, metrics=hub.metrics, derive=hub.db.keyring.derive
    )
    hub.cluster = cluster
    cluster.wake = dispatcher.wake
    hub.db.commit_listeners.append(cluster.committed)
    await cluster.start()


def _add_health(app: FastAPI, hub: Hub, settings: Settings, state: _State) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "version": app.version}

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> JSONResponse:
        status = "ready"
        if hub.is_draining or settings.is_draining_by_file:
            status = "draining"
        elif not state.is_ready:
            status = "starting"
        elif not await hub.db.is_available():
            status = "database_unavailable"
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
        "http": BoundedHttp,
        "ws": BoundedWebSocket,
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
