"""What becomes of connections when something changes: relays, networks, NATs, parameters. In both modes."""

import pytest

from tests.sim.network import Device, Nat, RelayNode, World, connect
from tests.sim.scenarios import PACKET, assert_packets_pass, both_established, lab, numbered
from wardgate.ids import RelayId
from wardgate.tunnel.connections import (
    Closed,
    Established,
    Failed,
    InvalidatedCandidates,
    NewCandidates,
    NoRelays,
    RelaysNeeded,
)

BOTH_MODES = pytest.mark.parametrize("iceless", [True, False], ids=["iceless", "ice"])


@BOTH_MODES
def test_relayed_connection_moves_to_another_relay(iceless: bool) -> None:
    world, first, client, gateway, second = relayed_lab()
    connect(client, gateway, iceless=iceless)
    world.run(5.0)
    used = client.path().relay_id or gateway.path().relay_id

    gone, left = (first, second) if used == first.relay_id else (second, first)
    world.detach(gone.host)
    for device in (client, gateway):
        device.learn(left, forget=(gone.relay_id,))
    world.run(2.0)

    assert not client.happened(Failed)
    assert_packets_pass(world, client, gateway)


@BOTH_MODES
def test_relay_that_started_anew_is_used_again(iceless: bool) -> None:
    world, relay, client, gateway = symmetric_lab()
    connect(client, gateway, iceless=iceless)
    world.run(5.0)

    world.detach(relay.host)
    again = RelayNode(world, relay.host, secret="cd" * 32, number=2)
    for device in (client, gateway):
        device.learn(again, forget=(relay.relay_id,))
    world.run(2.5)

    assert not client.happened(Failed)
    assert_packets_pass(world, client, gateway)


@BOTH_MODES
def test_direct_path_does_not_notice_that_the_relay_went(iceless: bool) -> None:
    world, relay, client, gateway = lab()
    connect(client, gateway, iceless=iceless)
    world.run(5.0)

    world.detach(relay.host)
    for device in (client, gateway):
        device.learn(forget=(relay.relay_id,))
    for number in range(20):
        client.send(gateway, numbered(number))
        world.run(0.1)

    assert len(gateway.packets) == 20
    assert client.happened(RelaysNeeded) == [RelaysNeeded()]


@BOTH_MODES
def test_removed_relay_withdraws_candidates_only_in_ice_mode(iceless: bool) -> None:
    world, relay, client, gateway = lab()
    connect(client, gateway, iceless=iceless)
    world.run(5.0)

    client.learn(forget=(relay.relay_id,))

    withdrawn = client.happened(InvalidatedCandidates)
    assert len(withdrawn) == (0 if iceless else 1)


def test_dead_relay_is_left_for_another_when_it_stops_answering() -> None:
    world, first, client, gateway, second = relayed_lab()
    connect(client, gateway, iceless=True)
    world.run(5.0)

    for relay in (first, second):
        if relay.relay_id in (client.path().relay_id, gateway.path().relay_id):
            world.detach(relay.host)
            break
    client.send(gateway, PACKET)
    world.run(1000.0)

    assert not client.happened(RelaysNeeded)


@BOTH_MODES
def test_client_nat_that_changes_ports_is_healed(iceless: bool) -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=iceless)
    world.run(5.0)

    nat = world.attachment(client.address.host).nat
    assert nat
    nat.change_ports()
    changed_at = world.now
    while world.now < changed_at + 30.0:
        client.send(gateway, PACKET)
        world.run(0.25)
        if client.happened(Failed):
            connect(client, gateway, iceless=iceless)
            client.events.clear()
    gateway.packets.clear()

    world.run(1.0)
    assert_packets_pass(world, client, gateway)
    assert client.path().kind == "direct"


def test_iceless_client_roams_without_a_handshake() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=True)
    world.run(5.0)
    before = [status.last_handshake_at for status in client.connections.paths()]

    client.move("192.168.9.9", nat=Nat("203.0.113.99"))
    assert client.reset()
    world.run(1.0)

    assert not client.happened(Failed)
    assert_packets_pass(world, client, gateway)
    assert [status.last_handshake_at for status in client.connections.paths()] == before
    assert gateway.path().remote.host == "203.0.113.99"
    assert client.path().kind == "direct"


