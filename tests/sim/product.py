"""The whole data plane in virtual time: client and gateway states on real engines, relays, NATs, and a small portal.

Behind each gateway is a little network of its own, whose hosts answer pings, echo UDP and TCP, and know names.
"""

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from tests.sim.network import EPOCH, Nat, RelayNode, World
from wardgate._fastpath import Engine, StaticKey
from wardgate.client.state import ClientState
from wardgate.gateway.state import GatewayState
from wardgate.ids import ClientId, GatewayId, ResourceId, SiteId
from wardgate.proto.tcp_connection import TcpConnection
from wardgate.tunnel.events import ConfigureTun, ForwardQuery, Resolve, SendPortal
from wardgate.wire import ip, portal
from wardgate.wire.addresses import SocketAddr, Transmit
from wardgate.wire.ip import ACK, PSH, RST, SYN, IpAddress, Packet, parse
from wardgate.wire.portal import Message

PORTAL_DELAY_S = 0.010
OFFLINE_AFTER_S = 15.0
SITE = portal.Site(id=SiteId("00000000-0000-4000-8000-000000000051"), name="Lab")
FLOW_LOGS = portal.FlowLogsConfig(api_url="http://logs.example/", upload_interval_secs=0, upload_batch_size=0)
CLIENT_V4, CLIENT_V6 = IPv4Address("100.64.3.9"), IPv6Address("fd00:2021:1111::7:21")


def resource_id(number: int) -> ResourceId:
    return ResourceId(f"00000000-0000-4000-8000-0000000000{number:02x}")


class Program:
    """A state on an engine on a host: what `io` is in the product."""

    def __init__(self, world: World, state: ClientState | GatewayState, engine: Engine, host: str, **options: Any):
        self.world = world
        self.state = state
        self.engine = engine
        self.address = SocketAddr(host, 52625)
        self.events: list[object] = []
        self.on_packet: Callable[[Packet], None] = lambda packet: None
        self.on_event: Callable[[object], None] = lambda event: None
        world.attach(host, self, **options)

    def handle_datagram(self, source: SocketAddr, destination: SocketAddr, payload: bytes, now: float) -> None:
        if destination.port == self.address.port:
            packets = self.engine.handle_datagram(destination, source, payload, now)
            self._work(packets)

    def handle_timeout(self, now: float) -> None:
        self.state.handle_timeout(now)
        self._work([])

    def poll_timeout(self) -> float | None:
        return self.state.poll_timeout()

    def send_tun(self, packet: bytes) -> None:
        """A packet comes from the TUN device."""
        for local, remote, payload in self.engine.handle_tun(packet, self.world.now):
            self._transmit(Transmit(None if local is None else SocketAddr(*local), SocketAddr(*remote), payload))
        self._work([])

    def settle(self) -> None:
        """Handles what is pending, after a call to the state."""
        self._work([])

    def _work(self, packets: list[bytes]) -> None:
        for packet in packets:
            self.on_packet(parse(packet))
        while upcalls := self.engine.poll_upcalls():
            for error in self.state.handle_upcalls(upcalls, self.world.now):
                raise error
        while (transmit := self.state.poll_transmit()) is not None:
            self._transmit(transmit)
        while (raw := self.state.poll_packet()) is not None:
            self.on_packet(parse(raw))
        while (event := self.state.poll_event()) is not None:
            self.events.append(event)
            self.on_event(event)

    def _transmit(self, transmit: Transmit) -> None:
        self.world.send(transmit.local or self.address, transmit.remote, transmit.payload)


