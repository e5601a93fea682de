"""STUN messages: bytes to a `Message` of plain values, and a `Builder` for the way back.

The attributes of ICE and TURN are decoded here too, since all three share one message format. Only the first of a
repeated attribute counts, except for addresses that may be listed; what stands behind MESSAGE-INTEGRITY is ignored
except FINGERPRINT, for nothing authenticates it.
Source: RFC 8489 (sections 5 and 14), RFC 8656 (section 18), RFC 8445 (section 16.1).
"""

import hashlib
import hmac
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv6Address
from typing import Any, Self

from wardgate.errors import LocalProtocolError, RemoteProtocolError
from wardgate.wire.addresses import SocketAddr, packed

MAGIC_COOKIE = 0x2112A442
HEADER_SIZE = 20
TRANSACTION_ID_SIZE = 12
_COOKIE_BYTES = MAGIC_COOKIE.to_bytes(4, "big")
_HEADER = struct.Struct("!HHI12s")
_TLV = struct.Struct("!HH")
_FINGERPRINT_XOR = 0x5354554E
_INTEGRITY_SIZE = 20
_SHA256_SIZES = range(16, 33, 4)


class Method(IntEnum):
    """The methods that Wardgate speaks; a message may hold any other number."""

    BINDING = 0x001
    ALLOCATE = 0x003
    REFRESH = 0x004
    SEND = 0x006
    DATA = 0x007
    CREATE_PERMISSION = 0x008
    CHANNEL_BIND = 0x009


class MessageClass(IntEnum):
    """What a message is in its transaction."""

    REQUEST = 0
    INDICATION = 1
    SUCCESS = 2
    ERROR = 3


class Attribute(IntEnum):
    """Attribute types that are read or written."""

    USERNAME = 0x0006
    MESSAGE_INTEGRITY = 0x0008
    ERROR_CODE = 0x0009
    UNKNOWN_ATTRIBUTES = 0x000A
    CHANNEL_NUMBER = 0x000C
    LIFETIME = 0x000D
    XOR_PEER_ADDRESS = 0x0012
    DATA = 0x0013
    REALM = 0x0014
    NONCE = 0x0015
    XOR_RELAYED_ADDRESS = 0x0016
    REQUESTED_ADDRESS_FAMILY = 0x0017
    EVEN_PORT = 0x0018
    REQUESTED_TRANSPORT = 0x0019
    DONT_FRAGMENT = 0x001A
    MESSAGE_INTEGRITY_SHA256 = 0x001C
    PASSWORD_ALGORITHM = 0x001D
    USERHASH = 0x001E
    XOR_MAPPED_ADDRESS = 0x0020
    RESERVATION_TOKEN = 0x0022
    PRIORITY = 0x0024
    USE_CANDIDATE = 0x0025
    ADDITIONAL_ADDRESS_FAMILY = 0x8000
    ADDRESS_ERROR_CODE = 0x8001
    PASSWORD_ALGORITHMS = 0x8002
    SOFTWARE = 0x8022
    FINGERPRINT = 0x8028
    ICE_CONTROLLED = 0x8029
    ICE_CONTROLLING = 0x802A


# A member that is looked up in its class costs as much as ten comparisons.
_MESSAGE_CLASSES = tuple(MessageClass)
_FINGERPRINT = int(Attribute.FINGERPRINT)
_MESSAGE_INTEGRITY = int(Attribute.MESSAGE_INTEGRITY)


class AddressFamily(IntEnum):
    """Values of the address-family attributes and inside every address."""

    IPV4 = 1
    IPV6 = 2


class PasswordAlgorithm(IntEnum):
    """How the key of long-term credentials is made."""

    MD5 = 1
    SHA256 = 2


class Sha256Key(bytes):
    """A key that signs with MESSAGE-INTEGRITY-SHA256 rather than MESSAGE-INTEGRITY."""


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """Why a request failed: 300 to 699, and a phrase for people."""

    code: int
    reason: str = ""


