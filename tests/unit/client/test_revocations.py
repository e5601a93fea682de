from ipaddress import ip_network

from tests.unit.tunnel.packets import tcp, udp
from wardgate.client.revocations import GRACE_S, KEPT_S, LOST_KEPT_S, MAX_CUT, MAX_PROBES, Revocations
from wardgate.ids import ResourceId
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import ACK, RST, SYN, FlowKey, Packet, parse

RESOURCE = ResourceId("r")
SYN_PACKET = tcp("10.9.0.2", 80)
KEY = SYN_PACKET.key
ROUTE = ip_network("10.9.0.0/24")


def drain(revocations: Revocations) -> list[Packet]:
    packets = []
    while (raw := revocations.poll_packet()) is not None:
        packets.append(parse(raw))
    return packets


def run(revocations: Revocations, until: float) -> list[Packet]:
    while (due := revocations.poll_timeout()) is not None and due <= until:
        revocations.handle_timeout(due)
    return drain(revocations)


def test_a_cut_connection_is_probed_and_its_answer_reset_with_the_number_it_expects() -> None:
    revocations = Revocations()
    revocations.cut(RESOURCE, [KEY], None, 0.0)

    (probe,) = run(revocations, GRACE_S)
    assert (probe.key, probe.tcp_flags) == (KEY.reversed(), SYN)

    assert revocations.answer(tcp("10.9.0.2", 80, flags=ACK, acknowledgment=12345), GRACE_S)
    (reset,) = drain(revocations)
    assert (reset.key, reset.tcp_flags) == (KEY.reversed(), RST)
    assert int.from_bytes(reset.raw[24:28], "big") == 12345
    assert run(revocations, KEPT_S - 0.1) == []


def test_probes_are_few() -> None:
    revocations = Revocations()
    revocations.cut(RESOURCE, [KEY], None, 0.0)

    assert len(run(revocations, KEPT_S + 1)) == MAX_PROBES
    assert revocations.poll_timeout() is None


def test_other_packets_of_cut_flows_are_prohibited() -> None:
    revocations = Revocations()
    packet = udp("10.9.0.2", 53)
    revocations.cut(RESOURCE, [packet.key, KEY], None, 0.0)

    assert revocations.answer(packet, 1.0)
    assert revocations.answer(SYN_PACKET, 1.0)

    assert [(one.icmp_type, one.icmp_code) for one in drain(revocations)] == [(3, 13), (3, 13)]


def test_nothing_is_said_while_the_resource_may_come_back() -> None:
    revocations = Revocations()
    revocations.cut(RESOURCE, [KEY], None, 0.0)

    assert revocations.answer(tcp("10.9.0.2", 80, flags=ACK), GRACE_S / 2)
    assert drain(revocations) == []

    revocations.restore(RESOURCE, lambda key: True)
    assert run(revocations, KEPT_S) == []
    assert not revocations.answer(tcp("10.9.0.2", 80, flags=ACK), 1.0)


def test_what_the_returned_resource_does_not_permit_stays_cut() -> None:
    revocations = Revocations()
    other = FlowKey(6, KEY.source, SocketAddr("10.9.0.2", 22))
    revocations.cut(RESOURCE, [KEY, other], None, 0.0)

    revocations.restore(RESOURCE, lambda key: key == KEY)

    assert [one.source_port for one in run(revocations, GRACE_S)] == [22]


def test_flows_of_others_are_not_ours_to_answer() -> None:
    revocations = Revocations()
    revocations.cut(RESOURCE, [KEY], None, 0.0)

    assert not revocations.answer(tcp("10.9.0.3", 80, flags=ACK), 1.0)


def test_the_network_stays_routed_until_its_flows_are_reset() -> None:
    revocations = Revocations()
    revocations.cut(RESOURCE, [], ROUTE, 0.0)
    assert revocations.lingering_routes() == ()

    revocations.cut(RESOURCE, [KEY], ROUTE, 0.0)
    assert revocations.lingering_routes() == (ROUTE,)

    assert not revocations.handle_timeout(KEPT_S - 0.1)
    assert revocations.handle_timeout(KEPT_S)
    assert revocations.lingering_routes() == ()


def test_flows_whose_connection_was_lost_first_are_remembered() -> None:
    revocations = Revocations()
    revocations.lose(KEY, RESOURCE, 0.0)
    back = udp("10.9.0.2", 53).key
    revocations.lose(back, RESOURCE, 0.0)
    revocations.found(back)

    assert revocations.take_lost(ResourceId("other")) == []
    assert revocations.take_lost(RESOURCE) == [KEY]
    assert revocations.take_lost(RESOURCE) == []


def test_lost_flows_are_forgotten_in_the_end() -> None:
    revocations = Revocations()
    revocations.lose(KEY, RESOURCE, 0.0)

    revocations.handle_timeout(LOST_KEPT_S)

    assert revocations.take_lost(RESOURCE) == []


def test_what_is_kept_is_bounded() -> None:
    revocations = Revocations()
    keys = [FlowKey(6, SocketAddr("100.64.3.9", port), SocketAddr("10.9.0.2", 80)) for port in range(1, MAX_CUT + 6)]

    assert revocations.cut(RESOURCE, keys, None, 0.0) == MAX_CUT
    assert revocations.refused == 5