@dataclass
class Lan:
    """The network behind a gateway: its hosts answer what reaches them.

    Attributes:
        received: Everything that left the gateway.
        names: What the gateway's resolver knows.
        services: What hosts answer over UDP, by port; else they echo.
        streams: What hosts answer over TCP, by port, to messages with their length in front; else they echo.
    """

    world: World
    hosts: set[IpAddress]
    names: dict[str, tuple[IpAddress, ...]] = field(default_factory=dict)
    services: dict[int, Callable[[bytes], bytes]] = field(default_factory=dict)
    streams: dict[int, Callable[[bytes], bytes]] = field(default_factory=dict)
    received: list[Packet] = field(default_factory=list)
    received_at: list[float] = field(default_factory=list)
    program: Program | None = None
    _connections: dict[object, TcpConnection] = field(default_factory=dict)

    def receive(self, packet: Packet) -> None:
        self.received.append(packet)
        self.received_at.append(self.world.now)
        if packet.destination in self.hosts and packet.protocol == ip.TCP and packet.destination_port in self.streams:
            self._serve(packet)
        elif packet.destination in self.hosts:
            answer = _answer(packet, self.services)
            if answer is not None:
                self.world.at(self.world.now + 0.001, lambda: self.send(answer))

    def _serve(self, packet: Packet) -> None:
        connection = self._connections.get(packet.key)
        if connection is None:
            connection = self._connections[packet.key] = TcpConnection(packet, 5000, self.world.now)
        else:
            connection.handle_packet(packet, self.world.now)
        while connection.messages:
            connection.reply(self.streams[packet.destination_port](connection.messages.popleft()), self.world.now)
        while connection.packets:
            self.send(connection.packets.popleft())

    def send(self, raw: bytes) -> None:
        assert self.program is not None
        self.program.send_tun(raw)


def _echo(payload: bytes) -> bytes:
    return b"echo:" + payload


def _answer(packet: Packet, services: dict[int, Callable[[bytes], bytes]]) -> bytes | None:
    key = packet.key
    if packet.is_echo_request:
        sequence = int.from_bytes(packet.raw[packet.transport_offset + 6 : packet.transport_offset + 8], "big")
        return ip.icmp_echo(packet.destination, packet.source, key.source.port, sequence, packet.payload, reply=True)
    if packet.protocol == ip.UDP:
        service = services.get(key.destination.port, _echo)
        return ip.udp_packet(key.destination, key.source, service(packet.payload))
    if packet.protocol == ip.TCP and not packet.tcp_flags & RST:
        at = packet.transport_offset
        sequence = int.from_bytes(packet.raw[at + 4 : at + 8], "big")
        flags = SYN | ACK if packet.tcp_flags & SYN else ACK | PSH
        if not packet.tcp_flags & SYN and not packet.payload:
            return None
        data = b"" if packet.tcp_flags & SYN else b"echo:" + packet.payload
        length = 1 if packet.tcp_flags & SYN else len(packet.payload)
        return ip.tcp_packet(
            key.destination, key.source, flags, sequence=7000, acknowledgment=sequence + length, payload=data
        )
    return None


