"""What all channels of a node share."""

import asyncio
import random
import re
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from wardgate.portal.clock import Clock
from wardgate.portal.config import Settings
from wardgate.portal.db.engine import Database
from wardgate.portal.db.outbox import Reader
from wardgate.portal.db.refusals import Refusals
from wardgate.portal.metrics import Metrics
from wardgate.portal.presence import Presence
from wardgate.wire.portal import FlowLogsConfig

if TYPE_CHECKING:
    from wardgate.portal.scheduler import Job

log = structlog.get_logger()

MAX_REFRESHES = 8
"""Recomputations of clients' lists that run side by side, so that requests get their turn at the database."""


def new_node_id() -> str:
    """The machine's name, and something that no other start has; letters, digits, dashes and underscores."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname().partition(".")[0])[:32]
    return f"{host or 'portal'}-{secrets.token_hex(6)}"


@dataclass
class Hub:
    """The node's database, clock, presence and counters.

    Attributes:
        outbox: How far the changes of the database were told to the channels.
        node_id: This portal among those of its database; another one after each start.
        random: Gives a number from 0 to 1, for jitter.
        jobs: What is run regularly; `None` stands for the standard jobs.
        shuffled: Mixes candidates that are equally good; a test may keep them in order.
    """

    settings: Settings
    db: Database
    clock: Clock
    presence: Presence = field(default_factory=Presence)
    metrics: Metrics = field(default_factory=Metrics)
    node_id: str = field(default_factory=new_node_id)
    random: Callable[[], float] = random.random
    jobs: "Sequence[Job] | None" = None
    shuffled: Callable[[Sequence[Any]], Sequence[Any]] = lambda some: random.sample(some, len(some))
    refreshes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_REFRESHES))
    refusals: Refusals = field(init=False)

    def __post_init__(self) -> None:
        self.outbox = Reader(self.db)
        self.refusals = Refusals(self.db, self.clock, self._not_kept)

    def _not_kept(self, error: Exception) -> None:
        self.metrics.failures.labels("refusals").inc()
        log.error("refused requests could not be kept", exc_info=error)

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
