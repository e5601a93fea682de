"""Brings log rows to their sinks: at least once, in order, and no further than the destination has acknowledged.

Source: portal-domain-3 B6.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, cast

import structlog

from wardgate.portal.clock import Clock
from wardgate.portal.db import log_sinks
from wardgate.portal.db.engine import Database
from wardgate.portal.db.log_tables import FlowLog, LogSink, LogSinkCursor
from wardgate.portal.db.logs import AnyLog
from wardgate.portal.domain import log_events, log_ids
from wardgate.portal.domain.log_events import Event
from wardgate.portal.domain.log_ids import Stream
from wardgate.portal.services.log_objects import iso_utc, log_object
from wardgate.portal.sinks.client import Client
from wardgate.portal.sinks.destinations import (
    Moment,
    Operator,
    destination,
    open_secrets,
    scrub,
    trial_id,
)
from wardgate.portal.sinks.elastic import RollOvers
from wardgate.portal.sinks.outcomes import (
    Accepted,
    Destination,
    Failure,
    Malformed,
    NotAllowed,
    Outcome,
    Permanent,
    Retriable,
    TooLarge,
    Unreachable,
)

MAX_BYTES: Final = 512_000
MAX_ROWS: Final = 500
MAX_BATCHES: Final = 20
GIVE_UP: Final = timedelta(hours=24)
SYNC_ERROR: Final = "Sync error"
_RUN_S: Final = 45.0
_MAX_PAUSE_S: Final = 3600.0
_SIDE_BY_SIDE: Final = 10

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Poison:
    """An event that its destination does not take by itself either; the stream stops at it."""

    event: Event
    detail: str


@dataclass
class Memory:
    """What is kept of a sink from run to run; losing it costs a request.

    Attributes:
        not_before: When the destination wants to be asked again, in monotonic seconds.
    """

    not_before: float = 0.0
    roll_overs: RollOvers = field(default_factory=RollOvers)


@dataclass
class Delivery:
    """Delivers for all accounts.

    Attributes:
        client: Makes what requests are sent with.
        count: Told of what happens, for metrics.
    """

    db: Database
    clock: Clock
    operator: Operator = field(default_factory=Operator)
    client: Callable[[], Client] = Client
    count: Callable[[str], None] = lambda what: None
    _memory: dict[str, Memory] = field(default_factory=dict, init=False)
    _running: set[str] = field(default_factory=set, init=False)

    async def run(self) -> None:
        """Delivers to every sink that is due, those of each type in a queue of their own."""
        sinks = await log_sinks.due(self.db)
        self._memory = {sink.id: self._memory.get(sink.id) or Memory() for sink in sinks}
        queues: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_SIDE_BY_SIDE))
        await asyncio.gather(*(self._queued(sink, queues[sink.type]) for sink in sinks))

    async def _queued(self, sink: LogSink, queue: asyncio.Semaphore) -> None:
        async with queue:
            if self._memory[sink.id].not_before > self.clock.now():
                return
            try:
                await self.deliver(sink)
            except Exception:
                self.count("failed")
                log.exception("logs could not be delivered", sink_id=sink.id, account_id=sink.account_id)

    async def deliver(self, sink: LogSink) -> str | None:
        """Delivers what there is for one sink; what went wrong, for its customer, if anything did."""
        if sink.id in self._running:
            return None
        self._running.add(sink.id)
        memory = self._memory.setdefault(sink.id, Memory())
        client = self.client()
        try:
            run = _Run(self, sink, memory, client)
            return await run.go()
        finally:
            self._running.discard(sink.id)
            await client.close()

    async def try_out(self, sink: LogSink) -> Outcome:
        """Sends one event that tells of nothing, and says what became of it; nothing is kept of it."""
        at = self.clock.utc_now()
        shown = {"type": "test", "log_id": trial_id(), "timestamp": iso_utc(at)}
        client = self.client()
        try:
            run = _Run(self, sink, Memory(), client)
            return await run.attempt([log_events.event(cast(Stream, "test"), shown, log_ids.seq_at(at))])
        finally:
            await client.close()


class _Run:
    """One run of one sink."""

    def __init__(self, delivery: Delivery, sink: LogSink, memory: Memory, client: Client) -> None:
        clock = delivery.clock
        self._delivery, self._db, self._clock = delivery, delivery.db, clock
        self._sink, self._memory, self._client = sink, memory, client
        self._secrets = open_secrets(self._db.keyring, sink)
        moment = Moment(clock.now(), clock.utc_now, memory.roll_overs)
        self._destination: Destination = destination(sink, self._secrets, delivery.operator, moment)
        self._ends_at = clock.now() + _RUN_S
        self._sent = 0

    async def go(self) -> str | None:
        """Delivers all streams, and keeps how it went."""
        failure: Failure | None = None
        for stream in self._sink.enabled_streams:
            stopped = await self._deliver_stream(cast(Stream, stream))
            if isinstance(stopped, Poison):
                self._delivery.count("poison")
                fields = {"sink_id": self._sink.id, "log_id": stopped.event.log_id, "detail": stopped.detail}
                log.error("an event cannot be delivered; its stream waits for a correction", **fields)
            elif stopped is not None:
                failure = stopped
                if not isinstance(stopped, Malformed):
                    break
        return await self._conclude(failure)

    async def _conclude(self, failure: Failure | None) -> str | None:
        if failure is None:
            if self._sent and self._sink.error_message is not None:
                await log_sinks.clear_failure(self._db, self._sink)
            return None
        detail = scrub(failure.detail, self._secrets)
        since = self._sink.errored_at
        is_over = since is not None and self._clock.utc_now() - since >= GIVE_UP
        disable = isinstance(failure, Permanent) or is_over
        self._delivery.count("permanent" if disable else "transient")
        log.warning("logs were not delivered", sink_id=self._sink.id, detail=detail, disabled=disable)
        if isinstance(failure, Retriable) and failure.retry_after_s is not None:
            self._memory.not_before = self._clock.now() + min(failure.retry_after_s, _MAX_PAUSE_S)
        await log_sinks.note_failure(self._db, self._sink, detail, disable=disable, reason=SYNC_ERROR)
        return detail

    async def _deliver_stream(self, stream: Stream) -> Failure | Poison | None:
        at = self._clock.utc_now()
        found = await log_sinks.cursors(self._db, self._sink, stream, at)
        settled = log_ids.seq_at(at - log_sinks.SETTLED) - 1
        passage = _Passage(self, stream, found.live, found.backfill)
        stopped = await passage.drain(settled)
        backfill = found.backfill
        if stopped is not None or backfill is None or backfill.completed_at is not None:
            return stopped
        passage.cursor = backfill
        stopped = await passage.drain(min(settled, backfill.until_seq or 0))
        if stopped is None and passage.is_drained and at - backfill.inserted_at >= log_sinks.SETTLED:
            await log_sinks.complete(self._db, passage.cursor, at)
        return stopped

    async def attempt(self, events: Sequence[Event]) -> Outcome:
        """Sends events once."""
        try:
            return await self._destination.deliver(events, self._client.send)
        except Unreachable as error:
            return Retriable(str(error))
        except NotAllowed as error:
            return Permanent(str(error))

    @property
    def max_events(self) -> int:
        """How many events go into one request."""
        return self._destination.max_events

    @property
    def has_time(self) -> bool:
        """Whether another batch may be begun."""
        return self._clock.now() < self._ends_at

    async def advance(self, cursor: LogSinkCursor, events: Sequence[Event], read_at: datetime) -> LogSinkCursor | None:
        """Keeps that events were taken."""
        self._sent += len(events)
        self._delivery.count("delivered")
        at = self._clock.utc_now()
        return await log_sinks.advance(self._db, cursor, events[-1].seq, len(events), read_at, at)

    async def rows(self, stream: Stream, after: int, until: int) -> Sequence[AnyLog]:
        """The next rows of a stream."""
        limit = min(MAX_ROWS, self.max_events)
        return await log_sinks.rows_after(self._db, self._sink, stream, after, until, limit)


class _Passage:
    """A cursor's way along its stream, in one run; live and backfill share the batches that a run may send."""

    def __init__(self, run: _Run, stream: Stream, live: LogSinkCursor, backfill: LogSinkCursor | None) -> None:
        self._run, self._stream = run, stream
        self.cursor, self._backfill = live, backfill
        self._batches = MAX_BATCHES
        self.is_drained = False

    async def drain(self, until: int) -> Failure | Poison | None:
        """Sends what lies between the cursor and a number, in batches, as far as it goes."""
        self.is_drained = False
        while self._batches > 0 and self._run.has_time:
            read_at = self._run._clock.utc_now()
            rows = await self._run.rows(self._stream, self.cursor.cursor, until)
            if not rows:
                self.is_drained = True
                return None
            events = [event for row in rows for event in self._events(row)]
            batch = log_events.batches(events, max_events=self._run.max_events, max_bytes=MAX_BYTES)[0]
            self._batches -= 1
            stopped = await self._send(batch, read_at)
            if stopped is not None:
                return stopped
        return None

    def _events(self, row: AnyLog) -> list[Event]:
        shown = log_object(row)
        if not isinstance(row, FlowLog):
            return [log_events.event(self._stream, shown, row.seq)]
        of_backfill = self._backfill is not None and row.start_seq <= (self._backfill.until_seq or 0)
        cursor = self._backfill if of_backfill and self._backfill is not None else self.cursor
        was_sent = log_events.was_passed_while_open(row.start_seq, row.seq, cursor.passes)
        return log_events.flow_events(shown, row.seq, start_was_sent=was_sent)

    async def _send(self, events: Sequence[Event], read_at: datetime) -> Failure | Poison | None:
        """Sends a batch, or its halves if it is not taken as a whole; each acknowledgement moves the cursor."""
        outcome = await self._run.attempt(events)
        if isinstance(outcome, Accepted):
            if outcome.warning:
                log.warning("a destination took events with a warning", detail=outcome.warning)
            moved = await self._run.advance(self.cursor, events, read_at)
            if moved is None:
                return Retriable("another delivery to this sink is under way")
            if self._backfill is not None and moved.kind == "backfill":
                self._backfill = moved
            self.cursor = moved
            return None
        if not isinstance(outcome, TooLarge | Malformed):
            return outcome
        parts = log_events.groups(events)
        if len(parts) == 1:
            if isinstance(outcome, Malformed) and not outcome.is_ours:
                return Malformed(f"{events[0].log_id}: {outcome.detail}", is_ours=False)
            return Poison(events[0], outcome.detail)
        middle = len(parts) // 2
        for half in (parts[:middle], parts[middle:]):
            stopped = await self._send([event for part in half for event in part], read_at)
            if stopped is not None:
                return stopped
        return None
