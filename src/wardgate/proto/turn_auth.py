"""Who may use a relay: nonces that need no memory, and users of three kinds.

Devices show credentials that the portal derives from the relay's stamp secret. A relay by itself knows static users, or
users whose credentials an application derives from a secret that both know (the TURN REST API of coturn's
`use-auth-secret`). Source: RFC 8489, section 9.2; RFC 8656, section 5; draft-uberti-behave-turn-rest.
"""

import base64
import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2s
from typing import Protocol

from wardgate.errors import RemoteProtocolError
from wardgate.wire import stun, turn
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.stun import PasswordAlgorithm, Sha256Key
from wardgate.wire.turn import Username

NONCE_LIFETIME_S = 3600  # RFC 8656, section 5: at least once an hour
_COOKIE = b"obMatJos2"  # RFC 8489, section 9.2: what begins so says in 24 bits what the server knows
_KNOWS_ALGORITHMS, _KNOWS_USERHASH = 1 << 23, 1 << 22  # section 18.1: bit 0 is the leftmost
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

    def claim(self, username: str, realm: str, algorithm: PasswordAlgorithm) -> Claim | None:
        """Who that is; `None` if there is no such user of this kind."""

    def names(self) -> Iterable[str] | None:
        """Everybody's name; `None` if that is not known."""


class Devices:
    """The users of the portal."""

    def __init__(self, stamp_secret: str) -> None:
        """Takes the hex text that the portal was told."""
        self._stamp_secret = stamp_secret

    def claim(self, username: str, realm: str, algorithm: PasswordAlgorithm) -> Claim | None:
        """Any salt is a device."""
        try:
            parts = Username.parse(username)
        except RemoteProtocolError:
            return None
        key = turn.long_term_key(username, turn.password_of(parts, self._stamp_secret), realm, algorithm)
        return Claim(parts.salt, key, parts.expires_at, is_device=True)

    def names(self) -> None:
        """Any salt is a device."""


class StaticUsers:
    """Users with passwords that were set up once."""

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._passwords = dict(passwords)
        self._claims: dict[tuple[str, str, PasswordAlgorithm], Claim] = {}

    def claim(self, username: str, realm: str, algorithm: PasswordAlgorithm) -> Claim | None:
        """Whoever has a password."""
        claim = self._claims.get((username, realm, algorithm))
        if claim is None and (password := self._passwords.get(username)) is not None:
            claim = Claim(username, turn.long_term_key(username, password, realm, algorithm))
            self._claims[username, realm, algorithm] = claim
        return claim

    def names(self) -> Iterable[str]:
        """All of them."""
        return self._passwords


