"""ICMP errors: what may be answered, what is quoted, and how a quote is translated back."""

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import RemoteProtocolError
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.icmp_errors import Unreachable, is_translatable, quoted, translate_error, unreachable
from wardgate.wire.ip import (
    ACK,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    FlowKey,
    Packet,
    checksum,
    icmp_echo,
    icmp_message,
    ip_packet,
    parse,
    tcp_packet,
    udp_packet,
)

CLIENT4, PROXY4 = SocketAddr("100.64.0.1", 5000), SocketAddr("100.96.0.1", 80)
CLIENT6, PROXY6 = SocketAddr("fd00:2021:1111::1", 5000), SocketAddr("fd00:2021:1111:8000::", 80)
REAL4, REAL6 = SocketAddr("10.9.0.2", 80), SocketAddr("2001:db8::2", 80)
ROUTER4, ROUTER6 = SocketAddr("10.9.0.254", 0), SocketAddr("2001:db8::fe", 0)


def test_prohibited_ipv4_has_56_bytes_from_the_destination() -> None:
    packet = parse(udp_packet(CLIENT4, PROXY4, bytes(100)))

    answer = unreachable(packet, Unreachable.PROHIBITED)

    assert answer is not None
    error = parse(answer)
    assert len(answer) == 56
    assert answer[4:6] == b"\0\0"
    assert (error.icmp_type, error.icmp_code, error.hop_limit) == (3, 13, 20)
    assert (str(error.source), str(error.destination)) == (PROXY4.host, CLIENT4.host)
    assert checksum(answer[20:]) == 0
    assert error.payload == packet.raw[:28]


@pytest.mark.parametrize(
    ("why", "v4", "v6"),
    [
        (Unreachable.PROHIBITED, (3, 13), (1, 1)),
        (Unreachable.NETWORK, (3, 0), (1, 3)),
        (Unreachable.PORT, (3, 3), (1, 4)),
    ],
)
def test_types_and_codes(why: Unreachable, v4: tuple[int, int], v6: tuple[int, int]) -> None:
    assert codes(unreachable(parse(udp_packet(CLIENT4, PROXY4, b"")), why)) == v4
    assert codes(unreachable(parse(udp_packet(CLIENT6, PROXY6, b"")), why)) == v6


def test_ipv6_error_quotes_what_fits_in_the_minimum_mtu() -> None:
    big = parse(udp_packet(CLIENT6, PROXY6, bytes(1232)))
    small = parse(udp_packet(CLIENT6, PROXY6, b"abc"))

    big_error = unreachable(big, Unreachable.PROHIBITED)
    small_error = unreachable(small, Unreachable.PROHIBITED)

    assert big_error is not None
    assert small_error is not None
    assert len(big_error) == 1280
    assert parse(big_error).payload == big.raw[:1232]
    assert parse(small_error).payload == small.raw


@pytest.mark.parametrize(
    "packet",
    [
        icmp_message(CLIENT4.ip, PROXY4.ip, 3, 1, bytes(4), bytes(28)),
        icmp_message(CLIENT6.ip, PROXY6.ip, 1, 0, bytes(4), bytes(48)),
        udp_packet(CLIENT4, SocketAddr("224.0.0.252", 5355), b""),
        udp_packet(CLIENT6, SocketAddr("ff02::1:3", 5355), b""),
        udp_packet(CLIENT4, SocketAddr("255.255.255.255", 67), b""),
        udp_packet(SocketAddr("0.0.0.0", 68), PROXY4, b""),
    ],
)
def test_no_error_about_errors_or_groups(packet: bytes) -> None:
    assert unreachable(parse(packet), Unreachable.PROHIBITED) is None


def test_ping_may_be_answered_with_an_error() -> None:
    assert unreachable(parse(icmp_echo(CLIENT4.ip, PROXY4.ip, 1, 1)), Unreachable.NETWORK) is not None


@pytest.mark.parametrize("payload", [b"", b"odd", bytes(40)])
def test_quote_of_a_translated_udp_packet_is_as_the_client_sent_it(payload: bytes) -> None:
    sent = udp_packet(CLIENT4, PROXY4, payload)
    error = host_error(udp_packet(SocketAddr(CLIENT4.host, 6000), REAL4, payload))

    translated = parse(translate(error, CLIENT4, PROXY4))

    assert translated.payload == sent
    assert (str(translated.source), str(translated.destination)) == (PROXY4.host, CLIENT4.host)
    assert (translated.icmp_type, translated.icmp_code, translated.hop_limit) == (3, 1, 20)
    assert checksum(translated.raw[20:]) == 0


def test_quote_of_a_translated_tcp_packet_is_as_the_client_sent_it() -> None:
    sent = tcp_packet(CLIENT6, PROXY6, ACK, sequence=9, payload=b"data")
    error = host_error(tcp_packet(SocketAddr(CLIENT6.host, 6000), REAL6, ACK, sequence=9, payload=b"data"))

    assert parse(translate(error, CLIENT6, PROXY6)).payload == sent


