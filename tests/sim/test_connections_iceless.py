"""A client and a gateway find each other without ICE, in virtual time over the real relay and engine."""

import pytest

from tests.sim.network import Filtering, Mapping, Nat, connect
from tests.sim.scenarios import PACKET, assert_packets_pass, both_established, lab, numbered
from wardgate.tunnel.connections import Established, Failed, PathChanged


def test_first_packet_goes_over_the_relay_and_the_path_becomes_direct() -> None:
    world, relay, client, gateway = lab()

    connect(client, gateway, iceless=True)
    assert world.run(5.0, lambda: both_established(client, gateway))
    assert client.path().kind == "relayed"
    world.run(1.0)

    assert [device.path().kind for device in (client, gateway)] == ["direct", "direct"]
    assert client.path().remote.host == "203.0.113.31"
    assert relay.server.channels > 0


def test_established_within_a_few_round_trips_of_the_authorization() -> None:
    world, _, client, gateway = lab()
    asked_at = world.now

    connect(client, gateway, iceless=True)
    world.run(2.0)

    assert client.time_of(Established) - asked_at < 0.15
    direct = next(at for at, e in client.events if isinstance(e, PathChanged) and e.path.kind == "direct")
    assert direct - asked_at < 0.3


@pytest.mark.parametrize(
    ("theirs", "kind"),
    [(("cone", "none"), "direct"), (("cone", "address"), "direct"), (("cone", "port"), "direct")],
)
def test_every_cone_nat_lets_a_cone_nat_through(theirs: tuple[Mapping, Filtering], kind: str) -> None:
    world, _, client, gateway = lab(gateway_nat=Nat("203.0.113.31", *theirs))

    connect(client, gateway, iceless=True)
    world.run(5.0)

    assert client.path().kind == gateway.path().kind == kind


def test_symmetric_nats_on_both_sides_end_up_relayed_and_work() -> None:
    world, _, client, gateway = lab(
        client_nat=Nat("203.0.113.21", "symmetric"), gateway_nat=Nat("203.0.113.31", "symmetric")
    )

    connect(client, gateway, iceless=True)
    world.run(30.0)

    assert client.path().kind == gateway.path().kind == "relayed"
    assert_packets_pass(world, client, gateway)


def test_packets_pass_in_both_directions() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=True)
    world.run(5.0)

    assert_packets_pass(world, client, gateway)


def test_no_packet_is_lost_while_the_path_moves_from_the_relay_to_direct() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=True)
    assert world.run(5.0, lambda: both_established(client, gateway))

    for number in range(200):
        assert client.send(gateway, numbered(number))
        world.run(0.005)
    world.run(1.0)

    assert client.path().kind == "direct"
    assert sorted(packet for _, packet in gateway.packets) == sorted(numbered(number) for number in range(200))


def test_no_nat_at_all() -> None:
    world, _, client, gateway = lab(client_nat=None, gateway_nat=None)

    connect(client, gateway, iceless=True)
    world.run(5.0)

    assert client.path().kind == "direct"


def test_heavy_loss_delays_but_does_not_prevent() -> None:
    world, _, client, gateway = lab(loss=0.2)

    connect(client, gateway, iceless=True)

    assert world.run(9.0, lambda: both_established(client, gateway))


def test_tunnel_lives_with_traffic_and_rekeys() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=True)
    world.run(2.0)

    for number in range(60):
        assert client.send(gateway, numbered(number))
        world.run(10.0)

    assert not client.happened(Failed)
    assert not gateway.happened(Failed)
    assert len(gateway.packets) == 60


def test_tunnel_lives_idle() -> None:
    world, _, client, gateway = lab(client_nat=Nat("203.0.113.21", "symmetric"))
    connect(client, gateway, iceless=True)
    world.run(1300.0)

    assert not client.happened(Failed)
    assert_packets_pass(world, client, gateway)


def test_dead_gateway_is_reported_soon_after_the_first_unanswered_packet() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=True)
    world.run(5.0)

    world.attachment(gateway.address.host).is_up = False
    killed_at = world.now
    client.send(gateway, PACKET)
    assert world.run(10.0, lambda: bool(client.happened(Failed)))

    assert client.time_of(Failed) - killed_at < 4.0


def test_short_outage_does_not_end_the_connection() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=True)
    world.run(5.0)

    world.attachment(client.address.host).is_up = False
    client.send(gateway, PACKET)
    world.run(2.5)
    world.attachment(client.address.host).is_up = True
    world.run(5.0)

    assert not client.happened(Failed)
    assert_packets_pass(world, client, gateway)
    assert client.path().kind == "direct"


def test_gateway_never_gives_up_a_silent_client_by_itself() -> None:
    world, _, client, gateway = lab()
    connect(client, gateway, iceless=True)
    world.run(5.0)

    world.attachment(client.address.host).is_up = False
    gateway.send(client, PACKET)
    world.run(30.0)

    assert not gateway.happened(Failed)


def test_peer_without_candidates_fails_after_ten_seconds() -> None:
    world, _, client, gateway = lab()
    gateway.is_portal_up = False

    connect(client, gateway, iceless=True)
    started_at = world.now
    world.run(30.0)

    assert 9.9 < client.time_of(Failed) - started_at < 11.0