@dataclass(slots=True)
class Message:
    """One STUN message; an attribute that is absent or malformed is `None`.

    It is not changed once it is made. To have that enforced would cost a relay 5 us for each message.

    Attributes:
        method: One of `Method`, or any other 12-bit number.
        mapped_address: XOR-MAPPED-ADDRESS.
        relayed_addresses: Every XOR-RELAYED-ADDRESS, in order.
        peer_addresses: Every XOR-PEER-ADDRESS, in order.
        nonce: As sent; to be echoed unchanged.
        even_port: EVEN-PORT: `True` if the port behind it is to be reserved as well.
        reservation_token: RESERVATION-TOKEN, 8 bytes.
        data: DATA, the payload of an indication.
        address_errors: Every ADDRESS-ERROR-CODE: a family that was not given, and why.
        controlling: The tie-breaker of ICE-CONTROLLING; likewise `controlled`.
        unknown_required: Types below 0x8000 that are not decoded here (RFC 8489 would answer 420).
        malformed: Types of known attributes whose value was not acceptable (a server answers 400).
        userhash: USERHASH, SHA-256 over username and realm in the place of USERNAME.
        password_algorithm: PASSWORD-ALGORITHM, the value as it is; likewise `password_algorithms`.
        has_integrity: Whether it carries MESSAGE-INTEGRITY; `verify_integrity` says if that is right.
        has_sha256: Whether it carries MESSAGE-INTEGRITY-SHA256.
        has_fingerprint: Whether it carries a FINGERPRINT; a wrong one is refused by `decode`.
    """

    method: int
    message_class: MessageClass
    transaction_id: bytes
    username: str | None = None
    realm: str | None = None
    nonce: bytes | None = None
    software: str | None = None
    error: ErrorCode | None = None
    unknown_attributes: tuple[int, ...] | None = None
    mapped_address: SocketAddr | None = None
    relayed_addresses: tuple[SocketAddr, ...] = ()
    peer_addresses: tuple[SocketAddr, ...] = ()
    lifetime_s: int | None = None
    requested_transport: int | None = None
    requested_family: AddressFamily | None = None
    additional_family: AddressFamily | None = None
    even_port: bool | None = None
    reservation_token: bytes | None = None
    dont_fragment: bool = False
    data: bytes | None = None
    address_errors: "tuple[tuple[AddressFamily, ErrorCode], ...]" = ()
    channel_number: int | None = None
    priority: int | None = None
    use_candidate: bool = False
    controlling: int | None = None
    controlled: int | None = None
    unknown_required: tuple[int, ...] = ()
    malformed: tuple[int, ...] = ()
    userhash: bytes | None = None
    password_algorithm: bytes | None = None
    password_algorithms: bytes | None = None
    has_integrity: bool = False
    has_sha256: bool = False
    has_fingerprint: bool = False
    raw: bytes = field(default=b"", repr=False, compare=False)
    _integrity_at: int = field(default=0, repr=False, compare=False)
    _sha256_at: int = field(default=0, repr=False, compare=False)
    _sha256_size: int = field(default=0, repr=False, compare=False)

    def verify_integrity(self, key: bytes) -> bool:
        """Whether it is signed with `key` (`short_term_key` or `turn.long_term_key`), as the type of the key says."""
        if isinstance(key, Sha256Key):
            at, size = self._sha256_at, self._sha256_size
            return self.has_sha256 and hmac.compare_digest(
                self.raw[at + 4 : at + 4 + size], _sha256_integrity(self.raw[:at], key, size)
            )
        if not self.has_integrity:
            return False
        at = self._integrity_at
        expected = _integrity(self.raw[:at], key)
        return hmac.compare_digest(self.raw[at + 4 : at + 4 + _INTEGRITY_SIZE], expected)


def is_stun(datagram: bytes) -> bool:
    """Whether the first byte is one of a STUN message; `decode` may still refuse it."""
    return len(datagram) > 0 and datagram[0] <= 3


def short_term_key(password: str) -> bytes:
    """The integrity key of ICE checks."""
    return password.encode()