class SharedSecretUsers:
    """Users that an application lets in for a while, by a secret that it shares with this relay."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def claim(self, username: str, realm: str, algorithm: PasswordAlgorithm) -> Claim | None:
        """`<unix expiry>` or `<unix expiry>:<name>`."""
        expiry, _, name = username.partition(":")
        if not expiry.isascii() or not expiry.isdigit() or len(expiry) > 20:
            return None
        key = turn.long_term_key(username, turn.shared_secret_password(self._secret, username), realm, algorithm)
        return Claim(f"shared:{name or expiry}", key, int(expiry))  # whatever it is called, no static user

    def names(self) -> None:
        """The application knows them."""


class Nonces:
    """Nonces that say themselves when and for whom they were made, so that nobody can fill a table with them.

    A nonce that came back proves that its client receives at the address it claims.
    """

    def __init__(self, key: bytes, cookie: bytes = b"") -> None:
        """Makes nonces that begin with `cookie`.

        Args:
            key: 16 random bytes; another key makes every nonce stale.
        """
        self._key = key
        self._cookie = cookie

    def issue(self, client: SocketAddr, now: float) -> bytes:
        """A nonce for this client socket, 16 characters behind the cookie."""
        at = int(now).to_bytes(8, "big")[-_TIME_SIZE:]
        return self._cookie + base64.b64encode(at + self._mac(client, at), b"-_")

    def is_good(self, client: SocketAddr, nonce: bytes, now: float) -> bool:
        """Whether we made it for this client within the last hour."""
        try:
            value = base64.b64decode(nonce.removeprefix(self._cookie), b"-_", validate=True)
        except ValueError:
            return False
        at, mac = value[:_TIME_SIZE], value[_TIME_SIZE:]
        age_s = (int(now) - int.from_bytes(at, "big")) % (1 << 8 * _TIME_SIZE)
        return hmac.compare_digest(mac, self._mac(client, at)) and age_s <= NONCE_LIFETIME_S

    def _mac(self, client: SocketAddr, at: bytes) -> bytes:
        return blake2s(at + str(client).encode(), key=self._key, digest_size=_MAC_SIZE).digest()


def cookie_for(users: Sequence[Users]) -> bytes:
    """How nonces begin: devices need no cookie; others are told of password algorithms, and of USERHASH if it works."""
    if has_devices(users):
        return b""
    knows_names = all(kind.names() is not None for kind in users)
    features = _KNOWS_ALGORITHMS | (_KNOWS_USERHASH if knows_names else 0)
    return _COOKIE + base64.b64encode(features.to_bytes(3, "big"))


def has_devices(users: Sequence[Users]) -> bool:
    """Whether the portal's devices are among them, who have a dialect of their own."""
    return any(isinstance(kind, Devices) for kind in users)


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
        self.knows_devices = has_devices(users)
        self._name_by_hash = {turn.userhash(name, realm): name for kind in users for name in kind.names() or ()}

    @property
    def offers_algorithms(self) -> bool:
        """Whether refusals are to name the password algorithms; devices know MD5 alone."""
        return not self.knows_devices

    def check(self, client: SocketAddr, request: stun.Message, now: float) -> Authenticated | Refused:
        """Decides on one request.

        Raises:
            RemoteProtocolError: A device's username is malformed, so no answer could be signed: drop the request.
        """
        username = request.username
        if username is None and request.userhash is not None:
            username = self._name_by_hash.get(request.userhash, "")
        code = self._nonce_error(client, request, username, now)
        algorithm = self._algorithm(request)
        if code == turn.BAD_REQUEST or (code is None and algorithm is None):
            return Refused(turn.BAD_REQUEST, None, None)
        claims = list(self._claims(username, algorithm or PasswordAlgorithm.MD5)) if username is not None else []
        if username is not None and not claims and self.knows_devices and len(self._users) == 1:
            raise RemoteProtocolError("username is not an expiry and a salt")
        if code is None:
            for claim in claims:
                is_expired = claim.expires_at is not None and claim.expires_at < int(now + self._epoch)
                key = Sha256Key(claim.key) if request.has_sha256 and not self.knows_devices else claim.key
                if not is_expired and request.verify_integrity(key):
                    return Authenticated(username or "", claim.owner, key, claim.is_device)
        # Devices tell their relay from others by the signature; RFC 8489 has none in a 401 or 438.
        signing = next((claim.key for claim in claims if claim.is_device), None)
        return Refused(code or turn.UNAUTHORIZED, self._nonces.issue(client, now), signing)

    def _claims(self, username: str, algorithm: PasswordAlgorithm) -> Iterator[Claim]:
        for kind in self._users:
            claim = kind.claim(username, self._realm, algorithm)
            if claim is not None:
                yield claim

    def _algorithm(self, request: stun.Message) -> PasswordAlgorithm | None:
        """How the client makes the key; `None` if what it says of that is not what it was offered."""
        chosen, offered = request.password_algorithm, request.password_algorithms
        if self.knows_devices or (chosen is None and offered is None):
            return PasswordAlgorithm.MD5
        if chosen is None or offered != turn.PASSWORD_ALGORITHMS or len(chosen) != 4 or chosen[2:] != b"\0\0":
            return None
        number = int.from_bytes(chosen[:2], "big")
        return PasswordAlgorithm(number) if number in tuple(PasswordAlgorithm) else None

    def _nonce_error(self, client: SocketAddr, request: stun.Message, username: str | None, now: float) -> int | None:
        if not request.has_integrity and (self.knows_devices or not request.has_sha256):
            return turn.UNAUTHORIZED
        if username is None or request.nonce is None or request.realm is None:
            # Devices sign before they were given a nonce, and leave the realm out.
            if not self.knows_devices:
                return turn.BAD_REQUEST
            if username is None or request.nonce is None:
                return turn.UNAUTHORIZED
        return None if self._nonces.is_good(client, request.nonce, now) else turn.STALE_NONCE