class Portal:
    """Grants what is listed, tells everybody what changes, and forwards candidates; every message goes as JSON."""

    def __init__(self, world: World, relays: Iterable[RelayNode]) -> None:
        self.world = world
        self.relays = tuple(relays)
        self.client: ClientHost | None = None
        self.gateways: dict[GatewayId, GatewayHost] = {}
        self.resources: dict[ResourceId, portal.ClientResource] = {}
        self.told: dict[ResourceId, portal.ClientResource] = {}
        self.gateway_filters: dict[ResourceId, tuple[portal.Filter, ...]] = {}
        self.expires_at: float | None = None
        self.refuse_with: str | None = None
        self.is_down = False
        self.asks: list[tuple[float, portal.RequestAuthorization]] = []
        self.iceless = True
        self.interface = portal.Interface(ipv4=CLIENT_V4, ipv6=CLIENT_V6)
        self._next_ref = 1
        self._asked: dict[str, portal.AuthorizationCreated] = {}
        self.grants: dict[ResourceId, GatewayId] = {}

    # --- what an administrator does

    def allow(self, resource: portal.ClientResource) -> None:
        """Adds a policy for a resource, or changes the resource."""
        self.resources[resource.id] = self.told[resource.id] = resource
        if self.client is not None:
            self.to_client(portal.ResourceCreatedOrUpdated(resource=resource))

    def forbid(self, resource_id: ResourceId, *, is_client_told: bool = True) -> None:
        """Removes the policy: gateway and client are told.

        Args:
            is_client_told: Or else the client goes on to believe in it, also after it has joined again.
        """
        self.resources.pop(resource_id)
        gateway_id = self.grants.pop(resource_id, None)
        if gateway_id is not None and self.client is not None:
            self.to_gateway(gateway_id, portal.RejectAccess(client_id=self.client.id, resource_id=resource_id))
        if is_client_told:
            self.told.pop(resource_id)
            self.to_client(portal.ResourceDeleted(resource_id=resource_id))

    def announce(self, *connected: RelayNode, gone: Iterable[RelayNode] = ()) -> None:
        """Tells everybody that relays came or went."""
        lost = tuple(relay.relay_id for relay in gone)
        self.relays = tuple(relay for relay in self.relays if relay.relay_id not in lost) + connected
        self.to_client(
            portal.RelaysPresence(
                disconnected_ids=lost, connected=tuple(relay.announced_to("client") for relay in self.relays)
            )
        )
        for gateway_id in self.gateways:
            entries = tuple(relay.announced_to(gateway_id) for relay in self.relays)
            self.to_gateway(gateway_id, portal.RelaysPresence(disconnected_ids=lost, connected=entries))

    # --- messages

    def to_client(self, message: Message) -> None:
        data = json.loads(json.dumps(message.payload()))
        decoded = portal.decode_to_client(message.event_names(portal.ApiVersion.V2)[0], data)
        self.world.at(self.world.now + PORTAL_DELAY_S, lambda: self._deliver_to_client(decoded))

    def _deliver_to_client(self, message: portal.ToClient) -> None:
        assert self.client is not None
        if self.is_down:
            return
        self.client.state.handle_portal(message, self.world.now)
        self.client.program.settle()

    def to_gateway(self, gateway_id: GatewayId, message: Message) -> None:
        data = json.loads(json.dumps(message.payload()))
        decoded = portal.decode_to_gateway(message.event_names(portal.ApiVersion.V2)[0], data)
        self.world.at(self.world.now + PORTAL_DELAY_S, lambda: self._deliver_to_gateway(gateway_id, decoded))

    def _deliver_to_gateway(self, gateway_id: GatewayId, message: portal.ToGateway) -> None:
        gateway = self.gateways.get(gateway_id)
        if gateway is not None and gateway.is_up and not self.is_down:
            gateway.state.handle_portal(message, self.world.now)
            gateway.program.settle()

    def join_client(self, client: "ClientHost") -> None:
        self.client = client
        client.state.handle_portal_up(self.world.now)
        self.to_client(
            portal.ClientInit(
                interface=self.interface,
                resources=tuple(self.told.values()),
                relays=tuple(relay.announced_to("client") for relay in self.relays),
                flow_logs=FLOW_LOGS,
            )
        )

    def join_gateway(self, gateway: "GatewayHost") -> None:
        self.gateways[gateway.id] = gateway
        gateway.state.handle_portal_up(self.world.now)
        self.to_gateway(
            gateway.id,
            portal.GatewayInit(
                interface=portal.GatewayInterface(ipv4=gateway.ipv4, ipv6=gateway.ipv6),
                config=portal.GatewayConfig(),
                relays=tuple(relay.announced_to(gateway.id) for relay in self.relays),
                authorizations=self._granted_at(gateway),
                flow_logs=FLOW_LOGS,
            ),
        )

    def _granted_at(self, gateway: "GatewayHost") -> tuple[portal.AuthorizationRef, ...]:
        if self.client is None:
            return ()
        expires_at = int(EPOCH + self.world.now) + 86_400
        return tuple(
            portal.AuthorizationRef(client_id=self.client.id, resource_id=resource_id, expires_at=expires_at)
            for resource_id, gateway_id in sorted(self.grants.items())
            if gateway_id == gateway.id
        )

    def go_down(self) -> None:
        """Nobody hears of it any more, nor it of anybody; what is under way is lost."""
        self.is_down = True
        assert self.client is not None
        self.client.state.handle_portal_down(self.world.now)
        for gateway in self.gateways.values():
            gateway.state.handle_portal_down(self.world.now)

    def come_back(self) -> None:
        """Everybody joins again."""
        self.is_down = False
        assert self.client is not None
        for gateway in self.gateways.values():
            if gateway.is_up:
                self.join_gateway(gateway)
                gateway.program.settle()
        self.join_client(self.client)
        self.client.program.settle()

    def from_client(self, message: Message) -> None:
        if self.is_down:
            return
        match message:
            case portal.RequestAuthorization():
                self.asks.append((self.world.now, message))
                self._authorize(message)
            case portal.NewGatewayCandidates(gateway_id=gateway_id, candidates=lines):
                assert self.client is not None
                self.to_gateway(gateway_id, portal.ClientIceCandidates(client_id=self.client.id, candidates=lines))
            case portal.WithdrawnGatewayCandidates(gateway_id=gateway_id, candidates=lines):
                assert self.client is not None
                gone = portal.InvalidateClientIceCandidates(client_id=self.client.id, candidates=lines)
                self.to_gateway(gateway_id, gone)

    def from_gateway(self, gateway: "GatewayHost", message: Message) -> None:
        if self.is_down:
            return
        match message:
            case portal.AuthorizationAcknowledged(ref=ref):
                created = self._asked.pop(ref)
                if created.resource_id not in self.resources:
                    return
                self.grants[created.resource_id] = gateway.id
                self.to_client(created)
            case portal.BroadcastClientCandidates(candidates=lines):
                self.to_client(portal.GatewayIceCandidates(gateway_id=gateway.id, candidates=lines))
            case portal.BroadcastWithdrawnClientCandidates(candidates=lines):
                self.to_client(portal.InvalidateGatewayIceCandidates(gateway_id=gateway.id, candidates=lines))

    def _authorize(self, ask: portal.RequestAuthorization) -> None:
        resource = self.resources.get(ask.resource_id)
        online = sorted(gateway_id for gateway_id, gateway in self.gateways.items() if gateway.is_up)
        reason = self.refuse_with or ("not_found" if resource is None else None if online else "offline")
        if reason is not None or resource is None:
            failed = portal.AuthorizationCreationFailed(resource_id=ask.resource_id, reason=reason or "not_found")
            self.to_client(failed)
            return
        preferred = [gateway_id for gateway_id in ask.connected_gateway_ids if gateway_id in online]
        gateway = self.gateways[(preferred or online)[0]]
        ref = str(self._next_ref)
        self._next_ref += 1
        self._grant(ref, resource, gateway)

    def _grant(self, ref: str, resource: portal.ClientResource, gateway: "GatewayHost") -> None:
        assert self.client is not None
        keys = self.client.public_key, gateway.public_key
        tag = base64.b32encode(bytes(a ^ b for a, b in zip(*keys, strict=True))).decode().lower()
        ours = portal.IceCredentials(username=tag[:4], password=tag[4:26])
        theirs = portal.IceCredentials(username=tag[26:30], password=tag[30:52])
        self._asked[ref] = portal.AuthorizationCreated(
            resource_id=resource.id,
            gateway_id=gateway.id,
            gateway_public_key=gateway.public_key,
            gateway_ipv4=gateway.ipv4,
            gateway_ipv6=gateway.ipv6,
            site_id=SITE.id,
            preshared_key=bytes(32),
            client_ice_credentials=ours,
            gateway_ice_credentials=theirs,
            use_iceless=self.iceless,
            flow_logs_ingest_token="x.y.z",
        )
        self.to_gateway(
            gateway.id,
            portal.CreateAuthorization(
                ref=ref,
                resource=self._gateway_view(resource),
                client=portal.AuthorizedClient(
                    id=self.client.id,
                    public_key=self.client.public_key,
                    preshared_key=bytes(32),
                    ipv4=self.interface.ipv4,
                    ipv6=self.interface.ipv6,
                ),
                gateway_ice_credentials=theirs,
                client_ice_credentials=ours,
                expires_at=None if self.expires_at is None else int(self.expires_at),
                use_iceless=self.iceless,
                flow_logs_ingest_token="x.y.z",
            ),
        )

    def _gateway_view(self, resource: portal.ClientResource) -> portal.GatewayResource:
        if isinstance(resource, portal.InternetResource):
            return portal.GatewayInternetResource(id=resource.id)
        assert isinstance(resource, portal.DnsResource | portal.CidrResource)
        filters = self.gateway_filters.get(resource.id, resource.filters)
        if isinstance(resource, portal.DnsResource):
            return portal.GatewayDnsResource(
                id=resource.id, address=resource.address, name=resource.name, filters=filters
            )
        return portal.GatewayCidrResource(id=resource.id, address=resource.address, name=resource.name, filters=filters)


