"""Many clients as far as a gateway can see them: what the portal says of each, its handshake, its sealed packets.

They share one engine and have no state, so that thousands of them weigh little beside the gateway under test.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

from wardgate._fastpath import Engine, Initiation, PacketUpcall, StaticKey
from wardgate.ids import ClientId, GatewayId, RelayId, ResourceId
from wardgate.wire import portal, wireguard
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.control import AssignedIps, encode_control
from wardgate.wire.ip import SYN, TCP, UDP, tcp_packet, udp_packet
from wardgate.wire.probes import decode_probe, encode_probe

GATEWAY_ID = GatewayId("00000000-0000-4000-8000-000000000101")
GATEWAY_V4, GATEWAY_V6 = IPv4Address("100.64.0.1"), IPv6Address("fd00:2021:1111::1")
PROXY_IPS = (IPv4Address("100.96.0.1"), IPv4Address("100.96.0.2"))
DOMAIN = "app.corp.example"
REAL_IP = IPv4Address("10.9.0.2")
NETWORK = ip_network("10.9.0.0/16")
RELAY_EXPIRES_AT = 2_145_916_800
FIRST_CLIENT_V4, FIRST_CLIENT_V6 = IPv4Address("100.64.1.0"), IPv6Address("fd00:2021:1111::1:0")
CIDR, NAME = 1, 2


def resource_id(number: int) -> ResourceId:
    """The id of one of the resources."""
    return ResourceId(f"00000000-0000-4000-8000-00000000a{number:03}")


def filters() -> tuple[portal.Filter, ...]:
    """What an administrator allows of a server: a handful of ports, a range, and pings."""
    tcp = [(22, 22), (80, 80), (443, 443), (5432, 5432), (8000, 8999)]
    udp = [(53, 53), (443, 443), (3478, 3481)]
    ranges = [("tcp", *one) for one in tcp] + [("udp", *one) for one in udp]
    made = [portal.Filter(protocol=name, port_range_start=low, port_range_end=high) for name, low, high in ranges]
    return (*made, portal.Filter(protocol="icmp"))


def resources() -> tuple[portal.GatewayResource, ...]:
    """Four networks, one inside another, and a name."""
    networks = {
        CIDR: NETWORK,
        3: ip_network("10.0.0.0/8"),
        4: ip_network("172.16.5.0/24"),
        5: ip_network("fd00:9::/64"),
    }
    made: list[portal.GatewayResource] = [
        portal.GatewayCidrResource(id=resource_id(number), address=network, name=f"network {number}", filters=filters())
        for number, network in networks.items()
    ]
    made.append(
        portal.GatewayDnsResource(id=resource_id(NAME), address="*.corp.example", name="corp", filters=filters())
    )
    return tuple(made)


@dataclass(frozen=True, slots=True)
class LightClient:
    """One client.

    Attributes:
        number: From 0.
        address: Where its datagrams come from.
    """

    number: int
    static: StaticKey
    address: SocketAddr

    @property
    def id(self) -> ClientId:
        """As the portal knows it."""
        return ClientId(f"00000000-0000-4000-8000-0000001{self.number:05}")

    @property
    def ipv4(self) -> IPv4Address:
        """Its tunnel address."""
        return FIRST_CLIENT_V4 + self.number

    def authorization(self, resource: portal.GatewayResource, expires_at: int) -> portal.CreateAuthorization:
        """What the portal tells the gateway when this client may reach a resource."""
        tag = hashlib.sha256(self.static.public_key).hexdigest()
        return portal.CreateAuthorization(
            ref=f"{self.number}-{resource.id}",
            resource=resource,
            client=portal.AuthorizedClient(
                id=self.id,
                public_key=self.static.public_key,
                preshared_key=_psk(self.number),
                ipv4=self.ipv4,
                ipv6=FIRST_CLIENT_V6 + self.number,
                version="1.5.8",
                device_os_name="Linux",
                device_os_version="6.1.0",
            ),
            gateway_ice_credentials=portal.IceCredentials(username=tag[:4], password=tag[4:26]),
            client_ice_credentials=portal.IceCredentials(username=tag[26:30], password=tag[30:52]),
            expires_at=expires_at,
            use_iceless=True,
            flow_logs_ingest_token=f"{tag}.{tag}.{tag}",
        )

    def announcement(self) -> bytes:
        """The control packet that gives its proxy IPs to a name."""
        return encode_control(AssignedIps(resource_id(NAME), DOMAIN, PROXY_IPS))


class LightClients:
    """The client ends of many sessions with one gateway.

    Args:
        gateway: Where the gateway receives.
        host: Where the clients are.
        first_port: They are spread over the ports from this one,
        ports: that many.
    """

    def __init__(self, gateway: SocketAddr, host: str, first_port: int, ports: int) -> None:
        self._gateway = gateway
        self._engine = Engine()
        self._host = host
        self._ports = range(first_port, first_port + ports)
        self._waiting: dict[int, Initiation] = {}

    def make(self, number: int) -> LightClient:
        """The client of that number."""
        static = StaticKey.from_bytes(hashlib.sha256(b"key %d" % number).digest())
        return LightClient(number, static, SocketAddr(self._host, self._ports[number % len(self._ports)]))

    def initiation(self, client: LightClient, gateway_public: bytes, unix_s: float) -> bytes:
        """The first message of its handshake."""
        initiation, message = Initiation.start(
            client.static,
            gateway_public,
            _psk(client.number),
            (client.number + 1) << 8,
            wireguard.tai64n(unix_s),
            hashlib.sha256(b"ephemeral %d %f" % (client.number, unix_s)).digest(),
        )
        self._waiting[client.number] = initiation
        return wireguard.with_macs(message, wireguard.mac1_key(gateway_public), None)

    def confirmation(self, client: LightClient, response: bytes, now: float) -> bytes:
        """Takes the gateway's answer and gives the first data message, which confirms the session."""
        keypair = self._waiting.pop(client.number).finish(response)
        self._engine.add_session(client.number, keypair, now)
        self._engine.set_path(client.number, None, self._gateway)
        return self.seal(client, b"", now)

    def answers(self, datagram: bytes, source: SocketAddr, now: float) -> list[bytes]:
        """Takes a data message of the gateway's and gives what answers it: a probe of the path wants its echo."""
        self._engine.handle_datagram(source, self._gateway, datagram, now)
        found = []
        for upcall in self._engine.poll_upcalls():
            probe = decode_probe(upcall.packet) if isinstance(upcall, PacketUpcall) else None
            if isinstance(upcall, PacketUpcall) and upcall.peer is not None and probe and not probe.is_reply:
                answer = self._engine.seal(upcall.peer, encode_probe(probe.answer()), now)
                found += [] if answer is None else [answer]
        return found

    def seal(self, client: LightClient, packet: bytes, now: float) -> bytes:
        """A packet as the gateway receives it."""
        message = self._engine.seal(client.number, packet, now)
        assert message is not None, "a confirmed session seals"
        return message