def decode(datagram: bytes) -> Message:
    """Reads one message that fills the whole datagram.

    Raises:
        RemoteProtocolError: It is no STUN message, an attribute overruns it, or its FINGERPRINT is wrong. There is
            nothing to answer then, so the error holds no code.
    """
    method, message_class, transaction_id = _decode_header(datagram)
    values: dict[str, Any] = {}
    unknown: list[int] = []
    malformed: list[int] = []
    seen: set[int] = set()
    for type_, at, value in _attributes(datagram):
        if type_ == _FINGERPRINT:
            if value != _fingerprint(datagram[:at]):
                raise RemoteProtocolError("FINGERPRINT is wrong")
            values["has_fingerprint"] = True
            break
        is_sha256 = type_ == Attribute.MESSAGE_INTEGRITY_SHA256 and len(value) in _SHA256_SIZES
        if is_sha256 and "has_sha256" not in values:
            values |= {"has_sha256": True, "_sha256_at": at, "_sha256_size": len(value)}
        if is_sha256 or "has_integrity" in values or "has_sha256" in values:
            continue
        if type_ == _MESSAGE_INTEGRITY and len(value) == _INTEGRITY_SIZE:
            values["has_integrity"] = True
            values["_integrity_at"] = at
            continue
        listed = type_ in _LISTS
        decoder = _DECODERS.get(type_)
        if decoder is None:
            if type_ < 0x8000 and type_ not in seen:
                unknown.append(type_)
        elif listed or type_ not in seen:
            name, read = decoder
            decoded = read(value, transaction_id)
            if decoded is None:
                malformed.append(type_)
            elif listed:
                values[name] = (*values.get(name, ()), decoded)
            else:
                values[name] = decoded
        seen.add(type_)
    return Message(
        method,
        message_class,
        transaction_id,
        unknown_required=tuple(unknown),
        malformed=tuple(malformed),
        raw=bytes(datagram),
        **values,
    )


def _decode_header(datagram: bytes) -> tuple[int, MessageClass, bytes]:
    if len(datagram) < HEADER_SIZE:
        raise RemoteProtocolError("shorter than a STUN header")
    type_, length, cookie, transaction_id = _HEADER.unpack_from(datagram)
    if type_ & 0xC000 or cookie != MAGIC_COOKIE:
        raise RemoteProtocolError("not a STUN message")
    if length % 4 or length != len(datagram) - HEADER_SIZE:
        raise RemoteProtocolError("STUN length does not match the datagram")
    method = (type_ & 0x3E00) >> 2 | (type_ & 0x00E0) >> 1 | type_ & 0x000F
    message_class = _MESSAGE_CLASSES[(type_ & 0x0100) >> 7 | (type_ & 0x0010) >> 4]
    return method, message_class, transaction_id


