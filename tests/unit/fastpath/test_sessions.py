"""Sessions and paths: who may seal, who may open, and where datagrams go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fastpath.packets import UDP, udp
from tests.unit.fastpath.pairs import (
    CLIENT_ADDRESS,
    GATEWAY_ADDRESS,
    PEER,
    RELAY,
    client_flow,
    connected,
    datagram_upcalls,
    handshake,
    packet_upcalls,
    session_upcalls,
)
from wardgate._fastpath import Engine

APP = ("10.9.0.2", 80)
USER = ("100.64.0.1", 40000)


def test_responder_seals_only_after_the_first_valid_packet() -> None:
    client, gateway = Engine(), Engine()
    of_client, of_gateway = handshake(10, 20)
    client.add_session(PEER, of_client, 0.0)
    gateway.add_session(PEER, of_gateway, 0.0)

    assert gateway.seal(PEER, b"", 1.0) is None
    message = client.seal(PEER, b"", 1.0)
    assert message is not None
    gateway.handle_datagram(GATEWAY_ADDRESS, CLIENT_ADDRESS, message, 1.0)

    assert session_upcalls(gateway) == [("confirmed", PEER, 20)]
    assert gateway.seal(PEER, b"", 1.0) is not None
    assert gateway.activity(PEER).sending_index == 20


def test_a_replayed_message_is_refused() -> None:
    pair = connected()
    pair.client.add_flow(client_flow(UDP, USER, APP), 0.0)
    [(_, _, message)] = pair.client.handle_tun(udp(USER, APP), 1.0)

    pair.gateway.handle_datagram(GATEWAY_ADDRESS, CLIENT_ADDRESS, message, 1.0)
    pair.gateway.handle_datagram(GATEWAY_ADDRESS, CLIENT_ADDRESS, message, 1.0)

    assert len(packet_upcalls(pair.gateway)) == 1
    assert pair.gateway.counters()["datagrams_replayed"] == 1


def test_a_changed_message_is_refused_and_the_right_one_still_opens() -> None:
    pair = connected()
    message = pair.client.seal(PEER, udp(USER, APP), 1.0)
    assert message is not None
    for at in (8, 20, len(message) - 1):
        changed = message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]
        assert pair.gateway.handle_datagram(GATEWAY_ADDRESS, CLIENT_ADDRESS, changed, 1.0) == []

    pair.gateway.handle_datagram(GATEWAY_ADDRESS, CLIENT_ADDRESS, message, 1.0)

    assert [one.packet for one in packet_upcalls(pair.gateway)] == [udp(USER, APP)]
    assert pair.gateway.counters()["datagrams_not_authentic"] == 3


def test_old_session_still_opens_after_a_new_one_seals() -> None:
    pair = connected()
    old = pair.client.seal(PEER, udp(USER, APP), 100.0)
    of_client, of_gateway = handshake(11, 21, seed=5)
    pair.client.add_session(PEER, of_client, 100.0)
    pair.gateway.add_session(PEER, of_gateway, 100.0)
    new = pair.client.seal(PEER, udp(USER, APP), 101.0)
    assert old is not None
    assert new is not None

    for message in (new, old):
        pair.gateway.handle_datagram(GATEWAY_ADDRESS, CLIENT_ADDRESS, message, 101.0)

    assert (old[4], new[4]) == (20, 21)
    assert pair.gateway.counters()["upcalls_packet"] == 2
    assert pair.gateway.activity(PEER).sending_index == 21


def test_a_session_ends_after_180_seconds() -> None:
    pair = connected()
    message = pair.client.seal(PEER, udp(USER, APP), 179.0)
    assert message is not None

    pair.gateway.handle_datagram(GATEWAY_ADDRESS, CLIENT_ADDRESS, message, 180.0)

    assert pair.gateway.counters()["datagrams_expired_session"] == 1
    assert pair.client.seal(PEER, b"", 180.0) is None
    assert pair.gateway.seal(PEER, b"", 180.0) is None


def test_an_initiator_stops_sealing_earlier_than_it_stops_opening() -> None:
    client, gateway = Engine(), Engine()
    of_client, of_gateway = handshake(10, 20)
    client.add_session(PEER, of_client, 0.0, initiator_stops_after_s=170.0)
    gateway.add_session(PEER, of_gateway, 0.0, initiator_stops_after_s=170.0)
    first = client.seal(PEER, b"", 169.0)
    assert first is not None
    gateway.handle_datagram(GATEWAY_ADDRESS, CLIENT_ADDRESS, first, 169.0)

    assert client.seal(PEER, b"", 170.0) is None
    answer = gateway.seal(PEER, b"", 175.0)
    assert answer is not None
    client.handle_datagram(CLIENT_ADDRESS, GATEWAY_ADDRESS, answer, 175.0)
    assert client.counters()["keepalives_received"] == 1


def test_removing_the_sealing_session_falls_back_to_the_one_before() -> None:
    pair = connected()
    pair.client.add_session(PEER, handshake(11, 21, seed=5)[0], 1.0)
    assert pair.client.activity(PEER).sending_index == 11

    assert pair.client.remove_session(11)

    assert pair.client.activity(PEER).sending_index == 10
    assert not pair.client.remove_session(11)


def test_the_oldest_of_more_than_eight_sessions_goes() -> None:
    engine = Engine()
    for number in range(9):
        engine.add_session(PEER, handshake(100 + number, 1, seed=number + 1)[0], float(number))

    assert not engine.remove_session(100)
    assert engine.remove_session(101)


def test_indices_and_keypairs_are_used_once() -> None:
    engine = Engine(max_peers=1)
    keypair, other = handshake(10, 20)[0], handshake(10, 20, seed=5)[0]
    engine.add_session(PEER, keypair, 0.0)

    with pytest.raises(ValueError, match="used before"):
        engine.add_session(PEER, keypair, 0.0)
    with pytest.raises(KeyError):
        engine.add_session(PEER, other, 0.0)
    with pytest.raises(OverflowError):
        engine.add_session(PEER + 1, handshake(12, 22, seed=7)[0], 0.0)


def test_lack_of_a_session_is_reported_once_a_second() -> None:
    engine = Engine()
    engine.set_path(PEER, None, GATEWAY_ADDRESS)
    engine.add_flow(client_flow(UDP, USER, APP), 0.0)

    for now in (1.0, 1.5, 1.9, 2.0):
        assert engine.handle_tun(udp(USER, APP), now) == []

    assert session_upcalls(engine) == [("missing", PEER, 0)] * 2
    assert engine.counters()["dropped_no_session"] == 4


def test_a_relayed_path_wraps_and_unwraps_channel_data() -> None:
    pair = connected()
    pair.client.set_path(PEER, ("10.0.0.5", 52625), RELAY, 0x4001)
    pair.client.add_flow(client_flow(UDP, USER, APP), 0.0)
    pair.gateway.add_channel(RELAY, 0x4001)
    [(local, remote, payload)] = pair.client.handle_tun(udp(USER, APP), 1.0)

    pair.gateway.handle_datagram(GATEWAY_ADDRESS, RELAY, payload, 1.0)

    assert (local, remote) == (("10.0.0.5", 52625), RELAY)
    assert payload[:2] == b"\x40\x01"
    assert int.from_bytes(payload[2:4], "big") == len(payload) - 4
    [upcall] = packet_upcalls(pair.gateway)
    assert (upcall.peer, upcall.remote, upcall.channel) == (PEER, RELAY, 0x4001)
    assert (upcall.local, upcall.packet) == (GATEWAY_ADDRESS, udp(USER, APP))


def test_channel_data_of_a_known_relay_is_dropped_unless_its_channel_is_known() -> None:
    engine = Engine()
    engine.add_relay(RELAY)
    handshake_message = b"\x01" + bytes(147)
    wrapped = b"\x40\x02" + len(handshake_message).to_bytes(2, "big") + handshake_message

    engine.handle_datagram(CLIENT_ADDRESS, RELAY, wrapped, 0.0)
    assert datagram_upcalls(engine) == []
    engine.add_channel(RELAY, 0x4002)
    engine.handle_datagram(CLIENT_ADDRESS, RELAY, wrapped, 0.0)
    engine.handle_datagram(CLIENT_ADDRESS, RELAY, wrapped + b"\0", 0.0)
    assert [one.payload for one in datagram_upcalls(engine)] == [wrapped]
    engine.remove_channel(RELAY, 0x4002)
    engine.handle_datagram(CLIENT_ADDRESS, RELAY, wrapped, 0.0)

    counters = engine.counters()
    assert (counters["datagrams_unknown_channel"], counters["channel_data_malformed"]) == (2, 1)
    engine.remove_relay(RELAY)
    engine.handle_datagram(CLIENT_ADDRESS, RELAY, wrapped, 0.0)
    assert len(datagram_upcalls(engine)) == 1


def test_strangers_become_upcalls_and_unknown_sessions_do_not() -> None:
    engine = Engine()
    stun = bytes.fromhex("000100002112a442") + bytes(12)

    engine.handle_datagram(CLIENT_ADDRESS, GATEWAY_ADDRESS, stun, 0.0)
    engine.handle_datagram(CLIENT_ADDRESS, GATEWAY_ADDRESS, b"\x04" + bytes(40), 0.0)

    [upcall] = datagram_upcalls(engine)
    assert (upcall.local, upcall.remote, upcall.payload) == (CLIENT_ADDRESS, GATEWAY_ADDRESS, stun)
    assert engine.counters()["datagrams_unknown_session"] == 1


def test_a_removed_peer_is_silent() -> None:
    pair = connected()
    pair.client.add_flow(client_flow(UDP, USER, APP), 0.0)

    [report] = pair.client.remove_peer(PEER)

    assert report.flow_id == 1
    assert pair.client.seal(PEER, b"", 1.0) is None
    assert pair.client.handle_tun(udp(USER, APP), 1.0) == []
    assert not pair.client.remove_session(10)


def test_activity_tells_what_was_sent_received_and_not_answered() -> None:
    pair = connected(now=1.0)
    pair.client.add_flow(client_flow(UDP, USER, APP), 1.0)
    assert pair.client.activity(PEER).first_unanswered_at == 0.0

    pair.to_gateway(udp(USER, APP), 5.0)
    pair.to_gateway(udp(USER, APP), 6.0)
    sent = pair.client.activity(PEER)
    answer = pair.gateway.seal(PEER, b"", 7.0)
    assert answer is not None
    pair.client.handle_datagram(CLIENT_ADDRESS, GATEWAY_ADDRESS, answer, 7.0)
    answered = pair.client.activity(PEER)

    assert (sent.first_unanswered_at, sent.last_data_sent_at, sent.last_flow_packet_at) == (5.0, 6.0, 6.0)
    assert (sent.sent_packets, sent.sent_bytes) == (2, 2 * len(udp(USER, APP)))
    assert (answered.first_unanswered_at, answered.last_received_at) == (0.0, 7.0)
    assert answered.last_data_received_at == 0.0
    received = pair.gateway.activity(PEER)
    assert (received.received_packets, received.last_data_received_at) == (2, 6.0)


@given(st.binary(max_size=100), st.booleans(), st.integers(0, 255))
def test_any_datagram_is_taken(payload: bytes, relayed: bool, first: int) -> None:
    engine = connected().gateway
    engine.add_channel(RELAY, 0x4001)
    source = RELAY if relayed else CLIENT_ADDRESS
    for datagram in (payload, bytes([first]) + payload, bytes.fromhex("0400000014000000") + payload):
        assert engine.handle_datagram(GATEWAY_ADDRESS, source, datagram, 1.0) == []


def test_a_sleeping_peer_wakes_python_once_when_data_moves_either_way() -> None:
    pair = connected()
    pair.client.add_flow(client_flow(UDP, USER, APP), 0.0)
    session_upcalls(pair.client)
    session_upcalls(pair.gateway)
    pair.client.sleep(PEER)
    pair.gateway.sleep(PEER)

    for _ in range(2):
        [(_, _, message)] = pair.client.handle_tun(udp(USER, APP), 1.0)
        pair.gateway.handle_datagram(GATEWAY_ADDRESS, CLIENT_ADDRESS, message, 1.0)

    assert session_upcalls(pair.client) == [("woken", PEER, 0)]
    assert session_upcalls(pair.gateway) == [("woken", PEER, 0)]


def test_what_expects_no_answer_is_not_unanswered() -> None:
    pair = connected()

    assert pair.client.seal(PEER, udp(USER, APP), 5.0, False) is not None

    activity = pair.client.activity(PEER)
    assert (activity.first_unanswered_at, activity.last_data_sent_at, activity.sent_packets) == (0.0, 5.0, 1)
    assert pair.client.seal(PEER, udp(USER, APP), 6.0) is not None
    assert pair.client.activity(PEER).first_unanswered_at == 6.0


def test_the_next_due_flow_is_known() -> None:
    engine = Engine()
    assert engine.next_flow_due() is None
    assert engine.add_flow(client_flow(UDP, USER, APP), 10.0)
    due = engine.next_flow_due()
    assert due is not None
    assert due > 10.0
    engine.expire_flows(due + 1000.0, 10)
    assert engine.next_flow_due() is None
