"""Channel data frames."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate._fastpath import decode_channel_data
from wardgate.errors import LocalProtocolError, RemoteProtocolError
from wardgate.wire import channel_data
from wardgate.wire.channel_data import ChannelData


def frame_like(channel: int, length: int, payload: bytes) -> bytes:
    return channel.to_bytes(2, "big") + length.to_bytes(2, "big") + payload


@given(st.integers(0x4000, 0x7FFF), st.binary(max_size=2000))
def test_frames_round_trip_without_padding(channel: int, payload: bytes) -> None:
    frame = channel_data.encode(channel, payload)

    assert len(frame) == len(payload) + 4
    assert channel_data.decode(frame, exact=True) == ChannelData(channel, payload)


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_give_a_frame_or_an_error(datagram: bytes, exact: bool) -> None:
    try:
        channel, payload = channel_data.decode(datagram, exact=exact)
    except RemoteProtocolError:
        return
    assert channel_data.is_channel_data(datagram)
    assert datagram.startswith(channel_data.encode(channel, payload))


@given(
    st.one_of(
        st.binary(max_size=40),
        st.builds(frame_like, st.integers(0, 0xFFFF), st.integers(0, 12), st.binary(max_size=12)),
    )
)
def test_the_native_forwarder_reads_the_same(datagram: bytes) -> None:
    try:
        ours = tuple(channel_data.decode(datagram))
    except RemoteProtocolError:
        ours = None

    assert decode_channel_data(datagram) == ours


def test_padding_is_dropped_by_a_relay_and_refused_by_a_client() -> None:
    padded = bytes.fromhex("40000001aa000000")

    assert channel_data.decode(padded) == ChannelData(0x4000, b"\xaa")
    with pytest.raises(RemoteProtocolError):
        channel_data.decode(padded, exact=True)


def test_an_empty_payload_is_legal() -> None:
    assert channel_data.decode(bytes.fromhex("7fff0000")) == ChannelData(0x7FFF, b"")


@pytest.mark.parametrize("datagram", ["", "400000", "40000002aa", "3fff0000", "80000000"])
def test_what_is_no_frame_is_refused(datagram: str) -> None:
    with pytest.raises(RemoteProtocolError):
        channel_data.decode(bytes.fromhex(datagram))


@pytest.mark.parametrize("channel", [0x3FFF, 0x8000])
def test_channels_outside_the_range_are_not_written(channel: int) -> None:
    with pytest.raises(LocalProtocolError):
        channel_data.encode(channel, b"")
