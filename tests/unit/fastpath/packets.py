"""IP packets made and checked the slow and obvious way, for the tests of the native module."""

import ipaddress
import struct

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
FIN, SYN, RST, ACK = 1, 2, 4, 16
Addr = tuple[str, int]


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(source: str, destination: str, protocol: int, length: int) -> bytes:
    packed = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    return packed + struct.pack(">HH", protocol, length)


def ip(source: str, destination: str, protocol: int, body: bytes, *, tos: int = 0, fragment: int = 0x4000) -> bytes:
    packed = ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed
    if ipaddress.ip_address(source).version == 4:
        fields = (0x45, tos, 20 + len(body), 7, fragment, 64, protocol, 0)
        header = struct.pack(">BBHHHBBH", *fields) + packed[0] + packed[1]
        return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + body
    return struct.pack(">IHBB", 6 << 28 | tos << 20, len(body), protocol, 64) + packed[0] + packed[1] + body


def udp(source: Addr, destination: Addr, payload: bytes = b"hello", *, tos: int = 0, summed: bool = True) -> bytes:
    length = 8 + len(payload)
    body = struct.pack(">HHHH", source[1], destination[1], length, 0) + payload
    field = checksum(pseudo_header(source[0], destination[0], UDP, length) + body) or 0xFFFF
    body = body[:6] + struct.pack(">H", field if summed else 0) + body[8:]
    return ip(source[0], destination[0], UDP, body, tos=tos)


def tcp(source: Addr, destination: Addr, flags: int = ACK, payload: bytes = b"", *, sequence: int = 1) -> bytes:
    body = struct.pack(">HHIIBBHHH", source[1], destination[1], sequence, 9, 5 << 4, flags, 1000, 0, 0) + payload
    field = checksum(pseudo_header(source[0], destination[0], TCP, len(body)) + body)
    return ip(source[0], destination[0], TCP, body[:16] + struct.pack(">H", field) + body[18:])


def echo(source: str, destination: str, identifier: int, *, reply: bool = False, payload: bytes = b"ping") -> bytes:
    if ipaddress.ip_address(source).version == 4:
        body = struct.pack(">BBHHH", 0 if reply else 8, 0, 0, identifier, 1) + payload
        field = checksum(body)
        return ip(source, destination, ICMP, body[:2] + struct.pack(">H", field) + body[4:])
    body = struct.pack(">BBHHH", 129 if reply else 128, 0, 0, identifier, 1) + payload
    field = checksum(pseudo_header(source, destination, ICMPV6, len(body)) + body)
    return ip(source, destination, ICMPV6, body[:2] + struct.pack(">H", field) + body[4:])


def ends(packet: bytes) -> tuple[Addr, Addr]:
    """Source and destination; for ICMP echo the identifier stands for both ports."""
    version, header = packet[0] >> 4, 20 if packet[0] >> 4 == 4 else 40
    addresses = packet[12:20] if version == 4 else packet[8:40]
    half = len(addresses) // 2
    source, destination = (str(ipaddress.ip_address(part)) for part in (addresses[:half], addresses[half:]))
    protocol = packet[9] if version == 4 else packet[6]
    if protocol in (TCP, UDP):
        ports = struct.unpack_from(">HH", packet, header)
    else:
        ports = struct.unpack_from(">H", packet, header + 4) * 2
    return (source, ports[0]), (destination, ports[1])


def is_sound(packet: bytes) -> bool:
    """Whether every length and checksum of the packet is right, by a full recomputation."""
    version, header = packet[0] >> 4, 20 if packet[0] >> 4 == 4 else 40
    protocol = packet[9] if version == 4 else packet[6]
    if version == 4 and (checksum(packet[:20]) != 0 or struct.unpack_from(">H", packet, 2)[0] != len(packet)):
        return False
    if version == 6 and struct.unpack_from(">H", packet, 4)[0] != len(packet) - 40:
        return False
    body = packet[header:]
    if protocol == ICMP:
        return checksum(body) == 0
    (source, _), (destination, _) = ends(packet)
    return checksum(pseudo_header(source, destination, protocol, len(body)) + body) == 0
