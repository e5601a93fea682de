"""STUN messages against RFC 5769, and against any bytes at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import LocalProtocolError, RemoteProtocolError
from wardgate.wire import stun, turn
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.stun import AddressFamily, Attribute, Builder, ErrorCode, MessageClass, Method

TID = bytes(range(12))
PASSWORD = "VOkJxbRl1RmTxUk/WvJxBt"
REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff"
    "80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249"
    "c1b571a280280004e57a3bcf"
)
RESPONSE_V4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RESPONSE_V6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9fa"
    "a5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)
LONG_TERM = bytes.fromhex(
    "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c"
    "662f2f3439396b393534643 64f4c33346f4c3946535476793634734100140 00b6578616d706c652e6f726700000800 14"
    "f67024656dd64a3e02b8e0712e85c9a28ca89666".replace(" ", "")
)


def test_rfc5769_request_decodes_and_verifies() -> None:
    message = stun.decode(REQUEST)

    assert (message.method, message.message_class) == (Method.BINDING, MessageClass.REQUEST)
    assert message.transaction_id.hex() == "b7e7a701bc34d686fa87dfae"
    assert message.software == "STUN test client"
    assert message.priority == 0x6E0001FF
    assert message.controlled == 0x932FF9B151263B36
    assert message.username == "evtj:h6vY"
    assert message.has_fingerprint
    assert message.verify_integrity(stun.short_term_key(PASSWORD))
    assert not message.verify_integrity(stun.short_term_key(PASSWORD + "x"))


@pytest.mark.parametrize(
    ("datagram", "mapped"),
    [
        (RESPONSE_V4, SocketAddr("192.0.2.1", 32853)),
        (RESPONSE_V6, SocketAddr("2001:db8:1234:5678:11:2233:4455:6677", 32853)),
    ],
)
def test_rfc5769_responses_decode_and_verify(datagram: bytes, mapped: SocketAddr) -> None:
    message = stun.decode(datagram)

    assert message.message_class == MessageClass.SUCCESS
    assert message.software == "test vector"
    assert message.mapped_address == mapped
    assert message.verify_integrity(stun.short_term_key(PASSWORD))


def test_rfc5769_long_term_request_verifies() -> None:
    message = stun.decode(LONG_TERM)

    assert message.username == "マトリックス"
    assert message.nonce == b"f//499k954d6OL34oL9FSTvy64sA"
    assert message.realm == "example.org"
    assert message.verify_integrity(turn.long_term_key("マトリックス", "TheMatrIX", "example.org"))
    assert not message.verify_integrity(turn.long_term_key("マトリックス", "TheMatrIX"))


def test_built_attributes_come_back_in_full() -> None:
    datagram = (
        Builder(0xABC, MessageClass.ERROR, TID)
        .software("here")
        .username("u:v")
        .realm("r")
        .nonce(b"\xff\x00n")
        .error_code(438, "Stale Nonce")
        .unknown_attributes((0x1234, 0x0007))
        .mapped_address(SocketAddr("192.0.2.7", 1))
        .relayed_address(SocketAddr("192.0.2.8", 65535))
        .relayed_address(SocketAddr("2001:db8::8", 65535))
        .peer_address(SocketAddr("192.0.2.9", 9))
        .lifetime(600)
        .requested_transport(17)
        .requested_family(AddressFamily.IPV6)
        .additional_family(AddressFamily.IPV4)
        .channel_number(0x4001)
        .priority(5)
        .use_candidate()
        .controlling(2**64 - 1)
        .controlled(3)
        .build(b"key", fingerprint=True)
    )

    message = stun.decode(datagram)

    assert message == stun.Message(
        method=0xABC,
        message_class=MessageClass.ERROR,
        transaction_id=TID,
        username="u:v",
        realm="r",
        nonce=b"\xff\x00n",
        software="here",
        error=ErrorCode(438, "Stale Nonce"),
        unknown_attributes=(0x1234, 0x0007),
        mapped_address=SocketAddr("192.0.2.7", 1),
        relayed_addresses=(SocketAddr("192.0.2.8", 65535), SocketAddr("2001:db8::8", 65535)),
        peer_addresses=(SocketAddr("192.0.2.9", 9),),
        lifetime_s=600,
        requested_transport=17,
        requested_family=AddressFamily.IPV6,
        additional_family=AddressFamily.IPV4,
        channel_number=0x4001,
        priority=5,
        use_candidate=True,
        controlling=2**64 - 1,
        controlled=3,
        has_integrity=True,
        has_fingerprint=True,
    )
    assert message.verify_integrity(b"key")


def test_attributes_behind_integrity_are_ignored() -> None:
    signed = Builder(Method.REFRESH, MessageClass.REQUEST, TID).lifetime(0).build(b"key")
    late = signed + bytes.fromhex("00240004000000ff")
    datagram = late[:2] + (len(late) - 20).to_bytes(2, "big") + late[4:]

    message = stun.decode(datagram)

    assert message.priority is None
    assert message.verify_integrity(b"key")


def test_the_first_of_a_repeated_attribute_counts_even_if_malformed() -> None:
    twice = Builder(Method.REFRESH, MessageClass.REQUEST, TID).lifetime(1).lifetime(2).build()
    malformed_first = (
        Builder(Method.REFRESH, MessageClass.REQUEST, TID).attribute(Attribute.LIFETIME, b"xy").lifetime(2).build()
    )

    assert stun.decode(twice).lifetime_s == 1
    assert stun.decode(malformed_first).lifetime_s is None
    assert stun.decode(malformed_first).malformed == (Attribute.LIFETIME,)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Attribute.LIFETIME, b"\0\0"),
        (Attribute.REQUESTED_TRANSPORT, b"\x11"),
        (Attribute.CHANNEL_NUMBER, bytes.fromhex("3fff0000")),
        (Attribute.CHANNEL_NUMBER, bytes.fromhex("80000000")),
        (Attribute.XOR_PEER_ADDRESS, bytes.fromhex("0003a147e112a643")),
        (Attribute.XOR_PEER_ADDRESS, bytes.fromhex("0002a147e112a643")),
        (Attribute.REQUESTED_ADDRESS_FAMILY, bytes.fromhex("03000000")),
        (Attribute.USERNAME, b"\xff\xff"),
        (Attribute.ERROR_CODE, bytes.fromhex("00000163")),
        (Attribute.MESSAGE_INTEGRITY, bytes(19)),
        (Attribute.USE_CANDIDATE, b"yes!"),
    ],
)
def test_unacceptable_values_are_reported_and_read_as_absent(type_: int, value: bytes) -> None:
    message = stun.decode(Builder(Method.ALLOCATE, MessageClass.REQUEST, TID).attribute(type_, value).build())

    assert message.malformed == (type_,)
    assert not message.has_integrity
    assert not message.verify_integrity(b"key")


def test_unknown_required_attributes_are_reported_once() -> None:
    builder = Builder(Method.ALLOCATE, MessageClass.REQUEST, TID)
    builder.attribute(0x001B, b"").attribute(0x001B, b"").attribute(0x8099, b"abc")

    assert stun.decode(builder.build()).unknown_required == (0x001B,)


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        REQUEST[:19],
        REQUEST[:-1],
        REQUEST + b"\0\0\0\0",
        b"\x40" + REQUEST[1:],
        REQUEST[:4] + b"\0" + REQUEST[5:],
        REQUEST[:-1] + b"\0",
    ],
)
def test_datagrams_that_are_not_stun_are_refused_without_a_code(datagram: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        stun.decode(datagram)
    assert caught.value.code is None


def test_an_attribute_that_overruns_the_message_is_refused() -> None:
    message = bytearray(Builder(1, MessageClass.REQUEST, TID).lifetime(3).build())
    message[23] = 5

    with pytest.raises(RemoteProtocolError):
        stun.decode(bytes(message))


def test_builder_refuses_a_short_transaction_id() -> None:
    with pytest.raises(LocalProtocolError):
        Builder(Method.BINDING, MessageClass.REQUEST, b"short")


@given(st.binary(max_size=200))
def test_any_bytes_give_a_message_or_an_error(datagram: bytes) -> None:
    decode_or_refuse(datagram)


@given(
    st.integers(0, 0xFFF),
    st.sampled_from(MessageClass),
    st.binary(min_size=12, max_size=12),
    st.lists(st.tuples(st.sampled_from([*Attribute, 0x0001, 0x001A, 0x7FFF, 0xC000]), st.binary(max_size=24))),
)
def test_any_attributes_give_a_message_or_an_error(
    method: int, message_class: MessageClass, transaction_id: bytes, attributes: list[tuple[int, bytes]]
) -> None:
    builder = Builder(method, message_class, transaction_id)
    for type_, value in attributes:
        builder.attribute(type_, value)

    message = decode_or_refuse(builder.build())

    if message is not None:
        assert (message.method, message.message_class, message.transaction_id) == (
            method,
            message_class,
            transaction_id,
        )
        assert not message.verify_integrity(b"no such key")


@given(st.ip_addresses(), st.integers(0, 65535), st.binary(min_size=12, max_size=12))
def test_addresses_round_trip(ip: object, port: int, transaction_id: bytes) -> None:
    address = SocketAddr(str(ip), port)
    datagram = Builder(Method.BINDING, MessageClass.SUCCESS, transaction_id).mapped_address(address).build()

    assert stun.decode(datagram).mapped_address == address


@given(st.integers(0, len(REQUEST) - 1), st.integers(1, 255))
def test_no_changed_byte_passes_fingerprint_and_integrity(at: int, flip: int) -> None:
    changed = bytearray(REQUEST)
    changed[at] ^= flip

    message = decode_or_refuse(bytes(changed))

    assert message is None or not (message.has_fingerprint and message.verify_integrity(PASSWORD.encode()))


def decode_or_refuse(datagram: bytes) -> stun.Message | None:
    try:
        return stun.decode(datagram)
    except RemoteProtocolError:
        return None
