"""Relay credentials against known values."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import RemoteProtocolError
from wardgate.wire import portal_secrets, turn
from wardgate.wire.turn import Username


@pytest.mark.parametrize(
    ("expires_at", "secret", "salt", "password"),
    [
        (
            1685984278,
            "1cab293a-4032-46f4-862a-40e5d174b0d2",
            "uvdgKvS9GXYZ_vmv",
            "6xUIoZ+QvxKhRasLifwfRkMXl+ETLJUsFkHlXjlHAkg",
        ),
        (
            1892160000,
            "4c98bf59c99b3e467ecd7cf9d6b3e5279645fca59be67bc5bb4af3cf653761ab",
            "n23JJ2wKKtt30oXi",
            "00hqldgk5xLeKKOB+xls9mHMVtgqzie9DulfgQwMv68",
        ),
    ],
)
def test_passwords_follow_from_the_stamp_secret(expires_at: int, secret: str, salt: str, password: str) -> None:
    assert turn.password_of(Username(expires_at, salt), secret) == password


def test_credentials_are_those_that_the_portal_hands_out() -> None:
    public_key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    secret = "00" * 31 + "ab"

    username, password = portal_secrets.turn_credentials(secret, public_key, 2145916800)

    assert turn.password_of(Username.parse(username), secret) == password


@given(st.integers(0, 2**64 - 1), st.text().filter(lambda text: ":" not in text))
def test_usernames_round_trip(expires_at: int, salt: str) -> None:
    assert Username.parse(str(Username(expires_at, salt))) == Username(expires_at, salt)


@pytest.mark.parametrize("text", ["", "1", "1:a:b", ":a", "x:a", "-1:a", "18446744073709551616:a", "²:a", "1 :a"])
def test_malformed_usernames_are_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        Username.parse(text)


@given(st.text())
def test_any_text_gives_a_username_or_an_error(text: str) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert 0 <= Username.parse(text).expires_at < 2**64
