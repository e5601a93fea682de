"""The Noise objects, from Python."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from wardgate._fastpath import (
    HandshakeError,
    Initiation,
    OpenedInitiation,
    StaticKey,
    xchacha20poly1305_open,
    xchacha20poly1305_seal,
)

PSK = b"\x07" * 32
TIMESTAMP = bytes(range(12))
CLIENT = StaticKey.from_bytes(b"\x01" * 32)
GATEWAY = StaticKey.from_bytes(b"\x02" * 32)


@given(st.binary(min_size=32, max_size=32))
def test_public_key_is_that_of_another_implementation(private: bytes) -> None:
    expected = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    assert StaticKey.from_bytes(private).public_key == expected


def test_responder_learns_who_calls_before_it_answers() -> None:
    _, message = Initiation.start(CLIENT, GATEWAY.public_key, PSK, 0x01020304, TIMESTAMP, b"\x03" * 32)

    opened = OpenedInitiation.open(GATEWAY, message)

    assert message[:8] == bytes.fromhex("0100000004030201")
    assert message[-32:] == bytes(32)
    assert (opened.remote_public, opened.timestamp) == (CLIENT.public_key, TIMESTAMP)
    assert opened.sender_index == 0x01020304


def test_both_sides_finish_with_each_others_index() -> None:
    initiation, message = Initiation.start(CLIENT, GATEWAY.public_key, PSK, 5, TIMESTAMP, b"\x03" * 32)
    response, theirs = OpenedInitiation.open(GATEWAY, message).respond(PSK, 6, b"\x04" * 32)

    ours = initiation.finish(response)

    assert (ours.local_index, ours.remote_index, ours.is_initiator) == (5, 6, True)
    assert (theirs.local_index, theirs.remote_index, theirs.is_initiator) == (6, 5, False)
    assert len(response) == 92


def test_failed_finish_leaves_the_initiation_usable() -> None:
    initiation, message = Initiation.start(CLIENT, GATEWAY.public_key, PSK, 5, TIMESTAMP, b"\x03" * 32)
    response, _ = OpenedInitiation.open(GATEWAY, message).respond(PSK, 6, b"\x04" * 32)
    for at in (8, 12, 50):
        with pytest.raises(HandshakeError):
            initiation.finish(flip(response, at))

    assert initiation.finish(response).remote_index == 6


def test_initiation_for_another_key_is_refused() -> None:
    _, message = Initiation.start(CLIENT, GATEWAY.public_key, PSK, 5, TIMESTAMP, b"\x03" * 32)
    with pytest.raises(HandshakeError):
        OpenedInitiation.open(CLIENT, message)


def test_an_initiation_is_answered_once() -> None:
    _, message = Initiation.start(CLIENT, GATEWAY.public_key, PSK, 5, TIMESTAMP, b"\x03" * 32)
    opened = OpenedInitiation.open(GATEWAY, message)
    opened.respond(PSK, 6, b"\x04" * 32)
    with pytest.raises(HandshakeError):
        opened.respond(PSK, 7, b"\x05" * 32)


def test_wrong_lengths_of_our_own_arguments_are_value_errors() -> None:
    with pytest.raises(ValueError, match="private"):
        StaticKey.from_bytes(b"short")
    with pytest.raises(ValueError, match="psk"):
        Initiation.start(CLIENT, GATEWAY.public_key, b"", 5, TIMESTAMP, b"\x03" * 32)


def test_xchacha20poly1305_matches_the_draft() -> None:
    # draft-irtf-cfrg-xchacha-03, appendix A.3.1
    key = bytes(range(0x80, 0xA0))
    nonce = bytes(range(0x40, 0x58))
    aad = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen "
        b"would be it."
    )

    sealed = xchacha20poly1305_seal(key, nonce, aad, text)

    assert sealed[-16:].hex() == "c0875924c1c7987947deafd8780acf49"
    assert xchacha20poly1305_open(key, nonce, aad, sealed) == text
    with pytest.raises(HandshakeError):
        xchacha20poly1305_open(key, nonce, aad, flip(sealed, 0))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(message: bytes) -> None:
    initiation, _ = Initiation.start(CLIENT, GATEWAY.public_key, PSK, 5, TIMESTAMP, b"\x03" * 32)
    with pytest.raises(HandshakeError):
        OpenedInitiation.open(GATEWAY, message)
    with pytest.raises(HandshakeError):
        initiation.finish(message)


def flip(message: bytes, at: int) -> bytes:
    return message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]
