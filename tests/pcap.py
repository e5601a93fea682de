"""Reads the UDP datagrams of a capture, just as far as the recorded conversations need it."""

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

from wardgate.wire.addresses import SocketAddr

VECTORS = Path(__file__).parent / "vectors"


class Captured(NamedTuple):
    """One datagram; `at` is in unix seconds."""

    at: float
    source: SocketAddr
    destination: SocketAddr
    payload: bytes


def read_udp(path: Path) -> Iterator[Captured]:
    """Every IPv4 UDP datagram of an Ethernet capture, segmented sends taken apart where their headers tell how."""
    data = path.read_bytes()
    assert struct.unpack_from("<I", data) == (0xA1B2C3D4,), "little-endian capture with microseconds"
    assert struct.unpack_from("<I", data, 20) == (1,), "Ethernet"
    at = 24
    while at < len(data):
        seconds, micros, size = struct.unpack_from("<III", data, at)
        frame = data[at + 16 : at + 16 + size]
        at += 16 + size
        if frame[12:14] == b"\x08\0" and frame[23] == 17:
            yield from _datagrams(seconds + micros / 1e6, frame[14:])


def _datagrams(at: float, packet: bytes) -> Iterator[Captured]:
    header = (packet[0] & 15) * 4
    source_port, destination_port, length = struct.unpack_from("!HHH", packet, header)
    payload = packet[header + 8 : header + length]
    source = SocketAddr(str(IPv4Address(packet[12:16])), source_port)
    destination = SocketAddr(str(IPv4Address(packet[16:20])), destination_port)
    for segment in _segments(payload):
        yield Captured(at, source, destination, segment)


def _segments(payload: bytes) -> Iterator[bytes]:
    while payload:
        size = len(payload)
        if payload[0] <= 3 and payload[4:8] == b"\x21\x12\xa4\x42":
            size = 20 + int.from_bytes(payload[2:4], "big")
        elif 0x40 <= payload[0] <= 0x7F and len(payload) >= 4:
            size = 4 + int.from_bytes(payload[2:4], "big")
        elif (again := payload.find(payload[:8], 32)) > 0:  # WireGuard data of the same session
            size = again
        yield payload[:size]
        payload = payload[size:]
