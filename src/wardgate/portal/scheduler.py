"""Runs regular jobs, each on one portal at a time, whichever comes first.

A portal that wants to run a job takes a lease in the database and renews it while the job runs. One that is killed
loses its lease after a minute, and the next portal runs the job again: jobs must bear to be run twice. Portals need
clocks that agree within some seconds. A job that fails does not stop others and is tried again soon
(`domain/schedules.py`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from wardgate.errors import Conflict, NotFound
from wardgate.portal.channels.base import log
from wardgate.portal.db import jobs as leases
from wardgate.portal.db.jobs import Lease
from wardgate.portal.domain.schedules import Schedule, next_run

if TYPE_CHECKING:
    from wardgate.portal.channels.hub import Hub

LEASE: Final = timedelta(seconds=60)
_RENEW_S: Final = 15.0
_LOOK_S: Final = 30.0
_RETRY_S: Final = 5.0
_JITTER_S: Final = 1.0
_SIDE_BY_SIDE: Final = 4


@dataclass(frozen=True, slots=True)
class Job:
    """Something the portal does by itself.

    Attributes:
        name: Unique and lasting; it is the key of the job's row.
        run: Does it once. It is cancelled when it takes longer than `timeout_s` or its portal stops.
        starts_at_once: Whether a new installation runs it when it starts rather than when its schedule first says so.
    """

    name: str
    schedule: Schedule
    run: "Callable[[Hub], Awaitable[None]]"
    timeout_s: float = 600.0
    starts_at_once: bool = False


class Scheduler:
    """The regular jobs of one portal, which shares them with all others of its database."""

    def __init__(self, hub: "Hub", jobs: Sequence[Job]) -> None:
        """Takes the jobs.

        Raises:
            ValueError: Two have the same name.
        """
        self._hub = hub
        self._jobs = {job.name: job for job in jobs}
        if len(self._jobs) != len(jobs):
            raise ValueError("two jobs have the same name")
        self._running: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def run(self) -> None:
        """Runs what is due until it is cancelled; then unfinished jobs are given back."""
        try:
            while True:
                try:
                    wait_s = await self.start_due()
                except Exception:
                    self._hub.metrics.failures.labels("jobs").inc()
                    log.exception("the regular jobs could not be looked at")
                    wait_s = _RETRY_S
                await asyncio.sleep(wait_s + self._hub.random() * _JITTER_S)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def start_due(self) -> float:
        """Starts what is due and free; gives the seconds until something may be due again."""
        now = self._hub.clock.utc_now()
        first = ((job.name, now if job.starts_at_once else job.schedule.next_after(now)) for job in self._jobs.values())
        await leases.ensure(self._hub.db, first)
        wait_s = _LOOK_S
        for row in await leases.all_jobs(self._hub.db):
            job = self._jobs.get(row.name)
            if job is None or job.name in self._running:
                continue
            free_at = max(row.due_at, row.lease_until) if row.lease and row.lease_until else row.due_at
            if free_at > now:
                wait_s = min(wait_s, (free_at - now).total_seconds())
                continue
            lease = await self._claim(job.name)
            if lease is not None:
                self._running[job.name] = asyncio.create_task(self._run_in_turn(job, lease))
        return wait_s

    async def wait_idle(self) -> None:
        """Returns when no job runs on this portal."""
        while self._running:
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def run_now(self, name: str) -> str | None:
        """Runs one job whether it is due or not, and gives what went wrong.

        Raises:
            NotFound: There is no such job.
            Conflict: Another portal runs it at this moment.
        """
        job = self._jobs.get(name)
        if job is None:
            raise NotFound(f"there is no job {name}; there are {', '.join(sorted(self._jobs))}")
        now = self._hub.clock.utc_now()
        await leases.ensure(self._hub.db, [(name, now)])
        lease = await self._claim(name, is_forced=True)
        if lease is None:
            raise Conflict(f"the job {name} runs already, on another portal")
        return await self._run_leased(job, lease)

    async def _claim(self, name: str, *, is_forced: bool = False) -> Lease | None:
        now = self._hub.clock.utc_now()
        holder = self._hub.node_id
        return await leases.claim(self._hub.db, name, holder=holder, at=now, until=now + LEASE, is_forced=is_forced)

    async def _run_in_turn(self, job: Job, lease: Lease) -> None:
        try:
            await self._run_leased(job, lease)
        except Exception:
            self._hub.metrics.failures.labels("jobs").inc()
            log.exception("how a regular job went could not be noted", job=job.name)
        finally:
            del self._running[job.name]

    async def _run_leased(self, job: Job, lease: Lease) -> str | None:
        started = self._hub.clock.now()
        keeper = asyncio.create_task(self._keep(lease, asyncio.current_task()))
        try:
            error = await self._run_once(job)
        except asyncio.CancelledError:
            with suppress(Exception):
                await leases.release(self._hub.db, lease)
            raise
        finally:
            keeper.cancel()
        now, duration_s = self._hub.clock.utc_now(), self._hub.clock.now() - started
        failures_in_row = lease.failures_in_row + 1 if error else 0
        due_at = next_run(job.schedule, now, failures_in_row=failures_in_row)
        if not await leases.finish(self._hub.db, lease, at=now, duration_s=duration_s, due_at=due_at, error=error):
            log.warning("a regular job was taken over while it ran", job=job.name)
        self._hub.metrics.jobs.labels(job.name, "failed" if error else "ok").inc()
        self._hub.metrics.job_seconds.labels(job.name).observe(duration_s)
        return error

    async def _run_once(self, job: Job) -> str | None:
        async with self._places:
            try:
                async with asyncio.timeout(job.timeout_s):
                    await job.run(self._hub)
            except Exception as error:
                self._hub.metrics.failures.labels("jobs").inc()
                log.exception("a regular job failed", job=job.name)
                return f"{type(error).__name__}: {error}"
        return None

    async def _keep(self, lease: Lease, task: "asyncio.Task[None] | None") -> None:
        """Renews a lease; stops the job once another portal may run it."""
        last = self._hub.clock.utc_now()
        while True:
            await asyncio.sleep(_RENEW_S)
            now = self._hub.clock.utc_now()
            try:
                is_kept = await leases.renew(self._hub.db, lease, now + LEASE)
            except Exception:
                is_kept = now - last < LEASE  # the database is away; others cannot take the lease either
            else:
                last = now
            if not is_kept and task is not None:
                log.warning("a regular job lost its lease", job=lease.name)
                task.cancel()
                return
