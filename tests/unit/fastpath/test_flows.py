"""Flows: what is rewritten, what is refused, and when a flow is over."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fastpath.packets import (
    ACK,
    FIN,
    ICMP,
    ICMPV6,
    RST,
    SYN,
    TCP,
    UDP,
    checksum,
    echo,
    ends,
    ip,
    is_sound,
    tcp,
    udp,
)
from tests.unit.fastpath.pairs import (
    PEER,
    Addr,
    Pair,
    client_flow,
    connected,
    gateway_flow,
    packet_upcalls,
)
from wardgate._fastpath import Engine

USER, APP = ("100.64.0.1", 40000), ("10.9.0.2", 80)
PROXY, OUTSIDE = ("100.96.0.1", 80), ("100.64.0.1", 40777)
USER6, APP6 = ("fd00:2021:1111::1", 40000), ("fd00:9::2", 80)
PROXY6, OUTSIDE6 = ("fd00:2021:1111:8000::1", 80), ("fd00:2021:1111::1", 40777)

addresses4 = st.tuples(st.ip_addresses(v=4).map(str), st.integers(1, 65535))
addresses6 = st.tuples(st.ip_addresses(v=6).map(str), st.integers(1, 65535))
quadruples = st.one_of(st.lists(addresses4, min_size=4, max_size=4), st.lists(addresses6, min_size=4, max_size=4))


def translated(protocol: int, inner: tuple[Addr, Addr], host: tuple[Addr, Addr]) -> Pair:
    """A client that sends `inner` and a gateway that makes `host` of it."""
    pair = connected()
    assert pair.client.add_flow(client_flow(protocol, *inner), 0.0)
    assert pair.gateway.add_flow(gateway_flow(protocol, inner, host), 0.0)
    return pair


@given(quadruples, st.binary(max_size=300), st.sampled_from([TCP, UDP]))
def test_both_directions_are_translated_with_sound_checksums(quad: list[Addr], payload: bytes, protocol: int) -> None:
    user, proxy, outside, app = quad
    pair = translated(protocol, (user, proxy), (outside, app))

    [there] = pair.to_gateway(made(protocol, user, proxy, payload), 1.0)
    [back] = pair.to_client(made(protocol, app, outside, payload), 2.0)

    assert there == made(protocol, outside, app, payload)
    assert back == made(protocol, proxy, user, payload)


@pytest.mark.parametrize(
    ("protocol", "user", "proxy", "app"),
    [(ICMP, "100.64.0.1", "100.96.0.1", "10.9.0.2"), (ICMPV6, USER6[0], PROXY6[0], APP6[0])],
)
def test_echo_identifiers_are_translated(protocol: int, user: str, proxy: str, app: str) -> None:
    pair = translated(protocol, ((user, 77), (proxy, 77)), ((user, 99), (app, 99)))

    [there] = pair.to_gateway(echo(user, proxy, 77), 1.0)
    [back] = pair.to_client(echo(app, user, 99, reply=True), 1.0)

    assert there == echo(user, app, 99)
    assert back == echo(proxy, user, 77, reply=True)


def test_an_echo_request_does_not_pass_as_a_reply() -> None:
    pair = translated(ICMP, (("100.64.0.1", 7), ("10.9.0.2", 7)), (("100.64.0.1", 7), ("10.9.0.2", 7)))

    assert pair.gateway.handle_tun(echo("10.9.0.2", "100.64.0.1", 7), 1.0) == []

    assert len(packet_upcalls(pair.gateway)) == 1


def test_a_flow_that_starts_with_a_reply_turns_the_types_round() -> None:
    pair = connected()
    ends_of_flow = (("100.64.0.1", 7), ("10.9.0.2", 7))
    pair.client.add_flow(client_flow(ICMP, *ends_of_flow, icmp_reply_first=True), 0.0)

    assert len(pair.client.handle_tun(echo("100.64.0.1", "10.9.0.2", 7, reply=True), 1.0)) == 1
    assert pair.client.handle_tun(echo("100.64.0.1", "10.9.0.2", 7), 1.0) == []


def test_a_udp_packet_without_a_checksum_keeps_none() -> None:
    pair = translated(UDP, (USER, PROXY), (OUTSIDE, APP))

    [there] = pair.to_gateway(udp(USER, PROXY, summed=False), 1.0)

    assert there == udp(OUTSIDE, APP, summed=False)


def test_a_rewritten_udp_checksum_is_never_zero() -> None:
    pair = translated(UDP, (USER, PROXY), (OUTSIDE, APP))
    rest = udp(OUTSIDE, APP, b"\0\0")
    field = int.from_bytes(rest[26:28], "big")
    payload = struct.pack(">H", field)

    [there] = pair.to_gateway(udp(USER, PROXY, payload), 1.0)

    assert there[26:28] == b"\xff\xff"
    assert is_sound(there)


def test_other_protocols_have_their_addresses_translated() -> None:
    pair = translated(47, ((USER[0], 0), (PROXY[0], 0)), ((USER[0], 0), (APP[0], 0)))

    [there] = pair.to_gateway(ip(USER[0], PROXY[0], 47, b"gre payload"), 1.0)

    assert there == ip(USER[0], APP[0], 47, b"gre payload")
    assert checksum(there[:20]) == 0


@pytest.mark.parametrize(
    ("packet", "counter"),
    [
        (ip(USER[0], APP[0], UDP, bytes(16), fragment=0x2000), "packets_fragmented"),
        (ip(USER[0], APP[0], UDP, bytes(16), fragment=0x0001), "packets_fragmented"),
        (ip(USER6[0], APP6[0], 44, bytes(16)), "packets_fragmented"),
        (ip(USER6[0], APP6[0], 60, bytes(8) + tcp(USER6, APP6)[40:]), "packets_extension_header"),
        (udp(USER, APP, bytes(1253)), "packets_too_long"),
        (udp(USER, APP)[:25], "packets_malformed"),
        (ip(USER[0], APP[0], TCP, bytes(12)), "packets_malformed"),
        (b"", "packets_malformed"),
        (b"\x50" + bytes(60), "packets_malformed"),
    ],
)
def test_what_nobody_forwards_is_counted_on_both_ways(packet: bytes, counter: str) -> None:
    pair = connected()
    sealed = pair.client.seal(PEER, packet, 1.0)
    assert sealed is not None

    assert pair.client.handle_tun(packet, 1.0) == []
    assert pair.gateway.handle_inner(PEER, packet, 1.0) == []

    assert pair.client.counters()[counter] == pair.gateway.counters()[counter] == 1
    assert packet_upcalls(pair.client) == packet_upcalls(pair.gateway) == []


def test_a_source_routed_packet_is_refused() -> None:
    engine = Engine()
    plain = udp(USER, APP)
    options = bytes([1, 131, 7, 4, 10, 9, 0, 9])
    header = bytes([0x47]) + plain[1:2] + struct.pack(">H", len(plain) + 8) + plain[4:20] + options

    engine.handle_tun(header + plain[20:], 0.0)

    assert engine.counters()["packets_source_routed"] == 1


def test_an_icmp_error_is_always_an_upcall() -> None:
    pair = translated(UDP, (USER, PROXY), (OUTSIDE, APP))
    error = ip(APP[0], OUTSIDE[0], ICMP, b"\x03\x03" + bytes(6) + udp(OUTSIDE, APP)[:28])

    assert pair.gateway.handle_tun(error, 1.0) == []

    assert [one.packet for one in packet_upcalls(pair.gateway)] == [error]


def test_removing_an_authorization_stops_its_traffic_at_once() -> None:
    pair = translated(TCP, (USER, PROXY), (OUTSIDE, APP))
    other = ("100.64.0.1", 40001)
    pair.gateway.add_flow(gateway_flow(TCP, (other, APP), (other, APP), flow_id=2, authorization=6), 0.0)
    pair.client.add_flow(client_flow(TCP, other, APP, flow_id=2), 0.0)
    assert len(pair.to_gateway(tcp(USER, PROXY), 1.0)) == 1

    [report] = pair.gateway.remove_flows(PEER, authorization=5)

    assert pair.to_gateway(tcp(USER, PROXY), 1.0) == []
    assert pair.gateway.handle_tun(tcp(APP, OUTSIDE), 1.0) == []
    assert len(pair.to_gateway(tcp(other, APP), 1.0)) == 1
    assert (report.flow_id, report.outbound_packets, report.outbound_bytes) == (1, 1, 40)
    assert [one.flow_id for one in pair.gateway.remove_flows(PEER)] == [2]


def test_a_flow_is_over_when_it_was_idle_for_its_time() -> None:
    pair = translated(UDP, (USER, PROXY), (OUTSIDE, APP))
    pair.to_gateway(udp(USER, PROXY), 10.0)
    pair.to_client(udp(APP, OUTSIDE), 20.0)

    assert len(pair.to_gateway(udp(USER, PROXY), 139.9)) == 1
    assert pair.to_gateway(udp(USER, PROXY), 260.0) == []
    assert pair.gateway.handle_tun(udp(APP, OUTSIDE), 260.0) == []

    [report] = pair.gateway.expire_flows(260.0)
    assert (report.created_at, report.last_used_at, report.finished) == (0.0, 139.9, "")
    assert (report.outbound_packets, report.inbound_packets) == (2, 1)
    assert pair.gateway.flows() == []


def test_an_unanswered_flow_lives_from_its_last_outbound_packet() -> None:
    pair = translated(UDP, (USER, PROXY), (OUTSIDE, APP))
    pair.to_gateway(udp(USER, PROXY), 50.0)

    assert pair.gateway.expire_flows(109.0) == []
    assert len(pair.gateway.expire_flows(110.0)) == 1


def test_a_reset_ends_a_flow_after_it_passed() -> None:
    pair = translated(TCP, (USER, PROXY), (OUTSIDE, APP))
    pair.to_gateway(tcp(USER, PROXY, SYN), 1.0)

    assert len(pair.to_client(tcp(APP, OUTSIDE, RST | ACK), 2.0)) == 1
    assert pair.gateway.handle_tun(tcp(APP, OUTSIDE), 2.0) == []

    assert [one.finished for one in pair.gateway.expire_flows(2.0)] == ["rst"]


def test_a_flow_that_both_sides_finished_stays_five_seconds() -> None:
    pair = translated(TCP, (USER, PROXY), (OUTSIDE, APP))
    pair.to_gateway(tcp(USER, PROXY, FIN | ACK), 1.0)
    pair.to_client(tcp(APP, OUTSIDE, FIN | ACK), 2.0)

    assert len(pair.to_gateway(tcp(USER, PROXY), 2.1)) == 1
    assert pair.gateway.expire_flows(7.0) == []
    assert [one.finished for one in pair.gateway.expire_flows(7.2)] == ["fin"]


def test_a_new_connection_on_the_ports_of_a_finished_one_is_a_new_flow() -> None:
    pair = translated(TCP, (USER, PROXY), (OUTSIDE, APP))
    pair.to_gateway(tcp(USER, PROXY, FIN | ACK), 1.0)
    pair.to_client(tcp(APP, OUTSIDE, FIN | ACK), 1.0)
    pair.gateway.poll_upcalls()

    assert pair.client.handle_tun(tcp(USER, PROXY, SYN), 2.0) == []
    assert len(packet_upcalls(pair.client)) == 1
    assert pair.client.add_flow(client_flow(TCP, USER, PROXY, flow_id=2), 2.0)

    assert len(pair.client.handle_tun(tcp(USER, PROXY, SYN), 2.0)) == 1
    assert [one.flow_id for one in pair.client.expire_flows(2.0)] == [1]


def test_keys_are_taken_by_live_flows_only() -> None:
    engine = Engine()
    assert engine.add_flow(client_flow(UDP, USER, APP, flow_id=1), 0.0)

    assert not engine.add_flow(client_flow(UDP, USER, APP, flow_id=2), 1.0)
    assert engine.add_flow(client_flow(UDP, USER, APP, flow_id=2), 60.0)

    assert engine.counters()["flows_refused_taken"] == 1
    assert [one.flow_id for one in engine.flows()] == [2]


def test_a_replaced_flow_goes_on_with_its_figures() -> None:
    pair = connected()
    pair.client.add_flow(client_flow(UDP, USER, APP), 0.0)
    pair.client.handle_tun(udp(USER, APP), 1.0)

    assert pair.client.add_flow(client_flow(UDP, USER, APP, authorization=9), 2.0)

    [report] = pair.client.flows()
    assert (report.authorization, report.outbound_packets, report.created_at) == (9, 1, 0.0)


def test_tables_and_ring_are_bounded() -> None:
    engine = Engine(max_flows=3, max_flows_per_peer=2, upcall_capacity=8, upcalls_per_peer=3)
    flows = [client_flow(UDP, (USER[0], 1000 + n), APP, flow_id=n, peer=PEER + n // 3) for n in range(6)]

    assert [engine.add_flow(one, 0.0) for one in flows] == [True, True, False, True, False, False]
    for number in range(20):
        engine.handle_inner(PEER, udp(("100.64.0.9", number + 1), APP), 0.0)
        engine.handle_inner(PEER + 1, udp(("100.64.0.9", number + 1), APP), 0.0)

    waiting = packet_upcalls(engine)
    assert [one.peer for one in waiting] == [PEER, PEER + 1] * 3
    counters = engine.counters()
    assert (counters["flows_refused_bound"], counters["upcalls_dropped_share"]) == (3, 34)
    engine.handle_inner(PEER, udp(("100.64.0.9", 1), APP), 0.0)
    assert len(packet_upcalls(engine)) == 1


def test_addresses_of_two_families_are_refused() -> None:
    with pytest.raises(ValueError, match="one family"):
        client_flow(UDP, USER, APP6)
    with pytest.raises(ValueError, match="not an IP address"):
        client_flow(UDP, ("app.example", 1), APP)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x45", b"\x46", b"\x60"]))
def test_any_packet_is_taken(rest: bytes, first: bytes) -> None:
    pair = connected()
    for engine in (pair.client, pair.gateway):
        assert engine.handle_tun(first + rest, 1.0) == []
        assert engine.handle_inner(PEER, first + rest, 1.0) == []


def made(protocol: int, source: Addr, destination: Addr, payload: bytes) -> bytes:
    packet = udp(source, destination, payload) if protocol == UDP else tcp(source, destination, ACK, payload)
    assert is_sound(packet)
    assert ends(packet) == (source, destination)
    return packet
