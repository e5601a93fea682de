from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tunnel.packets import CLIENT_V4, CLIENT_V6, ping, tcp, udp
from wardgate._fastpath import Decided, Engine, PacketUpcall
from wardgate.errors import RemoteProtocolError
from wardgate.ids import PeerIndex, ResourceId
from wardgate.tunnel.flows import IDLE_S, UNCONFIRMED_IDLE_S, FlowTable, Traffic, inner_key, opens_flow
from wardgate.tunnel.nat import side
from wardgate.wire.ip import TCP, UDP, FlowKey, Packet, icmp_echo, icmp_message, ip_packet, parse

PEER, OTHER_PEER = PeerIndex(3), PeerIndex(4)
RESOURCE = ResourceId("r")


def decided(packet: Packet, number: int = 1, peer: PeerIndex = PEER) -> Decided:
    return PacketUpcall.of(None, packet.raw), peer, number, b""


def install(
    table: FlowTable, packet: Packet, number: int = 1, peer: PeerIndex = PEER, now: float = 0.0
) -> list[tuple[int, str]]:
    """Installs the packet's flow; returns what was exceptional about it."""
    return list(table.install([decided(packet, number, peer)], now)[2])


def ended(table: FlowTable) -> list[tuple[FlowKey, bool]]:
    found = []
    while (one := table.poll_ended()) is not None:
        found.append((inner_key(one.flow), one.is_lost))
    return found


def keys(engine: Engine) -> list[FlowKey]:
    return [inner_key(flow) for flow in engine.flows()]


def gre(destination: str) -> Packet:
    return parse(ip_packet(ip_address(CLIENT_V4), ip_address(destination), 47, b"\0\0\x08\0payload"))


def test_of_icmp_only_pings_open_flows() -> None:
    assert opens_flow(tcp("10.9.0.2", 80))
    assert opens_flow(udp("10.9.0.2", 53))
    assert opens_flow(gre("10.9.0.2"))
    assert opens_flow(ping("10.9.0.2"))
    assert not opens_flow(ping("10.9.0.2", reply=True))
    assert not opens_flow(parse(icmp_message(ip_address(CLIENT_V4), ip_address("10.9.0.2"), 8, 1, bytes(4))))
    assert not opens_flow(parse(icmp_message(ip_address(CLIENT_V4), ip_address("10.9.0.2"), 13, 0, bytes(4))))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    v6 = icmp_echo(ip_address(CLIENT_V6), ip_address("fd00:9::2"), 7, 1)
    originals = [tcp("10.9.0.2", 80), udp("10.9.0.2", 53), ping("10.9.0.2"), gre("10.9.0.2")]
    raw = bytearray(draw(st.sampled_from([v6, *(one.raw for one in originals)])))
    for _ in range(draw(st.integers(0, 3))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw)


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_both_sides_agree_on_which_packets_open_flows_and_which_flow_they_belong_to(raw: bytes) -> None:
    engine = Engine()
    engine.handle_tun(raw, 0.0)
    upcalls = [one for one in engine.poll_upcalls() if isinstance(one, PacketUpcall)]
    if not upcalls:
        return
    try:
        packet = parse(raw)
    except RemoteProtocolError:
        return
    (upcall,) = upcalls

    assert opens_flow(packet) == (upcall.target is not None)
    if upcall.target is None:
        return
    FlowTable(engine).install([(upcall, PEER, 1, b"")], 0.0)
    engine.handle_tun(raw, 0.0)

    key = packet.key
    assert upcall.inside == side(packet.protocol, key.source.port, packet.destination)
    assert [one for one in engine.poll_upcalls() if isinstance(one, PacketUpcall)] == []
    assert keys(engine) == [key]


def test_packets_of_one_flow_that_waited_together_all_pass() -> None:
    engine = Engine()
    table = FlowTable(engine)
    first, second = (PacketUpcall.of(PEER, udp("10.9.0.2", 53, payload).raw) for payload in (b"A", b"AAAA"))

    packets, _, exceptions = table.install([(one, PEER, 1, b"") for one in (first, second)], 0.0)

    assert [parse(one).payload for one in packets] == [b"A", b"AAAA"]
    assert exceptions == [(1, "known")]
    assert [flow.outbound_packets for flow in engine.flows()] == [2]


def test_a_flow_that_looks_like_another_one_outside_is_refused_and_leaves_the_other_alone() -> None:
    engine = Engine()
    table = FlowTable(engine)
    plain, named = udp("10.9.0.2", 53), udp("100.96.0.1", 53)
    table.install([(PacketUpcall.of(PEER, plain.raw), PEER, 1, b"")], 0.0)
    translated = PacketUpcall.of(PEER, named.raw)

    taken = table.install([(translated, PEER, 2, side(UDP, 40000, plain.destination))], 1.0)
    elsewhere = table.install([(translated, PEER, 2, side(UDP, 40001, plain.destination))], 1.0)

    assert taken == ([], [], [(0, "taken")])
    assert [parse(one).key.source.port for one in elsewhere[0]] == [40001]
    assert keys(engine) == [plain.key, named.key]


