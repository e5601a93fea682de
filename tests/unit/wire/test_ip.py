"""IP packets: parsing is total, keys are right, and what we build is what others accept."""

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import LocalProtocolError, RemoteProtocolError
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import (
    SYN,
    TCP,
    UDP,
    FlowKey,
    adjust_checksum,
    checksum,
    icmp_echo,
    ip_packet,
    parse,
    tcp_packet,
    transport_checksum,
    udp_packet,
)

CLIENT4, APP4 = SocketAddr("100.64.0.1", 5000), SocketAddr("10.9.0.2", 80)
CLIENT6, APP6 = SocketAddr("fd00:2021:1111::1", 5000), SocketAddr("2001:db8::2", 80)
RFC1071_EXAMPLE = bytes.fromhex("0001f203f4f5f6f7")
WIKIPEDIA_HEADER = bytes.fromhex("450000730000400040110000c0a80001c0a800c7")


def test_checksum_of_published_examples() -> None:
    assert checksum(RFC1071_EXAMPLE) == 0xFFFF ^ 0xDDF2
    assert checksum(WIKIPEDIA_HEADER) == 0xB861


@given(st.binary(max_size=64))
def test_checksum_agrees_with_adding_word_by_word(data: bytes) -> None:
    total = 0
    padded = data + b"\0" * (len(data) % 2)
    for (word,) in struct.iter_unpack("!H", padded):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    assert checksum(data) == 0xFFFF ^ total


@given(st.binary(min_size=2, max_size=2), st.binary(min_size=2, max_size=2), st.binary(min_size=2, max_size=20))
def test_adjusted_checksum_verifies(old: bytes, new: bytes, rest: bytes) -> None:
    rest = rest + b"\x01" * (2 - len(rest) % 2)
    after = adjust_checksum(checksum(old + rest), old, new)
    assert checksum(new + rest + struct.pack("!H", after)) == 0


@pytest.mark.parametrize(("source", "destination"), [(CLIENT4, APP4), (CLIENT6, APP6)])
def test_udp_packet_reads_back(source: SocketAddr, destination: SocketAddr) -> None:
    packet = parse(udp_packet(source, destination, b"hello"))

    assert packet.key == FlowKey(UDP, source, destination)
    assert packet.key.reversed() == FlowKey(UDP, destination, source)
    assert packet.payload == b"hello"
    assert packet.hop_limit == 64
    assert transport_sum(packet.raw) == 0


@pytest.mark.parametrize(("source", "destination"), [(CLIENT4, APP4), (CLIENT6, APP6)])
def test_tcp_packet_reads_back(source: SocketAddr, destination: SocketAddr) -> None:
    packet = parse(tcp_packet(source, destination, SYN, sequence=7, payload=b"odd"))

    assert packet.key == FlowKey(TCP, source, destination)
    assert packet.tcp_flags == SYN
    assert packet.payload == b"odd"
    assert transport_sum(packet.raw) == 0


@pytest.mark.parametrize(("source", "destination"), [(CLIENT4, APP4), (CLIENT6, APP6)])
def test_ping_is_keyed_by_its_identifier(source: SocketAddr, destination: SocketAddr) -> None:
    request = parse(icmp_echo(source.ip, destination.ip, 77, 1, b"abc"))
    reply = parse(icmp_echo(destination.ip, source.ip, 77, 1, b"abc", reply=True))

    assert (request.icmp_id, request.is_echo_request, reply.is_echo_request) == (77, True, False)
    assert request.key.source == SocketAddr(source.host, 77)
    assert reply.key == request.key.reversed()
    assert transport_sum(request.raw) == transport_sum(reply.raw) == 0
    assert not request.is_icmp_error


def test_ipv4_header_we_build_verifies_and_forbids_fragments() -> None:
    packet = udp_packet(CLIENT4, APP4, b"x")
    assert checksum(packet[:20]) == 0
    assert packet[6] == 0x40


