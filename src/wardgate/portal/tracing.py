"""Traces over OpenTelemetry, if a setting says where they go: requests, messages of websockets, statements.

Its packages are the extra `otel`; they are imported when tracing starts, and not at all without the setting. Statements
are recorded as they are prepared, never with their values.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from starlette.types import Scope

from wardgate.errors import SettingError

SERVICE: Final = "wardgate-portal"
_PATH: Final = "/v1/traces"
_MAX_STATEMENT: Final = 500


class RequestSpan:
    """The span of one request."""

    def __init__(self, span: Any, method: str) -> None:
        self._span = span
        self._method = method

    def end(self, route: str, status: int) -> None:
        """Says what became of it."""
        self._span.update_name(f"{self._method} {route}")
        self._span.set_attributes({"http.route": route, "http.response.status_code": status})


class Tracing:
    """Makes spans and sends them away in the background.

    Args:
        endpoint: Of a collector that takes OTLP over HTTP, such as `http://127.0.0.1:4318`.

    Raises:
        SettingError: The packages are missing.
    """

    def __init__(self, endpoint: str, version: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.propagate import extract
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import SpanKind
        except ModuleNotFoundError as error:
            raise SettingError(
                f"otel_endpoint: the Python package of {error.name} is needed: install wardgate[otel]"
            ) from None
        address = endpoint if endpoint.rstrip("/").endswith(_PATH) else endpoint.rstrip("/") + _PATH
        resource = Resource.create({"service.name": SERVICE, "service.version": version})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))
        self._tracer = self._provider.get_tracer(SERVICE, version)
        self._extract = extract
        self._server, self._client = SpanKind.SERVER, SpanKind.CLIENT

    @contextmanager
    def request(self, scope: Scope) -> Iterator[RequestSpan]:
        """The span of a request, below the caller's if it sent `traceparent`."""
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        attributes = {"http.request.method": scope["method"]}
        with self._tracer.start_as_current_span(
            scope["method"], context=self._extract(carrier), kind=self._server, attributes=attributes
        ) as span:
            yield RequestSpan(span, scope["method"])

    @contextmanager
    def message(self, topic: str, event: str) -> Iterator[None]:
        """The span of a message that came over a websocket."""
        attributes = {"wardgate.topic": topic, "wardgate.event": event}
        with self._tracer.start_as_current_span(f"{topic} message", kind=self._server, attributes=attributes):
            yield

    def query(self, statement: str, seconds: float) -> None:
        """A question to the database that was just answered."""
        ended = time.time_ns()
        words = statement.split(None, 1)
        span = self._tracer.start_span(
            f"database {words[0].lower() if words else ''}",
            kind=self._client,
            attributes={"db.query.text": statement[:_MAX_STATEMENT]},
            start_time=ended - int(seconds * 1e9),
        )
        span.end(ended)

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()
