"""ICMP errors: making them about a packet, reading the packet they quote, and rewriting that quote.

Source: RFC 792, RFC 4443, RFC 1122 section 3.2.2 (what an error must not answer).
"""

import struct
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

from wardgate.errors import LocalProtocolError, RemoteProtocolError
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import (
    ICMP,
    ICMPV6,
    IPV6_HEADER,
    MAX_PACKET,
    TCP,
    UDP,
    FlowKey,
    IpAddress,
    Packet,
    adjust_checksum,
    checksum,
    icmp_message,
    is_icmp_error_type,
    parse_header,
    parse_icmp,
)

ERROR_HOP_LIMIT = 20
_QUOTED_TRANSPORT = 8
_TRANSLATABLE = {4: frozenset({3, 11}), 6: frozenset({1, 2, 3})}
_CHECKSUM_OFFSET = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}


class Unreachable(Enum):
    """Why a packet cannot go on: type and code in IPv4, type and code in IPv6."""

    NETWORK = (3, 0, 1, 3)
    HOST = (3, 1, 1, 3)
    PORT = (3, 3, 1, 4)
    PROHIBITED = (3, 13, 1, 1)


def unreachable(packet: Packet, why: Unreachable) -> bytes | None:
    """The ICMP error that tells the sender of `packet` why it was refused.

    It comes from the packet's destination, with hop limit 20. An IPv4 error quotes the header and 8 bytes, an IPv6
    error as much as fits in 1280 bytes.

    Returns:
        `None` if the packet must not be answered: an ICMP error, to many, or from nobody.
    """
    if packet.is_icmp_error or packet.destination.is_multicast or not _is_host(packet.source):
        return None
    v4_type, v4_code, v6_type, v6_code = why.value
    if packet.version == 4:
        if packet.destination.packed == b"\xff" * 4:
            return None
        kind, code, quote = v4_type, v4_code, packet.raw[: packet.transport_offset + _QUOTED_TRANSPORT]
    else:
        kind, code, quote = v6_type, v6_code, packet.raw[: MAX_PACKET - IPV6_HEADER - 8]
    return icmp_message(packet.destination, packet.source, kind, code, bytes(4), quote, ERROR_HOP_LIMIT)


def _is_host(address: IpAddress) -> bool:
    return not (address.is_unspecified or address.is_multicast or address.is_loopback)


@dataclass(frozen=True, slots=True)
class Quote:
    """The packet that an ICMP error is about, as far as it is quoted.

    Attributes:
        key: Its 5-tuple.
        icmp_type: Of a quoted ICMP echo; else `None`.
        offset: Where it starts in the error's bytes.
        transport_offset: Where its transport header starts in the error's bytes.
    """

    version: int
    key: FlowKey
    icmp_type: int | None
    offset: int
    transport_offset: int


def is_translatable(packet: Packet) -> bool:
    """Whether this is an ICMP error that a gateway passes on: unreachable, too big, time exceeded."""
    return packet.icmp_type is not None and packet.icmp_type in _TRANSLATABLE[packet.version]


def quoted(error: Packet) -> Quote:
    """Reads the packet that an ICMP error quotes.

    Raises:
        RemoteProtocolError: The packet is no ICMP error, or quotes too little, another family, a later fragment, or a
            packet that nobody may answer (another ICMP error).
    """
    if not error.is_icmp_error:
        raise RemoteProtocolError("not an ICMP error")
    quote = error.payload
    header = parse_header(quote, quoted=True)
    if header.version != error.version:
        raise RemoteProtocolError("ICMP error quotes a packet of the other family")
    at = header.transport_offset
    if len(quote) < at + _QUOTED_TRANSPORT or header.total_length < at + _QUOTED_TRANSPORT:
        raise RemoteProtocolError("ICMP error quotes too little")
    icmp_type: int | None = None
    source_port = destination_port = 0
    if header.protocol in (TCP, UDP):
        source_port, destination_port = struct.unpack_from("!HH", quote, at)
    elif header.protocol == (ICMP if header.version == 4 else ICMPV6):
        kind, _, identifier = parse_icmp(header.version, quote, at)
        if kind is not None and is_icmp_error_type(header.version, kind):
            raise RemoteProtocolError("ICMP error about an ICMP error")
        if identifier is not None:
            icmp_type, source_port, destination_port = kind, identifier, identifier
    source, destination = str(header.source), str(header.destination)
    return Quote(
        version=header.version,
        key=FlowKey(header.protocol, SocketAddr(source, source_port), SocketAddr(destination, destination_port)),
        icmp_type=icmp_type,
        offset=error.payload_offset,
        transport_offset=error.payload_offset + at,
    )


