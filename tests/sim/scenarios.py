"""Common scenes of the simulations: two devices, their NATs and a relay."""

from tests.sim.network import Device, Nat, RelayNode, World
from wardgate.tunnel.connections import Established

PACKET = bytes.fromhex("4500002000000000401100006440030a0a0900021f901f90000c0000") + b"ping"


def both_established(*devices: Device) -> bool:
    return all(device.happened(Established) for device in devices)


def numbered(number: int) -> bytes:
    return PACKET[:-4] + number.to_bytes(4, "big")


def assert_packets_pass(world: World, client: Device, gateway: Device) -> None:
    client.packets.clear()
    gateway.packets.clear()
    assert client.send(gateway, PACKET)
    assert gateway.send(client, PACKET)
    world.run(1.0)
    assert [packet for _, packet in gateway.packets] == [PACKET]
    assert [packet for _, packet in client.packets] == [PACKET]


UNSET = Nat("0.0.0.0")


def lab(
    *, client_nat: Nat | None = UNSET, gateway_nat: Nat | None = UNSET, loss: float = 0.0, seed: int = 1
) -> tuple[World, RelayNode, Device, Device]:
    """A client and a gateway, each behind a port-restricted NAT unless said otherwise, who both know a relay."""
    world = World(seed)
    relay = RelayNode(world, "203.0.113.3")
    behind_client = Nat("203.0.113.21") if client_nat is UNSET else client_nat
    behind_gateway = Nat("203.0.113.31") if gateway_nat is UNSET else gateway_nat
    client = Device(world, "client-1", "192.168.1.2", "client", nat=behind_client, loss=loss)
    gateway = Device(world, "gateway-1", "10.5.0.2", "gateway", nat=behind_gateway, loss=loss, latency_s=0.012)
    for device in (client, gateway):
        device.learn(relay)
    world.run(2.0)
    return world, relay, client, gateway
