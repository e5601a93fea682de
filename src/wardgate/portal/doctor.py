"""Looks an installation over and says what is wrong and what to do: settings, database, key, bus, clock, certificates.

Each finding is `ok`, a `warning` (it works, but not for long or not well) or a `problem`. Nothing is changed.
"""

import asyncio
import os
import ssl
import stat
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import httpx
from pydantic import AliasChoices, SecretStr

from wardgate.errors import WardgateError
from wardgate.portal.clock import Clock
from wardgate.portal.config import Settings
from wardgate.portal.db import jobs
from wardgate.portal.db.engine import Database
from wardgate.portal.db.health import Health, look
from wardgate.portal.db.outbox import RETENTION
from wardgate.portal.db.timing import drift_s

State = Literal["ok", "warning", "problem"]
_WAIT_S: Final = 5.0
_MEGABYTE: Final = 1024 * 1024
_MAX_WAL: Final = 256 * _MEGABYTE
_LITTLE_DISK: Final = 1024 * _MEGABYTE
_NO_DISK: Final = 100 * _MEGABYTE
_OVERDUE: Final = timedelta(minutes=10)
_DAYS_LEFT: Final = 14
_FIRST_YEAR: Final = 2025
EXIT_STATUS: Final[dict[State, int]] = {"ok": 0, "warning": 1, "problem": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        advice: What to do about it; empty if it is ok.
    """

    check: str
    state: State
    text: str
    advice: str = ""

    def as_json(self) -> dict[str, str]:
        """For programs."""
        return asdict(self)


def exit_status(findings: Iterable[Finding]) -> int:
    """0 if all is well, 1 if there is a warning, 2 if there is a problem."""
    return max((EXIT_STATUS[one.state] for one in findings), default=0)


async def examine(settings: Settings, db: Database, clock: Clock, trust: ssl.SSLContext | None = None) -> list[Finding]:
    """Looks at everything but the settings.

    Args:
        trust: Which certificates are believed, if not the system's.
    """
    health = await look(db)
    found = [*check_database(health), *check_key(health)]
    if health.error is None and health.is_current:
        found += [*await check_jobs(db, clock), check_outbox(health, clock)]
    found += await check_clock(db, clock)
    found += await check_bus([_plain(one) for one in getattr(settings, "nats_url", ())])
    found += await check_external_url(settings, trust)
    return [*found, *check_proxies(settings), *check_permissions(db, settings)]


# --- settings ---------------------------------------------------------------------------------------------------------


def check_settings(settings: Settings, flags: Iterable[str], from_file: Iterable[str]) -> list[Finding]:
    """Every setting that is not the default, and where it comes from; secrets are not shown."""
    found = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        alias = field.validation_alias
        names = [one for one in (alias.choices if isinstance(alias, AliasChoices) else []) if isinstance(one, str)]
        variable = next((one for one in names if one != name and one in os.environ), None)
        if name in flags:
            source = f"--{name.replace('_', '-')}"
        elif variable is not None:
            source = variable
        elif name in from_file:
            source = "the file"
        else:
            continue
        found.append(Finding("settings", "ok", f"{name} is {_shown(value)}, from {source}"))
    return found or [Finding("settings", "ok", "all are the defaults")]


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr) or (isinstance(value, tuple) and any(isinstance(one, SecretStr) for one in value)):
        return "set"
    if isinstance(value, str) and "://" in value:
        parts = urlsplit(value)
        if parts.password:
            return value.replace(f":{parts.password}@", ":***@", 1)
    return ", ".join(str(one) for one in value) if isinstance(value, tuple | frozenset) else str(value)


def _plain(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


# --- the database -----------------------------------------------------------------------------------------------------


def check_database(health: Health) -> list[Finding]:
    """Whether it can be used, and for how long."""
    if health.error is not None:
        return [Finding("database", "problem", f"it cannot be used: {health.error}", "see WARDGATE_DATABASE")]
    found = [Finding("database", "ok", f"{health.version}, {_size(health.size_bytes)}")]
    if not health.is_current:
        advice = "run `wardgate portal migrate`"
        found.append(Finding("database", "problem", "its tables are of another version", advice))
    if health.write_error is not None:
        advice = "see whether it is read-only, or its disk full"
        found.append(Finding("database", "problem", f"it cannot be written: {health.write_error}", advice))
    if health.wal_bytes > _MAX_WAL:
        advice = "something reads without end; restart the portal"
        found.append(Finding("database", "warning", f"its log has {_size(health.wal_bytes)}", advice))
    free = health.free_bytes
    if free is not None and free < _LITTLE_DISK:
        state: State = "problem" if free < _NO_DISK else "warning"
        found.append(Finding("disk", state, f"{_size(free)} are free", "make room on the disk of the database"))
    return found


def check_key(health: Health) -> list[Finding]:
    """Whether the key opens the secrets."""
    if health.error is not None:
        return []
    if health.key_error is not None:
        return [Finding("secret_key", "problem", health.key_error, "bring the key back from where it was backed up")]
    if not health.is_sealed:
        advice = "run `wardgate portal migrate`, and back the key up"
        return [Finding("secret_key", "problem", "the secrets are not sealed yet", advice)]
    return [Finding("secret_key", "ok", "it opens the secrets of the database")]


async def check_jobs(db: Database, clock: Clock) -> list[Finding]:
    """Whether regular jobs run, and end well."""
    rows = await jobs.all_jobs(db)
    late = [row.name for row in rows if row.due_at < clock.utc_now() - _OVERDUE]
    found = []
    if late:
        advice = "start a portal; if one runs, see its log"
        found.append(Finding("jobs", "warning", f"overdue: {', '.join(late)}", advice))
    for row in rows:
        if row.failures_in_row:
            text = f"{row.name} failed {row.failures_in_row} times in a row: {row.last_error}"
            found.append(Finding("jobs", "warning", text, f"`wardgate portal jobs --run {row.name}` tries it again"))
    return found or [Finding("jobs", "ok", f"{len(rows)} jobs are on time")]


def check_outbox(health: Health, clock: Clock) -> Finding:
    """Whether changes that all portals have told are removed."""
    oldest = health.outbox_oldest
    if oldest is not None and clock.utc_now() - oldest.replace(tzinfo=oldest.tzinfo or UTC) > 3 * RETENTION:
        text = f"{health.outbox_entries} changes wait, the oldest since {oldest.isoformat(timespec='seconds')}"
        return Finding("outbox", "warning", text, "start a portal; if one runs, see its log")
    return Finding("outbox", "ok", f"{health.outbox_entries} changes are kept for portals that come back")


# --- time, bus --------------------------------------------------------------------------------------------------------


async def check_clock(db: Database, clock: Clock) -> list[Finding]:
    """Whether time goes forward and agrees with the database's."""
    before, now = clock.now(), clock.utc_now()
    if clock.now() < before or now.year < _FIRST_YEAR:
        return [Finding("clock", "problem", f"it shows {now.isoformat(timespec='seconds')}", "set the clock, run NTP")]
    drift = await drift_s(db, clock.utc_now) if not db.is_missing else None
    if drift is not None and abs(drift) > 1.0:
        text = f"the database's clock is {drift:+.1f} s from ours"
        return [Finding("clock", "problem" if abs(drift) > 30 else "warning", text, "run NTP on both machines")]
    return [Finding("clock", "ok", now.isoformat(timespec="seconds"))]


async def check_bus(urls: Sequence[str]) -> list[Finding]:
    """Whether the servers of the bus greet."""
    found = []
    for url in urls:
        parts = urlsplit(url)
        place = f"{parts.hostname}:{parts.port or 4222}"
        try:
            async with asyncio.timeout(_WAIT_S):
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 4222)
                greeting = await reader.readline()
                writer.close()
        except (OSError, TimeoutError) as error:
            text = f"{place} cannot be reached: {error or 'no answer'}"
            found.append(Finding("bus", "problem", text, "start NATS there, or see WARDGATE_NATS_URL"))
            continue
        if greeting.startswith(b"INFO "):
            found.append(Finding("bus", "ok", f"{place} is NATS"))
        else:
            found.append(Finding("bus", "problem", f"{place} is not NATS", "see WARDGATE_NATS_URL"))
    return found