def _attributes(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, offset of the attribute, and value, in order."""
    at, size, unpack = HEADER_SIZE, len(datagram), _TLV.unpack_from
    while at < size:
        type_, length = unpack(datagram, at)
        end = at + 4 + length
        if end > size:
            raise RemoteProtocolError("an attribute overruns its STUN message")
        yield type_, at, bytes(datagram[at + 4 : end])
        at = end + (-length) % 4


def _integrity(covered: bytes, key: bytes) -> bytes:
    """HMAC-SHA1 of the message up to MESSAGE-INTEGRITY, with a length that ends behind it."""
    length = len(covered) - HEADER_SIZE + 4 + _INTEGRITY_SIZE
    return hmac.digest(key, covered[:2] + length.to_bytes(2, "big") + covered[4:], hashlib.sha1)


def _sha256_integrity(covered: bytes, key: bytes, size: int) -> bytes:
    """HMAC-SHA256 of the message up to MESSAGE-INTEGRITY-SHA256, cut to `size` bytes."""
    length = len(covered) - HEADER_SIZE + 4 + size
    return hmac.digest(key, covered[:2] + length.to_bytes(2, "big") + covered[4:], hashlib.sha256)[:size]


def _fingerprint(covered: bytes) -> bytes:
    """CRC of the message up to FINGERPRINT, with a length that ends behind it."""
    length = len(covered) - HEADER_SIZE + 8
    crc = zlib.crc32(covered[:2] + length.to_bytes(2, "big") + covered[4:])
    return (crc ^ _FINGERPRINT_XOR).to_bytes(4, "big")


def _decode_text(value: bytes, _: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _decode_loose_text(value: bytes, _: bytes) -> str:
    return value.decode(errors="replace")


def _decode_bytes(value: bytes, _: bytes) -> bytes:
    return value


def _decode_flag(value: bytes, _: bytes) -> bool | None:
    return True if not value else None


def _decode_address(value: bytes, transaction_id: bytes) -> SocketAddr | None:
    if len(value) < 4:
        return None
    port = int.from_bytes(value[2:4], "big") ^ (MAGIC_COOKIE >> 16)
    match value[1], len(value):
        case AddressFamily.IPV4, 8:
            return SocketAddr(".".join(map(str, _xor(value[4:], _COOKIE_BYTES))), port)
        case AddressFamily.IPV6, 20:
            return SocketAddr(str(IPv6Address(_xor(value[4:], _COOKIE_BYTES + transaction_id))), port)
    return None


def _decode_family(value: bytes, _: bytes) -> AddressFamily | None:
    return AddressFamily(value[0]) if len(value) == 4 and value[0] in (1, 2) else None


def _decode_transport(value: bytes, _: bytes) -> int | None:
    return value[0] if len(value) == 4 else None


def _decode_channel(value: bytes, _: bytes) -> int | None:
    number = int.from_bytes(value[:2], "big")
    return number if len(value) == 4 and 0x4000 <= number <= 0x7FFF else None


def _decode_u32(value: bytes, _: bytes) -> int | None:
    return int.from_bytes(value, "big") if len(value) == 4 else None


def _decode_u64(value: bytes, _: bytes) -> int | None:
    return int.from_bytes(value, "big") if len(value) == 8 else None


def _decode_error(value: bytes, _: bytes) -> ErrorCode | None:
    if len(value) < 4 or not 3 <= value[2] & 7 <= 6 or value[3] > 99:
        return None
    return ErrorCode((value[2] & 7) * 100 + value[3], value[4:].decode(errors="replace"))


def _decode_even_port(value: bytes, _: bytes) -> bool | None:
    return bool(value[0] & 0x80) if len(value) == 1 else None


def _decode_token(value: bytes, _: bytes) -> bytes | None:
    return value if len(value) == 8 else None


def _decode_address_error(value: bytes, _: bytes) -> tuple[AddressFamily, ErrorCode] | None:
    error = _decode_error(value, _)
    return (AddressFamily(value[0]), error) if error is not None and value[0] in (1, 2) else None


def _decode_hash(value: bytes, _: bytes) -> bytes | None:
    return value if len(value) == 32 else None


def _decode_types(value: bytes, _: bytes) -> tuple[int, ...] | None:
    return None if len(value) % 2 else struct.unpack(f"!{len(value) // 2}H", value)


def _decode_never(_value: bytes, _: bytes) -> None:
    return None


_LISTS = frozenset({Attribute.XOR_PEER_ADDRESS, Attribute.XOR_RELAYED_ADDRESS, Attribute.ADDRESS_ERROR_CODE})
_DECODERS: dict[int, tuple[str, Callable[[bytes, bytes], object]]] = {
    Attribute.USERNAME: ("username", _decode_text),
    Attribute.MESSAGE_INTEGRITY: ("", _decode_never),  # one of the right size never gets here
    Attribute.MESSAGE_INTEGRITY_SHA256: ("", _decode_never),
    Attribute.USERHASH: ("userhash", _decode_hash),
    Attribute.PASSWORD_ALGORITHM: ("password_algorithm", _decode_bytes),
    Attribute.PASSWORD_ALGORITHMS: ("password_algorithms", _decode_bytes),
    Attribute.ERROR_CODE: ("error", _decode_error),
    Attribute.UNKNOWN_ATTRIBUTES: ("unknown_attributes", _decode_types),
    Attribute.CHANNEL_NUMBER: ("channel_number", _decode_channel),
    Attribute.LIFETIME: ("lifetime_s", _decode_u32),
    Attribute.XOR_PEER_ADDRESS: ("peer_addresses", _decode_address),
    Attribute.REALM: ("realm", _decode_text),
    Attribute.NONCE: ("nonce", _decode_bytes),
    Attribute.XOR_RELAYED_ADDRESS: ("relayed_addresses", _decode_address),
    Attribute.REQUESTED_ADDRESS_FAMILY: ("requested_family", _decode_family),
    Attribute.REQUESTED_TRANSPORT: ("requested_transport", _decode_transport),
    Attribute.EVEN_PORT: ("even_port", _decode_even_port),
    Attribute.DONT_FRAGMENT: ("dont_fragment", _decode_flag),
    Attribute.RESERVATION_TOKEN: ("reservation_token", _decode_token),
    Attribute.DATA: ("data", _decode_bytes),
    Attribute.ADDRESS_ERROR_CODE: ("address_errors", _decode_address_error),
    Attribute.XOR_MAPPED_ADDRESS: ("mapped_address", _decode_address),
    Attribute.PRIORITY: ("priority", _decode_u32),
    Attribute.USE_CANDIDATE: ("use_candidate", _decode_flag),
    Attribute.ADDITIONAL_ADDRESS_FAMILY: ("additional_family", _decode_family),
    Attribute.SOFTWARE: ("software", _decode_loose_text),
    Attribute.ICE_CONTROLLED: ("controlled", _decode_u64),
    Attribute.ICE_CONTROLLING: ("controlling", _decode_u64),
}


class Builder:
    """Writes a message; attributes appear in the order of the calls.

    `Builder(Method.BINDING, MessageClass.REQUEST, tid).username("a:b").priority(1).build(key, fingerprint=True)`
    """

    def __init__(self, method: int, message_class: MessageClass, transaction_id: bytes) -> None:
        """Starts a message.

        Args:
            transaction_id: 12 random bytes, or those of the request that this answers.
        """
        if len(transaction_id) != TRANSACTION_ID_SIZE or not 0 <= method <= 0xFFF:
            raise LocalProtocolError("transaction ids have 12 bytes and methods 12 bits")
        self._transaction_id = transaction_id
        self._type = (
            (method & 0xF80) << 2
            | (method & 0x070) << 1
            | method & 0x00F
            | (message_class & 2) << 7
            | (message_class & 1) << 4
        )
        self._body = bytearray()

    def attribute(self, type_: int, value: bytes) -> Self:
        """Appends any attribute."""
        size = len(value)
        self._body += _TLV.pack(type_, size) + value
        if size % 4:
            self._body += bytes(-size % 4)
        return self

    def username(self, text: str) -> Self:
        """Appends USERNAME; the likes below do what their names say."""
        return self.attribute(Attribute.USERNAME, text.encode())

    def realm(self, text: str) -> Self:
        return self.attribute(Attribute.REALM, text.encode())

    def nonce(self, value: bytes) -> Self:
        return self.attribute(Attribute.NONCE, value)

    def software(self, text: str) -> Self:
        return self.attribute(Attribute.SOFTWARE, text.encode())

    def error_code(self, code: int, reason: str) -> Self:
        return self.attribute(Attribute.ERROR_CODE, bytes((0, 0, code // 100, code % 100)) + reason.encode())

    def unknown_attributes(self, types: tuple[int, ...]) -> Self:
        return self.attribute(Attribute.UNKNOWN_ATTRIBUTES, struct.pack(f"!{len(types)}H", *types))

    def mapped_address(self, address: SocketAddr) -> Self:
        return self.attribute(Attribute.XOR_MAPPED_ADDRESS, self._address(address))

    def relayed_address(self, address: SocketAddr) -> Self:
        return self.attribute(Attribute.XOR_RELAYED_ADDRESS, self._address(address))

    def peer_address(self, address: SocketAddr) -> Self:
        return self.attribute(Attribute.XOR_PEER_ADDRESS, self._address(address))

    def lifetime(self, seconds: int) -> Self:
        return self.attribute(Attribute.LIFETIME, seconds.to_bytes(4, "big"))

    def requested_transport(self, protocol: int) -> Self:
        return self.attribute(Attribute.REQUESTED_TRANSPORT, bytes((protocol, 0, 0, 0)))

    def requested_family(self, family: AddressFamily) -> Self:
        return self.attribute(Attribute.REQUESTED_ADDRESS_FAMILY, bytes((family, 0, 0, 0)))

    def additional_family(self, family: AddressFamily) -> Self:
        return self.attribute(Attribute.ADDITIONAL_ADDRESS_FAMILY, bytes((family, 0, 0, 0)))

    def even_port(self, *, reserve_next: bool) -> Self:
        return self.attribute(Attribute.EVEN_PORT, bytes((0x80 if reserve_next else 0,)))

    def reservation_token(self, token: bytes) -> Self:
        return self.attribute(Attribute.RESERVATION_TOKEN, token)

    def dont_fragment(self) -> Self:
        return self.attribute(Attribute.DONT_FRAGMENT, b"")

    def data(self, payload: bytes) -> Self:
        return self.attribute(Attribute.DATA, payload)

    def address_error(self, family: AddressFamily, code: int, reason: str) -> Self:
        value = bytes((family, 0, code // 100, code % 100)) + reason.encode()
        return self.attribute(Attribute.ADDRESS_ERROR_CODE, value)

    def channel_number(self, number: int) -> Self:
        return self.attribute(Attribute.CHANNEL_NUMBER, number.to_bytes(2, "big") + bytes(2))

    def priority(self, value: int) -> Self:
        return self.attribute(Attribute.PRIORITY, value.to_bytes(4, "big"))

    def use_candidate(self) -> Self:
        return self.attribute(Attribute.USE_CANDIDATE, b"")

    def controlling(self, tie_breaker: int) -> Self:
        return self.attribute(Attribute.ICE_CONTROLLING, tie_breaker.to_bytes(8, "big"))

    def controlled(self, tie_breaker: int) -> Self:
        return self.attribute(Attribute.ICE_CONTROLLED, tie_breaker.to_bytes(8, "big"))

    def build(self, key: bytes | None = None, *, fingerprint: bool = False) -> bytes:
        """The finished datagram.

        Args:
            key: Appends MESSAGE-INTEGRITY made with it, or MESSAGE-INTEGRITY-SHA256 if it is of that kind.
            fingerprint: Appends FINGERPRINT as the last attribute.
        """
        message = self._header() + bytes(self._body)
        if isinstance(key, Sha256Key):
            signature = _sha256_integrity(message, key, 32)
            message += _TLV.pack(Attribute.MESSAGE_INTEGRITY_SHA256, 32) + signature
        elif key is not None:
            message += _TLV.pack(Attribute.MESSAGE_INTEGRITY, _INTEGRITY_SIZE) + _integrity(message, key)
        if fingerprint:
            message += _TLV.pack(Attribute.FINGERPRINT, 4) + _fingerprint(message)
        return message[:2] + (len(message) - HEADER_SIZE).to_bytes(2, "big") + message[4:]

    def _header(self) -> bytes:
        return _HEADER.pack(self._type, 0, MAGIC_COOKIE, self._transaction_id)

    def _address(self, address: SocketAddr) -> bytes:
        ip = packed(address.host)
        port = (address.port ^ (MAGIC_COOKIE >> 16)).to_bytes(2, "big")
        return (b"\0\1" if len(ip) == 4 else b"\0\2") + port + _xor(ip, _COOKIE_BYTES + self._transaction_id)


def _xor(value: bytes, mask: bytes) -> bytes:
    size = len(value)
    return (int.from_bytes(value, "big") ^ int.from_bytes(mask[:size], "big")).to_bytes(size, "big")