class ClientHost:
    """A client program and the applications on its host."""

    def __init__(self, world: World, stub: Portal, host: str, **options: Any) -> None:
        self.id = ClientId("00000000-0000-4000-8000-0000000000aa")
        self.world = world
        engine = Engine()
        static = StaticKey.from_bytes(world.random.randbytes(32))
        self.public_key = static.public_key
        self.state = ClientState(engine, static, EPOCH, world.random.randbytes)
        self.program = Program(world, self.state, engine, host, **options)
        self.received: list[tuple[float, Packet]] = []
        self.program.on_packet = lambda packet: self.received.append((world.now, packet))
        self.program.on_event = self._on_event
        self._portal = stub
        self.tun: ConfigureTun | None = None
        self.forwarded: list[ForwardQuery] = []

    def _on_event(self, event: object) -> None:
        match event:
            case SendPortal(message):
                self._portal.from_client(message)
            case ConfigureTun():
                self.tun = event
            case ForwardQuery():
                self.forwarded.append(event)

    def send(self, raw: bytes) -> None:
        self.program.send_tun(raw)

    def move(self, host: str) -> None:
        """The host gets another address behind the same router, and the program notices."""
        address = self.program.address
        nat = self.world.attachment(address.host).nat
        self.world.detach(address.host)
        self.program.address = SocketAddr(host, address.port)
        self.world.attach(host, self.program, nat=nat)
        if not self.state.reset(self.world.now):
            static = StaticKey.from_bytes(self.world.random.randbytes(32))
            self.public_key = static.public_key
            self.state.set_static(static, self.world.now)
            if not self._portal.is_down:
                self._portal.join_client(self)
        self.program.settle()

    def lose_route(self, host: str) -> None:
        """Packets leave by another uplink from now on, and nobody tells the program."""
        nat = self.world.attachment(self.program.address.host).nat
        self.world.detach(self.program.address.host)
        self.program.address = SocketAddr(host, self.program.address.port)
        self.world.attach(host, self.program, nat=nat)

    def packets(self, since: float = 0.0) -> list[Packet]:
        return [packet for at, packet in self.received if at >= since]


