"""The relay's settings, from flags, environment and file; a wrong one is named with what is accepted."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wardgate.errors import SettingError
from wardgate.relay.config import RelaySettings
from wardgate.relay.main import app

GOOD = RelaySettings("203.0.113.3", None, "wss://portal.example", "token")
FLAGS = ["--public-ip4-addr", "203.0.113.3", "--api-url", "wss://portal.example"]


def test_good_settings_pass_and_make_the_url() -> None:
    GOOD.check()

    assert GOOD.portal_url() == "wss://portal.example/relay/websocket?ipv4=203.0.113.3&port=3478"
    named = replace(GOOD, name="r1", public_ipv6="2001:db8::3", api_url="https://portal.example/base/?x=1")
    assert named.portal_url() == (
        "wss://portal.example/base/relay/websocket?name=r1&ipv4=203.0.113.3&ipv6=2001%3Adb8%3A%3A3&port=3478"
    )


def test_nothing_is_relayed_to_addresses_of_the_host_itself() -> None:
    config = GOOD.turn_config(("198.51.100.77",))

    assert config.own_hosts == ("198.51.100.77",)
    assert config.realm == "firezone"
    alone = replace(GOOD, api_url="", passwords={"a": "b"})
    alone.check()
    assert alone.turn_config(()).realm == "wardgate"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"public_ipv4": None}, "--public-ip4-addr"),
        ({"lowest_port": 2, "highest_port": 1}, "--lowest-port"),
        ({"api_url": ""}, "--api-url"),
        ({"api_url": "portal.example"}, "--api-url"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        replace(GOOD, **change).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--public-ip4-addr", "203.0.113.256"], "--public-ip4-addr"),
        (["--public-ip6-addr", "203.0.113.3"], "--public-ip6-addr"),
        (["--bind-ip4-addr", "x"], "--bind-ip4-addr"),
        (["--listen-port", "65536"], "--listen-port"),
        (["--lowest-port", "0"], "--lowest-port"),
        (["--log-format", "xml"], "--log-format"),
        (["--log-level", "loud"], "--log-level"),
        (["--health-check-addr", "8080"], "--health-check-addr"),
        (["--lowest-port", "60000", "--highest-port", "50000"], "--lowest-port"),
        (["--token-file", "/nonexistent"], "--token-file"),
        (["--config", "/nonexistent"], "--config"),
        (["--api-url", "gopher://x"], "--api-url"),
        (["--no-such-setting"], "--no-such-setting"),
    ],
)
def test_a_wrong_setting_ends_the_program_with_status_2(arguments: list[str], named: str) -> None:
    env = {"WARDGATE_TOKEN": "" if "--token-file" in arguments else "t", "COLUMNS": "200", "NO_COLOR": "1"}

    result = CliRunner().invoke(app, [*FLAGS, *arguments], env=env)

    assert result.exit_code == 2
    assert named in result.output


def test_a_missing_token_is_named_and_no_flag_takes_one() -> None:
    result = CliRunner().invoke(app, FLAGS, env={"WARDGATE_TOKEN": "", "FIREZONE_TOKEN": ""})

    assert result.exit_code == 2
    assert "WARDGATE_TOKEN" in result.output


def test_environment_has_both_names(tmp_path: Path) -> None:
    for name in ("WARDGATE_PUBLIC_IP4_ADDR", "PUBLIC_IP4_ADDR"):
        result = CliRunner().invoke(app, FLAGS[2:], env={name: "nonsense", "WARDGATE_TOKEN": "t", "COLUMNS": "200"})

        assert result.exit_code == 2
        assert "'nonsense' is not an IPv4 address" in result.output


def test_a_file_gives_defaults_and_its_unknown_names_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('log-format = "xml"\n')
    wrong = CliRunner().invoke(app, [*FLAGS, "--config", str(file)], env={"WARDGATE_TOKEN": "t", "COLUMNS": "200"})
    file.write_text("listen-prt = 1\n")
    unknown = CliRunner().invoke(app, [*FLAGS, "--config", str(file)], env={"WARDGATE_TOKEN": "t", "COLUMNS": "200"})

    assert (wrong.exit_code, unknown.exit_code) == (2, 2)
    assert "'xml' is not one of human, json" in wrong.output
    assert "listen_prt" in unknown.output
