"""STUN messages and channel data, written and read without trust: a draft can be wrong in every way a test needs.

Independent of Wardgate's own codec on purpose, so that an error there cannot hide itself here.
Source: RFC 8489, sections 5 and 14; RFC 8656, sections 12.4, 17 and 18.
"""

import hashlib
import hmac
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, Self

MAGIC_COOKIE = 0x2112A442
HEADER_SIZE = 20
FINGERPRINT_XOR = 0x5354554E

REQUEST, INDICATION, SUCCESS, ERROR = range(4)
CLASS_NAMES = ("request", "indication", "success", "error")

BINDING, ALLOCATE, REFRESH, SEND, DATA_METHOD, CREATE_PERMISSION, CHANNEL_BIND = 1, 3, 4, 6, 7, 8, 9
METHOD_NAMES = {
    BINDING: "Binding",
    ALLOCATE: "Allocate",
    REFRESH: "Refresh",
    SEND: "Send",
    DATA_METHOD: "Data",
    CREATE_PERMISSION: "CreatePermission",
    CHANNEL_BIND: "ChannelBind",
}

MAPPED_ADDRESS = 0x0001
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
ADDITIONAL_ADDRESS_FAMILY = 0x8000
ADDRESS_ERROR_CODE = 0x8001
PASSWORD_ALGORITHMS = 0x8002
ICMP = 0x8004
SOFTWARE = 0x8022
FINGERPRINT = 0x8028

ATTRIBUTE_NAMES = {
    MAPPED_ADDRESS: "MAPPED-ADDRESS",
    USERNAME: "USERNAME",
    MESSAGE_INTEGRITY: "MESSAGE-INTEGRITY",
    ERROR_CODE: "ERROR-CODE",
    UNKNOWN_ATTRIBUTES: "UNKNOWN-ATTRIBUTES",
    CHANNEL_NUMBER: "CHANNEL-NUMBER",
    LIFETIME: "LIFETIME",
    XOR_PEER_ADDRESS: "XOR-PEER-ADDRESS",
    DATA: "DATA",
    REALM: "REALM",
    NONCE: "NONCE",
    XOR_RELAYED_ADDRESS: "XOR-RELAYED-ADDRESS",
    REQUESTED_ADDRESS_FAMILY: "REQUESTED-ADDRESS-FAMILY",
    EVEN_PORT: "EVEN-PORT",
    REQUESTED_TRANSPORT: "REQUESTED-TRANSPORT",
    DONT_FRAGMENT: "DONT-FRAGMENT",
    MESSAGE_INTEGRITY_SHA256: "MESSAGE-INTEGRITY-SHA256",
    PASSWORD_ALGORITHM: "PASSWORD-ALGORITHM",
    USERHASH: "USERHASH",
    XOR_MAPPED_ADDRESS: "XOR-MAPPED-ADDRESS",
    RESERVATION_TOKEN: "RESERVATION-TOKEN",
    ADDITIONAL_ADDRESS_FAMILY: "ADDITIONAL-ADDRESS-FAMILY",
    ADDRESS_ERROR_CODE: "ADDRESS-ERROR-CODE",
    PASSWORD_ALGORITHMS: "PASSWORD-ALGORITHMS",
    ICMP: "ICMP",
    SOFTWARE: "SOFTWARE",
    FINGERPRINT: "FINGERPRINT",
}

IPV4, IPV6 = 1, 2
UDP = 17


