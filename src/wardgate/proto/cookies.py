"""The gate in front of all WireGuard handshakes, and cookies at both ends.

The gate spends a hash on anybody, but the costly key exchange only on messages made for us, and under load only on
senders that proved by a cookie that they receive at their address. Source: the WireGuard paper, section 5.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from wardgate._fastpath import (
    HandshakeError,
    OpenedInitiation,
    StaticKey,
    xchacha20poly1305_open,
    xchacha20poly1305_seal,
)
from wardgate.errors import RemoteProtocolError
from wardgate.wire import wireguard
from wardgate.wire.addresses import RandomBytes, SocketAddr

HANDSHAKES_PER_S = 100
HANDSHAKES_PER_SOURCE_AND_S = 20
MAX_SOURCES = 4096
COOKIE_S = 120.0
_WINDOW_S = 1.0
_SECRET_SIZE = 32


@dataclass(frozen=True, slots=True)
class CookieReply:
    """We are under load: send this back to where the message came from."""

    datagram: bytes


class Gate:
    """Lets initiations in: counts, checks and opens them.

    Args:
        static: Our key pair.
        random_bytes: For cookie secrets and nonces.
    """

    def __init__(self, static: StaticKey, random_bytes: RandomBytes) -> None:
        self._static = static
        self._random_bytes = random_bytes
        self._mac1_key = wireguard.mac1_key(static.public_key)
        self._cookie_key = wireguard.cookie_key(static.public_key)
        self._secret = b""
        self._secret_until = 0.0
        self._window_until = 0.0
        self._in_window = 0
        self._in_window_by_source: dict[bytes, int] = {}
        self._counters = {"opened": 0, "malformed": 0, "bad_mac1": 0, "cookie_replies": 0, "too_many": 0, "bad_key": 0}

    @property
    def counters(self) -> Mapping[str, int]:
        """What became of the datagrams, by name."""
        return dict(self._counters)

    def open(self, source: SocketAddr, datagram: bytes, now: float) -> OpenedInitiation | CookieReply | None:
        """Opens an initiation, or answers a sender that has to prove its address first.

        Args:
            source: Where it came from (for a relayed one, where the relay got it).
            datagram: The whole WireGuard message.
            now: Monotonic seconds.

        Returns:
            `None` if it was counted and dropped.
        """
        refusal = self._refusal(datagram)
        if refusal is not None:
            return self._count(refusal)
        self._roll_window(now)
        self._in_window += 1
        if self._in_window > HANDSHAKES_PER_S:
            if not wireguard.is_mac2_valid(datagram, self._cookie(source, now)):
                return self._cookie_reply(source, datagram, now)
            if not self._may_open(source):
                return self._count("too_many")
        try:
            opened = OpenedInitiation.open(self._static, datagram)
        except HandshakeError:
            return self._count("bad_key")
        self._counters["opened"] += 1
        return opened

    def _refusal(self, datagram: bytes) -> str | None:
        if wireguard.message_type(datagram) is not wireguard.MessageType.INITIATION:
            return "malformed"
        return None if wireguard.is_mac1_valid(datagram, self._mac1_key) else "bad_mac1"

    def _count(self, reason: str) -> OpenedInitiation | None:
        """Counts a datagram that is dropped."""
        self._counters[reason] += 1
        return None

    def _roll_window(self, now: float) -> None:
        if now >= self._window_until:
            self._window_until = now + _WINDOW_S
            self._in_window = 0
            self._in_window_by_source.clear()

    def _may_open(self, source: SocketAddr) -> bool:
        """Whether one proven source (IPv6: its /64) has not had its share of this second."""
        address = ip_address(source[0])
        key = address.packed[:8] if isinstance(address, IPv6Address) else address.packed
        used = self._in_window_by_source.get(key, 0)
        if used >= HANDSHAKES_PER_SOURCE_AND_S or (used == 0 and len(self._in_window_by_source) >= MAX_SOURCES):
            return False
        self._in_window_by_source[key] = used + 1
        return True

    def _cookie(self, source: SocketAddr, now: float) -> bytes:
        if now >= self._secret_until:
            self._secret = self._random_bytes(_SECRET_SIZE)
            self._secret_until = now + COOKIE_S
        return wireguard.cookie_of(self._secret, source)

    def _cookie_reply(self, source: SocketAddr, datagram: bytes, now: float) -> CookieReply:
        nonce = self._random_bytes(wireguard.COOKIE_NONCE_SIZE)
        cookie = self._cookie(source, now)
        sealed = xchacha20poly1305_seal(self._cookie_key, nonce, wireguard.mac1_of(datagram), cookie)
        self._counters["cookie_replies"] += 1
        return CookieReply(wireguard.encode_cookie_reply(wireguard.sender_index(datagram), nonce, sealed))


class CookieJar:
    """The cookie that one peer gave us, and what it may be given for: our last messages to it."""

    MAX_MESSAGES = 4

    def __init__(self, remote_public: bytes) -> None:
        self._mac1_key = wireguard.mac1_key(remote_public)
        self._cookie_key = wireguard.cookie_key(remote_public)
        self._mac1_by_index: dict[int, bytes] = {}
        self._cookie: bytes | None = None
        self._cookie_until = 0.0

    def stamp(self, message: bytes, now: float) -> bytes:
        """The handshake message with both MACs, remembered in case a cookie comes back for it."""
        cookie = self._cookie if now < self._cookie_until else None
        stamped = wireguard.with_macs(message, self._mac1_key, cookie)
        self._mac1_by_index[wireguard.sender_index(stamped)] = wireguard.mac1_of(stamped)
        while len(self._mac1_by_index) > self.MAX_MESSAGES:
            del self._mac1_by_index[next(iter(self._mac1_by_index))]
        return stamped

    def handle_reply(self, datagram: bytes, now: float) -> None:
        """Takes a cookie; the next messages prove with it that we receive at our address.

        Raises:
            RemoteProtocolError: It is no cookie reply of this peer to one of our last messages.
        """
        index, nonce, sealed = wireguard.decode_cookie_reply(datagram)
        mac1 = self._mac1_by_index.get(index)
        if mac1 is None:
            raise RemoteProtocolError("cookie reply to a message that we did not send lately")
        try:
            self._cookie = xchacha20poly1305_open(self._cookie_key, nonce, mac1, sealed)
        except HandshakeError:
            raise RemoteProtocolError("cookie reply does not authenticate") from None
        self._cookie_until = now + COOKIE_S
