"""Ethernet frames with UDP datagrams, built and taken apart byte by byte, every checksum over all that it covers."""

import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Self

ETHERNET = {4: 0x0800, 6: 0x86DD}
UDP = 17
DONT_FRAGMENT = 0x4000


@dataclass(frozen=True)
class Datagram:
    """A UDP datagram in its frame.

    Attributes:
        to_mac, from_mac: Six bytes each.
        tos: DSCP and ECN, of either family.
        check: Instead of the right UDP checksum.
    """

    source: str
    source_port: int
    destination: str
    destination_port: int
    payload: bytes
    to_mac: bytes = bytes.fromhex("020000000001")
    from_mac: bytes = bytes.fromhex("020000000099")
    tos: int = 0
    ttl: int = 64
    id: int = 0
    fragment: int = 0
    options: bytes = b""
    check: int | None = None

    @property
    def family(self) -> int:
        return ip_address(self.source).version

    def with_(self, **changes: object) -> Self:
        return replace(self, **changes)  # type: ignore[arg-type]

    def frame(self) -> bytes:
        packet = self._ipv4() if self.family == 4 else self._ipv6()
        return self.to_mac + self.from_mac + ETHERNET[self.family].to_bytes(2) + packet

    def _udp(self) -> bytes:
        length = 8 + len(self.payload)
        ports = (self.source_port, self.destination_port, length)
        check = self.check
        if check is None:
            datagram = struct.pack("!HHHH", *ports, 0) + self.payload
            check = complement(pseudo_header(self.source, self.destination, length) + datagram) or 0xFFFF
        return struct.pack("!HHHH", *ports, check) + self.payload

    def _ipv4(self) -> bytes:
        udp = self._udp()
        words = len(self.options) // 4 + 5
        lengths = (0x40 | words, self.tos, words * 4 + len(udp), self.id, self.fragment, self.ttl, UDP)
        addresses = IPv4Address(self.source).packed + IPv4Address(self.destination).packed + self.options
        check = complement(struct.pack("!BBHHHBBH", *lengths, 0) + addresses)
        return struct.pack("!BBHHHBBH", *lengths, check) + addresses + udp

    def _ipv6(self) -> bytes:
        udp = self._udp()
        header = struct.pack("!IHBB", 6 << 28 | self.tos << 20, len(udp), UDP, self.ttl)
        return header + IPv6Address(self.source).packed + IPv6Address(self.destination).packed + udp


def parse(frame: bytes) -> Datagram:
    """Takes a frame apart; every length and every checksum must be right."""
    packet = frame[14:]
    if frame[12:14] == ETHERNET[4].to_bytes(2):
        version, tos, total, id_, fragment, ttl, protocol, _ = struct.unpack_from("!BBHHHBBH", packet)
        assert (version, total, protocol) == (0x45, len(packet), UDP)
        assert complement(packet[:20]) == 0, "the checksum of the IPv4 header"
        source, destination = str(IPv4Address(packet[12:16])), str(IPv4Address(packet[16:20]))
        udp = packet[20:]
    else:
        assert frame[12:14] == ETHERNET[6].to_bytes(2)
        first, total, protocol, ttl = struct.unpack_from("!IHBB", packet)
        assert (first >> 28, total, protocol) == (6, len(packet) - 40, UDP)
        assert first & 0xFFFFF == 0, "no flow label"
        tos, id_, fragment = first >> 20 & 0xFF, 0, 0
        source, destination = str(IPv6Address(packet[8:24])), str(IPv6Address(packet[24:40]))
        udp = packet[40:]
    source_port, destination_port, length, check = struct.unpack_from("!HHHH", udp)
    assert length == len(udp)
    assert check != 0
    assert complement(pseudo_header(source, destination, length) + udp) == 0, "the checksum of the datagram"
    ends = (source, source_port, destination, destination_port)
    return Datagram(*ends, udp[8:], frame[:6], frame[6:12], tos=tos, ttl=ttl, id=id_, fragment=fragment)


def pseudo_header(source: str, destination: str, length: int) -> bytes:
    addresses = ip_address(source).packed + ip_address(destination).packed
    return addresses + (struct.pack("!BBH", 0, UDP, length) if len(addresses) == 8 else struct.pack("!II", length, UDP))


def complement(data: bytes) -> int:
    """The Internet checksum of RFC 1071, word by word; zero over data with its right checksum in it."""
    padded = data + bytes(len(data) % 2)
    total = sum(int.from_bytes(padded[at : at + 2]) for at in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def sum_of(data: bytes) -> int:
    return complement(data) ^ 0xFFFF