def relay() -> portal.Relay:
    """A relay that never answers: a gateway takes clients only once it knows one."""
    return portal.Relay(
        id=RelayId("00000000-0000-4000-8000-000000000003"),
        addr=SocketAddr("203.0.113.3", 3478),
        username="2145916800:gateway",
        password="unused",
        expires_at=RELAY_EXPIRES_AT,
    )


def init() -> portal.GatewayInit:
    """The portal's first message to the gateway."""
    return portal.GatewayInit(
        interface=portal.GatewayInterface(ipv4=GATEWAY_V4, ipv6=GATEWAY_V6),
        config=portal.GatewayConfig(),
        relays=(relay(),),
        account_slug="bench",
        flow_logs=portal.FlowLogsConfig(api_url="http://logs.example/", upload_interval_secs=0, upload_batch_size=0),
    )


def first_packets(source: IPv4Address, destinations: tuple[IPv4Address, ...], protocol: int) -> Iterator[bytes]:
    """Packets of one client that are each a new flow: every source port to every destination, on an allowed port."""
    make = {TCP: _syn, UDP: _question}[protocol]
    for destination in destinations:
        for port in range(1024, 65536):
            yield make(SocketAddr(str(source), port), SocketAddr(str(destination), 443))


def swept_packets(source: IPv4Address, protocol: int) -> Iterator[bytes]:
    """Packets of one client that each go to another host and port of a network, as a scanner's do."""
    make = {TCP: _syn, UDP: _question}[protocol]
    ports = {TCP: range(8000, 8999), UDP: range(3478, 3481)}[protocol]
    for number in range(1 << 20):
        host = IPv4Address("10.9.0.1") + number % 65_000
        yield make(
            SocketAddr(str(source), 40_000 + number // 65_000), SocketAddr(str(host), ports[number % len(ports)])
        )


def _syn(source: SocketAddr, destination: SocketAddr) -> bytes:
    options = bytes.fromhex("020405b40402080a000000000000000001030307")
    return tcp_packet(source, destination, SYN, sequence=source.port << 8, options=options)


def _question(source: SocketAddr, destination: SocketAddr) -> bytes:
    return udp_packet(source, destination, bytes(64))


def _psk(number: int) -> bytes:
    return hashlib.sha256(b"psk %d" % number).digest()
