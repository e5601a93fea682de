"""The key under which secrets lie in the database, so that a stolen copy of it is not enough.

A sealed value is `version (1 byte, 1) ‖ nonce (12) ‖ AES-256-GCM(plaintext)`; its place (table, column, row) is
authenticated with it, so a value that was moved to another place does not open.
"""

import base64
import binascii
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wardgate.errors import SettingError

KEY_SIZE: Final = 32
_VERSION: Final = b"\x01"
_NONCE_SIZE: Final = 12


class Keyring:
    """Seals and opens secrets with one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise SettingError(f"secret_key: must be {KEY_SIZE} bytes, this is {len(key)}")
        self._key = key
        self._cipher = AESGCM(key)

    def derive(self, purpose: str) -> bytes:
        """Another key of 32 bytes, for one purpose; it says nothing about this one."""
        info = f"wardgate {purpose}".encode()
        return HKDF(algorithm=hashes.SHA256(), length=KEY_SIZE, salt=None, info=info).derive(self._key)

    def seal(self, plaintext: bytes, place: str) -> bytes:
        """Encrypts a secret for one place, such as `devices.psk_base:<id>`."""
        nonce = secrets.token_bytes(_NONCE_SIZE)
        return _VERSION + nonce + self._cipher.encrypt(nonce, plaintext, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """The secret.

        Raises:
            SettingError: It was sealed with another key, or for another place, or it is damaged.
        """
        nonce, ciphertext = sealed[1 : 1 + _NONCE_SIZE], sealed[1 + _NONCE_SIZE :]
        try:
            if sealed[:1] != _VERSION:
                raise InvalidTag
            return self._cipher.decrypt(nonce, ciphertext, place.encode())
        except (InvalidTag, ValueError):
            raise SettingError(
                f"secret_key: it does not open {place.partition(':')[0]}; the database was written with another key"
            ) from None


def decode_key(text: str) -> bytes:
    """A key as base64 text.

    Raises:
        SettingError: It is not base64 of 32 bytes.
    """
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_SIZE:
        raise SettingError(f"secret_key: must be base64 of {KEY_SIZE} bytes, as `openssl rand -base64 32` prints it")
    return key


def key_file_of(database: Path) -> Path:
    """Where the key of an SQLite file lies if no setting names another."""
    return database.with_name(database.name + ".key")


def load_or_create(path: Path) -> bytes:
    """The key in a file, which is made with a random one if it is missing; only its owner may read it.

    Raises:
        SettingError: The file cannot be read or made, or holds no key.
    """
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return decode_key(path.read_text())
        with os.fdopen(descriptor, "w") as file:
            key = secrets.token_bytes(KEY_SIZE)
            file.write(base64.b64encode(key).decode() + "\n")
            file.flush()
            os.fsync(file.fileno())
        return key
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"secret_key: the file {path} cannot be used: {error}") from None
