"""Settings by flag, environment and file, and the operator's commands."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wardgate.errors import SettingError
from wardgate.portal.app import create_app
from wardgate.portal.config import read_settings
from wardgate.portal.main import app


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WARDGATE_LISTEN", "WARDGATE_DATABASE", "DATABASE_URL", "WARDGATE_LOG_LEVEL", "LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "portal.toml"
    path.write_text('listen = "127.0.0.1:1"\nlog-level = "debug"\ndatabase = "sqlite:///a"\nsend_queue = 100\n')
    monkeypatch.setenv("WARDGATE_LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("DATABASE_URL", "sqlite:///b")

    settings = read_settings(path, listen=None, database="sqlite:///c")

    assert (settings.port, settings.database, settings.log_level, settings.send_queue) == (
        2,
        "sqlite:///c",
        "debug",
        100,
    )
    assert read_settings(path).database == "sqlite:///b"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WARDGATE_LISTEN", "nonsense", "listen: must be host:port"),
        ("WARDGATE_LISTEN", "127.0.0.1:99999", "listen: must be host:port"),
        ("WARDGATE_LOG_LEVEL", "loud", "log_level: must be debug, info, warning or error"),
        ("WARDGATE_EXTERNAL_URL", "portal", "external_url: must be an address"),
        ("WARDGATE_EXTERNAL_URL", "https://[x", "external_url"),
        ("WARDGATE_CONNECT_CAPACITY", "0", "connect_capacity"),
        ("WARDGATE_TRUSTED_PROXIES", "everyone", "trusted_proxies"),
        ("WARDGATE_NATS_URL", "nats.example:4222", "nats_url: must be addresses such as nats://"),
        ("WARDGATE_NATS_URL", "nats://one:4222,http://two", "nats_url: must be addresses such as nats://"),
        ("WARDGATE_NATS_SUBJECT", "a.b", "nats_subject: must be 1 to 64 letters"),
        ("WARDGATE_DRAIN_S", "41", "drain_s"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingError, match=said):
        read_settings()


@pytest.mark.parametrize("content", ["no toml", 'lisen = "127.0.0.1:1"'])
def test_a_wrong_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "portal.toml"
    path.write_text(content)

    with pytest.raises(SettingError, match=r"portal\.toml"):
        read_settings(path)


def test_nats_servers_are_a_list_whose_passwords_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDGATE_NATS_URL", "nats://one:secret@a:4222, tls://b")

    settings = read_settings()

    assert settings.nats_urls == ["nats://one:secret@a:4222", "tls://b"]
    assert "secret@" not in repr(settings)
    assert settings.drain_seconds == 5
    assert read_settings(nats_url="").drain_seconds == 0, "alone there is nowhere to go"


def test_several_portals_on_sqlite_are_refused(tmp_path: Path) -> None:
    settings = read_settings(database=f"sqlite:///{tmp_path / 'portal.db'}", nats_url="nats://one")

    with pytest.raises(SettingError, match="several portals need PostgreSQL"):
        create_app(settings)


def test_proxies_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDGATE_TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1")

    assert read_settings().trusted_proxies == ("10.0.0.0/8", "192.0.2.1/32")


def test_an_account_and_its_tokens_are_made_from_nothing(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'portal.db'}"

    made = run("setup", "--account", "corp", "--email", "ada@corp.example", "--database", database, "--json")
    relay = run("relay-token", "--database", database, "--json")
    client = run("client-token", "--account", "corp", "--actor", "ada@corp.example", "--database", database, "--json")

    assert made.keys() == {"account_id", "api_token"}
    assert made["api_token"].startswith(".wga_")
    assert relay["token"].startswith(".wgr_")
    assert client["token"].startswith(".wgc_")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["setup", "--account", "corp", "--email", "ada@corp.example"], 1, "slug has already been taken"),
        (["setup", "--account", "c", "--email", "ada@corp.example"], 1, "slug"),
        (["setup", "--account", "other", "--email", "nobody"], 1, "email is not an e-mail address"),
        (["client-token", "--account", "nowhere", "--actor", "ada@corp.example"], 1, "no account nowhere"),
        (["client-token", "--account", "corp", "--actor", "eve@corp.example"], 1, "no actor eve@corp.example"),
        (["revoke-relay-token", "00000000-0000-4000-8000-000000000001"], 1, "no relay token"),
        (["setup", "--account", "x", "--email", "y", "--database", "mysql://x/y"], 2, "database"),
    ],
)
def test_a_command_that_cannot_be_done_says_why(tmp_path: Path, words: list[str], status: int, said: str) -> None:
    database = f"sqlite:///{tmp_path / 'portal.db'}"
    run("setup", "--account", "corp", "--email", "ada@corp.example", "--database", database, "--json")
    if "--database" not in words:
        words = [*words, "--database", database]

    done = CliRunner().invoke(app, words)

    assert done.exit_code == status
    assert said in done.stderr


def test_a_mistake_leaves_no_account_behind(tmp_path: Path) -> None:
    words = ["setup", "--account", "corp", "--database", f"sqlite:///{tmp_path / 'portal.db'}", "--json", "--email"]

    assert CliRunner().invoke(app, [*words, "nobody"]).exit_code == 1

    assert run(*words, "ada@corp.example")


def test_regular_jobs_are_shown_and_run_by_hand(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'portal.db'}"
    run("setup", "--account", "corp", "--email", "ada@corp.example", "--database", database, "--json")

    done = CliRunner().invoke(app, ["jobs", "--database", database, "--run", "expired-grants", "--json"])
    shown = CliRunner().invoke(app, ["jobs", "--database", database])
    wrong = CliRunner().invoke(app, ["jobs", "--database", database, "--run", "nothing"])

    jobs = {job["name"]: job for job in json.loads(done.stdout)}
    assert jobs["expired-grants"]["last_result"] == "ok"
    assert jobs["expired-tokens"]["last_result"] is None
    assert "expired-grants" in shown.stdout
    assert "never ran" in shown.stdout
    assert wrong.exit_code == 1
    assert "there is no job nothing; there are account-deletions" in wrong.stderr


def run(*words: str) -> dict[str, str]:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.stderr
    answer: dict[str, str] = json.loads(done.stdout)
    return answer
