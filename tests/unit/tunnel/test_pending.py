from tests.unit.tunnel.packets import tcp, udp
from wardgate.ids import ResourceId
from wardgate.tunnel.pending import (
    ASK_INTERVAL_S,
    ASKS_WHEN_LOST,
    LOST_ASK_INTERVAL_S,
    MAX_WAITING_PACKETS,
    PendingAuthorizations,
    UniquePackets,
)
from wardgate.wire.ip import ACK

A, B = ResourceId("a"), ResourceId("b")


def test_duplicates_are_kept_once() -> None:
    packets = UniquePackets()
    packets.add(udp("10.9.0.2", 53, b"one"))
    packets.add(udp("10.9.0.2", 53, b"one"))
    packets.add(udp("10.9.0.2", 53, b"two"))

    assert [packet.payload for packet in packets.take()] == [b"one", b"two"]
    assert packets.take() == []


def test_a_syn_gives_its_place_to_its_retransmission() -> None:
    packets = UniquePackets()
    packets.add(tcp("10.9.0.2", 80, sequence=5))
    packets.add(udp("10.9.0.2", 53))
    packets.add(tcp("10.9.0.2", 80, sequence=5, payload=b"later"))

    kept = packets.take()

    assert [packet.payload for packet in kept] == [b"later", b"x"]


def test_syns_of_other_connections_and_other_segments_are_kept() -> None:
    packets = UniquePackets()
    packets.add(tcp("10.9.0.2", 80, sequence=5))
    packets.add(tcp("10.9.0.2", 80, sequence=6))
    packets.add(tcp("10.9.0.2", 80, sequence=5, flags=ACK))
    packets.add(tcp("10.9.0.2", 80, sequence=5, flags=ACK, payload=b"data"))

    assert len(packets) == 4


def test_the_oldest_goes_when_it_is_full() -> None:
    packets = UniquePackets()
    for number in range(MAX_WAITING_PACKETS + 3):
        packets.add(udp("10.9.0.2", 53, str(number).encode()))

    kept = packets.take()

    assert len(kept) == MAX_WAITING_PACKETS
    assert kept[0].payload == b"3"
    assert packets.evicted == 3


def test_asks_at_once_then_every_two_seconds_while_packets_come() -> None:
    pending = PendingAuthorizations[ResourceId, str]()

    asked = [pending.add_packet(A, udp("10.9.0.2", 53, str(at).encode()), at) for at in (0.0, 0.5, 1.9, 2.0, 2.1, 9.0)]

    assert asked == [True, False, False, True, False, True]


def test_resources_are_asked_for_side_by_side() -> None:
    pending = PendingAuthorizations[ResourceId, str]()

    assert pending.add_packet(A, udp("10.9.0.2", 53), 0.0)
    assert pending.add_packet(B, udp("10.8.0.2", 53), 0.1)
    assert list(pending) == [A, B]


def test_the_spacing_survives_an_answer_of_offline() -> None:
    pending = PendingAuthorizations[ResourceId, str]()
    pending.add_packet(A, udp("10.9.0.2", 53), 0.0)

    pending.take(A)

    assert A not in pending
    assert not pending.add_packet(A, udp("10.9.0.2", 53), 0.5)
    assert pending.add_packet(A, udp("10.9.0.2", 53), ASK_INTERVAL_S)


def test_a_lost_connection_lifts_the_spacing() -> None:
    pending = PendingAuthorizations[ResourceId, str]()
    pending.add_packet(A, udp("10.9.0.2", 53), 0.0)

    pending.hurry(A)

    assert pending.add_packet(A, udp("10.9.0.2", 53), 0.5)


def test_a_lost_connection_is_asked_for_more_often_but_not_for_long() -> None:
    pending = PendingAuthorizations[ResourceId, str]()
    pending.hurry(A)

    asks = [at / 20 for at in range(200) if pending.add_packet(A, udp("10.9.0.2", 53, str(at).encode()), at / 20)]

    soon = [at for at in asks if at < ASKS_WHEN_LOST * LOST_ASK_INTERVAL_S]
    assert soon == [number * LOST_ASK_INTERVAL_S for number in range(ASKS_WHEN_LOST)]
    assert len(asks) - len(soon) <= 4


def test_queries_wait_with_the_packets() -> None:
    pending = PendingAuthorizations[ResourceId, str]()

    assert pending.add_query(A, "SRV", 0.0)
    assert not pending.add_packet(A, udp("10.9.0.2", 53), 0.1)
    waiting = pending.take(A)

    assert waiting is not None
    assert list(waiting.queries) == ["SRV"]
    assert len(waiting.packets) == 1
