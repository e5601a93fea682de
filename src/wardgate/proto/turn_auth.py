"""Who may use a relay: nonces that need no memory, and users of three kinds.

Devices show credentials that the portal derives from the relay's stamp secret. A relay by itself knows static users, or
users whose credentials an application derives from a secret that both know (the TURN REST API of coturn's
`use-auth-secret`). Source: RFC 8489, section 9.2; RFC 8656, section 5; draft-uberti-behave-turn-rest.
"""

import base64
import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2s
from typing import Protocol

from wardgate.errors import RemoteProtocolError
from wardgate.wire import stun, turn
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.turn import Username

NONCE_LIFETIME_S = 3600  # RFC 8656, section 5: at least once an hour
_TIME_SIZE = 3
_MAC_SIZE = 9


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The request is its user's.

    Attributes:
        owner: Who it is, however often the credentials are renewed.
        key: Signs the answer.
        is_device: Whether the portal made the credentials; such a user has one allocation, and knows channels alone.
    """

    username: str
    owner: str
    key: bytes
    is_device: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The request is to be answered with this error and nonce; unsigned where there is no key."""

    code: int
    nonce: bytes | None
    key: bytes | None


@dataclass(frozen=True, slots=True)
class Claim:
    """Who a username would be, if the message was signed with `key` before `expires_at` (unix seconds)."""

    owner: str
    key: bytes
    expires_at: int | None = None
    is_device: bool = False


class Users(Protocol):
    """One kind of users."""

    def claim(self, username: str, realm: str) -> Claim | None:
        """Who that is; `None` if there is no such user of this kind."""


class Devices:
    """The users of the portal."""

    def __init__(self, stamp_secret: str) -> None:
        """Takes the hex text that the portal was told."""
        self._stamp_secret = stamp_secret

    def claim(self, username: str, realm: str) -> Claim | None:
        """Any salt is a device."""
        try:
            parts = Username.parse(username)
        except RemoteProtocolError:
            return None
        key = turn.long_term_key(username, turn.password_of(parts, self._stamp_secret), realm)
        return Claim(parts.salt, key, parts.expires_at, is_device=True)


class StaticUsers:
    """Users with passwords that were set up once."""

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._passwords = dict(passwords)
        self._claims: dict[tuple[str, str], Claim] = {}

    def claim(self, username: str, realm: str) -> Claim | None:
        """Whoever has a password."""
        claim = self._claims.get((username, realm))
        if claim is None and (password := self._passwords.get(username)) is not None:
            claim = Claim(username, turn.long_term_key(username, password, realm))
            self._claims[username, realm] = claim
        return claim


class SharedSecretUsers:
    """Users that an application lets in for a while, by a secret that it shares with this relay."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def claim(self, username: str, realm: str) -> Claim | None:
        """`<unix expiry>` or `<unix expiry>:<name>`."""
        expiry, _, name = username.partition(":")
        if not expiry.isascii() or not expiry.isdigit() or len(expiry) > 20:
            return None
        key = turn.long_term_key(username, turn.shared_secret_password(self._secret, username), realm)
        return Claim(name or expiry, key, int(expiry))


class Nonces:
    """Nonces that say themselves when and for whom they were made, so that nobody can fill a table with them.

    A nonce that came back proves that its client receives at the address it claims.
    """

    def __init__(self, key: bytes) -> None:
        """Takes 16 random bytes; another key makes every nonce stale."""
        self._key = key

    def issue(self, client: SocketAddr, now: float) -> bytes:
        """A nonce for this client socket, 16 characters."""
        at = int(now).to_bytes(8, "big")[-_TIME_SIZE:]
        return base64.b64encode(at + self._mac(client, at), b"-_")

    def is_good(self, client: SocketAddr, nonce: bytes, now: float) -> bool:
        """Whether we made it for this client within the last hour."""
        try:
            value = base64.b64decode(nonce, b"-_", validate=True)
        except ValueError:
            return False
        at, mac = value[:_TIME_SIZE], value[_TIME_SIZE:]
        age_s = (int(now) - int.from_bytes(at, "big")) % (1 << 8 * _TIME_SIZE)
        return hmac.compare_digest(mac, self._mac(client, at)) and age_s <= NONCE_LIFETIME_S

    def _mac(self, client: SocketAddr, at: bytes) -> bytes:
        return blake2s(at + str(client).encode(), key=self._key, digest_size=_MAC_SIZE).digest()


class Authenticator:
    """Checks protected requests in the order that clients rely on."""

    def __init__(self, users: Sequence[Users], realm: str, epoch: float, nonces: Nonces) -> None:
        """Makes an authenticator.

        Args:
            users: The kinds of users that there are.
            epoch: Unix seconds at monotonic zero.
        """
        self._users = tuple(users)
        self._realm = realm
        self._epoch = epoch
        self._nonces = nonces
        self._knows_devices = any(isinstance(kind, Devices) for kind in users)

    def check(self, client: SocketAddr, request: stun.Message, now: float) -> Authenticated | Refused:
        """Decides on one request.

        Raises:
            RemoteProtocolError: A device's username is malformed, so no answer could be signed: drop the request.
        """
        code = self._nonce_error(client, request, now)
        if code == turn.BAD_REQUEST:
            return Refused(code, None, None)
        claims = list(self._claims(request.username)) if request.username is not None else []
        if request.username is not None and not claims and self._knows_devices and len(self._users) == 1:
            raise RemoteProtocolError("username is not an expiry and a salt")
        if code is None:
            for claim in claims:
                is_expired = claim.expires_at is not None and claim.expires_at < int(now + self._epoch)
                if not is_expired and request.verify_integrity(claim.key):
                    return Authenticated(request.username or "", claim.owner, claim.key, claim.is_device)
        # Devices tell their relay from others by the signature; RFC 8489 has none in a 401 or 438.
        key = next((claim.key for claim in claims if claim.is_device), None)
        return Refused(code or turn.UNAUTHORIZED, self._nonces.issue(client, now), key)

    def _claims(self, username: str) -> Iterator[Claim]:
        for kind in self._users:
            claim = kind.claim(username, self._realm)
            if claim is not None:
                yield claim

    def _nonce_error(self, client: SocketAddr, request: stun.Message, now: float) -> int | None:
        if not request.has_integrity:
            return turn.UNAUTHORIZED
        if request.username is None or request.nonce is None or request.realm is None:
            # Devices sign before they were given a nonce, and leave the realm out.
            if not self._knows_devices:
                return turn.BAD_REQUEST
            if request.username is None or request.nonce is None:
                return turn.UNAUTHORIZED
        return None if self._nonces.is_good(client, request.nonce, now) else turn.STALE_NONCE
