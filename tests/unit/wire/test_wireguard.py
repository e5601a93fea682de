"""WireGuard's message shapes and MACs, against recorded messages of real programs."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import RemoteProtocolError
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.wireguard import (
    MessageType,
    cookie_of,
    decode_cookie_reply,
    encode_cookie_reply,
    is_mac1_valid,
    is_mac2_valid,
    mac1_key,
    message_type,
    receiver_index,
    sender_index,
    tai64n,
    with_macs,
)

RECORDED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "wireguard" / "firezone.json").read_text()
)["conversations"]
SOURCE = SocketAddr("203.0.113.21", 52625)


@pytest.mark.parametrize("conversation", RECORDED, ids=lambda c: str(c["name"]))
def test_recorded_handshake_has_the_macs_we_compute(conversation: dict[str, Any]) -> None:
    initiation, response = (bytes.fromhex(message["datagram"]) for message in conversation["messages"])
    to_gateway = mac1_key(bytes.fromhex(conversation["gateway_public"]))
    to_client = mac1_key(bytes.fromhex(conversation["client_public"]))

    assert message_type(initiation) is MessageType.INITIATION
    assert message_type(response) is MessageType.RESPONSE
    assert is_mac1_valid(initiation, to_gateway)
    assert is_mac1_valid(response, to_client)
    assert not is_mac1_valid(initiation, to_client)
    assert with_macs(initiation, to_gateway, cookie=None) == initiation
    assert with_macs(response, to_client, cookie=None) == response
    assert receiver_index(response) == sender_index(initiation)


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        (b"\x01\0\0\0" + bytes(144), MessageType.INITIATION),
        (b"\x01\0\0\0" + bytes(143), None),
        (b"\x02\0\0\0" + bytes(88), MessageType.RESPONSE),
        (b"\x03\0\0\0" + bytes(60), MessageType.COOKIE_REPLY),
        (b"\x04\0\0\0" + bytes(28), MessageType.TRANSPORT),
        (b"\x04\0\0\0" + bytes(27), None),
        (b"\x04\0\0\x01" + bytes(28), None),
        (b"\x05\0\0\0" + bytes(60), None),
        (b"", None),
    ],
)
def test_type_is_by_first_bytes_and_size(datagram: bytes, expected: MessageType | None) -> None:
    assert message_type(datagram) is expected


def test_mac2_proves_the_cookie_of_one_address() -> None:
    cookie = cookie_of(bytes(32), SOURCE)
    other = cookie_of(bytes(32), SocketAddr(SOURCE.host, 1))
    message = with_macs(b"\x01\0\0\0" + bytes(144), mac1_key(bytes(32)), cookie)

    assert is_mac2_valid(message, cookie)
    assert not is_mac2_valid(message, other)


def test_cookie_reply_reads_back() -> None:
    datagram = encode_cookie_reply(0x01020304, b"n" * 24, b"c" * 32)
    assert datagram[:8] == bytes.fromhex("0300000004030201")
    assert len(datagram) == 64
    assert decode_cookie_reply(datagram) == (0x01020304, b"n" * 24, b"c" * 32)


def test_timestamp_of_the_unix_epoch() -> None:
    assert tai64n(0.0) == bytes.fromhex("400000000000000a00000000")
    assert tai64n(1.5) == bytes.fromhex("400000000000000b1dcd6500")


@given(st.floats(-1e9, 4e9), st.binary(min_size=12, max_size=12))
def test_timestamp_is_always_later_than_the_last(unix_s: float, last: bytes) -> None:
    assert tai64n(unix_s, after=last) > last or last == b"\xff" * 12


@given(st.binary(max_size=160), st.integers(1, 4))
def test_any_bytes_are_a_message_or_refused(data: bytes, kind: int) -> None:
    for datagram in (data, bytes((kind, 0, 0, 0)) + data):
        for read in (sender_index, receiver_index, decode_cookie_reply):
            try:
                read(datagram)
            except RemoteProtocolError:
                continue
            assert message_type(datagram) is not None
