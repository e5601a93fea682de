"""`wardgate portal logs` and `log-sinks`, as they are typed."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.unit.portal.helpers import SECRET_KEY, make_lab
from wardgate.portal.clock import SystemClock
from wardgate.portal.commands.logs import _read
from wardgate.portal.db.engine import Database
from wardgate.portal.main import app
from wardgate.portal.services import sites


class Console:
    """Types commands about one database."""

    def __init__(self, database: Path) -> None:
        self._database = ["--database", f"sqlite:///{database}"]

    def type(self, *words: str, status: int = 0) -> Result:
        account = [] if words[0] == "setup" else ["--account", "corp"]
        done: Any = CliRunner().invoke(app, [*words, *account, *self._database])
        assert done.exit_code == status, done.output
        return done  # type: ignore[no-any-return]

    def json(self, *words: str) -> Any:
        return json.loads(self.type(*words, "--json").stdout)


@pytest.fixture
def console(tmp_path: Path) -> Console:
    console = Console(tmp_path / "portal.db")
    console.type("setup", "--account", "corp", "--email", "admin@corp.example")
    return console


def test_a_sink_is_made_changed_switched_and_deleted(console: Console, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hec-token\n")
    url = "collector_url=https://splunk.example:8088"
    made = console.json(
        "log-sinks", "add", "splunk", "--set", url, "--secret-file", f"hec_token={secret}", "--stream", "change"
    )
    edited = console.json("log-sinks", "edit", "Splunk", "--name", "SIEM", "--set", "index=main", "--retroactive")
    (shown,) = console.json("log-sinks", "list")

    assert (made["name"], made["status"], made["enabled_streams"]) == ("Splunk", "active", ["change"])
    assert edited["settings"] == {"collector_url": "https://splunk.example:8088", "index": "main"}
    assert (shown["name"], shown["retroactive"], shown["delivered"]) == ("SIEM", True, 0)
    assert console.json("log-sinks", "disable", "SIEM")["disabled_reason"] == "Disabled by admin"
    assert "disabled" in console.type("log-sinks", "list").stdout
    assert "is disabled" in console.type("log-sinks", "sync-now", "SIEM", status=1).stderr
    assert console.json("log-sinks", "enable", made["id"])["status"] == "active"
    assert console.json("log-sinks", "sync-now", "SIEM")["delivered"] == 0
    console.type("log-sinks", "delete", "SIEM")
    assert console.json("log-sinks", "list") == []
    console.type("log-sinks", "enable", "SIEM", status=1)
    every = console.type("logs", "--type", "change", "--limit", "100", "--json").stdout
    assert "splunk_log_sinks" in every
    assert "hec-token" not in every


def test_secrets_are_not_given_on_the_command_line(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["log-sinks", "add", "datadog"]
    assert "api_key" in console.type(*words, "--set", "api_key=abc", status=2).stderr
    assert "NO_SUCH" in console.type(*words, "--secret-env", "api_key=NO_SUCH", status=2).stderr
    monkeypatch.setenv("DD_KEY", "abc")
    assert console.json(*words, "--secret-env", "api_key=DD_KEY")["type"] == "datadog"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sink.toml", 'endpoint_url = "https://hook.example"\nbearer-token = "t"\nenabled_streams = ["flow"]\n'),
        ("sink.json", '{"endpoint_url": "https://hook.example", "bearer_token": "t", "enabled_streams": ["flow"]}'),
    ],
)
def test_a_file_may_hold_everything(console: Console, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)

    made = console.json("log-sinks", "add", "http", "--file", str(tmp_path / name))

    assert (made["enabled_streams"], made["settings"]["batch_max_events"]) == (["flow"], 100)


def test_what_is_wrong_is_said_by_name(console: Console, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("= nonsense")
    wrong = {
        ("add", "kafka"): "type must be one of splunk",
        ("add", "http"): "endpoint_url can't be blank",
        ("add", "http", "--set", "endpoint_url=http://hook.example"): "endpoint_url must start with https://",
        ("add", "http", "--set", "endpoint_url=https://h.example", "--stream", "all"): "enabled_streams must be",
        ("edit", "nothing"): "no log sink nothing",
    }
    for words, said in wrong.items():
        assert said in console.type("log-sinks", *words, status=1).stderr
    assert "NAME=VALUE" in console.type("log-sinks", "add", "http", "--set", "nonsense", status=2).stderr
    assert "cannot be read" in console.type("log-sinks", "add", "http", "--file", "/nowhere", status=2).stderr
    bad = str(tmp_path / "bad.toml")
    assert "cannot be read" in console.type("log-sinks", "add", "http", "--file", bad, status=2).stderr


def test_a_destination_that_is_away_or_private_is_told_of(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    console.type("log-sinks", "add", "http", "--set", "endpoint_url=https://127.0.0.1:9/in", "--retroactive")
    assert "not public" in console.type("log-sinks", "test", "HTTP", status=1).stdout

    monkeypatch.setenv("WARDGATE_LOG_SINKS_ALLOW_PRIVATE", "true")
    assert "retriable" in console.type("log-sinks", "test", "HTTP", status=1).stdout
    monkeypatch.delenv("WARDGATE_LOG_SINKS_ALLOW_PRIVATE")
    (shown,) = console.json("log-sinks", "list")
    assert shown["error_message"] is None


def test_an_external_id_is_shown_for_the_trust_policy(console: Console) -> None:
    settings = ["bucket=logs", "region=eu-central-1", "role_arn=arn:aws:iam::123456789012:role/x"]
    made = console.type("log-sinks", "add", "s3", *[word for one in settings for word in ("--set", one)])

    assert "sts:ExternalId" in made.stdout


def test_logs_are_shown_oldest_first(console: Console) -> None:
    lines = [json.loads(line) for line in console.type("logs", "--type", "change", "--json").stdout.splitlines()]

    assert [one["log_id"] for one in lines] == sorted(one["log_id"] for one in lines)
    assert {one["object"] for one in lines} >= {"accounts", "actors"}
    assert len(console.type("logs", "--type", "change", "--limit", "2").stdout.splitlines()) == 2
    for kind in ("session", "flow", "api_request"):
        assert console.type("logs", "--type", kind).stdout == ""
    assert "type must be one of" in console.type("logs", "--type", "all", status=1).stderr


async def test_a_log_is_followed(database_path: Path) -> None:
    db = Database(f"sqlite:///{database_path}", SystemClock(), SECRET_KEY)
    lab = await make_lab(db)
    shown: list[dict[str, Any]] = []
    arrived = asyncio.Event()

    def show(one: dict[str, Any]) -> None:
        shown.append(one)
        if one["after"] and one["after"].get("name") == "Graz":
            arrived.set()

    following = asyncio.create_task(_read(db, "corp", "change", 3, show, follow=True))
    async with db.writing(lab.subject) as unit:
        await sites.create_site(unit, {"name": "Graz"})
    async with asyncio.timeout(20):
        await arrived.wait()
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    await db.close()

    ids = [one["log_id"] for one in shown]
    assert len(ids) == len(set(ids))
    assert ids[-1] == max(ids)
