"""The doctor finds what is wrong, and only that."""

import asyncio
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from tests.unit.portal.helpers import SECRET_KEY, ManualClock, make_lab
from tests.unit.portal.sockets.harness import running_portal
from wardgate.portal import doctor
from wardgate.portal.config import Settings
from wardgate.portal.db.engine import Database
from wardgate.portal.db.health import Health, look
from wardgate.portal.db.keyring import key_file_of
from wardgate.portal.db.node_tables import JobRow
from wardgate.portal.doctor import Finding
from wardgate.portal.main import app

WELL = Health(version="SQLite 3", is_current=True, is_sealed=True, size_bytes=1, free_bytes=2**40)
_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def test_an_installation_that_is_well_has_no_finding(db: Database, clock: ManualClock) -> None:
    await make_lab(db)
    found = await doctor.examine(Settings(), db, clock)

    assert [one for one in found if one.state != "ok" and one.check not in ("external_url", "clock")] == []
    assert {one.check for one in found} >= {"database", "secret_key", "jobs", "outbox", "proxies", "files"}


@pytest.mark.parametrize(
    ("health", "check", "state", "words"),
    [
        ({"error": "no route to host"}, "database", "problem", "no route"),
        ({"is_current": False}, "database", "problem", "another version"),
        ({"write_error": "readonly database"}, "database", "problem", "readonly"),
        ({"wal_bytes": 300 * 2**20}, "database", "warning", "300.0 MiB"),
        ({"free_bytes": 500 * 2**20}, "disk", "warning", "500.0 MiB"),
        ({"free_bytes": 50 * 2**20}, "disk", "problem", "50.0 MiB"),
        ({"key_error": "secret_key: it is another"}, "secret_key", "problem", "another"),
        ({"is_sealed": False}, "secret_key", "problem", "not sealed"),
    ],
)
def test_a_database_that_is_not_well_is_said_so(health: dict[str, Any], check: str, state: str, words: str) -> None:
    looked_at = replace(WELL, **health)

    found = [one for one in [*doctor.check_database(looked_at), *doctor.check_key(looked_at)] if one.state != "ok"]

    assert [(one.check, one.state) for one in found] == [(check, state)]
    assert words in found[0].text
    assert found[0].advice


async def test_a_missing_file_and_a_lost_key_are_seen(
    tmp_path: Path, sqlite_db: Database, database_path: Path, clock: ManualClock
) -> None:
    missing = Database(f"sqlite:///{tmp_path / 'none.db'}", clock)
    assert "does not exist" in ((await look(missing)).error or "")
    await missing.close()
    await sqlite_db.close()

    key_file_of(database_path).write_text("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=")
    other = Database(f"sqlite:///{database_path}", clock)
    health = await look(other)
    await other.close()

    assert "not the key" in (health.key_error or "")
    assert not (tmp_path / "none.db").exists()


async def test_a_database_that_cannot_be_written_is_seen(sqlite_db: Database) -> None:
    full = "BEFORE UPDATE ON secret_keys BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
    await sqlite_db.transact(lambda connection: connection.exec_driver_sql(f"CREATE TRIGGER full {full}"))

    assert "full" in ((await look(sqlite_db)).write_error or "")


async def test_jobs_that_are_late_or_fail_are_named(db: Database, clock: ManualClock) -> None:
    now = clock.utc_now()
    async with db.unscoped_write() as session:
        session.add(JobRow(name="late", due_at=now - dt.timedelta(minutes=11)))
        session.add(JobRow(name="failing", due_at=now, failures_in_row=3, last_error="no disk"))
        session.add(JobRow(name="fine", due_at=now + dt.timedelta(minutes=5)))

    late, failing = await doctor.check_jobs(db, clock)

    assert (late.state, late.text) == ("warning", "overdue: late")
    assert failing.text == "failing failed 3 times in a row: no disk"


@pytest.mark.parametrize(("minutes", "state"), [(29, "ok"), (31, "warning")])
def test_changes_that_nobody_clears_up_are_seen(clock: ManualClock, minutes: int, state: str) -> None:
    oldest = clock.utc_now() - dt.timedelta(minutes=minutes)

    assert doctor.check_outbox(replace(WELL, outbox_entries=5, outbox_oldest=oldest), clock).state == state


