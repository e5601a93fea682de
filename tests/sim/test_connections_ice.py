"""A client and a gateway find each other with ICE, in virtual time over the real relay and engine."""

import pytest

from tests.sim.network import Filtering, Mapping, Nat, connect
from tests.sim.scenarios import PACKET, assert_packets_pass, both_established, lab, numbered
from wardgate.tunnel.connections import Closed, Established, Failed


def test_port_restricted_nats_end_up_direct() -> None:
    world, _, client, gateway = lab()
    asked_at = world.now

    connect(client, gateway, iceless=False)
    assert world.run(5.0, lambda: both_established(client, gateway))
    assert client.time_of(Established) - asked_at < 0.2
    world.run(1.0)

    assert [device.path().kind for device in (client, gateway)] == ["direct", "direct"]
    assert_packets_pass(world, client, gateway)


@pytest.mark.parametrize("theirs", [("cone", "none"), ("cone", "address"), ("cone", "port")])
def test_every_cone_nat_lets_a_cone_nat_through(theirs: tuple[Mapping, Filtering]) -> None:
    world, _, client, gateway = lab(gateway_nat=Nat("203.0.113.31", *theirs))

    connect(client, gateway, iceless=False)
    world.run(5.0)

    assert client.path().kind == gateway.path().kind == "direct"


def test_symmetric_nats_on_both_sides_end_up_relayed_and_work() -> None:
    world, _, client, gateway = lab(
        client_nat=Nat("203.0.113.21", "symmetric"), gateway_nat=Nat("203.0.113.31", "symmetric")
    )

    connect(client, gateway, iceless=False)
    world.run(30.0)

    assert client.path().kind == gateway.path().kind == "relayed"
    assert_packets_pass(world, client, gateway)


def test_forwarded_port_behind_a_symmetric_nat_is_guessed() -> None:
    forwarding = Nat("203.0.113.31", "symmetric")
    world, _, client, gateway = lab(client_nat=Nat("203.0.113.21", "symmetric"), gateway_nat=forwarding)
    forwarding.forward(gateway.address)

    connect(client, gateway, iceless=False)
    world.run(5.0)

    assert client.path().kind == "direct"
    assert client.path().remote.port == gateway.address.port
    assert_packets_pass(world, client, gateway)


def test_no_packet_is_lost_while_the_path_moves() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=False)
    assert world.run(5.0, lambda: both_established(client, gateway))

    for number in range(200):
        assert client.send(gateway, numbered(number))
        world.run(0.005)
    world.run(1.0)

    assert sorted(packet for _, packet in gateway.packets) == sorted(numbered(number) for number in range(200))


def test_heavy_loss_delays_but_does_not_prevent() -> None:
    world, _, client, gateway = lab(loss=0.2)

    connect(client, gateway, iceless=False)

    for _ in range(9):  # somebody wants to reach something, or there would be no tunnel
        client.send(gateway, PACKET)
        world.run(1.0, lambda: both_established(client, gateway))
    assert both_established(client, gateway)


def test_tunnel_lives_with_traffic_idles_and_works_again() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=False)
    world.run(2.0)
    for number in range(40):
        assert client.send(gateway, numbered(number))
        world.run(10.0)
    world.run(700.0)

    assert not client.happened(Failed)
    assert not gateway.happened(Failed)
    assert_packets_pass(world, client, gateway)


def test_idle_tunnel_checks_seldom() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=False)
    world.run(200.0)
    before = len(world.delivered)

    world.run(100.0)

    assert len(world.delivered) - before < 150


def test_dead_gateway_is_reported_soon_after_the_first_unanswered_packet() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=False)
    world.run(5.0)

    world.attachment(gateway.address.host).is_up = False
    killed_at = world.now
    client.send(gateway, PACKET)
    assert world.run(30.0, lambda: bool(client.happened(Failed)))

    assert client.time_of(Failed) - killed_at < 4.5


def test_dead_gateway_is_noticed_without_traffic_too() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=False)
    world.run(5.0)

    world.attachment(gateway.address.host).is_up = False
    killed_at = world.now
    assert world.run(200.0, lambda: bool(client.happened(Failed)))

    assert client.time_of(Failed) - killed_at < 150.0


def test_short_outage_does_not_end_the_connection() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=False)
    world.run(5.0)

    world.attachment(client.address.host).is_up = False
    client.send(gateway, PACKET)
    world.run(2.0)
    world.attachment(client.address.host).is_up = True
    world.run(5.0)

    assert not client.happened(Failed)
    assert_packets_pass(world, client, gateway)
    assert client.path().kind == "direct"


def test_one_way_traffic_is_no_reason_to_doubt() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=False)
    world.run(5.0)
    changes = len(client.events)

    for number in range(60):
        client.send(gateway, numbered(number))
        world.run(0.5)

    assert len(client.events) == changes
    assert len(gateway.packets) == 60


def test_roaming_client_gets_new_keys_and_a_new_connection() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=False)
    world.run(5.0)

    client.move("192.168.9.9", nat=Nat("203.0.113.99"))
    assert not client.reset()
    client.renew_key()
    world.run(0.5)
    connect(client, gateway, iceless=False)
    world.run(3.0)

    assert client.happened(Closed) == [Closed("gateway-1")]
    assert_packets_pass(world, client, gateway)
    assert gateway.path().remote.host == "203.0.113.99"
