import pytest

from tests.unit.tunnel.packets import ping, tcp, udp
from wardgate._fastpath import Engine
from wardgate.ids import PeerIndex, ResourceId
from wardgate.tunnel.flows import IDLE_S, UNCONFIRMED_IDLE_S, FlowTable, Forward, InstalledFlow, opens_flow
from wardgate.wire.ip import TCP, Packet

PEER, OTHER_PEER = PeerIndex(3), PeerIndex(4)
RESOURCE = ResourceId("r")


def install(
    table: FlowTable, packet: Packet, number: int = 1, peer: PeerIndex = PEER, now: float = 0.0
) -> InstalledFlow:
    flow = table.install(peer, Forward(packet.key, packet.key, number, RESOURCE), 0.0, from_peer=False)
    assert flow is not None
    return flow


def ended(table: FlowTable) -> list[tuple[InstalledFlow, bool]]:
    found = []
    while (one := table.poll_ended()) is not None:
        found.append((one.flow, one.is_lost))
    return found


def test_only_tcp_udp_and_pings_open_flows() -> None:
    assert opens_flow(tcp("10.9.0.2", 80))
    assert opens_flow(udp("10.9.0.2", 53))
    assert opens_flow(ping("10.9.0.2"))
    assert not opens_flow(ping("10.9.0.2", reply=True))


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

    new = install(table, packet, number=2)

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
