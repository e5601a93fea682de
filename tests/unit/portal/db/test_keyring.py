"""Secrets at rest: sealed for one place, with a key of their own."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import SettingError
from wardgate.portal.db.keyring import Keyring, decode_key, load_or_create

PLACE = "devices.psk_base:1"


def test_what_is_sealed_opens_and_does_not_show() -> None:
    keyring = Keyring(bytes(32))

    sealed = keyring.seal(b"the secret", PLACE)

    assert keyring.open(sealed, PLACE) == b"the secret"
    assert b"secret" not in sealed
    assert sealed != keyring.seal(b"the secret", PLACE)


@pytest.mark.parametrize(("key", "place"), [(bytes(31) + b"\x01", PLACE), (bytes(32), "devices.psk_base:2")])
def test_another_key_or_place_does_not_open_it(key: bytes, place: str) -> None:
    sealed = Keyring(bytes(32)).seal(b"the secret", PLACE)

    with pytest.raises(SettingError, match="another key"):
        Keyring(key).open(sealed, place)


@given(st.binary(max_size=60))
def test_any_bytes_open_or_are_refused(sealed: bytes) -> None:
    with pytest.raises(SettingError):
        Keyring(bytes(32)).open(sealed, PLACE)


def test_a_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "portal.db.key"

    key = load_or_create(path)

    assert load_or_create(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "short", "AAAA", "\x00" * 44])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)

    with pytest.raises(SettingError, match="secret_key"):
        load_or_create(path)


def test_a_key_is_read_as_openssl_prints_it() -> None:
    assert decode_key("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n") == bytes(32)
