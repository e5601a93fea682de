"""Who may use a relay: nonces bound to client sockets, and passwords that follow from the stamp secret.

A nonce that came back proves that its client receives at the address it claims. Nonces that never came back are kept
apart, so that requests from forged addresses can push out only each other.
Source: RFC 8489, section 9.2; relay-credentials as the portal derives them (`wire.turn`).
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass

from wardgate.wire import stun, turn
from wardgate.wire.addresses import RandomBytes, SocketAddr
from wardgate.wire.turn import Username

NONCE_USES = 10_000


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The request is its user's; `key` signs the answer."""

    username: str
    salt: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The request is to be answered with this error and nonce; unsigned where there is no key."""

    code: int
    nonce: bytes
    key: bytes | None


@dataclass(slots=True)
class _Nonce:
    value: bytes
    uses_left: int = NONCE_USES


class Nonces:
    """One live nonce for each client socket, in two bounded tables, least recently issued out first."""

    def __init__(self, random_bytes: RandomBytes, counters: Counter[str], capacity: int) -> None:
        self._random_bytes = random_bytes
        self._counters = counters
        self._capacity = capacity
        self._issued: OrderedDict[SocketAddr, _Nonce] = OrderedDict()
        self._proven: OrderedDict[SocketAddr, _Nonce] = OrderedDict()

    def __len__(self) -> int:
        return len(self._issued) + len(self._proven)

    def issue(self, client: SocketAddr) -> bytes:
        """The text of the client's nonce, a new one if it has none with uses left."""
        nonce = self._proven.get(client) or self._issued.get(client)
        if nonce is None:
            nonce = _Nonce(self._random_bytes(16))
            self._put(self._issued, client, nonce)
        text = nonce.value.hex()
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])).encode()

    def spend(self, client: SocketAddr, value: bytes) -> bool:
        """Spends one use of the client's nonce, if `value` is that one."""
        nonce = self._proven.get(client) or self._issued.get(client)
        if nonce is None or nonce.value != value:
            return False
        if nonce.uses_left == 0:
            self._proven.pop(client, None)
            return False
        nonce.uses_left -= 1
        if self._issued.pop(client, None) is not None:
            self._put(self._proven, client, nonce)
        else:
            self._proven.move_to_end(client)
        return True

    def _put(self, table: OrderedDict[SocketAddr, _Nonce], client: SocketAddr, nonce: _Nonce) -> None:
        table[client] = nonce
        if len(table) > self._capacity:
            table.popitem(last=False)
            self._counters["nonces_evicted"] += 1


class Authenticator:
    """Checks protected requests in the order that clients rely on."""

    def __init__(self, stamp_secret: str, epoch: float, nonces: Nonces) -> None:
        """Makes an authenticator.

        Args:
            stamp_secret: The hex text that the portal was told.
            epoch: Unix seconds at monotonic zero.
        """
        self._stamp_secret = stamp_secret
        self._epoch = epoch
        self._nonces = nonces

    def check(self, client: SocketAddr, request: stun.Message, now: float) -> Authenticated | Refused:
        """Decides on one request.

        Raises:
            RemoteProtocolError: The username is malformed, so no answer could be signed: drop the request.
        """
        code = self._nonce_error(client, request)
        if request.username is None:
            return Refused(code or turn.UNAUTHORIZED, self._nonces.issue(client), None)
        username = Username.parse(request.username)
        key = turn.long_term_key(request.username, turn.password_of(username, self._stamp_secret))
        if code is None and username.expires_at >= int(now + self._epoch) and request.verify_integrity(key):
            return Authenticated(request.username, username.salt, key)
        return Refused(code or turn.UNAUTHORIZED, self._nonces.issue(client), key)

    def _nonce_error(self, client: SocketAddr, request: stun.Message) -> int | None:
        if not request.has_integrity or request.username is None or request.nonce is None:
            return turn.UNAUTHORIZED
        value = parse_nonce(request.nonce)
        if value is None:
            return turn.UNAUTHORIZED
        return None if self._nonces.spend(client, value) else turn.STALE_NONCE


def parse_nonce(text: bytes) -> bytes | None:
    """The 16 bytes of a UUID, with or without hyphens; `None` if it is none."""
    digits = text.replace(b"-", b"")
    if len(digits) != 32 or not all(digit in b"0123456789abcdefABCDEF" for digit in digits):
        return None
    return bytes.fromhex(digits.decode())
