"""Clients that reach each other through device pools: real states on real engines, and a portal that grants."""

import json
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from tests.sim.network import Nat, RelayNode, World
from tests.sim.product import FLOW_LOGS, PORTAL_DELAY_S, ClientHost, resource_id
from wardgate.ids import ClientId, ResourceId
from wardgate.wire import ip, portal
from wardgate.wire.ip import IpAddress, Packet
from wardgate.wire.portal import Message
from wardgate.wire.portal_secrets import ice_credentials

POOL = resource_id(0xE1)
NAMES = resource_id(0xE2)


@dataclass
class Door:
    """What one client sees of the portal."""

    portal: "PoolPortal"
    host: "Device | None" = None

    def from_client(self, message: Message) -> None:
        assert self.host is not None
        self.portal.receive(self.host, message)

    def join_client(self, client: ClientHost) -> None:
        assert self.host is not None
        self.portal.join(self.host)


class Device(ClientHost):
    """A client with its tunnel addresses; it answers pings and echoes what comes over UDP."""

    def __init__(self, world: World, door: Door, number: int, **options: Any) -> None:
        super().__init__(world, door, f"192.168.{number}.2", **options)  # type: ignore[arg-type]
        door.host = self
        self.number = number
        self.id = ClientId(f"00000000-0000-4000-8000-0000000002{number:02x}")
        self.ipv4, self.ipv6 = IPv4Address(f"100.64.1.{number}"), IPv6Address(f"fd00:2021:1111::1:{number}")
        self.heard: list[Packet] = []
        self.program.on_packet = self._receive

    def _receive(self, packet: Packet) -> None:
        self.received.append((self.world.now, packet))
        if packet.is_echo_request:
            at = packet.transport_offset
            sequence = int.from_bytes(packet.raw[at + 6 : at + 8], "big")
            answer = ip.icmp_echo(
                packet.destination, packet.source, packet.key.source.port, sequence, packet.payload, reply=True
            )
        elif packet.protocol == ip.UDP and packet.destination_port == 7:
            answer = ip.udp_packet(packet.key.destination, packet.key.source, packet.payload)
        else:
            return
        self.heard.append(packet)
        self.world.at(self.world.now + 0.001, lambda: self.send(answer))

    def ping(self, to: IpAddress, number: int = 1) -> None:
        own = self.ipv4 if to.version == 4 else self.ipv6
        self.send(ip.icmp_echo(own, to, 77, number))

    def pongs(self) -> list[float]:
        return [at for at, packet in self.received if packet.icmp_type in (0, 129)]

    def errors(self) -> list[tuple[int | None, int | None]]:
        return [(packet.icmp_type, packet.icmp_code) for _, packet in self.received if packet.is_icmp_error]


