"""What the portal counts, in a registry of its own for each application."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


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
        self.failures = Counter(
            "wardgate_portal_failures", "Unforeseen errors that were survived", ["where"], registry=self.registry
        )
        self.jobs = Counter("wardgate_portal_jobs", "Runs of regular jobs", ["job", "result"], registry=self.registry)
        self.job_seconds = Histogram(
            "wardgate_portal_job_seconds",
            "How long regular jobs took",
            ["job"],
            buckets=(0.01, 0.1, 1, 10, 60, 600),
            registry=self.registry,
        )