class GatewayHost:
    """A gateway program with the network behind it."""

    def __init__(self, world: World, stub: Portal, number: int, host: str, lan: Lan, **options: Any) -> None:
        self.id = GatewayId(f"00000000-0000-4000-8000-0000000001{number:02x}")
        self.world = world
        self.ipv4 = IPv4Address(f"100.64.0.{number}")
        self.ipv6 = IPv6Address(f"fd00:2021:1111::{number}")
        self.lan = lan
        self.is_up = True
        self._portal = stub
        self._host = host
        self._options = options
        self._start()

    def _start(self) -> None:
        engine = Engine()
        static = StaticKey.from_bytes(self.world.random.randbytes(32))
        self.public_key = static.public_key
        self.state = GatewayState(engine, static, EPOCH, self.world.random.randbytes)
        self.program = Program(self.world, self.state, engine, self._host, **self._options)
        self.program.on_packet = self.lan.receive
        self.program.on_event = self._on_event
        self.lan.program = self.program

    def restart(self) -> None:
        """The process is killed and started again: the same id, another key, no memory."""
        self.world.detach(self._host)
        self._start()
        self.is_up = True
        if not self._portal.is_down:
            self._portal.join_gateway(self)

    def _on_event(self, event: object) -> None:
        match event:
            case SendPortal(message):
                self._portal.from_gateway(self, message)
            case Resolve(request_id, name):
                self.world.at(self.world.now + 0.002, lambda: self._resolved(request_id, name))

    def _resolved(self, request_id: int, name: str) -> None:
        known = self.lan.names.get(name, ())
        ipv4s = [one for one in known if one.version == 4]
        ipv6s = [one for one in known if one.version == 6]
        self.state.handle_resolved(request_id, ipv4s, ipv6s, None, self.world.now)
        self.program.settle()

    def move(self, host: str) -> None:
        """Its host gets another address behind the same router, and it notices."""
        nat = self.world.attachment(self._host).nat
        self.world.detach(self._host)
        self._host, self.program.address = host, SocketAddr(host, self.program.address.port)
        self.world.attach(host, self.program, nat=nat)
        self.state.reset(self.world.now)
        self.program.settle()

    def stop(self) -> None:
        """The program ends in good order: it leaves the portal, then tells its clients."""
        self.is_up = False
        self.state.handle_portal_down(self.world.now)
        self.state.handle_goodbye(self.world.now)
        self.program.settle()

    def kill(self) -> None:
        """The process is gone without a word."""
        self.is_up = False
        self.world.attachment(self.program.address.host).is_up = False