class Address(NamedTuple):
    """A transport address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def family(self) -> int:
        return IPV6 if ":" in self.host else IPV4


class Attribute(NamedTuple):
    """One attribute as it was read; `padding` is what stood behind the value."""

    type: int
    value: bytes
    padding: bytes


class Malformed(Exception):
    """A server sent something that is no STUN message."""


@dataclass(frozen=True)
class Message:
    """A STUN message that arrived."""

    method: int
    message_class: int
    transaction_id: bytes
    attributes: tuple[Attribute, ...]
    raw: bytes

    def all(self, type_: int) -> list[bytes]:
        """Every value of that type, in order."""
        return [attribute.value for attribute in self.attributes if attribute.type == type_]

    def first(self, type_: int) -> bytes | None:
        """The first value of that type."""
        return next(iter(self.all(type_)), None)

    def has(self, type_: int) -> bool:
        return self.first(type_) is not None

    def address(self, type_: int) -> Address | None:
        """The first XOR address of that type; `None` if it is missing or malformed."""
        return next(iter(self.addresses(type_)), None)

    def addresses(self, type_: int) -> list[Address]:
        read = (read_xor_address(value, self.transaction_id) for value in self.all(type_))
        return [address for address in read if address is not None]

    def number(self, type_: int) -> int | None:
        value = self.first(type_)
        return None if value is None else int.from_bytes(value, "big")

    @property
    def error_code(self) -> int | None:
        value = self.first(ERROR_CODE)
        return None if value is None or len(value) < 4 else (value[2] & 7) * 100 + value[3]

    @property
    def unknown_attributes(self) -> list[int]:
        value = self.first(UNKNOWN_ATTRIBUTES) or b""
        return list(struct.unpack(f"!{len(value) // 2}H", value[: len(value) // 2 * 2]))

    def offset(self, type_: int) -> int | None:
        """Where the first attribute of that type begins."""
        at = HEADER_SIZE
        for attribute in self.attributes:
            if attribute.type == type_:
                return at
            at += 4 + len(attribute.value) + len(attribute.padding)
        return None

    def is_signed_with(self, key: bytes, type_: int = MESSAGE_INTEGRITY) -> bool:
        """Whether MESSAGE-INTEGRITY, or its SHA-256 kind, is there and right."""
        at, value = self.offset(type_), self.first(type_)
        if at is None or value is None:
            return False
        digest = hashlib.sha1 if type_ == MESSAGE_INTEGRITY else hashlib.sha256
        covered = with_length(self.raw[:at], at - HEADER_SIZE + 4 + len(value))
        return hmac.compare_digest(hmac.digest(key, covered, digest)[: len(value)], value)

    def has_right_fingerprint(self) -> bool:
        at = self.offset(FINGERPRINT)
        return at is not None and self.number(FINGERPRINT) == fingerprint_of(self.raw[:at])

    def __str__(self) -> str:
        name = f"{METHOD_NAMES.get(self.method, hex(self.method))} {CLASS_NAMES[self.message_class]}"
        if self.error_code is not None:
            reason = (self.first(ERROR_CODE) or b"")[4:].decode(errors="replace")
            return f"{name} {self.error_code} ({''.join(filter(str.isprintable, reason))[:60]})"
        return f"{name} with {names_of(attribute.type for attribute in self.attributes)}"


def names_of(types: Iterable[int]) -> str:
    """Attribute types as a list for people."""
    return ", ".join(ATTRIBUTE_NAMES.get(type_, f"0x{type_:04x}") for type_ in types) or "no attributes"


def decode(data: bytes) -> Message:
    """Reads a message strictly, as a client that trusts nobody.

    Raises:
        Malformed: It breaks a rule of RFC 8489, section 5 or 14.
    """
    if len(data) < HEADER_SIZE:
        raise Malformed("shorter than a header")
    type_, length, cookie = struct.unpack_from("!HHI", data)
    if type_ & 0xC000:
        raise Malformed("the first two bits are not zero")
    if cookie != MAGIC_COOKIE:
        raise Malformed("no magic cookie")
    if length % 4 or length != len(data) - HEADER_SIZE:
        raise Malformed(f"the length field says {length}, {len(data) - HEADER_SIZE} bytes follow the header")
    attributes = []
    at = HEADER_SIZE
    while at < len(data):
        attribute, size = struct.unpack_from("!HH", data, at)
        end = at + 4 + size
        padded = end + -size % 4
        if padded > len(data):
            raise Malformed(f"attribute {names_of([attribute])} reaches beyond the message")
        attributes.append(Attribute(attribute, data[at + 4 : end], data[end:padded]))
        at = padded
    method = (type_ & 0x3E00) >> 2 | (type_ & 0x00E0) >> 1 | type_ & 0x000F
    message_class = (type_ & 0x0100) >> 7 | (type_ & 0x0010) >> 4
    return Message(method, message_class, data[8:20], tuple(attributes), data)


def with_length(message: bytes, length: int) -> bytes:
    """The message with another length field."""
    return message[:2] + (length & 0xFFFF).to_bytes(2, "big") + message[4:]


def fingerprint_of(covered: bytes) -> int:
    """The FINGERPRINT that belongs behind these bytes."""
    return zlib.crc32(with_length(covered, len(covered) - HEADER_SIZE + 8)) ^ FINGERPRINT_XOR


def read_xor_address(value: bytes, transaction_id: bytes) -> Address | None:
    """The address in an XOR attribute, or `None` if it is malformed."""
    if len(value) < 8 or {IPV4: 8, IPV6: 20}.get(value[1]) != len(value):
        return None
    mask = MAGIC_COOKIE.to_bytes(4, "big") + transaction_id
    packed = bytes(a ^ b for a, b in zip(value[4:], mask, strict=False))
    host = IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
    return Address(str(host), int.from_bytes(value[2:4], "big") ^ MAGIC_COOKIE >> 16)


def write_xor_address(address: Address, transaction_id: bytes) -> bytes:
    """The value of an XOR attribute."""
    mask = MAGIC_COOKIE.to_bytes(4, "big") + transaction_id
    packed = bytes(a ^ b for a, b in zip(ip_address(address.host).packed, mask, strict=False))
    return bytes((0, address.family)) + (address.port ^ MAGIC_COOKIE >> 16).to_bytes(2, "big") + packed


@dataclass
class Draft:
    """A message being written, attribute by attribute; nothing is checked, so everything can be wrong."""

    method: int
    message_class: int = REQUEST
    transaction_id: bytes = field(default_factory=lambda: os.urandom(12))
    cookie: int = MAGIC_COOKIE
    body: bytes = b""
    types: list[int] = field(default_factory=list)
    note: str = ""

    def add(self, type_: int, value: bytes = b"", *, length: int | None = None, padding: bytes | None = None) -> Self:
        """Appends an attribute.

        Args:
            length: What its length field says, if not the truth.
            padding: What follows the value, if not zeros up to a multiple of four.
        """
        behind = bytes(-len(value) % 4) if padding is None else padding
        self.body += struct.pack("!HH", type_, len(value) if length is None else length) + value + behind
        self.types.append(type_)
        return self

    def u32(self, type_: int, number: int) -> Self:
        return self.add(type_, number.to_bytes(4, "big"))

    def lifetime(self, seconds: int) -> Self:
        return self.u32(LIFETIME, seconds)

    def transport(self, protocol: int = UDP) -> Self:
        return self.add(REQUESTED_TRANSPORT, bytes((protocol, 0, 0, 0)))

    def family(self, family: int) -> Self:
        return self.add(REQUESTED_ADDRESS_FAMILY, bytes((family, 0, 0, 0)))

    def additional_family(self, family: int) -> Self:
        return self.add(ADDITIONAL_ADDRESS_FAMILY, bytes((family, 0, 0, 0)))

    def even_port(self, *, reserve: bool) -> Self:
        return self.add(EVEN_PORT, bytes((0x80 if reserve else 0,)))

    def channel(self, number: int) -> Self:
        return self.add(CHANNEL_NUMBER, number.to_bytes(2, "big") + bytes(2))

    def peer(self, address: Address) -> Self:
        return self.add(XOR_PEER_ADDRESS, write_xor_address(address, self.transaction_id))

    def data(self, payload: bytes) -> Self:
        return self.add(DATA, payload)

    def integrity(self, key: bytes) -> Self:
        """Appends MESSAGE-INTEGRITY over all so far."""
        covered = self.encode(length=len(self.body) + 24)
        return self.add(MESSAGE_INTEGRITY, hmac.digest(key, covered, hashlib.sha1))

    def integrity_sha256(self, key: bytes, size: int = 32) -> Self:
        """Appends MESSAGE-INTEGRITY-SHA256, cut to `size` bytes."""
        covered = self.encode(length=len(self.body) + 4 + size)
        return self.add(MESSAGE_INTEGRITY_SHA256, hmac.digest(key, covered, hashlib.sha256)[:size])

    def fingerprint(self, *, right: bool = True) -> Self:
        """Appends FINGERPRINT over all so far."""
        return self.u32(FINGERPRINT, fingerprint_of(self.encode()) ^ (0 if right else 1))

    def because(self, note: str) -> Self:
        """Says in reports what is special about this message."""
        self.note = note
        return self

    def encode(self, *, length: int | None = None, top_bits: int = 0) -> bytes:
        """The bytes.

        Args:
            length: What the length field says, if not the truth.
            top_bits: The two bits that must be zero.
        """
        type_ = (self.method & 0xF80) << 2 | (self.method & 0x070) << 1 | self.method & 0x00F
        type_ |= (self.message_class & 2) << 7 | (self.message_class & 1) << 4 | top_bits << 14
        size = len(self.body) if length is None else length
        return struct.pack("!HHI", type_, size, self.cookie) + self.transaction_id + self.body

    def __str__(self) -> str:
        name = f"{METHOD_NAMES.get(self.method, hex(self.method))} {CLASS_NAMES[self.message_class]}"
        return f"{name} ({self.note})" if self.note else f"{name} with {names_of(self.types)}"


def channel_data(number: int, payload: bytes, *, length: int | None = None, padding: bytes = b"") -> bytes:
    """A ChannelData message; `length` is what its field says, if not the truth."""
    return struct.pack("!HH", number, len(payload) if length is None else length) + payload + padding


def md5_key(username: str, realm: str, password: str) -> bytes:
    """The long-term key of RFC 8489, section 9.2.2."""
    return hashlib.md5(f"{username}:{realm}:{password}".encode(), usedforsecurity=False).digest()


def sha256_key(username: str, realm: str, password: str) -> bytes:
    """The long-term key where PASSWORD-ALGORITHM is SHA-256: RFC 8489, section 18.5.1.2."""
    return hashlib.sha256(f"{username}:{realm}:{password}".encode()).digest()