# --- from outside -----------------------------------------------------------------------------------------------------


async def check_external_url(settings: Settings, trust: ssl.SSLContext | None = None) -> list[Finding]:
    """The certificate at the external URL, and whether a portal is behind it."""
    url = settings.external_url
    if url is None:
        advice = "set WARDGATE_EXTERNAL_URL to how devices reach the portal"
        return [Finding("external_url", "warning", "it is not set", advice)]
    parts = urlsplit(url)
    found = []
    if parts.scheme in ("https", "wss"):
        found.append(await _check_certificate(parts.hostname or "", parts.port or 443, trust))
        if found[-1].state == "problem":
            return found
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    address = f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/readyz"
    advice = "start a portal, and see what the proxy passes on"
    try:
        async with httpx.AsyncClient(timeout=_WAIT_S, verify=trust or True, trust_env=False) as client:
            response = await client.get(address)
        status = response.json()["status"] if response.status_code in (200, 503) else response.status_code
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        text = f"{address} does not answer as a portal: {error or type(error).__name__}"
        return [*found, Finding("external_url", "problem", text, advice)]
    if status == "ready":
        return [*found, Finding("external_url", "ok", f"{address} is ready")]
    state: State = "warning" if status in ("draining", "starting") or status in (403, 404) else "problem"
    return [*found, Finding("external_url", state, f"{address} says {status}", advice)]