def translate_error(
    error: Packet,
    quote: Quote,
    *,
    source: IpAddress,
    destination: IpAddress,
    quoted_source: SocketAddr,
    quoted_destination: SocketAddr,
) -> bytes:
    """The same error about the same packet as its sender knows it, with every checksum right.

    Args:
        error: What came.
        quote: What `quoted` read in it.
        source: Who seems to complain: the address that the receiver sent its packet to.
        destination: Who gets the error.
        quoted_source, quoted_destination: Addresses and ports (ICMP: the identifier twice) before translation.

    Raises:
        LocalProtocolError: An address is of the other family.
    """
    addresses = (source, destination, ip_address(quoted_source[0]), ip_address(quoted_destination[0]))
    if error.icmp_type is None or error.icmp_code is None or any(a.version != error.version for a in addresses):
        raise LocalProtocolError("an ICMP error is translated within its family")
    body = _rewrite_quote(error.raw, quote, addresses[2], quoted_source[1], addresses[3], quoted_destination[1])
    rest = error.raw[error.transport_offset + 4 : error.transport_offset + 8]
    return icmp_message(source, destination, error.icmp_type, error.icmp_code, rest, body, ERROR_HOP_LIMIT)


def _rewrite_quote(
    raw: bytes, quote: Quote, source: IpAddress, source_port: int, destination: IpAddress, destination_port: int
) -> bytes:
    inner = bytearray(raw[quote.offset :])
    at = quote.transport_offset - quote.offset
    address_at = 12 if quote.version == 4 else 8
    length = len(source.packed)
    old_addresses = bytes(inner[address_at : address_at + 2 * length])
    new_addresses = source.packed + destination.packed
    inner[address_at : address_at + 2 * length] = new_addresses
    if quote.version == 4:
        inner[10:12] = b"\0\0"
        inner[10:12] = struct.pack("!H", checksum(bytes(inner[:at])))
    ports_at, new_ports = _ports(quote, source_port, destination_port)
    old_ports = bytes(inner[at + ports_at : at + ports_at + len(new_ports)])
    inner[at + ports_at : at + ports_at + len(new_ports)] = new_ports
    has_pseudo_header = quote.key.protocol != ICMP
    old = old_ports + (old_addresses if has_pseudo_header else b"")
    new = new_ports + (new_addresses if has_pseudo_header else b"")
    _adjust_quoted_checksum(inner, at, quote.key.protocol, old, new)
    return bytes(inner)


def _ports(quote: Quote, source_port: int, destination_port: int) -> tuple[int, bytes]:
    """Where the ports or the identifier are in the transport header, and their new bytes."""
    if quote.key.protocol in (TCP, UDP):
        return 0, struct.pack("!HH", source_port, destination_port)
    if quote.icmp_type is not None:
        return 4, struct.pack("!H", source_port)
    return 0, b""


def _adjust_quoted_checksum(inner: bytearray, at: int, protocol: int, old: bytes, new: bytes) -> None:
    """Keeps the transport checksum right where the quote reaches that far and the packet has one."""
    if protocol not in _CHECKSUM_OFFSET:
        return
    field = at + _CHECKSUM_OFFSET[protocol]
    if len(inner) < field + 2:
        return
    before = int.from_bytes(inner[field : field + 2], "big")
    if protocol == UDP and before == 0:
        return
    after = adjust_checksum(before, old, new)
    if protocol == UDP and after == 0:
        after = 0xFFFF
    inner[field : field + 2] = after.to_bytes(2, "big")
