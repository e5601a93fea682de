"""Whose name the suite's clients use."""

import base64
import hashlib
import hmac
import itertools
import time
from collections.abc import Callable
from typing import NamedTuple


class User(NamedTuple):
    """A long-term credential."""

    name: str
    password: str


class Users:
    """Where clients get their credentials from.

    Attributes:
        given: Whether there are any at all.
    """

    def __init__(self, first: Callable[[], User] | None = None, other: Callable[[], User] | None = None) -> None:
        self.given = first is not None
        self._first = first
        self._other = other

    def take(self) -> User | None:
        """The credential of one client; a new one for each client where the server knows names it never saw."""
        return None if self._first is None else self._first()

    def take_other(self) -> User | None:
        """A credential with another name than any other client's, if there is one."""
        return None if self._other is None else self._other()


def static_users(user: User, other: User | None = None) -> Users:
    """One name for every client, as configured at the server."""
    return Users(lambda: user, None if other is None else lambda: other)


def rest_users(secret: str, valid_s: int = 86400) -> Users:
    """Ephemeral names: `<unix expiry>:<name>`, the password being the name's HMAC."""
    numbers = itertools.count(1)

    def next_user() -> User:
        name = f"{int(time.time()) + valid_s}:conformance-{next(numbers)}"
        digest = hmac.digest(secret.encode(), name.encode(), hashlib.sha1)
        return User(name, base64.b64encode(digest).decode())

    return Users(next_user, next_user)
