"""`wardgate portal jobs`: what runs regularly, how it went, and running one by hand."""

from datetime import datetime
from typing import Any

from wardgate.errors import WardgateError
from wardgate.portal.channels.hub import Hub
from wardgate.portal.clock import SystemClock
from wardgate.portal.config import Settings
from wardgate.portal.db import jobs as leases
from wardgate.portal.db.engine import Database
from wardgate.portal.db.node_tables import JobRow
from wardgate.portal.jobs import standard_jobs
from wardgate.portal.scheduler import Scheduler


async def run_job(settings: Settings, db: Database, name: str) -> None:
    """Runs a job whether it is due or not.

    Raises:
        WardgateError: There is no such job, it runs already, or it failed.
    """
    error = await Scheduler(Hub(settings, db, SystemClock()), standard_jobs()).run_now(name)
    if error is not None:
        raise WardgateError(f"the job {name} failed: {error}")


async def list_jobs(db: Database) -> list[dict[str, Any]]:
    """Every job with its schedule and what the database knows of its last run; instants as ISO 8601 in UTC."""
    rows = {row.name: row for row in await leases.all_jobs(db)}
    return [_job(job.name, str(job.schedule), rows.get(job.name)) for job in standard_jobs()]


def _job(name: str, schedule: str, row: JobRow | None) -> dict[str, Any]:
    return {
        "name": name,
        "schedule": schedule,
        "due_at": _iso(row.due_at) if row else None,
        "running_on": row.holder if row and row.lease else None,
        "last_started_at": _iso(row.started_at) if row else None,
        "last_finished_at": _iso(row.finished_at) if row else None,
        "last_duration_s": row.duration_s if row else None,
        "last_result": row.last_result if row else None,
        "last_error": row.last_error if row else None,
        "last_ran_on": row.holder if row else None,
        "runs": row.runs if row else 0,
        "failures": row.failures if row else 0,
    }


def as_table(jobs: list[dict[str, Any]]) -> str:
    """The jobs for people: one line each."""
    lines = [f"{'JOB':<24}{'SCHEDULE':<30}{'DUE':<22}{'LAST':<22}{'TOOK':<9}RESULT"]
    for job in jobs:
        took = "" if job["last_duration_s"] is None else f"{job['last_duration_s']:.2f} s"
        result = f"running on {job['running_on']}" if job["running_on"] else job["last_result"] or "never ran"
        shown = [(job[name] or "")[:19].replace("T", " ") for name in ("due_at", "last_finished_at")]
        lines.append(f"{job['name']:<24}{job['schedule']:<30}{shown[0]:<22}{shown[1]:<22}{took:<9}{result}")
        if job["last_error"] and not job["running_on"]:
            lines.append(f"    {job['last_error']}")
    return "\n".join(lines)


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
