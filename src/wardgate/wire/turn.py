"""What TURN adds to STUN apart from attributes: credentials, error codes, protocol numbers.

Relay credentials need no store: the password of a username follows from the relay's stamp secret, which the portal
learns when the relay joins. Source: RFC 8656, section 18; RFC 8489, section 9.2.2.
"""

import base64
import hashlib
import hmac
from typing import NamedTuple

from wardgate.wire import portal_secrets
from wardgate.wire.stun import PasswordAlgorithm

REALM = portal_secrets.RELAY_REALM
DEFAULT_PORT = 3478
UDP_TRANSPORT = 17

DEFAULT_LIFETIME_S = 600
MAX_LIFETIME_S = 3600
CHANNEL_LIFETIME_S = 600
CHANNEL_COOLDOWN_S = 300
PERMISSION_LIFETIME_S = 300
RESERVATION_LIFETIME_S = 30
RESERVATION_TOKEN_SIZE = 8

BAD_REQUEST = 400
UNAUTHORIZED = 401
FORBIDDEN = 403
UNKNOWN_ATTRIBUTE = 420
ALLOCATION_MISMATCH = 437
STALE_NONCE = 438
ADDRESS_FAMILY_NOT_SUPPORTED = 440
WRONG_CREDENTIALS = 441
UNSUPPORTED_TRANSPORT = 442
PEER_ADDRESS_FAMILY_MISMATCH = 443
ALLOCATION_QUOTA_REACHED = 486
SERVER_ERROR = 500
INSUFFICIENT_CAPACITY = 508

REASONS = {
    BAD_REQUEST: "Bad Request",
    UNAUTHORIZED: "Unauthorized",
    FORBIDDEN: "Forbidden",
    UNKNOWN_ATTRIBUTE: "Unknown Attribute",
    ALLOCATION_MISMATCH: "Allocation Mismatch",
    STALE_NONCE: "Stale Nonce",
    ADDRESS_FAMILY_NOT_SUPPORTED: "Address Family not Supported",
    WRONG_CREDENTIALS: "Wrong Credentials",
    UNSUPPORTED_TRANSPORT: "Unsupported Transport Protocol",
    PEER_ADDRESS_FAMILY_MISMATCH: "Peer Address Family Mismatch",
    ALLOCATION_QUOTA_REACHED: "Allocation Quota Reached",
    SERVER_ERROR: "Server Error",
    INSUFFICIENT_CAPACITY: "Insufficient Capacity",
}


class Username(NamedTuple):
    """`<unix expiry>:<salt>`, the user of a relay."""

    expires_at: int
    salt: str

    def __str__(self) -> str:
        return f"{self.expires_at}:{self.salt}"

    @classmethod
    def parse(cls, text: str) -> "Username":
        """Reads a username.

        Raises:
            RemoteProtocolError: There is not exactly one colon, or no 64-bit number before it.
        """
        return cls(*portal_secrets.split_turn_username(text))


def password_of(username: Username, stamp_secret: str) -> str:
    """The password that belongs to `username` at the relay with this secret (its hex text)."""
    return portal_secrets.turn_password(stamp_secret, username.expires_at, username.salt)


def shared_secret_password(secret: str, username: str) -> str:
    """The password of `<expiry>[:<name>]` where an application and its relay share a secret (TURN REST API)."""
    return base64.b64encode(hmac.digest(secret.encode(), username.encode(), hashlib.sha1)).decode()


PASSWORD_ALGORITHMS = bytes.fromhex("0002000000010000")
"""The value of PASSWORD-ALGORITHMS: SHA-256 and MD5, without parameters."""


def long_term_key(
    username: str, password: str, realm: str = REALM, algorithm: PasswordAlgorithm = PasswordAlgorithm.MD5
) -> bytes:
    """The key of MESSAGE-INTEGRITY in TURN; all three must be plain ASCII or already prepared (RFC 8265)."""
    text = f"{username}:{realm}:{password}".encode()
    if algorithm is PasswordAlgorithm.SHA256:
        return hashlib.sha256(text).digest()
    return hashlib.md5(text, usedforsecurity=False).digest()


def userhash(username: str, realm: str) -> bytes:
    """What hides a username from whoever listens (RFC 8489, section 14.4)."""
    return hashlib.sha256(f"{username}:{realm}".encode()).digest()
