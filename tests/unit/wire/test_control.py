"""The in-band control messages and the path probes."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import RemoteProtocolError
from wardgate.ids import ResourceId
from wardgate.wire.control import (
    AssignedIps,
    ControlMessage,
    DomainStatus,
    Goodbye,
    NatStatus,
    decode_control,
    encode_control,
    is_control_packet,
)
from wardgate.wire.ip import icmp_echo, ip_packet, parse
from wardgate.wire.probes import PROBE_DESTINATION, PROBE_SOURCE, Probe, decode_probe, encode_probe

RESOURCE = ResourceId("b52a1e62-4ee0-4f14-a9ab-1d0d3f1b1c55")
PROXY_IPS = (ip_address("100.96.0.1"), ip_address("fd00:2021:1111:8000::"))
NOBODY = ip_address("::")


def test_assigned_ips_on_the_wire() -> None:
    packet = encode_control(AssignedIps(RESOURCE, "app.corp.example", PROXY_IPS))
    body = (
        b'{"resource":"b52a1e62-4ee0-4f14-a9ab-1d0d3f1b1c55","domain":"app.corp.example",'
        b'"proxy_ips":["100.96.0.1","fd00:2021:1111:8000::"]}'
    )
    assert packet[:8] == b"\x60\0\0\0" + (8 + len(body)).to_bytes(2, "big") + b"\xff\0"
    assert packet[8:48] == bytes(40)
    assert packet[48:] == body


def test_goodbye_is_a_bare_header() -> None:
    assert encode_control(Goodbye()) == b"\x60\0\0\0\0\x08\xff\0" + bytes(32) + b"\x02" + bytes(7)


@pytest.mark.parametrize(
    "message",
    [
        AssignedIps(RESOURCE, "App.corp.example", PROXY_IPS),
        DomainStatus(NatStatus.ACTIVE, RESOURCE, "app.corp.example"),
        DomainStatus(NatStatus.INACTIVE, RESOURCE, "app.corp.example"),
        Goodbye(),
    ],
)
def test_messages_read_back(message: ControlMessage) -> None:
    packet = encode_control(message)
    assert is_control_packet(packet)
    assert decode_control(packet) == message
    assert parse(packet).protocol == 0xFF


def test_long_assigned_ips_fit_one_packet() -> None:
    name = "a" * 63 + "." + "b" * 63 + "." + "c" * 30
    ips = tuple(ip_address(f"100.127.255.{250 + n}") for n in range(4))
    ips6 = tuple(ip_address(f"fd00:2021:1111:80ff:ffff:ffff:ffff:fff{n}") for n in range(4))
    assert len(encode_control(AssignedIps(RESOURCE, name, (*ips, *ips6)))) <= 1280


def test_unknown_status_reads_as_inactive() -> None:
    message = decode_control(
        control(1, b'{"status":"Sleepy","resource":"%s","domain":"x.example"}' % RESOURCE.encode())
    )
    assert message == DomainStatus(NatStatus.INACTIVE, RESOURCE, "x.example")


def test_trailing_dot_is_dropped_and_letter_case_kept() -> None:
    message = decode_control(
        control(1, b'{"status":"Active","resource":"%s","domain":"X.example."}' % RESOURCE.encode())
    )
    assert message == DomainStatus(NatStatus.ACTIVE, RESOURCE, "X.example")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (3, b"{}"),
        (0, b""),
        (0, b"[]"),
        (0, b"[" * 900),
        (0, b'{"resource":"nonsense","domain":"a","proxy_ips":["100.96.0.1"]}'),
        (0, b'{"resource":"%s","domain":"","proxy_ips":["100.96.0.1"]}' % RESOURCE.encode()),
        (0, b'{"resource":"%s","domain":"a","proxy_ips":[]}' % RESOURCE.encode()),
        (0, b'{"resource":"%s","domain":"a","proxy_ips":[1]}' % RESOURCE.encode()),
        (0, b'{"resource":"%s","domain":"a","proxy_ips":["fe80::1%%eth0"]}' % RESOURCE.encode()),
        (0, b'{"resource":"%s","domain":"a","proxy_ips":[%s]}' % (RESOURCE.encode(), b",".join([b'"::1"'] * 65))),
        (1, b'{"status":"Active","domain":"a"}'),
    ],
)
def test_malformed_messages_are_refused(kind: int, body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_control(control(kind, body))


@given(st.binary(max_size=120))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    for packet in (data, control(data[0] % 4 if data else 0, data[1:])):
        try:
            decode_control(packet)
        except RemoteProtocolError:
            continue
        assert is_control_packet(packet)


def test_probe_on_the_wire() -> None:
    packet = encode_probe(Probe(is_reply=False, pair_id=7, sequence=2))
    assert len(packet) == 48
    assert packet[7] == 64
    assert packet[8:40] == PROBE_SOURCE.packed + PROBE_DESTINATION.packed
    assert packet == icmp_echo(PROBE_SOURCE, PROBE_DESTINATION, 7, 2)


def test_probe_reply_keeps_its_addresses() -> None:
    request = Probe(is_reply=False, pair_id=65535, sequence=0)
    packet = encode_probe(request.answer())
    assert packet[8:40] == PROBE_SOURCE.packed + PROBE_DESTINATION.packed
    assert packet[40] == 129
    assert decode_probe(packet) == Probe(is_reply=True, pair_id=65535, sequence=0)


def test_damaged_or_foreign_probe_is_none() -> None:
    packet = encode_probe(Probe(is_reply=False, pair_id=7, sequence=2))
    assert decode_probe(packet[:-1] + b"\xff") is None
    assert decode_probe(icmp_echo(PROBE_DESTINATION, PROBE_SOURCE, 7, 2)) is None


@given(st.binary(max_size=8), st.binary(max_size=60))
def test_any_bytes_are_a_probe_or_none(tail: bytes, data: bytes) -> None:
    packet = encode_probe(Probe(is_reply=False, pair_id=7, sequence=2))[: 48 - len(tail)] + tail
    for candidate in (data, packet):
        probe = decode_probe(candidate)
        assert probe is None or encode_probe(probe)[8:] == candidate[8:]


def control(kind: int, body: bytes) -> bytes:
    return ip_packet(NOBODY, NOBODY, 0xFF, bytes((kind,)) + bytes(7) + body, hop_limit=0)
