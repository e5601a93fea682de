"""What `Connections` does with single inputs: demultiplexing, bounds, strangers. Whole stories are in `tests/sim`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sim.network import Device, RelayNode, World, connect
from tests.sim.scenarios import PACKET, assert_packets_pass, lab
from wardgate._fastpath import Engine, Initiation, StaticKey
from wardgate.tunnel.connections import (
    MAX_ANSWERED,
    MAX_EARLY_CHECKS,
    Established,
    Failed,
    NewCandidates,
    PathChanged,
)
from wardgate.wire import channel_data, stun, wireguard
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.stun import Builder, MessageClass, Method

STRANGER = SocketAddr("198.51.100.66", 6666)
RELAY = SocketAddr("203.0.113.3", 3478)


@pytest.mark.parametrize("iceless", [True, False], ids=["iceless", "ice"])
def test_events_of_a_connection_come_in_order(iceless: bool) -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=iceless)
    world.run(5.0)

    kinds = [type(event) for _, event in client.events]
    assert kinds[0] is NewCandidates
    assert kinds.index(PathChanged) < kinds.index(Established)
    assert kinds.count(Established) == 1
    assert kinds.count(NewCandidates) == 1


def test_status_tells_path_and_handshake() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=True)
    world.run(5.0)

    (status,) = client.connections.paths()

    assert status.peer_id == "gateway-1"
    assert status.established
    assert status.path
    assert status.path.kind == "direct"
    assert status.rtt_s == pytest.approx(0.034, abs=0.001)
    assert status.last_handshake_at is not None


def test_indices_are_never_used_twice() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=True)
    world.run(1.0)
    first = client.connections.index_of("gateway-1")
    assert first is not None
    assert client.connections.peer_id_of(first) == "gateway-1"

    client.connections.remove("gateway-1", world.now, goodbye=False)
    connect(client, gateway, iceless=True)
    world.run(1.0)

    assert client.connections.index_of("gateway-1") not in (None, first)
    assert client.connections.peer_id_of(first) is None


def test_initiations_of_unknown_keys_are_counted_and_not_answered() -> None:
    _, client = idle_client()

    client.handle_datagram(STRANGER, client.address, initiation_to(client), client.world.now)

    assert client.connections.counts["initiations of unknown peers"] == 1
    assert client.connections.poll_transmit() is None


def test_flood_of_initiations_is_answered_with_cookies() -> None:
    world, client = idle_client()
    before = len(world.delivered)

    for _ in range(130):
        client.handle_datagram(STRANGER, client.address, initiation_to(client), world.now)

    assert client.connections.gate_counters()["cookie_replies"] == 30
    assert client.connections.counts["initiations of unknown peers"] == 100
    assert len(world.delivered) == before


def test_checks_for_unknown_fragments_wait_bounded_and_are_answered_once_known() -> None:
    world, client = idle_client()
    gateway = Device(world, "gateway-1", "10.5.0.2", "gateway")
    ours, theirs = client.credentials_with(gateway)
    builder = Builder(Method.BINDING, MessageClass.REQUEST, bytes(12)).username(f"{ours.username}:{theirs.username}")
    check = builder.priority(1).build(stun.short_term_key(ours.password), fingerprint=True)
    client.handle_datagram(STRANGER, client.address, check, world.now)
    assert [payload for _, _, _, payload in world.delivered if payload[:2] == b"\x01\x01"][2:] == []

    seen: list[bytes] = []
    world.attach(STRANGER.host, Listener(seen))
    client.upsert(gateway, controlling=True, iceless=False)
    world.run(0.1)

    assert next(payload[:2] for payload in seen) == b"\x01\x01"


def test_early_checks_are_bounded() -> None:
    _, client = idle_client()
    for number in range(MAX_EARLY_CHECKS + 7):
        builder = Builder(Method.BINDING, MessageClass.REQUEST, number.to_bytes(12, "big")).username("a:b").priority(1)
        client.handle_datagram(STRANGER, client.address, builder.build(b"key"), client.world.now)

    assert client.connections.counts["early checks dropped"] == 7


def test_candidates_of_unknown_peers_and_unreadable_ones_are_counted() -> None:
    world, client = idle_client()
    gateway = Device(world, "gateway-1", "10.5.0.2", "gateway")

    client.connections.add_remote_candidates("nobody", ["candidate:1 1 udp 1 10.0.0.1 1 typ host"], world.now)
    client.upsert(gateway, controlling=True, iceless=True)
    client.connections.add_remote_candidates("gateway-1", ["nonsense", ""], world.now)

    assert client.connections.counts["candidates of unknown peers"] == 1
    assert client.connections.counts["unreadable candidates"] == 2


def test_channel_data_on_unknown_channels_is_dropped() -> None:
    _, client = idle_client()

    client.handle_datagram(RELAY, client.address, channel_data.encode(0x4ABC, bytes(40)), client.world.now)

    assert client.connections.counts["unknown datagrams"] == 0
    assert client.packets == []


def test_data_of_former_relays_is_dropped() -> None:
    world, client = idle_client()
    client.learn(forget=(RelayNode(World(), "203.0.113.3").relay_id,))

    client.handle_datagram(RELAY, client.address, b"\x40\x00\x00\x00", world.now)

    assert client.connections.counts["datagrams of former relays"] == 1


def test_initiations_of_the_peer_are_answered_at_any_time_and_duplicates_from_memory() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=True)
    world.run(5.0)
    initiation = next(payload for _, _, _, payload in world.delivered if payload[:4] == b"\x01\0\0\0")
    client_public = SocketAddr("203.0.113.21", 52625)

    before = len(world.delivered)
    gateway.handle_datagram(client_public, gateway.address, initiation, world.now)
    world.run(0.1)
    responses = [p for _, _, _, p in world.delivered[before:] if p[:4] == b"\x02\0\0\0"]
    world.run(10.0)
    before = len(world.delivered)
    gateway.handle_datagram(client_public, gateway.address, initiation, world.now)
    world.run(0.1)

    assert len(responses) == 1
    assert [p for _, _, _, p in world.delivered[before:] if p[:4] == b"\x02\0\0\0"] == []
    assert gateway.connections.counts["initiations repeated too late"] == 1
    assert_packets_pass(world, client, gateway)


def test_gateway_renews_a_session_that_the_client_forgot() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=True)
    world.run(5.0)
    index = client.connections.index_of("gateway-1")
    assert index is not None
    client.engine.remove_session(client.engine.activity(index).sending_index)

    for _ in range(30):
        gateway.send(client, PACKET)
        world.run(0.5)

    assert not gateway.happened(Failed)
    assert_packets_pass(world, client, gateway)


def test_memory_of_answers_is_bounded() -> None:
    assert MAX_ANSWERED <= 4096


@given(payload=st.one_of(st.binary(max_size=200), st.binary(max_size=80).map(lambda tail: b"\x40\x00" + tail)))
def test_any_datagram_from_anybody_changes_nothing(payload: bytes) -> None:
    _, client = idle_client()
    for source in (STRANGER, RELAY):
        client.handle_datagram(source, client.address, payload, client.world.now)
    client.world.run(1.0)

    assert client.connections.paths() == []


@given(st.sampled_from([1, 2, 3, 4]), st.binary(min_size=144, max_size=144))
def test_any_handshake_message_from_anybody_changes_nothing(kind: int, body: bytes) -> None:
    sizes = {1: 144, 2: 88, 3: 60, 4: 100}
    _, client = idle_client()

    client.handle_datagram(STRANGER, client.address, bytes((kind, 0, 0, 0)) + body[: sizes[kind]], client.world.now)

    assert client.packets == []


def test_fresh_engine_is_due_for_nothing() -> None:
    world = World()
    client = Device(world, "client-1", "192.168.1.2", "client")

    assert isinstance(client.engine, Engine)
    assert client.connections.poll_timeout() is None


class Listener:
    """A host that only listens."""

    def __init__(self, seen: list[bytes]) -> None:
        self._seen = seen

    def handle_datagram(self, source: SocketAddr, destination: SocketAddr, payload: bytes, now: float) -> None:
        self._seen.append(payload)

    def handle_timeout(self, now: float) -> None:
        raise AssertionError("never due")

    def poll_timeout(self) -> None:
        return None


def idle_client() -> tuple[World, Device]:
    """A client with a relay and no peers."""
    world = World()
    relay = RelayNode(world, RELAY.host)
    client = Device(world, "client-1", "192.168.1.2", "client")
    client.learn(relay)
    world.run(1.0)
    return world, client


def initiation_to(client: Device) -> bytes:
    stranger = StaticKey.from_bytes(client.world.random.randbytes(32))
    public, random = client.static.public_key, client.world.random
    _, message = Initiation.start(stranger, public, bytes(32), 77, bytes(12), random.randbytes(32))
    return wireguard.with_macs(message, wireguard.mac1_key(public), None)