@dataclass
class PoolPortal:
    """Pools, who is in them, and who asked for what."""

    world: World
    relays: list[RelayNode]
    iceless: bool = True
    devices: list[Device] = field(default_factory=list)
    hostnames: dict[str, Device] = field(default_factory=dict)
    pools: dict[ResourceId, list[Device]] = field(default_factory=dict)
    filters: dict[ResourceId, tuple[portal.Filter, ...]] = field(default_factory=dict)
    views: dict[ResourceId, portal.ClientResource] = field(default_factory=dict)
    refuse_with: str | None = None
    expires_at: int | None = None
    answers_names: bool = True
    asks: list[tuple[Device, portal.RequestAuthorization]] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)

    def push(self, to: Device, message: Message) -> None:
        data = json.loads(json.dumps(message.payload()))
        decoded = portal.decode_to_client(message.event_names(portal.ApiVersion.V2)[0], data)
        self.world.at(self.world.now + PORTAL_DELAY_S, lambda: self._deliver(to, decoded))

    def _deliver(self, to: Device, message: portal.ToClient) -> None:
        to.state.handle_portal(message, self.world.now)
        to.program.settle()

    def join(self, device: Device, *authorizations: portal.AuthorizationRef) -> None:
        device.state.handle_portal_up(self.world.now)
        init = portal.ClientInit(
            interface=portal.Interface(ipv4=device.ipv4, ipv6=device.ipv6),
            resources=tuple(self.views.values()) if device is self.devices[0] else (),
            relays=tuple(relay.announced_to(device.id) for relay in self.relays),
            authorizations=authorizations,
            flow_logs=FLOW_LOGS,
        )
        self.push(device, init)

    def list_pool(self, to: Device, *members: Device, filters: tuple[portal.Filter, ...] = ()) -> None:
        """Gives a client a static pool, or another one instead."""
        self.pools[POOL], self.filters[POOL] = list(members), filters
        listed = tuple(
            portal.PoolDevice(client_id=one.id, ipv4=ip_network(one.ipv4), ipv6=ip_network(one.ipv6)) for one in members
        )
        view = portal.StaticDevicePool(id=POOL, name="Printers", devices=listed, filters=filters)
        self.views[POOL] = view
        self.push(to, portal.ResourceCreatedOrUpdated(resource=view))

    def list_names(self, to: Device, pattern: str) -> None:
        self.filters[NAMES] = ()
        view = portal.DynamicDevicePool(id=NAMES, name="Laptops", address=pattern)
        self.views[NAMES] = view
        self.push(to, portal.ResourceCreatedOrUpdated(resource=view))

    def receive(self, sender: Device, message: Message) -> None:
        match message:
            case portal.RequestAuthorization():
                self.asks.append((sender, message))
                self._authorize(sender, message)
            case portal.ResolveDevicePoolDomain(resource_id=pool, domain=domain):
                self.questions.append(domain)
                if self.answers_names:
                    self._resolve(sender, pool, domain)
            case portal.NewPeerCandidates(client_id=client_id, candidates=lines):
                self.push(self._by_id(client_id), portal.PeerIceCandidates(client_id=sender.id, candidates=lines))
            case portal.WithdrawnPeerCandidates(client_id=client_id, candidates=lines):
                gone = portal.InvalidatePeerIceCandidates(client_id=sender.id, candidates=lines)
                self.push(self._by_id(client_id), gone)

    def _by_id(self, client_id: str) -> Device:
        return next(device for device in self.devices if device.id == client_id)

    def _resolve(self, sender: Device, pool: ResourceId, domain: str) -> None:
        device = self.hostnames.get(domain)
        if device is None:
            failed = portal.DevicePoolDomainResolutionFailed(resource_id=pool, domain=domain, reason="not_found")
            self.push(sender, failed)
        else:
            found = portal.DevicePoolDomainResolved(resource_id=pool, domain=domain, ipv4=device.ipv4, ipv6=device.ipv6)
            self.push(sender, found)

    def _authorize(self, initiator: Device, ask: portal.RequestAuthorization) -> None:
        address = ask.ipv4 or ask.ipv6
        members = self.pools.get(ask.resource_id, list(self.hostnames.values()))
        target = next((one for one in members if address in (str(one.ipv4), str(one.ipv6))), None)
        if target is None or self.refuse_with is not None:
            denied = {"ipv4": ask.ipv4, "ipv6": ask.ipv6, "reason": self.refuse_with or "forbidden"}
            self.push(initiator, portal.ClientDeviceAccessDenied.model_validate(denied))
            return
        ice = ice_credentials(initiator.id, _text(initiator), target.id, _text(target))
        pool = portal.StaticDevicePool(id=ask.resource_id, name="Pool", filters=self.filters[ask.resource_id])
        for to, peer, local, remote, role in (
            (target, initiator, ice.receiver, ice.initiator, "controlled"),
            (initiator, target, ice.initiator, ice.receiver, "controlling"),
        ):
            values = {
                "client_id": peer.id,
                "client_name": f"device {peer.number}",
                "client_public_key": peer.public_key,
                "client_ipv4": peer.ipv4,
                "client_ipv6": peer.ipv6,
                "preshared_key": bytes([initiator.number, target.number]) * 16,
                "local_ice_credentials": local,
                "remote_ice_credentials": remote,
                "ice_role": role,
                "use_iceless": self.iceless,
                "flow_logs_ingest_token": "x.y.z",
            }
            if to is target:
                values |= {"resource": pool, "expires_at": self.expires_at}
            self.push(to, portal.ClientDeviceAccessAuthorized.model_validate(values))


def _text(device: Device) -> str:
    return device.public_key.hex()


def devices(count: int = 2, *, iceless: bool = True, symmetric: bool = False) -> tuple[PoolPortal, list[Device]]:
    """Clients, each behind a NAT of its own, all joined; the first one is the admin's favourite."""
    world = World()
    stub = PoolPortal(world, [RelayNode(world, "203.0.113.3")], iceless)
    for number in range(1, count + 1):
        nat = Nat(f"203.0.113.{50 + number}", "symmetric" if symmetric else "cone")
        stub.devices.append(Device(world, Door(stub), number, nat=nat))
    for device in stub.devices:
        stub.join(device)
    world.run(1.0)
    return stub, stub.devices