@pytest.mark.parametrize(("drift", "state"), [(0.5, "ok"), (-1.5, "warning"), (40.0, "problem")])
async def test_a_clock_that_differs_from_the_databases_is_seen(
    db: Database, clock: ManualClock, drift: float, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def measured(*_: Any) -> float:
        return drift

    monkeypatch.setattr(doctor, "drift_s", measured)

    assert [one.state for one in await doctor.check_clock(db, clock)] == [state]


@pytest.mark.parametrize(
    ("greeting", "state", "words"),
    [(b'INFO {"server_id":"x"}\r\n', "ok", "is NATS"), (b"220 mail\r\n", "problem", "not")],
)
async def test_the_bus_is_known_by_its_greeting(greeting: bytes, state: str, words: str) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await writer.drain()
        writer.close()

    async with serving(greet) as port:
        (found,) = await doctor.check_bus([f"nats://user:word@127.0.0.1:{port}"])
    (gone,) = await doctor.check_bus([f"nats://127.0.0.1:{port}"])

    assert (found.state, words in found.text) == (state, True)
    assert "word" not in found.text
    assert (gone.state, "cannot be reached" in gone.text) == ("problem", True)


@pytest.mark.parametrize(
    ("status", "body", "state", "words"),
    [
        ("200 OK", '{"status": "ready"}', "ok", "ready"),
        ("503 Service Unavailable", '{"status": "draining"}', "warning", "draining"),
        ("503 Service Unavailable", '{"status": "database_unavailable"}', "problem", "database_unavailable"),
        ("404 Not Found", "", "warning", "404"),
        ("502 Bad Gateway", "", "problem", "502"),
        ("200 OK", "<html>", "problem", "does not answer as a portal"),
    ],
)
async def test_what_is_behind_the_external_url_is_told(status: str, body: str, state: str, words: str) -> None:
    async with serving(answering(status, body)) as port:
        (found,) = await doctor.check_external_url(Settings(external_url=f"ws://127.0.0.1:{port}/"))

    assert (found.state, words in found.text) == (state, True)


async def test_a_real_portal_is_ready(database_path: Path, clock: ManualClock) -> None:
    settings = Settings(listen="127.0.0.1:0", database=f"sqlite:///{database_path}", secret_key=SECRET_KEY)
    async with running_portal(settings, clock) as server:
        (found,) = await doctor.check_external_url(Settings(external_url=server.url))

    assert found.state == "ok"


@pytest.mark.parametrize(("days", "state"), [(90, "ok"), (5, "warning"), (-1, "problem")])
async def test_a_certificate_is_good_ends_soon_or_is_over(tmp_path: Path, days: int, state: str) -> None:
    context, trust = certificate(tmp_path, days)
    async with serving(answering("200 OK", '{"status": "ready"}'), context) as port:
        first, *rest = await doctor.check_external_url(Settings(external_url=f"https://localhost:{port}"), trust)

    assert (first.check, first.state) == ("certificate", state)
    assert [one.state for one in rest] == ([] if state == "problem" else ["ok"])


async def test_a_certificate_that_nobody_vouches_for_is_a_problem(tmp_path: Path) -> None:
    context, _ = certificate(tmp_path, 90)
    async with serving(answering("200 OK", ""), context) as port:
        (found,) = await doctor.check_external_url(Settings(external_url=f"https://localhost:{port}"))

    assert (found.state, "not valid" in found.text) == ("problem", True)


@pytest.mark.parametrize(
    ("url", "proxies", "state"),
    [
        ("https://portal.example", "", "warning"),
        ("https://portal.example", "10.0.0.1", "ok"),
        ("http://portal.example", "", "ok"),
        ("http://portal.example", "10.0.0.0/8,::/0", "problem"),
    ],
)
def test_proxies_are_neither_forgotten_nor_everybody(url: str, proxies: str, state: str) -> None:
    (found,) = doctor.check_proxies(Settings(external_url=url, trusted_proxies=proxies))

    assert found.state == state


def test_files_that_others_can_read_are_named(database_path: Path, tmp_path: Path) -> None:
    database_path.chmod(0o644)
    key_file_of(database_path).chmod(0o640)
    opened = Database(f"sqlite:///{database_path}", ManualClock())

    found = doctor.check_permissions(opened, Settings(log_dir=tmp_path / "nowhere"))

    wanted = [("problem", "chmod"), ("warning", "chmod"), ("problem", "make")]
    assert [(one.state, one.advice.split()[0]) for one in found] == wanted


def test_the_command_says_where_settings_come_from_and_ends_with_the_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"sqlite:///{tmp_path / 'portal.db'}"
    CliRunner().invoke(app, ["setup", "--account", "corp", "--email", "a@corp.example", "--database", database])
    monkeypatch.setenv("WARDGATE_SECRET_KEY", (tmp_path / "portal.db.key").read_text().strip())
    config = tmp_path / "portal.toml"
    config.write_text('log_level = "warning"\n')

    done = CliRunner().invoke(app, ["doctor", "--json", "--database", database, "--config", str(config)])
    found = [Finding(**one) for one in json.loads(done.stdout)]
    wrong = CliRunner().invoke(app, ["doctor", "--database", "mysql://nowhere"])
    monkeypatch.setenv("WARDGATE_LISTEN", "nowhere")
    unset = CliRunner().invoke(app, ["doctor"])

    assert done.exit_code == 1
    assert [one.check for one in found if one.state != "ok"] == ["external_url"]
    texts = [one.text for one in found if one.check == "settings"]
    assert f"database is {database}, from --database" in texts
    assert "secret_key is set, from WARDGATE_SECRET_KEY" in texts
    assert "log_level is warning, from the file" in texts
    assert (wrong.exit_code, "mysql" in wrong.stdout) == (2, True)
    assert (unset.exit_code, "listen" in unset.stdout) == (2, True)


# --- helpers ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def sqlite_db(database_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{database_path}", clock)
    yield database
    await database.close()


@asynccontextmanager
async def serving(handler: _Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(status: str, body: str) -> _Handler:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return answer


def certificate(directory: Path, days: int) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's side with a certificate for localhost, and who trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=30))
        .not_valid_after(now + dt.timedelta(days=days, hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = directory / "certificate.pem"
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, *plain))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cafile=str(file))
