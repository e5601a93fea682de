"""TURN channel data: four bytes of header in front of a datagram that a relay carries.

Source: RFC 8656, section 12.4. Channel numbers reach up to 0x7FFF, as in RFC 5766, for the sake of older clients.
"""

from typing import NamedTuple

from wardgate.errors import LocalProtocolError, RemoteProtocolError

HEADER_SIZE = 4
LOWEST_CHANNEL = 0x4000
HIGHEST_CHANNEL = 0x7FFF


class ChannelData(NamedTuple):
    """A datagram on a channel."""

    channel: int
    payload: bytes


def is_channel_data(datagram: bytes) -> bool:
    """Whether the first byte is one of channel data; `decode` may still refuse it."""
    return len(datagram) > 0 and 0x40 <= datagram[0] <= 0x7F


def decode(datagram: bytes, *, exact: bool = False) -> ChannelData:
    """Reads one frame.

    Args:
        exact: Refuse padding behind the payload, as clients do; a relay drops the padding.

    Raises:
        RemoteProtocolError: It is no channel data, or ends inside the payload.
    """
    if len(datagram) < HEADER_SIZE or not is_channel_data(datagram):
        raise RemoteProtocolError("not channel data")
    length = int.from_bytes(datagram[2:4], "big")
    rest = len(datagram) - HEADER_SIZE
    if length > rest or (exact and length != rest):
        raise RemoteProtocolError("channel data length does not match the datagram")
    return ChannelData(int.from_bytes(datagram[:2], "big"), bytes(datagram[HEADER_SIZE : HEADER_SIZE + length]))


def encode(channel: int, payload: bytes) -> bytes:
    """One frame without padding."""
    if not LOWEST_CHANNEL <= channel <= HIGHEST_CHANNEL or len(payload) > 0xFFFF:
        raise LocalProtocolError("channels are 0x4000 to 0x7FFF, payloads at most 65535 bytes")
    return channel.to_bytes(2, "big") + len(payload).to_bytes(2, "big") + payload
