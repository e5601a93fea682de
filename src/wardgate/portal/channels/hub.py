"""What all channels of a node share."""

import random
import re
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from wardgate.portal.channels.lists import Lists
from wardgate.portal.clock import Clock
from wardgate.portal.config import Settings
from wardgate.portal.db.engine import Database
from wardgate.portal.db.group_commit import GroupCommit
from wardgate.portal.db.outbox import Reader
from wardgate.portal.db.refusals import Refusals
from wardgate.portal.metrics import Metrics
from wardgate.portal.presence import Presence
from wardgate.portal.sinks.client import Client
from wardgate.portal.sinks.delivery import Delivery
from wardgate.portal.sinks.destinations import operator_of
from wardgate.portal.tracing import Tracing
from wardgate.wire.portal import FlowLogsConfig

if TYPE_CHECKING:
    from wardgate.portal.cluster.bus import Bus
    from wardgate.portal.cluster.cluster import Cluster
    from wardgate.portal.scheduler import Job

log = structlog.get_logger()


def new_node_id() -> str:
    """The machine's name, and something that no other start has; letters, digits, dashes and underscores."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname().partition(".")[0])[:32]
    return f"{host or 'portal'}-{secrets.token_hex(6)}"


@dataclass
class Hub:
    """The node's database, clock, presence and counters.

    Attributes:
        writes: For small pieces of work that come in great numbers.
        lists: What clients may reach, computed for many at once.
        delivery: Brings logs to their sinks.
        outbox: How far the changes of the database were told to the channels.
        node_id: This portal among those of its database; another one after each start.
        random: Gives a number from 0 to 1, for jitter.
        is_draining: Whether this portal is about to end and takes no new connections.
        bus: What connects this portal with others, before it starts; `None` leaves it to the settings.
        cluster: The other portals; `None` where this is the only one.
        jobs: What is run regularly; `None` stands for the standard jobs.
        shuffled: Mixes candidates that are equally good; a test may keep them in order.
    """

    settings: Settings
    db: Database
    clock: Clock
    presence: Presence = field(init=False)
    metrics: Metrics = field(default_factory=Metrics)
    tracing: Tracing | None = None
    node_id: str = field(default_factory=new_node_id)
    random: Callable[[], float] = random.random
    jobs: "Sequence[Job] | None" = None
    shuffled: Callable[[Sequence[Any]], Sequence[Any]] = lambda some: random.sample(some, len(some))
    refusals: Refusals = field(init=False)

    delivery: Delivery = field(init=False)

    is_draining: bool = False
    bus: "Bus | None" = None
    cluster: "Cluster | None" = None

    def __post_init__(self) -> None:
        self.outbox = Reader(self.db)
        self.presence = Presence(self.clock.utc_now)
        self.writes = GroupCommit(self.db)
        self.lists = Lists(self.db, self.clock)
        self.refusals = Refusals(self.db, self.clock, self._not_kept)
        operator = operator_of(self.settings)
        self.delivery = Delivery(
            self.db,
            self.clock,
            operator,
            client=lambda: Client(operator.allows_private),
            count=lambda what: self.metrics.sinks.labels(what).inc(),
        )

    def _not_kept(self, error: Exception) -> None:
        self.metrics.failures.labels("refusals").inc()
        log.error("refused requests could not be kept", exc_info=error)

    @staticmethod
    def spread(device_id: str) -> float:
        """From 0.5 to 1 and always the same for a device: those that came together do not all work together."""
        return 0.5 + int(device_id[:4], 16) / 0x20000

    @property
    def flow_logs(self) -> FlowLogsConfig:
        """Where devices send their flow logs; the interval 0 keeps them from sending any."""
        settings = self.settings
        url = settings.flow_log_api_url or settings.external_url or f"http://{settings.listen}/"
        return FlowLogsConfig(
            api_url=url,
            upload_interval_secs=settings.flow_log_upload_interval_secs,
            upload_batch_size=settings.flow_log_upload_batch_size,
        )
