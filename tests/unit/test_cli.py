"""The command line as a user meets it: exit statuses, named settings, nothing secret in arguments."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wardgate.cli import app

QUIET = {"PATH": "/usr/bin:/bin", "PYTHONPATH": "src", "COLUMNS": "200"}


def test_root_lists_the_parts_without_loading_them() -> None:
    done = wardgate("--help")

    assert done.returncode == 0
    for part in ("client", "gateway", "relay", "admin"):
        assert f"\n  {part} " in done.stdout


def test_version_is_shown() -> None:
    assert wardgate("--version").stdout == "wardgate 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (("gateway",), {"WARDGATE_TOKEN": ".t"}, "--api-url (WARDGATE_API_URL)"),
        (("gateway", "--api-url", "wss://portal.example"), {}, "WARDGATE_TOKEN"),
        (("gateway", "--health-check-addr", "x"), {}, "--health-check-addr"),
        (("gateway",), {"HEALTH_CHECK_ADDR": "x"}, "(env var: 'WARDGATE_HEALTH_CHECK_ADDR, HEALTH_CHECK_ADDR')"),
        (("relay", "--public-ip4-addr", "203.0.113.1", "extra"), {}, "unexpected extra argument"),
        (("admin", "--url", "http://a:b:c", "account"), {}, "--url (WARDGATE_ADMIN_URL)"),
        (("admin", "account"), {"WARDGATE_API_TOKEN": "é"}, "WARDGATE_API_TOKEN"),
        (("gateway", "--log-format", "xml"), {}, "human, json"),
        (("gateway",), {"WARDGATE_LOG_FORMAT": "xml"}, "human, json"),
        (("gateway", "--max-partition-time", "soon"), {}, "24h"),
        (("gateway", "-u", "wss://p", "--id", " "), {"FIREZONE_TOKEN": ".t"}, "--id (WARDGATE_ID)"),
        (("client", "up", "--dns-control", "magic"), {}, "etc-resolv-conf"),
        (("client", "up", "-u", "wss://p", "--token-file", "/nonexistent"), {}, "wardgate client sign-in"),
        (("client", "sign-in"), {}, "--auth-base-url"),
        (("client", "up", "--token", ".t"), {}, "No such option"),
    ],
)
def test_wrong_setting_ends_with_status_2_and_is_named(
    arguments: tuple[str, ...], environment: dict[str, str], named: str
) -> None:
    done = CliRunner().invoke(app, arguments, env=environment)

    assert done.exit_code == 2
    assert named in " ".join(done.stderr.split())


def test_config_file_gives_defaults_and_unknown_names_are_refused(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('api-url = "ftp://portal"\n')
    bad.write_text('token = ".secret"\n')

    with_good = wardgate("gateway", "--config", str(good), env={"WARDGATE_TOKEN": ".t"})
    with_bad = wardgate("gateway", "--config", str(bad))

    assert (with_good.returncode, with_bad.returncode) == (2, 2)
    assert "ftp://portal" in with_good.stderr
    assert "token; accepted are" in with_bad.stderr


def test_help_names_the_environment_variables_of_the_portal() -> None:
    text = CliRunner().invoke(app, ("portal", "serve", "--help")).stdout

    for name in ("WARDGATE_LISTEN", "WARDGATE_DATABASE", "WARDGATE_EXTERNAL_URL", "WARDGATE_LOG_LEVEL"):
        assert name in text


def test_commands_say_when_no_client_runs(tmp_path: Path) -> None:
    for command in (("status", "--json"), ("status",), ("down",), ("reset",)):
        done = wardgate("client", *command, "--socket", str(tmp_path / "none"))
        assert done.returncode == 1
        assert "no client is running" in done.stderr
        assert ("clean-up" in done.stderr) == (command == ("down",))


def test_signing_in_keeps_the_token_private_and_signing_out_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "token"
    options = ("--token-file", str(path))

    signed_in = wardgate(
        "client",
        "sign-in",
        "--auth-base-url",
        "https://app.example/x",
        "--account-slug",
        "acme",
        *options,
        stdin=" .tok\n",
    )
    mode, text = path.stat().st_mode & 0o777, path.read_text()
    signed_out = wardgate("client", "sign-out", "--force", *options)

    assert signed_in.returncode == 0
    assert "https://app.example/x/acme?as=headless-client" in signed_in.stderr
    assert (mode, text) == (0o600, ".tok\n")
    assert signed_out.returncode == 0
    assert not path.exists()
    assert wardgate("client", "sign-out", *options).stdout == "Signed out already.\n"


def wardgate(*arguments: str, env: dict[str, str] | None = None, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "wardgate.cli", *arguments],
        env={**QUIET, **(env or {})},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
