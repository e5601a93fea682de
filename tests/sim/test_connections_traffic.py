"""Application traffic over `Connections`: known flows never touch Python, whatever the path, and keep tunnels alive."""

import pytest

from tests.sim.network import Device, Nat, World, connect
from tests.sim.scenarios import lab
from wardgate._fastpath import Flow
from wardgate.tunnel.connections import Failed, PathChanged
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import udp_packet

APP_CLIENT = SocketAddr("100.64.3.9", 40000)
APP_SERVER = SocketAddr("10.9.0.2", 8080)
BOTH_MODES = pytest.mark.parametrize("iceless", [True, False], ids=["iceless", "ice"])
BOTH_PATHS = pytest.mark.parametrize("mapping", ["cone", "symmetric"])


@BOTH_MODES
@BOTH_PATHS
def test_known_flows_pass_both_ways_without_python(iceless: bool, mapping: str) -> None:
    world, client, gateway = with_flow(iceless, mapping)
    before = (client.engine.counters()["upcalls_packet"], gateway.engine.counters()["upcalls_packet"])

    for number in range(50):
        client.send_tun(request(number))
        gateway.send_tun(reply(number))
    world.run(0.1)

    assert sorted(packet for _, packet in gateway.packets) == sorted(request(number) for number in range(50))
    assert sorted(packet for _, packet in client.packets) == sorted(reply(number) for number in range(50))
    assert (client.engine.counters()["upcalls_packet"], gateway.engine.counters()["upcalls_packet"]) == before


@BOTH_MODES
@BOTH_PATHS
def test_channel_in_use_by_known_flows_is_kept(iceless: bool, mapping: str) -> None:
    world, client, gateway = with_flow(iceless, mapping)

    for number in range(300):
        client.send_tun(request(number))
        gateway.send_tun(reply(number))
        world.run(5.0)

    assert len(gateway.packets) == 300
    assert len(client.packets) == 300
    assert not client.happened(Failed)


@BOTH_MODES
def test_download_is_no_reason_to_leave_a_path(iceless: bool) -> None:
    world, client, gateway = with_flow(iceless, "cone")
    changes = len(client.happened(PathChanged)) + len(gateway.happened(PathChanged))

    for number in range(600):
        gateway.send_tun(reply(number))
        world.run(0.1)

    assert len(client.packets) == 600
    assert len(client.happened(PathChanged)) + len(gateway.happened(PathChanged)) == changes


def request(number: int) -> bytes:
    return udp_packet(APP_CLIENT, APP_SERVER, number.to_bytes(4, "big"))


def reply(number: int) -> bytes:
    return udp_packet(APP_SERVER, APP_CLIENT, number.to_bytes(4, "big"))


def with_flow(iceless: bool, mapping: str) -> tuple[World, Device, Device]:
    """A connected pair with one flow that was allowed at both ends; relayed if the NATs are symmetric."""
    nats = [
        Nat(public, "symmetric" if mapping == "symmetric" else "cone") for public in ("203.0.113.21", "203.0.113.31")
    ]
    world, _, client, gateway = lab(client_nat=nats[0], gateway_nat=nats[1])
    connect(client, gateway, iceless=iceless)
    world.run(15.0)  # until no more probes come in between
    assert client.path().kind == ("relayed" if mapping == "symmetric" else "direct")
    for device, peer, from_peer in ((client, "gateway-1", False), (gateway, "client-1", True)):
        index = device.connections.index_of(peer)
        assert index is not None
        flow = Flow(
            flow_id=1,
            peer=index,
            authorization=1,
            protocol=17,
            inner_source=APP_CLIENT,
            inner_destination=APP_SERVER,
            host_source=APP_CLIENT,
            host_destination=APP_SERVER,
            from_peer=from_peer,
            idle_s=120.0,
            unconfirmed_idle_s=120.0,
        )
        assert device.engine.add_flow(flow, world.now)
    return world, client, gateway