async def _check_certificate(host: str, port: int, trust: ssl.SSLContext | None) -> Finding:
    try:
        async with asyncio.timeout(_WAIT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=trust or ssl.create_default_context())
            certificate = writer.get_extra_info("peercert")
            writer.close()
    except ssl.SSLCertVerificationError as error:
        text = f"the one of {host} is not valid: {error.verify_message}"
        return Finding("certificate", "problem", text, "renew it, with its whole chain, in the proxy")
    except (OSError, TimeoutError) as error:
        text = f"{host}:{port} cannot be reached: {error or 'no answer'}"
        return Finding("certificate", "problem", text, "see the proxy, DNS and firewall")
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
    days = (ends - datetime.now(UTC)).days
    if days < _DAYS_LEFT:
        return Finding("certificate", "warning", f"the one of {host} ends in {days} days", "see why it is not renewed")
    return Finding("certificate", "ok", f"the one of {host} is good for {days} days")


def check_proxies(settings: Settings) -> list[Finding]:
    """Whether addresses of devices are known, and only from whom one may believe."""
    everybody = [str(one) for one in settings.proxy_networks if one.prefixlen == 0]
    if everybody:
        text = f"{', '.join(everybody)} is trusted: anybody can claim any address"
        return [Finding("proxies", "problem", text, "name the proxies alone in WARDGATE_TRUSTED_PROXIES")]
    if (settings.external_url or "").startswith(("https", "wss")) and not settings.proxy_networks:
        text = "none is trusted, but there is TLS in front: every device seems to come from the proxy"
        return [Finding("proxies", "warning", text, "name it in WARDGATE_TRUSTED_PROXIES")]
    return [Finding("proxies", "ok", ", ".join(settings.trusted_proxies) or "none")]


# --- files ------------------------------------------------------------------------------------------------------------


def check_permissions(db: Database, settings: Settings) -> list[Finding]:
    """Whether files are for their owner alone."""
    found = []
    if db.keys.file is not None and db.file is not None and db.keys.file.exists():
        found += _check_mode(db.keys.file, "problem")
    if db.file is not None:
        for name in (db.file.name, db.file.name + "-wal"):
            found += _check_mode(db.file.with_name(name), "warning")
    if settings.log_dir is not None and not os.access(settings.log_dir, os.W_OK):
        text = f"{settings.log_dir} cannot be written"
        found.append(Finding("files", "problem", text, "make it for the portal's user, or see WARDGATE_LOG_DIR"))
    return found or [Finding("files", "ok", "they are for their owner alone")]


def _check_mode(path: Path, state: State) -> list[Finding]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return []
    if not mode & 0o077:
        return []
    return [Finding("files", state, f"{path} can be read by others ({mode:04o})", f"chmod 0600 {path}")]


def _size(count: int) -> str:
    return f"{count / _MEGABYTE:.1f} MiB" if count < 1024 * _MEGABYTE else f"{count / _MEGABYTE / 1024:.1f} GiB"


def open_database(settings: Settings, clock: Clock) -> Database | Finding:
    """The database of the settings, or why there is none."""
    try:
        return Database(settings.database, clock, settings.secret_key_text)
    except WardgateError as error:
        return Finding("database", "problem", str(error), "see WARDGATE_DATABASE and WARDGATE_SECRET_KEY")
