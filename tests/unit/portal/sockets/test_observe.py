"""What is seen of a portal from outside: metrics, log lines with ids, traces, and clocks that disagree."""

import asyncio
import gzip
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.unit.portal.api.conftest import account_with_token
from tests.unit.portal.helpers import SECRET_KEY, Lab, ManualClock
from tests.unit.portal.sockets.harness import WAIT_S, PortalUnderTest, running_portal
from wardgate.portal.config import Settings
from wardgate.portal.db import timing
from wardgate.portal.db.engine import Database
from wardgate.portal.watch import check_clock


@pytest.fixture
def settings(database_path: Path) -> Settings:
    database = f"sqlite:///{database_path}"
    return Settings(listen="127.0.0.1:0", database=database, secret_key=SECRET_KEY, connect_capacity=1000)


async def test_requests_are_counted_by_route_and_never_by_path(server: PortalUnderTest) -> None:
    headers = {"Authorization": f"Bearer {await account_with_token(server.hub.db, 'corp')}"}
    async with http(server) as client:
        site = (await client.post("/sites", json={"site": {"name": "Graz"}}, headers=headers)).json()["data"]["id"]
        for path in (f"/sites/{site}", "/sites/6f0a3c1e-93a5-4f1c-8d0e-1c5b9a1f7e42"):
            await client.get(path, headers=headers)
        await client.request("BREW", "/coffee/of/the/day")
        text = (await client.get("/metrics")).text

    one = {"method": "GET", "route": "/sites/{site_id}"}
    assert sample(server, "http_requests_total", **one, status="200") == 1
    assert sample(server, "http_requests_total", **one, status="404") == 1
    assert sample(server, "http_requests_total", method="other", route="unmatched", status="404") == 1
    assert sample(server, "http_seconds_count", route="/sites/{site_id}") == 2
    assert sample(server, "http_active") == 0
    assert (sample(server, "database_seconds_count", statement="insert") or 0) > 0
    assert site not in text
    assert "coffee" not in text


async def test_websockets_and_changes_are_counted(server: PortalUnderTest, lab: Lab) -> None:
    await (await server.client(lab)).settle()
    await (await server.gateway(lab)).settle()

    assert sample(server, "joins_total", component="client") == 1
    assert sample(server, "joins_total", component="gateway") == 1
    assert (sample(server, "messages_total", component="client") or 0) >= 2
    assert (sample(server, "dispatch_lag_seconds_count") or 0) > 0


async def test_a_request_has_one_line_with_its_id_and_no_address(server: PortalUnderTest) -> None:
    mine = "an-id-of-twenty-characters-or-more"
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        async with http(server) as client:
            answers = [
                await client.get("/sites/1?name=secret.corp.example", headers={"X-Request-Id": one})
                for one in (mine, "short")
            ]

    shown = [line for line in lines if line["event"] == "request"]
    assert answers[0].headers.get_list("x-request-id") == [mine]
    assert [line["request_id"] for line in shown] == [mine, answers[1].headers["x-request-id"]]
    assert len(answers[1].headers["x-request-id"]) == 36
    assert {line["log_level"] for line in shown} == {"info"}
    assert {"method", "route", "status", "duration_ms"} <= set(shown[0])
    above_debug = repr([line for line in lines if line["log_level"] != "debug"])
    assert "127.0.0.1" not in above_debug
    assert "secret.corp.example" not in repr(lines)


async def test_lines_of_a_websocket_have_its_connection_id(server: PortalUnderTest) -> None:
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        for _ in range(2):
            with pytest.raises(AssertionError, match="401"):
                await server.connect("client", "nonsense")

    ids = [line["connection_id"] for line in lines if line["event"] == "connect refused"]
    assert len(set(ids)) == 2


async def test_traces_go_to_the_collector(database_path: Path, clock: ManualClock) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with collector() as (url, got):
        settings = Settings(
            listen="127.0.0.1:0", database=f"sqlite:///{database_path}", secret_key=SECRET_KEY, otel_endpoint=url
        )
        async with running_portal(settings, clock) as server:
            token = await account_with_token(server.hub.db, "corp")
            async with http(server) as client:
                headers = {"Authorization": f"Bearer {token}", "traceparent": parent}
                assert (await client.get("/sites?name=hidden-name", headers=headers)).status_code == 200
        spans = [
            span
            for request in got
            for scopes in request.resource_spans
            for one in scopes.scope_spans
            for span in one.spans
        ]

    (request,) = [span for span in spans if span.name == "GET /sites"]
    assert request.trace_id.hex() == parent.split("-")[1]
    assert request.parent_span_id.hex() == parent.split("-")[2]
    assert {span.parent_span_id for span in spans if span.name == "database select"} >= {request.span_id}
    assert "hidden-name" not in repr(spans)
    assert token not in repr(spans)


def test_without_the_setting_tracing_is_not_even_imported() -> None:
    code = (
        "import sys, wardgate.portal.main, wardgate.portal.app; "
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == "[]"


def test_without_its_packages_the_setting_is_refused() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from wardgate.portal.tracing import Tracing\n"
        "Tracing('http://127.0.0.1:1', '0')"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 1
    assert "SettingError: otel_endpoint" in done.stderr
    assert "wardgate[otel]" in done.stderr


async def test_the_databases_clock_is_ours_or_there_is_a_warning(db: Database, server: PortalUnderTest) -> None:
    drift = await timing.drift_s(db, wall_clock)
    assert drift is not None
    assert abs(drift) < 1.0

    behind = await timing.drift_s(db, lambda: wall_clock() - timedelta(seconds=90))
    assert behind == 0.0 if db.is_sqlite else 89 < (behind or 0) < 91


async def test_a_drift_is_a_warning_and_a_gauge(server: PortalUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ahead(*_: Any) -> float:
        return 1.5

    monkeypatch.setattr("wardgate.portal.watch.drift_s", ahead)
    with structlog.testing.capture_logs() as lines:
        await check_clock(server.hub)

    assert [(line["log_level"], line["ahead_s"]) for line in lines] == [("warning", 1.5)]
    assert sample(server, "clock_drift_seconds") == 1.5


def http(server: PortalUnderTest) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url.replace("ws://", "http://"))


def sample(server: PortalUnderTest, name: str, **labels: str) -> float | None:
    return server.hub.metrics.registry.get_sample_value(f"wardgate_portal_{name}", labels)


def wall_clock() -> Any:
    from wardgate.portal.clock import SystemClock

    return SystemClock().utc_now()


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[Any]]]:
    """A small OTLP receiver."""
    got: list[Any] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            got.append(ExportTraceServiceRequest.FromString(unzipped(head, await reader.readexactly(length))))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                await take(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", got
    finally:
        server.close()


def unzipped(head: bytes, body: bytes) -> bytes:
    return gzip.decompress(body) if b"content-encoding: gzip" in head.lower() else body