def test_padding_behind_the_packet_is_cut_off() -> None:
    packet = udp_packet(CLIENT4, APP4, b"x")
    assert parse(packet + bytes(3)).raw == packet


def test_ipv6_extension_headers_are_walked() -> None:
    udp = udp_packet(CLIENT6, APP6, b"x")[40:]
    options = bytes((60, 0)) + bytes(6) + bytes((UDP, 1)) + bytes(14)
    packet = parse(ip_packet(CLIENT6.ip, APP6.ip, 0, options + udp))

    assert packet.key == FlowKey(UDP, CLIENT6, APP6)
    assert packet.transport_offset == 64


def test_udp_checksum_of_zero_is_sent_as_all_ones() -> None:
    source, destination = IPv4Address("0.0.0.0"), IPv4Address("0.0.0.0")
    segment = bytes.fromhex("0000000000090000") + b"\0"
    wanted = struct.pack("!H", 0xFFFF - 0x11 - 9 - 9)
    assert transport_checksum(source, destination, UDP, wanted + segment[2:]) == 0xFFFF


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(lambda p: p[:6] + b"\x20\x00" + p[8:], id="more-fragments"),
        pytest.param(lambda p: p[:6] + b"\x00\x08" + p[8:], id="later-fragment"),
        pytest.param(lambda p: p[:-1], id="truncated"),
        pytest.param(lambda p: b"\x44" + p[1:], id="short-header"),
        pytest.param(lambda p: b"\x75" + p[1:], id="version-7"),
        pytest.param(lambda p: p[:24] + b"\x00\x04" + p[26:], id="udp-length"),
    ],
)
def test_malformed_ipv4_is_refused(bad: Callable[[bytes], bytes]) -> None:
    packet = udp_packet(CLIENT4, APP4, b"payload")
    with pytest.raises(RemoteProtocolError):
        parse(bad(packet))


def test_ipv6_fragment_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="fragmented"):
        parse(ip_packet(CLIENT6.ip, APP6.ip, 44, bytes((UDP, 0, 0, 1)) + bytes(12)))


def test_packet_over_the_mtu_is_refused() -> None:
    parse(udp_packet(CLIENT4, APP4, bytes(1252)))
    with pytest.raises(RemoteProtocolError, match="longer"):
        parse(udp_packet(CLIENT4, APP4, bytes(1253)))


def test_two_families_in_one_packet_are_a_bug() -> None:
    with pytest.raises(LocalProtocolError):
        udp_packet(CLIENT4, APP6, b"")


@given(st.binary(max_size=120))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        packet = parse(data)
    except RemoteProtocolError:
        return
    assert packet.raw == data[: len(packet.raw)]
    assert len(packet.raw) >= packet.payload_offset >= packet.transport_offset


@given(st.sampled_from([CLIENT4, CLIENT6]), st.integers(0, 255), st.binary(max_size=80))
def test_any_transport_bytes_parse_or_are_refused(address: SocketAddr, protocol: int, payload: bytes) -> None:
    try:
        packet = parse(ip_packet(address.ip, address.ip, protocol, payload))
    except RemoteProtocolError:
        return
    assert packet.source == packet.destination == ip_address(address.host)
    assert len(packet.raw) >= packet.payload_offset


def transport_sum(raw: bytes) -> int:
    """Zero if the transport checksum verifies; computed apart from the code under test."""
    at = 20 if raw[0] >> 4 == 4 else 40
    protocol = raw[9] if at == 20 else raw[6]
    addresses = raw[12:20] if at == 20 else raw[8:40]
    pseudo = b"" if protocol == 1 else addresses + struct.pack("!II", len(raw) - at, protocol)
    data = pseudo + raw[at:]
    total = sum(int(word) for (word,) in struct.iter_unpack("!H", data + b"\0" * (len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF ^ total


def test_addresses_are_values() -> None:
    packet = parse(udp_packet(CLIENT6, APP6, b""))
    assert packet.source == IPv6Address(CLIENT6.host)
