from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tunnel.packets import CLIENT_V4, CLIENT_V6, ping, tcp, udp
from wardgate._fastpath import Engine, PacketUpcall
from wardgate.errors import RemoteProtocolError
from wardgate.ids import PeerIndex, ResourceId
from wardgate.tunnel.flows import IDLE_S, UNCONFIRMED_IDLE_S, FlowTable, Forward, InstalledFlow, opens_flow
from wardgate.wire.ip import TCP, Packet, icmp_echo, icmp_message, ip_packet, parse

PEER, OTHER_PEER = PeerIndex(3), PeerIndex(4)
RESOURCE = ResourceId("r")


def install(
    table: FlowTable, packet: Packet, number: int = 1, peer: PeerIndex = PEER, now: float = 0.0
) -> InstalledFlow:
    flow = table.install(peer, Forward(packet.key, packet.key, number, RESOURCE), now, from_peer=False)
    assert flow is not None
    return flow


def ended(table: FlowTable) -> list[tuple[InstalledFlow, bool]]:
    found = []
    while (one := table.poll_ended()) is not None:
        found.append((one.flow, one.is_lost))
    return found


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
def test_both_sides_agree_on_which_flow_a_packet_belongs_to(raw: bytes) -> None:
    engine = Engine()
    engine.handle_tun(raw, 0.0)
    upcalls = engine.poll_upcalls()
    if not upcalls:
        return
    try:
        packet = parse(raw)
    except RemoteProtocolError:
        return
    if not opens_flow(packet):
        return

    install(FlowTable(engine), packet)
    engine.handle_tun(raw, 0.0)

    assert [upcall for upcall in engine.poll_upcalls() if isinstance(upcall, PacketUpcall)] == []


def test_a_packet_that_comes_back_does_not_go_round_for_ever() -> None:
    table = FlowTable(Engine())
    packet = udp("10.9.0.2", 53)
    install(table, packet)

    verdict = Forward(packet.key, packet.key, 1, RESOURCE)

    assert table.install(PEER, verdict, 0.001, from_peer=False) is None
    assert table.counters()["flows_refused_packet_returned"] == 1
    assert table.install(PEER, verdict, 0.1, from_peer=False) is not None


def test_an_installed_flow_is_found_from_both_sides() -> None:
    table = FlowTable(Engine())
    packet = tcp("10.9.0.2", 80)

    flow = install(table, packet)

    assert table.by_inner(PEER, packet.key) == flow
    assert table.by_host(packet.key) == flow
    assert len(table) == 1


def test_removing_an_authorization_cuts_its_flows_only() -> None:
    engine = Engine()
    table = FlowTable(engine)
    cut = install(table, tcp("10.9.0.2", 80), number=1)
    install(table, tcp("10.9.0.2", 81), number=2)
    install(table, tcp("10.9.0.2", 82), number=1, peer=OTHER_PEER)

    assert table.remove_authorization(PEER, 1) == [cut]
    assert len(engine.flows()) == 2
    assert ended(table) == [(cut, False)]
    assert [report.flow_id for report in table.reports] == [cut.flow_id]


def test_a_lost_peer_leaves_flows_that_may_come_back() -> None:
    engine = Engine()
    table = FlowTable(engine)
    flow = install(table, udp("10.9.0.2", 53))

    reports = engine.remove_peer(PEER)
    table.remove_peer(PEER, reports)

    assert ended(table) == [(flow, True)]
    assert len(table) == 0
    assert len(table.reports) == 1


def test_idle_flows_end_by_themselves() -> None:
    table = FlowTable(Engine())
    flow = install(table, udp("10.9.0.2", 53))

    assert table.expire(UNCONFIRMED_IDLE_S - 1) == []
    assert table.expire(UNCONFIRMED_IDLE_S + 1) == [flow]
    assert IDLE_S[TCP] == pytest.approx(7440.0)


def test_the_same_tuple_is_installed_in_place_of_the_old_flow() -> None:
    engine = Engine()
    table = FlowTable(engine)
    packet = udp("10.9.0.2", 53)
    old = install(table, packet, number=1)

    new = install(table, packet, number=2, now=1.0)

    assert ended(table) == [(old, False)]
    assert [report.authorization for report in engine.flows()] == [2]
    assert table.by_host(packet.key) == new


def test_a_full_table_is_counted() -> None:
    table = FlowTable(Engine(max_flows=1))
    install(table, udp("10.9.0.2", 53))
    packet = udp("10.9.0.2", 54)

    assert table.install(PEER, Forward(packet.key, packet.key), 0.0, from_peer=False) is None
    assert table.refused == 1
    assert len(table) == 1


def test_flows_are_removed_by_what_the_caller_names() -> None:
    engine = Engine()
    table = FlowTable(engine)
    install(table, udp("10.9.0.2", 53))
    keep = install(table, udp("10.9.0.3", 53))

    table.remove_if(lambda flow: flow.inner.destination.host == "10.9.0.2")

    assert [report.flow_id for report in engine.flows()] == [keep.flow_id]
