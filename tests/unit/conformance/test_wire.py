"""The suite's own codec, against published bytes: it must not be wrong itself."""

import pytest
from conformance import wire
from conformance.wire import Address, Draft, Malformed
from hypothesis import given
from hypothesis import strategies as st

SAMPLE_RESPONSE = bytes.fromhex(  # RFC 5769, section 2.2
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)


def test_published_response_is_read() -> None:
    message = wire.decode(SAMPLE_RESPONSE)

    assert message.address(wire.XOR_MAPPED_ADDRESS) == Address("192.0.2.1", 32853)
    assert message.first(wire.SOFTWARE) == b"test vector"
    assert message.is_signed_with(b"VOkJxbRl1RmTxUk/WvJxBt")
    assert not message.is_signed_with(b"another password")
    assert message.has_right_fingerprint()


def test_what_is_written_is_read_again() -> None:
    draft = Draft(wire.ALLOCATE).transport().peer(Address("2001:db8::7", 99)).integrity(b"key").integrity_sha256(b"key")

    message = wire.decode(draft.fingerprint().encode())

    assert message.method == wire.ALLOCATE
    assert message.address(wire.XOR_PEER_ADDRESS) == Address("2001:db8::7", 99)
    assert message.is_signed_with(b"key")
    assert message.is_signed_with(b"key", wire.MESSAGE_INTEGRITY_SHA256)
    assert message.has_right_fingerprint()


def test_long_term_key_is_the_one_of_the_rfc() -> None:
    assert wire.md5_key("user", "realm", "pass").hex() == "8493fbc53ba582fb4c044c456bdc40eb"


def test_drafts_can_be_wrong() -> None:
    wrong = [
        Draft(wire.BINDING).encode(length=8),
        Draft(wire.BINDING).encode(top_bits=1),
        Draft(wire.BINDING, cookie=1).encode(),
        Draft(wire.BINDING).add(wire.SOFTWARE, b"abcd", length=9).encode(),
    ]
    for data in wrong:
        with pytest.raises(Malformed):
            wire.decode(data)
    assert not wire.decode(Draft(wire.BINDING).fingerprint(right=False).encode()).has_right_fingerprint()


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    try:
        wire.decode(data)
    except Malformed:
        return
