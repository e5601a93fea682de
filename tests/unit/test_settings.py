"""Settings: tokens from safe places only, durations and addresses read, mistakes named."""

import contextlib
import os
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import SettingError
from wardgate.settings import (
    check_api_url,
    check_interface,
    forget_token,
    parse_duration,
    parse_listen_address,
    read_token,
)
from wardgate.wire.addresses import SocketAddr


def test_token_of_the_environment_wins_and_is_forgotten() -> None:
    environ = {"WARDGATE_TOKEN": " .ours\n", "FIREZONE_TOKEN": ".theirs"}

    token = read_token(environ, None)

    assert token == ".ours"
    assert read_token({"FIREZONE_TOKEN": ".theirs"}, None) == ".theirs"


def test_forgotten_token_is_gone_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDGATE_TOKEN", ".t")
    monkeypatch.setenv("FIREZONE_TOKEN", ".t")

    forget_token(os.environ)

    assert "WARDGATE_TOKEN" not in os.environ
    assert "FIREZONE_TOKEN" not in os.environ


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_token_of_a_private_file_is_taken(tmp_path: Path, mode: int) -> None:
    path = token_file(tmp_path, mode)

    assert read_token({}, path) == ".secret"
    assert read_token({}, None, default_file=path) == ".secret"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o700, 0o666])
def test_token_that_others_may_read_is_refused_with_a_remedy(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SettingError, match="chmod 600"):
        read_token({}, token_file(tmp_path, mode))


def test_token_of_a_systemd_credential_is_taken(tmp_path: Path) -> None:
    (tmp_path / "FIREZONE_TOKEN").write_text(".credential\n")

    assert read_token({"CREDENTIALS_DIRECTORY": str(tmp_path)}, None) == ".credential"


@pytest.mark.parametrize("text", ["", "   ", "tökén"])
def test_unusable_token_is_named(text: str) -> None:
    with pytest.raises(SettingError, match="WARDGATE_TOKEN"):
        read_token({"WARDGATE_TOKEN": text}, None)


def test_missing_token_says_where_it_can_come_from(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="--token-file"):
        read_token({}, None, default_file=tmp_path / "none")
    with pytest.raises(SettingError, match="does not exist"):
        read_token({}, tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("90s", 90.0), ("1h 30m", 5400.0), ("24h", 86400.0), ("2 days", 172800.0), ("250ms", 0.25)],
)
def test_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "x", "5 weeks", "-1s", "1h x"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@given(st.text(max_size=20))
def test_any_duration_is_a_number_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert 0.0 <= parse_duration(text) < float("inf")


def test_listen_address_is_read_or_refused() -> None:
    assert parse_listen_address("none") is None
    assert parse_listen_address("[::1]:8080") == SocketAddr("::1", 8080)
    with pytest.raises(typer.BadParameter, match="none"):
        parse_listen_address("localhost")


@pytest.mark.parametrize("text", ["", "a/b", "sixteen-letters-x", "..", "a b"])
def test_impossible_interface_names_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        check_interface(text)


@pytest.mark.parametrize("text", ["", "portal", "ftp://portal"])
def test_wrong_portal_address_is_named(text: str) -> None:
    with pytest.raises(SettingError, match="--api-url"):
        check_api_url(text, "client")


def token_file(directory: Path, mode: int) -> Path:
    path = directory / "token"
    path.write_text(" .secret \n")
    path.chmod(mode)
    return path
