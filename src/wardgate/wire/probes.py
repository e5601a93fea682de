"""Path probes: pings inside a tunnel session that measure one pair of addresses (ICE-less mode)."""

import struct
from ipaddress import IPv6Address
from typing import NamedTuple

from wardgate.wire.ip import ECHO_REPLY_V6, ECHO_REQUEST_V6, ICMPV6, checksum, icmp_message

PROBE_SOURCE = IPv6Address("100::dead:1ce:1")
PROBE_DESTINATION = IPv6Address("100::dead:1ce:2")
_HOP_LIMIT = 64
_LENGTH = 48
_ADDRESSES = PROBE_SOURCE.packed + PROBE_DESTINATION.packed
_PSEUDO_HEADER = _ADDRESSES + struct.pack("!II", 8, ICMPV6)


class Probe(NamedTuple):
    """One probe.

    Attributes:
        is_reply: Whether it answers one of ours. A reply keeps source and destination of its request.
        pair_id: The number the asking end gave the pair.
        sequence: Of that pair.
    """

    is_reply: bool
    pair_id: int
    sequence: int

    def answer(self) -> "Probe":
        """The reply to this request."""
        return self._replace(is_reply=True)


def encode_probe(probe: Probe) -> bytes:
    """The probe as a whole IPv6 packet."""
    kind = ECHO_REPLY_V6 if probe.is_reply else ECHO_REQUEST_V6
    rest = struct.pack("!HH", probe.pair_id, probe.sequence)
    return icmp_message(PROBE_SOURCE, PROBE_DESTINATION, kind, 0, rest, hop_limit=_HOP_LIMIT)


def decode_probe(packet: bytes) -> Probe | None:
    """The probe in an IP packet; `None` if the packet is something else."""
    if len(packet) != _LENGTH or packet[0] >> 4 != 6 or packet[8:40] != _ADDRESSES:
        return None
    payload_length, next_header = struct.unpack_from("!HB", packet, 4)
    kind, code, _, pair_id, sequence = struct.unpack_from("!BBHHH", packet, 40)
    if payload_length != 8 or next_header != ICMPV6 or code != 0 or kind not in (ECHO_REQUEST_V6, ECHO_REPLY_V6):
        return None
    if checksum(_PSEUDO_HEADER + packet[40:]) != 0:
        return None
    return Probe(kind == ECHO_REPLY_V6, pair_id, sequence)
