"""Where the key of a database comes from, whether it is the right one, and how it is replaced.

It is the setting's, or lies in a file beside an SQLite database. A file is replaced so that a portal which is killed at
any moment finds the key that its database is sealed with: the next key is durable before the database is sealed with
it, and takes the file's place after that.
"""

import os
from pathlib import Path

from sqlalchemy import Connection

from wardgate.errors import SettingError
from wardgate.portal.db import sealing
from wardgate.portal.db.keyring import Keyring, decode_key, key_file_of, load_or_create


class Keys:
    """The key of one database, loaded when it is needed first.

    Attributes:
        file: Where it lies, if no setting gives it.
    """

    def __init__(self, database: Path | None, setting: str | None) -> None:
        self._setting = decode_key(setting) if setting else None
        self.file = key_file_of(database) if database is not None and not setting else None
        self._keyring: Keyring | None = None

    @property
    def keyring(self) -> Keyring:
        """What seals and opens.

        Raises:
            SettingError: There is no key, and no place where one could be made.
        """
        if self._keyring is None:
            if self._setting is None and self.file is None:
                raise SettingError(
                    "secret_key: needed with this database: base64 of 32 bytes, the same for every portal"
                )
            self._keyring = Keyring(self._setting or load_or_create(self._given_file()))
        return self._keyring

    def check(self, connection: Connection) -> bool:
        """Whether the secrets of a database are sealed.

        Raises:
            SettingError: They are, and with another key, or the key is gone.
        """
        if not sealing.has_key_check(connection):
            return False
        if (self.file is None or self.file.exists()) and sealing.opens(connection, self.keyring):
            return True
        if self.file is None:
            raise sealing.wrong_key()
        self._keyring = self._finish_replacement(connection, self.file)
        return True

    def write_next(self, text: str) -> None:
        """Makes the next key durable, before the database is sealed with it; nothing to do for a setting."""
        if self.file is None:
            return
        path = _next(self.file)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text.strip() + "\n")
            file.flush()
            os.fsync(file.fileno())
        _sync(path.parent)

    def take_next(self, keyring: Keyring) -> None:
        """The next key is the database's from now on."""
        if self.file is not None:
            _next(self.file).replace(self.file)
            _sync(self.file.parent)
        self._keyring = keyring

    def _finish_replacement(self, connection: Connection, file: Path) -> Keyring:
        """Ends a replacement that was broken off after the database was sealed with the next key."""
        try:
            keyring = Keyring(decode_key(_next(file).read_text()))
        except (OSError, UnicodeDecodeError, SettingError):
            keyring = None
        if keyring is None or not sealing.opens(connection, keyring):
            raise sealing.wrong_key() if file.exists() else sealing.missing_key(file)
        self.take_next(keyring)
        return keyring

    def _given_file(self) -> Path:
        assert self.file is not None
        return self.file


def _next(file: Path) -> Path:
    return file.with_name(file.name + ".new")


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
