"""Path probes of ICE-less mode: ICMPv6 echoes between two discard addresses, sent inside the tunnel.

A reply keeps source and destination of its request; it is not swapped. Source: RFC 4443, section 4; RFC 6666.
"""

from ipaddress import IPv6Address
from typing import NamedTuple

SIZE = 48
_ADDRESSES = IPv6Address("100::dead:1ce:1").packed + IPv6Address("100::dead:1ce:2").packed
_HEADER = bytes.fromhex("6000000000083a40") + _ADDRESSES
_REQUEST, _REPLY = 128, 129


class Probe(NamedTuple):
    """An echo request or reply.

    Attributes:
        is_reply: Whether it answers.
        pair_id: The number of the asking end's pair.
        sequence: Counts the requests of a pair.
    """

    is_reply: bool
    pair_id: int
    sequence: int


def is_probe(packet: bytes) -> bool:
    """Whether the IP packet goes between the probes' addresses; `decode` may still refuse it."""
    return packet[8:40] == _ADDRESSES and packet[0] >> 4 == 6


def encode(probe: Probe) -> bytes:
    """The whole IPv6 packet."""
    body = bytes((_REPLY if probe.is_reply else _REQUEST, 0, 0, 0))
    body += probe.pair_id.to_bytes(2, "big") + probe.sequence.to_bytes(2, "big")
    return _HEADER + body[:2] + _checksum(body).to_bytes(2, "big") + body[4:]


def decode(packet: bytes) -> Probe | None:
    """The probe in the packet; `None` if it is none or its checksum is wrong."""
    if not is_probe(packet) or len(packet) < SIZE or packet[6] != 58 or packet[4:6] != b"\0\x08":
        return None
    body = packet[40:SIZE]
    if body[0] not in (_REQUEST, _REPLY) or body[1] != 0 or _checksum(body) != 0:
        return None
    return Probe(body[0] == _REPLY, int.from_bytes(body[4:6], "big"), int.from_bytes(body[6:8], "big"))


def _checksum(body: bytes) -> int:
    """ICMPv6's over pseudo-header and body; zero over a body that holds the right one."""
    covered = _ADDRESSES + len(body).to_bytes(4, "big") + b"\0\0\0\x3a" + body
    total = sum(int.from_bytes(covered[at : at + 2], "big") for at in range(0, len(covered), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