@BOTH_MODES
def test_same_parameters_reuse_the_connection_and_signal_everything_again(iceless: bool) -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=iceless)
    world.run(5.0)
    index = client.connections.index_of("gateway-1")
    client.events.clear()

    connect(client, gateway, iceless=iceless)
    world.run(2.0)

    assert client.connections.index_of("gateway-1") == index
    (again,) = client.happened(NewCandidates)
    assert isinstance(again, NewCandidates)
    assert sorted(line.split(" ")[7] for line in again.lines) == ["host", "relay", "srflx"]
    assert not client.happened(Established)
    assert_packets_pass(world, client, gateway)


@BOTH_MODES
def test_restarted_gateway_with_a_new_key_gets_a_new_connection(iceless: bool) -> None:
    world, relay, client, gateway = lab()
    connect(client, gateway, iceless=iceless)
    world.run(5.0)
    index = client.connections.index_of("gateway-1")
    nat = world.attachment(gateway.address.host).nat
    world.detach(gateway.address.host)

    again = Device(world, "gateway-1", "10.5.0.2", "gateway", nat=nat, latency_s=0.012)
    again.learn(relay)
    world.run(0.5)
    connect(client, again, iceless=iceless)
    world.run(3.0)

    assert client.connections.index_of("gateway-1") != index
    assert_packets_pass(world, client, again)


@BOTH_MODES
def test_goodbye_reaches_the_peer_and_closes(iceless: bool) -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=iceless)
    world.run(5.0)

    gateway.connections.remove("client-1", world.now, goodbye=True)
    gateway.handle_timeout(world.now)
    world.run(0.5)

    assert gateway.happened(Closed) == [Closed("client-1")]
    assert [packet[6] for _, packet in client.packets] == [0xFF]
    assert gateway.connections.index_of("client-1") is None


@BOTH_MODES
def test_connection_made_before_the_relay_answered_still_works(iceless: bool) -> None:
    world = World()
    relay = RelayNode(world, "203.0.113.3")
    client = Device(world, "client-1", "192.168.1.2", "client", nat=Nat("203.0.113.21"))
    gateway = Device(world, "gateway-1", "10.5.0.2", "gateway", nat=Nat("203.0.113.31"))
    for device in (client, gateway):
        device.learn(relay)

    connect(client, gateway, iceless=iceless)

    assert world.run(3.0, lambda: both_established(client, gateway))


def test_without_any_relay_there_is_no_connection() -> None:
    world, relay, client, gateway = lab()
    client.learn(forget=(relay.relay_id,))

    answer = client.connections.upsert(
        "gateway-1",
        gateway.static.public_key,
        bytes(32),
        *client.credentials_with(gateway),
        controlling=True,
        iceless=True,
        now=world.now,
    )

    assert answer == NoRelays()


@BOTH_MODES
def test_both_families_of_nat_and_two_clients_on_one_gateway(iceless: bool) -> None:
    world, relay, client, gateway = lab()
    other = Device(world, "client-2", "192.168.2.2", "client", nat=Nat("203.0.113.22", "symmetric"))
    other.learn(relay)
    world.run(1.0)

    connect(client, gateway, iceless=iceless)
    connect(other, gateway, iceless=iceless)
    world.run(5.0)

    assert_packets_pass(world, client, gateway)
    assert_packets_pass(world, other, gateway)


@BOTH_MODES
def test_peer_mapped_to_the_relays_port_is_a_peer_all_the_same(iceless: bool) -> None:
    world, _, client, gateway = lab(gateway_nat=Nat("203.0.113.31", first_port=3477, keeps_ports=False))

    connect(client, gateway, iceless=iceless)
    world.run(5.0)

    assert client.path().remote.port == 3478
    assert client.path().kind == "direct"
    assert_packets_pass(world, client, gateway)


def test_same_run_twice_is_the_same() -> None:
    def trace() -> list[tuple[float, bytes]]:
        world, _, client, gateway = lab(loss=0.1, seed=7)
        connect(client, gateway, iceless=False)
        world.run(10.0)
        return [(at, payload) for at, _, _, payload in world.delivered]

    assert trace() == trace()


def symmetric_lab() -> tuple[World, RelayNode, Device, Device]:
    return lab(client_nat=Nat("203.0.113.21", "symmetric"), gateway_nat=Nat("203.0.113.31", "symmetric"))


def relayed_lab() -> tuple[World, RelayNode, Device, Device, RelayNode]:
    """Only a relayed path is possible, and there are two relays."""
    world, first, client, gateway = symmetric_lab()
    second = RelayNode(world, "203.0.113.4", secret="ef" * 32, number=2)
    for device in (client, gateway):
        device.learn(second)
    world.run(2.0)
    assert first.relay_id != second.relay_id == RelayId("00000000-0000-4000-8000-000000000002")
    return world, first, client, gateway, second
