"""WireGuard's four messages: what they are, whose they are, and the two MACs of handshake messages.

Source: Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel", sections 5.4.2 to 5.4.7.
"""

import struct
from enum import IntEnum
from hashlib import blake2s
from hmac import compare_digest
from ipaddress import ip_address

from wardgate.errors import LocalProtocolError, RemoteProtocolError
from wardgate.wire.addresses import SocketAddr

INITIATION_SIZE, RESPONSE_SIZE, COOKIE_REPLY_SIZE, TRANSPORT_OVERHEAD = 148, 92, 64, 32
KEY_SIZE, MAC_SIZE, COOKIE_NONCE_SIZE, TIMESTAMP_SIZE = 32, 16, 24, 12
_MACS = 2 * MAC_SIZE
_TAI64_BASE = 0x4000_0000_0000_000A
_NANOSECONDS = 1_000_000_000
_LAST_TIMESTAMP = (1 << 96) - 1


class MessageType(IntEnum):
    """The first byte; the three after it are zero."""

    INITIATION = 1
    RESPONSE = 2
    COOKIE_REPLY = 3
    TRANSPORT = 4


_SIZES = {
    MessageType.INITIATION: INITIATION_SIZE,
    MessageType.RESPONSE: RESPONSE_SIZE,
    MessageType.COOKIE_REPLY: COOKIE_REPLY_SIZE,
}


def message_type(datagram: bytes) -> MessageType | None:
    """What WireGuard message this is by its first four bytes and its size; `None` if it is none."""
    if len(datagram) < TRANSPORT_OVERHEAD or datagram[1:4] != b"\0\0\0" or not 1 <= datagram[0] <= 4:
        return None
    kind = MessageType(datagram[0])
    return kind if _SIZES.get(kind, len(datagram)) == len(datagram) else None


def sender_index(datagram: bytes) -> int:
    """The index that the sender of an initiation or response gave its session.

    Raises:
        RemoteProtocolError: It is neither.
    """
    if message_type(datagram) not in (MessageType.INITIATION, MessageType.RESPONSE):
        raise RemoteProtocolError("not a WireGuard handshake message")
    return _index(datagram, 4)


def receiver_index(datagram: bytes) -> int:
    """The index that its receiver gave the session: of a response, a cookie reply or a transport message.

    Raises:
        RemoteProtocolError: It is none of them.
    """
    match message_type(datagram):
        case MessageType.RESPONSE:
            return _index(datagram, 8)
        case MessageType.COOKIE_REPLY | MessageType.TRANSPORT:
            return _index(datagram, 4)
        case _:
            raise RemoteProtocolError("not a WireGuard message with a receiver")


def _index(datagram: bytes, offset: int) -> int:
    index: int = struct.unpack_from("<I", datagram, offset)[0]
    return index


# --- macs ----------------------------------------------------------------------------------------------------------


def mac1_key(public_key: bytes) -> bytes:
    """The key of mac1 in messages to the owner of `public_key`."""
    return blake2s(b"mac1----" + public_key).digest()


def cookie_key(public_key: bytes) -> bytes:
    """The key that seals cookies from the owner of `public_key`."""
    return blake2s(b"cookie--" + public_key).digest()


def mac1_of(datagram: bytes) -> bytes:
    """The mac1 that a handshake message holds."""
    return datagram[-_MACS:-MAC_SIZE]


def with_macs(message: bytes, key: bytes, cookie: bytes | None) -> bytes:
    """The handshake message with its last 32 bytes filled in: mac1, and mac2 if there is a cookie."""
    first = message[:-_MACS] + _mac(key, message[:-_MACS])
    return first + (bytes(MAC_SIZE) if cookie is None else _mac(cookie, first))


def is_mac1_valid(datagram: bytes, key: bytes) -> bool:
    """Whether a handshake message was made by someone who knows the receiver's public key."""
    return compare_digest(mac1_of(datagram), _mac(key, datagram[:-_MACS]))


def is_mac2_valid(datagram: bytes, cookie: bytes) -> bool:
    """Whether a handshake message was made by someone who got this cookie."""
    return compare_digest(datagram[-MAC_SIZE:], _mac(cookie, datagram[:-MAC_SIZE]))


def cookie_of(secret: bytes, source: SocketAddr) -> bytes:
    """The cookie that proves its holder receives at `source`."""
    return _mac(secret, ip_address(source[0]).packed + struct.pack("!H", source[1]))


def _mac(key: bytes, data: bytes) -> bytes:
    return blake2s(data, digest_size=MAC_SIZE, key=key).digest()


# --- cookie replies ------------------------------------------------------------------------------------------------


def encode_cookie_reply(receiver: int, nonce: bytes, sealed_cookie: bytes) -> bytes:
    """A cookie reply to the sender of a handshake message whose index is `receiver`."""
    if len(nonce) != COOKIE_NONCE_SIZE or len(sealed_cookie) != 2 * MAC_SIZE:
        raise LocalProtocolError("a cookie reply has a nonce of 24 and a cookie of 32 bytes")
    return struct.pack("<II", MessageType.COOKIE_REPLY, receiver) + nonce + sealed_cookie


def decode_cookie_reply(datagram: bytes) -> tuple[int, bytes, bytes]:
    """Gives receiver index, nonce and sealed cookie.

    Raises:
        RemoteProtocolError: It is no cookie reply.
    """
    if message_type(datagram) is not MessageType.COOKIE_REPLY:
        raise RemoteProtocolError("not a WireGuard cookie reply")
    return _index(datagram, 4), datagram[8 : 8 + COOKIE_NONCE_SIZE], datagram[8 + COOKIE_NONCE_SIZE :]


# --- timestamps ----------------------------------------------------------------------------------------------------


def tai64n(unix_s: float, after: bytes = bytes(TIMESTAMP_SIZE)) -> bytes:
    """The 12-byte timestamp of a moment, but always greater than `after`."""
    nanoseconds = max(0, int(unix_s * _NANOSECONDS))
    seconds, rest = divmod(nanoseconds, _NANOSECONDS)
    wanted = struct.pack("!QI", _TAI64_BASE + seconds, rest)
    if wanted > after:
        return wanted
    return min(int.from_bytes(after, "big") + 1, _LAST_TIMESTAMP).to_bytes(TIMESTAMP_SIZE, "big")