@pytest.mark.parametrize(("client", "real", "proxy"), [(CLIENT4, REAL4, PROXY4), (CLIENT6, REAL6, PROXY6)])
def test_quote_of_a_translated_ping_is_as_the_client_sent_it(
    client: SocketAddr, real: SocketAddr, proxy: SocketAddr
) -> None:
    sent = icmp_echo(client.ip, proxy.ip, 40, 3, b"payload")
    error = host_error(icmp_echo(client.ip, real.ip, 41, 3, b"payload"))
    quote = quoted(error)

    assert quote.key == FlowKey(
        ICMP if client.ip.version == 4 else ICMPV6, SocketAddr(client.host, 41), SocketAddr(real.host, 41)
    )
    translated = translate(error, SocketAddr(client.host, 40), SocketAddr(proxy.host, 40))
    assert parse(translated).payload == sent


def test_truncated_quote_keeps_ports_and_header_right() -> None:
    whole = tcp_packet(SocketAddr(CLIENT4.host, 6000), REAL4, ACK, sequence=5)
    error = host_error(whole[:28])

    translated = parse(translate(error, CLIENT4, PROXY4))

    assert translated.payload[:20] == tcp_packet(CLIENT4, PROXY4, ACK, sequence=5)[:20]
    assert struct.unpack_from("!HHI", translated.payload, 20) == (5000, 80, 5)


def test_udp_without_checksum_stays_without() -> None:
    packet = bytearray(udp_packet(CLIENT4, REAL4, b"x"))
    packet[26:28] = b"\0\0"

    translated = parse(translate(host_error(bytes(packet)), CLIENT4, PROXY4))

    assert translated.payload[26:28] == b"\0\0"


@pytest.mark.parametrize(
    ("version", "kind", "expected"),
    [
        (4, 3, True),
        (4, 11, True),
        (4, 5, False),
        (4, 12, False),
        (6, 1, True),
        (6, 2, True),
        (6, 3, True),
        (6, 4, False),
    ],
)
def test_which_errors_a_gateway_passes_on(version: int, kind: int, expected: bool) -> None:
    source, destination = (ROUTER4, CLIENT4) if version == 4 else (ROUTER6, CLIENT6)
    assert is_translatable(parse(icmp_message(source.ip, destination.ip, kind, 0, bytes(4)))) is expected


def test_packet_too_big_keeps_its_mtu() -> None:
    rest = struct.pack("!I", 1280)
    quote = udp_packet(CLIENT6, REAL6, b"x")
    error = parse(icmp_message(ROUTER6.ip, CLIENT6.ip, 2, 0, rest, quote))
    assert parse(translate(error, CLIENT6, PROXY6)).raw[44:48] == rest


def test_error_about_an_error_is_refused() -> None:
    inner = icmp_message(CLIENT4.ip, REAL4.ip, 3, 1, bytes(4), bytes(28))
    with pytest.raises(RemoteProtocolError):
        quoted(host_error(inner))


def test_quoted_fragment_is_read_only_if_it_is_the_first() -> None:
    packet = bytearray(udp_packet(CLIENT4, REAL4, bytes(40)))
    packet[6:8] = b"\x20\x00"
    assert quoted(host_error(bytes(packet))).key == FlowKey(UDP, CLIENT4, REAL4)
    packet[6:8] = b"\x00\x10"
    with pytest.raises(RemoteProtocolError):
        quoted(host_error(bytes(packet)))


@given(st.binary(max_size=80), st.booleans())
def test_any_quote_is_read_or_refused_and_what_is_read_translates(quote: bytes, v4: bool) -> None:
    source, client, proxy = (ROUTER4, CLIENT4, PROXY4) if v4 else (ROUTER6, CLIENT6, PROXY6)
    start = bytes((0x45 if v4 else 0x60,)) + quote[1:]
    error = parse(icmp_message(source.ip, client.ip, 3 if v4 else 1, 0, bytes(4), start))
    try:
        read = quoted(error)
    except RemoteProtocolError:
        return
    translated = parse(translate(error, client, proxy))
    again = quoted(translated)
    assert again.key.protocol == read.key.protocol
    assert again.key.source.host == client.host
    assert len(translated.raw) == len(error.raw)


@given(st.sampled_from([TCP, UDP, ICMP]), st.binary(min_size=8, max_size=40))
def test_any_quoted_transport_keeps_its_length(protocol: int, transport: bytes) -> None:
    error = host_error(ip_packet(CLIENT4.ip, REAL4.ip, protocol, transport))
    try:
        quoted(error)
    except RemoteProtocolError:
        return
    assert len(parse(translate(error, CLIENT4, PROXY4)).payload) == 20 + len(transport)


def codes(answer: bytes | None) -> tuple[int | None, int | None]:
    assert answer is not None
    error = parse(answer)
    return error.icmp_type, error.icmp_code


def host_error(quote: bytes) -> Packet:
    """Host unreachable from a router behind the gateway, addressed to the client, about `quote`."""
    if quote[0] >> 4 == 4:
        return parse(icmp_message(IPv4Address(ROUTER4.host), CLIENT4.ip, 3, 1, bytes(4), quote))
    return parse(icmp_message(ROUTER6.ip, CLIENT6.ip, 1, 3, bytes(4), quote))


def translate(error: Packet, client: SocketAddr, proxy: SocketAddr) -> bytes:
    return translate_error(
        error,
        quoted(error),
        source=proxy.ip,
        destination=client.ip,
        quoted_source=client,
        quoted_destination=proxy,
    )