@dataclass
class Product:
    """A client and gateways, joined."""

    world: World
    portal: Portal
    client: ClientHost
    gateways: list[GatewayHost]

    def run(self, for_s: float) -> None:
        self.world.run(for_s)

    @property
    def lan(self) -> Lan:
        return self.gateways[0].lan

    def query(self, name: str, kind: int = 1, number: int = 7) -> int:
        """Sends a query to the client's resolver; returns the length of its question."""
        assert self.client.tun is not None
        sentinel = SocketAddr(str(self.client.tun.dns_servers[0]), 53)
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        question = labels + b"\0" + kind.to_bytes(2, "big") + b"\0\1"
        header = number.to_bytes(2, "big") + b"\1\0\0\1" + bytes(6)
        self.client.send(ip.udp_packet(SocketAddr(str(CLIENT_V4), 33000), sentinel, header + question))
        return len(question)

    def dns_answers(self, start: int = 0) -> list[bytes]:
        """What the resolver answered."""
        return [packet.payload for _, packet in self.client.received[start:] if packet.source_port == 53]

    def ask_name(self, name: str, kind: int = 1) -> list[IpAddress]:
        """Asks the client's resolver for addresses that it knows itself."""
        start = len(self.client.received)
        length_of_question = self.query(name, kind)
        (answer,) = self.dns_answers(start)
        records, length = answer[12 + length_of_question :], 4 if kind == 1 else 16
        step = len(records) // max(1, int.from_bytes(answer[6:8], "big")) or 1
        return [ip_address(records[at + step - length : at + step]) for at in range(0, len(records), step)]


def product(*, gateways: int = 1, relays: int = 1, seed: int = 1, symmetric: bool = False) -> Product:
    """A client behind a NAT, relays, and gateways behind NATs, all joined."""
    world = World(seed)
    stub = Portal(
        world, [RelayNode(world, f"203.0.113.{2 + number}", number=number) for number in range(1, relays + 1)]
    )
    mapping: Any = "symmetric" if symmetric else "cone"
    client = ClientHost(world, stub, "192.168.1.2", nat=Nat("203.0.113.21", mapping))
    hosts = []
    for number in range(1, gateways + 1):
        lan = Lan(world, {ip_address("10.9.0.2"), ip_address("10.9.0.3"), ip_address("fd00:9::2")})
        nat = Nat(f"203.0.113.{30 + number}", mapping)
        hosts.append(GatewayHost(world, stub, number, f"192.168.{9 + number}.2", lan, nat=nat))
    stub.join_client(client)
    for host in hosts:
        stub.join_gateway(host)
    world.run(1.0)
    return Product(world, stub, client, hosts)
