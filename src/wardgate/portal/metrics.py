"""What the portal counts, in a registry of its own for each application."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_STATEMENTS = frozenset({"select", "insert", "update", "delete"})


class Metrics:
    """Counters and gauges of one portal."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.connected = Gauge(
            "wardgate_portal_connected", "Sockets that have joined", ["component"], registry=self.registry
        )
        self.refused = Counter(
            "wardgate_portal_refused_connects", "Connects that were refused", ["code"], registry=self.registry
        )
        self.pages_refused = Counter(
            "wardgate_portal_refused_pages", "Requests for pages that were refused", ["status"], registry=self.registry
        )
        self.joins = Counter("wardgate_portal_joins", "Websockets that joined", ["component"], registry=self.registry)
        self.messages = Counter(
            "wardgate_portal_messages", "Messages that came over websockets", ["component"], registry=self.registry
        )
        self.http_requests = Counter(
            "wardgate_portal_http_requests",
            "Requests by method, route as it is declared, and status",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.http_seconds = Histogram(
            "wardgate_portal_http_seconds",
            "How long requests took",
            ["route"],
            buckets=(0.005, 0.02, 0.05, 0.2, 1, 5, 20),
            registry=self.registry,
        )
        self.http_active = Gauge(
            "wardgate_portal_http_active", "Requests that are being answered", registry=self.registry
        )
        self.database_seconds = Histogram(
            "wardgate_portal_database_seconds",
            "How long statements took, by their first word",
            ["statement"],
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10),
            registry=self.registry,
        )
        self.dispatch_lag = Histogram(
            "wardgate_portal_dispatch_lag_seconds",
            "From a change to when its channels are told",
            buckets=(0.01, 0.05, 0.2, 1, 5, 30, 300),
            registry=self.registry,
        )
        self.clock_drift = Gauge(
            "wardgate_portal_clock_drift_seconds",
            "How far the database's clock is ahead of ours",
            registry=self.registry,
        )
        self.refused_requests = Counter(
            "wardgate_portal_refused_requests",
            "Connections and requests that were refused before anybody asked who they were of",
            ["kind"],
            registry=self.registry,
        )
        self.ignored = Counter(
            "wardgate_portal_ignored_messages", "Messages that were dropped", ["why"], registry=self.registry
        )
        self.authorizations = Counter(
            "wardgate_portal_authorizations", "Answers to requests for access", ["outcome"], registry=self.registry
        )
        self.slow_consumers = Counter(
            "wardgate_portal_slow_consumers", "Sockets closed because they did not read", registry=self.registry
        )
        self.changes = Counter(
            "wardgate_portal_changes", "Committed row changes that were dispatched", ["object"], registry=self.registry
        )
        self.flow_uploads = Counter(
            "wardgate_portal_flow_uploads", "Uploads of flow logs", ["status"], registry=self.registry
        )
        self.sinks = Counter(
            "wardgate_portal_log_deliveries", "Batches for log sinks", ["outcome"], registry=self.registry
        )
        self.failures = Counter(
            "wardgate_portal_failures", "Unforeseen errors that were survived", ["where"], registry=self.registry
        )
        self.bus_connected = Gauge(
            "wardgate_portal_bus_connected", "1 while the bus between portals is connected", registry=self.registry
        )
        self.bus_messages = Counter(
            "wardgate_portal_bus_messages", "Messages between portals", ["direction"], registry=self.registry
        )
        self.bus_dropped = Counter(
            "wardgate_portal_bus_dropped",
            "Messages between portals that were not sent or not taken",
            ["why"],
            registry=self.registry,
        )
        self.nodes = Gauge("wardgate_portal_nodes", "Portals that are heard, with this one", registry=self.registry)
        self.jobs = Counter("wardgate_portal_jobs", "Runs of regular jobs", ["job", "result"], registry=self.registry)
        self.job_seconds = Histogram(
            "wardgate_portal_job_seconds",
            "How long regular jobs took",
            ["job"],
            buckets=(0.01, 0.1, 1, 10, 60, 600),
            registry=self.registry,
        )

    def seen_query(self, statement: str, seconds: float) -> None:
        """Counts a statement under its first word."""
        word = statement.lstrip()[:6].lower()
        self.database_seconds.labels(word if word in _STATEMENTS else "other").observe(seconds)