def test_a_decision_that_cannot_be_is_refused_whole() -> None:
    engine = Engine()
    upcall = PacketUpcall.of(PEER, udp("10.9.0.2", 53).raw)

    for outside in (b"x", side(TCP, 1, ip_address("10.9.0.2")), side(UDP, 1, ip_address("fd00:9::2"))):
        with pytest.raises(ValueError, match="cannot look like that"):
            FlowTable(engine).install([(upcall, PEER, 1, b""), (upcall, PEER, 1, outside)], 0.0)

    assert engine.flows() == []


def test_an_installed_flow_is_found_by_what_it_looks_like_outside() -> None:
    table = FlowTable(Engine())
    packet, host = tcp("100.96.0.1", 80), tcp("10.9.0.2", 80)

    table.install([(PacketUpcall.of(PEER, packet.raw), PEER, 1, side(TCP, 40000, host.destination))], 0.0)

    flow = table.by_host(host.key)
    assert flow is not None
    assert (inner_key(flow), flow.peer, flow.is_translated) == (packet.key, PEER, True)
    assert table.by_host(host.key.reversed()) is None
    assert len(table) == 1


def test_removing_an_authorization_cuts_its_flows_only() -> None:
    engine = Engine()
    table = FlowTable(engine)
    packet = tcp("10.9.0.2", 80)
    install(table, packet, number=1)
    install(table, tcp("10.9.0.2", 81), number=2)
    install(table, tcp("10.9.0.2", 82), number=1, peer=OTHER_PEER)

    cut = table.remove_authorization(PEER, 1)

    assert [inner_key(flow) for flow in cut] == [packet.key]
    assert len(engine.flows()) == 2
    assert ended(table) == [(packet.key, False)]
    assert [report.flow_id for report in table.reports] == [cut[0].flow_id]


def test_a_lost_peer_leaves_flows_that_may_come_back() -> None:
    engine = Engine()
    table = FlowTable(engine)
    packet = udp("10.9.0.2", 53)
    install(table, packet)

    reports = engine.remove_peer(PEER)
    table.remove_peer(PEER, reports)

    assert ended(table) == [(packet.key, True)]
    assert len(table) == 0
    assert len(table.reports) == 1


def test_idle_flows_end_by_themselves() -> None:
    table = FlowTable(Engine())
    packet = udp("10.9.0.2", 53)
    install(table, packet)

    assert table.expire(UNCONFIRMED_IDLE_S - 1) == []
    assert [inner_key(flow) for flow in table.expire(UNCONFIRMED_IDLE_S + 1)] == [packet.key]
    assert IDLE_S[TCP] == pytest.approx(7440.0)


def test_the_same_tuple_is_installed_in_place_of_the_old_flow() -> None:
    engine = Engine()
    table = FlowTable(engine)
    packet = udp("10.9.0.2", 53)
    install(table, packet, number=1)

    assert install(table, packet, number=2, now=1.0) == []

    assert [report.authorization for report in engine.flows()] == [2]
    assert [report.authorization for report in table.expire(1.0)] == [1]
    assert ended(table) == [(packet.key, False)]


def test_a_full_table_is_counted() -> None:
    table = FlowTable(Engine(max_flows=1))
    install(table, udp("10.9.0.2", 53))

    assert install(table, udp("10.9.0.2", 54)) == [(0, "full")]
    assert table.refused == 1
    assert len(table) == 1


def test_flows_are_removed_by_what_the_caller_names() -> None:
    engine = Engine()
    table = FlowTable(engine)
    kept = udp("10.9.0.3", 53)
    install(table, udp("10.9.0.2", 53))
    install(table, kept)

    table.remove_if(lambda flow: flow.inner_destination[0] == "10.9.0.2")

    assert keys(engine) == [kept.key]


def test_traffic_is_told_by_resource_and_outlives_its_flows() -> None:
    engine = Engine()
    table = FlowTable(engine)
    table.label(1, RESOURCE)
    table.label(2, RESOURCE)
    ends = PacketUpcall.of(PEER, udp("10.9.0.2", 53, bytes(72)).raw), PacketUpcall.of(PEER, udp("10.9.0.3", 53).raw)
    table.install([(ends[0], PEER, 1, b""), (ends[1], PEER, 2, b"")], 0.0)
    table.install([(PacketUpcall.of(PEER, udp("10.9.0.4", 53).raw), PEER, 0, b"")], 0.0)

    before = table.traffic()
    table.remove_authorization(PEER, 1)

    assert before == table.traffic() == {RESOURCE: Traffic(129, 0, 2, 0)}
