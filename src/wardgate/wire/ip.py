"""IP packets: bytes to values, and the few packets that Python makes itself.

Source: RFC 791, RFC 8200 (extension headers), RFC 768, RFC 9293, RFC 792, RFC 4443; checksums RFC 1071.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from wardgate.errors import LocalProtocolError, RemoteProtocolError
from wardgate.wire.addresses import SocketAddr

IpAddress = IPv4Address | IPv6Address

MAX_PACKET = 1280
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10

ECHO_REPLY_V4, ECHO_REQUEST_V4 = 0, 8
ECHO_REQUEST_V6, ECHO_REPLY_V6 = 128, 129
V4_ERRORS = frozenset({3, 4, 5, 11, 12})
"""Destination unreachable, source quench, redirect, time exceeded, parameter problem."""

IPV4_HEADER, IPV6_HEADER = 20, 40
_FRAGMENT = 44
_EXTENSIONS = frozenset({0, 43, 60, 135, 139, 140})
_MAX_EXTENSIONS = 8
_SMALLEST_TRANSPORT = {TCP: 20, UDP: 8, ICMP: 8, ICMPV6: 8}


class FlowKey(NamedTuple):
    """The 5-tuple of a packet, as the native flow table has it.

    Ports are the identifier (twice) for ICMP echo, and 0 for what has no ports.
    """

    protocol: int
    source: SocketAddr
    destination: SocketAddr

    def reversed(self) -> "FlowKey":
        """The key of a packet that answers this one."""
        return FlowKey(self.protocol, self.destination, self.source)


@dataclass(frozen=True, slots=True)
class Packet:
    """One whole, unfragmented IP packet.

    Attributes:
        raw: Its bytes, without anything that followed it.
        protocol: The transport protocol, behind any IPv6 extension headers.
        source_port, destination_port: Of TCP and UDP; else 0.
        icmp_type, icmp_code: Of ICMP in IPv4 and of ICMPv6 in IPv6; else `None`.
        icmp_id: The identifier of an ICMP echo request or reply; else `None`.
        tcp_flags: The low eight flags of TCP; else 0.
        transport_offset: Where the transport header starts.
        payload_offset: Where the payload of TCP, UDP or ICMP (8 header bytes) starts.
    """

    raw: bytes
    version: int
    source: IpAddress
    destination: IpAddress
    hop_limit: int
    protocol: int
    source_port: int
    destination_port: int
    icmp_type: int | None
    icmp_code: int | None
    icmp_id: int | None
    tcp_flags: int
    transport_offset: int
    payload_offset: int

    @property
    def payload(self) -> bytes:
        """What TCP, UDP or ICMP carries."""
        return self.raw[self.payload_offset :]

    @property
    def key(self) -> FlowKey:
        """The 5-tuple of this packet."""
        source_port = self.source_port if self.icmp_id is None else self.icmp_id
        destination_port = self.destination_port if self.icmp_id is None else self.icmp_id
        return FlowKey(
            self.protocol,
            SocketAddr(str(self.source), source_port),
            SocketAddr(str(self.destination), destination_port),
        )

    @property
    def is_icmp_error(self) -> bool:
        """Whether this is an ICMP error, which quotes another packet."""
        return self.icmp_type is not None and is_icmp_error_type(self.version, self.icmp_type)

    @property
    def is_echo_request(self) -> bool:
        """Whether this is a ping (and not its answer)."""
        return self.icmp_type == (ECHO_REQUEST_V4 if self.version == 4 else ECHO_REQUEST_V6)


class IpHeader(NamedTuple):
    """The part of a packet before its transport header."""

    version: int
    source: IpAddress
    destination: IpAddress
    hop_limit: int
    protocol: int
    transport_offset: int
    total_length: int


def parse(data: bytes, max_length: int = MAX_PACKET) -> Packet:
    """Reads one IP packet; bytes behind its own length (padding of other WireGuards) are cut off.

    Raises:
        RemoteProtocolError: It is malformed, truncated, a fragment, or longer than `max_length`.
    """
    header = parse_header(data)
    if header.total_length > len(data):
        raise RemoteProtocolError("IP packet is truncated")
    if header.total_length > max_length:
        raise RemoteProtocolError("IP packet is longer than the MTU")
    if header.transport_offset > header.total_length:
        raise RemoteProtocolError("IP header is longer than its packet")
    raw = bytes(data[: header.total_length])
    ports, icmp, tcp_flags, transport_length = _parse_transport(header, raw)
    return Packet(
        raw=raw,
        version=header.version,
        source=header.source,
        destination=header.destination,
        hop_limit=header.hop_limit,
        protocol=header.protocol,
        source_port=ports[0],
        destination_port=ports[1],
        icmp_type=icmp[0],
        icmp_code=icmp[1],
        icmp_id=icmp[2],
        tcp_flags=tcp_flags,
        transport_offset=header.transport_offset,
        payload_offset=header.transport_offset + transport_length,
    )


def parse_header(data: bytes, quoted: bool = False) -> IpHeader:
    """Reads the IP header and its extensions; `total_length` may be more than there is.

    Args:
        data: The start of a packet.
        quoted: It is the quote of an ICMP error, where a first fragment is as good as a whole packet.

    Raises:
        RemoteProtocolError: It is malformed, truncated or a fragment.
    """
    if not data:
        raise RemoteProtocolError("IP packet is empty")
    version = data[0] >> 4
    if version == 4:
        return _parse_ipv4(data, quoted)
    if version == 6:
        return _parse_ipv6(data, quoted)
    raise RemoteProtocolError("neither IPv4 nor IPv6")


def _parse_ipv4(data: bytes, quoted: bool) -> IpHeader:
    header_length = (data[0] & 0x0F) * 4
    if header_length < IPV4_HEADER or len(data) < header_length:
        raise RemoteProtocolError("IPv4 header is truncated")
    total_length, fragment, hop_limit, protocol = struct.unpack_from("!2xH2xHBB", data)
    if total_length < header_length:
        raise RemoteProtocolError("IPv4 length is less than its header")
    if fragment & (0x1FFF if quoted else 0x3FFF):
        raise RemoteProtocolError("fragmented")
    source, destination = IPv4Address(bytes(data[12:16])), IPv4Address(bytes(data[16:20]))
    return IpHeader(4, source, destination, hop_limit, protocol, header_length, total_length)


def _parse_ipv6(data: bytes, quoted: bool) -> IpHeader:
    if len(data) < IPV6_HEADER:
        raise RemoteProtocolError("IPv6 header is truncated")
    payload_length, protocol, hop_limit = struct.unpack_from("!4xHBB", data)
    offset = IPV6_HEADER
    seen = 0
    while protocol in _EXTENSIONS or protocol == _FRAGMENT:
        seen += 1
        if seen > _MAX_EXTENSIONS or len(data) < offset + 8:
            raise RemoteProtocolError("IPv6 extension headers are too many or truncated")
        if protocol == _FRAGMENT:
            if not quoted or struct.unpack_from("!2xH", data, offset)[0] & 0xFFF8:
                raise RemoteProtocolError("fragmented")
            length = 8
        else:
            length = (data[offset + 1] + 1) * 8
        protocol = data[offset]
        offset += length
    source, destination = IPv6Address(bytes(data[8:24])), IPv6Address(bytes(data[24:40]))
    return IpHeader(6, source, destination, hop_limit, protocol, offset, IPV6_HEADER + payload_length)


_Icmp = tuple[int | None, int | None, int | None]
_NO_ICMP: _Icmp = (None, None, None)


def _parse_transport(header: IpHeader, raw: bytes) -> tuple[tuple[int, int], _Icmp, int, int]:
    """Gives ports, ICMP type, code and identifier, TCP flags, and the length of the transport header."""
    at, protocol = header.transport_offset, header.protocol
    if protocol not in _SMALLEST_TRANSPORT or protocol == (ICMPV6 if header.version == 4 else ICMP):
        return (0, 0), _NO_ICMP, 0, 0
    smallest, left = _SMALLEST_TRANSPORT[protocol], len(raw) - at
    if left < smallest:
        raise RemoteProtocolError("transport header is truncated")
    if protocol == TCP:
        length = (raw[at + 12] >> 4) * 4
        if not smallest <= length <= left:
            raise RemoteProtocolError("TCP header length is wrong")
        return struct.unpack_from("!HH", raw, at), _NO_ICMP, raw[at + 13], length
    if protocol == UDP:
        source, destination, length = struct.unpack_from("!HHH", raw, at)
        if length != left:
            raise RemoteProtocolError("UDP length is wrong")
        return (source, destination), _NO_ICMP, 0, smallest
    return (0, 0), parse_icmp(header.version, raw, at), 0, smallest


def parse_icmp(version: int, data: bytes, offset: int) -> _Icmp:
    """Gives type, code and, of an echo, the identifier of the ICMP message at `offset` (8 bytes must be there)."""
    kind, code, identifier = struct.unpack_from("!BB2xH", data, offset)
    echo = (ECHO_REQUEST_V4, ECHO_REPLY_V4) if version == 4 else (ECHO_REQUEST_V6, ECHO_REPLY_V6)
    return kind, code, identifier if kind in echo else None


def is_icmp_error_type(version: int, icmp_type: int) -> bool:
    """Whether an ICMP message of that type quotes another packet."""
    return icmp_type in V4_ERRORS if version == 4 else icmp_type < 128


class TcpHeader(NamedTuple):
    """What TCP says of a segment besides its ports and flags."""

    sequence: int
    acknowledgment: int
    window: int
    options: bytes


def tcp_header(packet: Packet) -> TcpHeader:
    """Reads the rest of the TCP header of a packet.

    Raises:
        LocalProtocolError: The packet is not TCP.
    """
    if packet.protocol != TCP:
        raise LocalProtocolError("not a TCP packet")
    at = packet.transport_offset
    sequence, acknowledgment, window = struct.unpack_from("!4xII2xH", packet.raw, at)
    return TcpHeader(sequence, acknowledgment, window, packet.raw[at + 20 : packet.payload_offset])


# --- checksums -------------------------------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    """The internet checksum of `data`, whose own checksum field is zero."""
    padded = data if len(data) % 2 == 0 else data + b"\0"
    total = int.from_bytes(padded, "big")
    folded = total % 0xFFFF
    if folded == 0 and total:
        folded = 0xFFFF
    return 0xFFFF ^ folded


def adjust_checksum(old_checksum: int, old: bytes, new: bytes) -> int:
    """A checksum after `old` became `new`, both at the same even offset and of the same even length (RFC 1624)."""
    total = 0xFFFF ^ old_checksum
    total += 0xFFFF ^ _sum16(old)
    total += _sum16(new)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF ^ total


def _sum16(data: bytes) -> int:
    return 0xFFFF ^ checksum(data)


def transport_checksum(source: IpAddress, destination: IpAddress, protocol: int, segment: bytes) -> int:
    """The checksum over pseudo header and segment, whose own checksum field is zero.

    ICMP in IPv4 has no pseudo header. A UDP checksum that comes out as zero is 0xFFFF, as zero means none.
    """
    if protocol == ICMP:
        return checksum(segment)
    length = struct.pack("!I", len(segment))
    pseudo = source.packed + destination.packed + length + bytes((0, 0, 0, protocol))
    total = checksum(pseudo + segment)
    return 0xFFFF if total == 0 and protocol == UDP else total


# --- builders --------------------------------------------------------------------------------------------------------


def ip_packet(source: IpAddress, destination: IpAddress, protocol: int, payload: bytes, hop_limit: int = 64) -> bytes:
    """An IP packet around `payload`: no options, no extension headers, never to be fragmented.

    Raises:
        LocalProtocolError: The addresses are of two families.
    """
    if isinstance(source, IPv4Address) and isinstance(destination, IPv4Address):
        total = IPV4_HEADER + len(payload)
        fields = (0x45, 0, total, 0, 0x4000, hop_limit, protocol, 0)
        header = struct.pack("!BBHHHBBH", *fields) + source.packed + destination.packed
        return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload
    if isinstance(source, IPv6Address) and isinstance(destination, IPv6Address):
        header = struct.pack("!IHBB", 0x60000000, len(payload), protocol, hop_limit)
        return header + source.packed + destination.packed + payload
    raise LocalProtocolError("a packet has both addresses of one family")


def udp_packet(source: SocketAddr, destination: SocketAddr, payload: bytes, hop_limit: int = 64) -> bytes:
    """A UDP datagram in an IP packet."""
    source_ip, destination_ip = ip_address(source[0]), ip_address(destination[0])
    segment = struct.pack("!HHHH", source[1], destination[1], 8 + len(payload), 0) + payload
    total = transport_checksum(source_ip, destination_ip, UDP, segment)
    segment = segment[:6] + struct.pack("!H", total) + payload
    return ip_packet(source_ip, destination_ip, UDP, segment, hop_limit)


def tcp_packet(
    source: SocketAddr,
    destination: SocketAddr,
    flags: int,
    *,
    sequence: int = 0,
    acknowledgment: int = 0,
    window: int = 0xFFFF,
    options: bytes = b"",
    payload: bytes = b"",
) -> bytes:
    """A TCP segment in an IP packet; the options are padded to whole words already."""
    source_ip, destination_ip = ip_address(source[0]), ip_address(destination[0])
    numbers = (sequence & 0xFFFFFFFF, acknowledgment & 0xFFFFFFFF)
    offset = (5 + len(options) // 4) << 4
    segment = struct.pack("!HHIIBBHHH", source[1], destination[1], *numbers, offset, flags, window, 0, 0)
    segment += options + payload
    total = transport_checksum(source_ip, destination_ip, TCP, segment)
    segment = segment[:16] + struct.pack("!H", total) + segment[18:]
    return ip_packet(source_ip, destination_ip, TCP, segment)


def icmp_message(
    source: IpAddress,
    destination: IpAddress,
    kind: int,
    code: int,
    rest: bytes,
    body: bytes = b"",
    hop_limit: int = 64,
) -> bytes:
    """An ICMP or ICMPv6 message (by family) in an IP packet; `rest` is the second half of its 8-byte header."""
    protocol = ICMP if source.version == 4 else ICMPV6
    segment = struct.pack("!BBH", kind, code, 0) + rest + body
    total = transport_checksum(source, destination, protocol, segment)
    segment = segment[:2] + struct.pack("!H", total) + segment[4:]
    return ip_packet(source, destination, protocol, segment, hop_limit)


def icmp_echo(
    source: IpAddress,
    destination: IpAddress,
    identifier: int,
    sequence: int,
    payload: bytes = b"",
    *,
    reply: bool = False,
) -> bytes:
    """A ping, or the answer to one."""
    if source.version == 4:
        kind = ECHO_REPLY_V4 if reply else ECHO_REQUEST_V4
    else:
        kind = ECHO_REPLY_V6 if reply else ECHO_REQUEST_V6
    return icmp_message(source, destination, kind, 0, struct.pack("!HH", identifier, sequence), payload)
