"""The client's resolver between packets and questions to others.

Queries come as UDP and TCP packets to the sentinels. What the resolver cannot answer goes to a resolver outside, or
inside the tunnel: to a gateway, for names whose site knows more, or to a resolver that is itself behind a resource.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from wardgate.ids import ResourceId
from wardgate.proto.dns_upstreams import Do53, Doh, effective_upstreams
from wardgate.proto.proxy_ips import Assignment, NamedResource
from wardgate.proto.stub_resolver import (
    DNS_PORT,
    SITE_TIMEOUT_S,
    Answer,
    Asker,
    Forward,
    Reply,
    StubResolver,
    ToSite,
    Transport,
    Waiting,
)
from wardgate.proto.tcp_query import TcpQuery
from wardgate.proto.tcp_responder import TcpResponder
from wardgate.tunnel.events import ForwardQuery
from wardgate.wire.addresses import RandomBytes, SocketAddr
from wardgate.wire.dns import Rcode, rcode_of
from wardgate.wire.domain_patterns import DomainPattern
from wardgate.wire.icmp_errors import Unreachable, unreachable
from wardgate.wire.ip import TCP, UDP, FlowKey, IpAddress, Packet, udp_packet
from wardgate.wire.portal import CidrResource, ClientResource, DnsResource, DynamicDevicePool, Interface

MAX_TUNNEL_QUERIES: Final = 1024
_FIRST_PORT, _PORTS = 49_152, 16_384
_ATTEMPTS: Final = 16


@dataclass(frozen=True, slots=True)
class TunnelQuery:
    """A query that waits for a gateway.

    Attributes:
        server: A resolver behind the resource; `None` for the resource's gateway itself.
        is_ipv6: Whether the host sent it to a sentinel of that family; the answer's way is of the same one.
    """

    query_id: int
    resource_id: ResourceId
    server: SocketAddr | None
    payload: bytes
    is_ipv6: bool
    transport: Transport


@dataclass(frozen=True, slots=True)
class _Sent:
    query: TunnelQuery
    server: SocketAddr
    deadline: float
    tcp: TcpQuery | None


class ClientDns:
    """The stub resolver with its packets."""

    def __init__(self, random_bytes: RandomBytes) -> None:
        self._random_bytes = random_bytes
        self.resolver = StubResolver(random_bytes)
        self._tcp = TcpResponder(random_bytes)
        self._do53: tuple[Do53, ...] = ()
        self._doh: tuple[Doh, ...] = ()
        self._system: tuple[Do53, ...] = ()
        self._sent_by_port: dict[int, _Sent] = {}
        self._packets: deque[bytes] = deque()
        self._forwards: deque[Forward] = deque()
        self._to_tunnel: deque[TunnelQuery] = deque()
        self._tunnel_packets: deque[tuple[ResourceId, bytes]] = deque()
        self._asked: deque[Assignment] = deque()
        self.refused = 0

    # --- settings ------------------------------------------------------------------------------------------------

    def set_upstreams(self, interface: Interface) -> None:
        """The resolvers that the portal names."""
        named = [SocketAddr(str(one.ip), DNS_PORT) for one in interface.upstream_do53]
        self._do53 = tuple(Do53(one) for one in named or [one.address for one in interface.upstream_dns])
        self._doh = tuple(Doh(one.url) for one in interface.upstream_doh)
        self._update_upstreams()

    def set_system_resolvers(self, servers: Iterable[IpAddress]) -> None:
        """The host's own resolvers."""
        self._system = tuple(Do53(SocketAddr(str(server), DNS_PORT)) for server in servers)
        self._update_upstreams()

    def _update_upstreams(self) -> None:
        self.resolver.set_upstreams(effective_upstreams(self._do53, self._doh, self._system))

    def set_resources(self, resources: Iterable[ClientResource]) -> None:
        """The resources whose names are answered here."""
        named, networks, pools = [], [], []
        for one in resources:
            pattern = DomainPattern.parse(one.address) if isinstance(one, DnsResource) else None
            if isinstance(one, DnsResource) and pattern is not None:
                named.append(NamedResource(one.id, pattern, one.ip_stack or "dual"))
            elif isinstance(one, CidrResource):
                networks.append((one.address, one.id))
            elif isinstance(one, DynamicDevicePool) and (found := DomainPattern.parse(one.address)) is not None:
                pools.append(NamedResource(one.id, found))
        self.resolver.set_resources(named, networks)
        self.resolver.pools.set_pools(pools)

    def servers(self) -> tuple[IpAddress, ...]:
        """The addresses that the host is to ask."""
        return tuple(self.resolver.sentinels)

    def is_from_portal(self, server: SocketAddr) -> bool:
        """Whether the portal named this resolver, so that it may be asked through the tunnel."""
        return Do53(server) in self._do53

    def names(self) -> list[tuple[str, tuple[IpAddress, ...]]]:
        """Every name with its proxy IPs."""
        return [(one.domain, one.proxy_ips) for one in self.resolver.assignments()]

    def proxy_ips_beside(self, proxy_ip: IpAddress) -> tuple[IpAddress, ...]:
        """All proxy IPs of the name that one of them stands for."""
        assignment = self.resolver.resource_of(proxy_ip)
        return () if assignment is None else assignment.proxy_ips

    # --- queries -------------------------------------------------------------------------------------------------

    def handle_packet(self, packet: Packet, now: float) -> None:
        """Takes a packet to a sentinel; what is neither UDP nor TCP is refused."""
        if packet.protocol == UDP:
            self._handle_query(Asker(packet.key.source, packet.key.destination, "udp"), packet.payload, now)
        elif packet.protocol != TCP:
            error = unreachable(packet, Unreachable.PORT)
            if error is not None:
                self._packets.append(error)
        elif packet.destination in self.resolver.sentinels:
            self._tcp.handle_packet(packet, now)
            self._take_tcp_queries(now)

    def _take_tcp_queries(self, now: float) -> None:
        while (query := self._tcp.poll_query()) is not None:
            self._handle_query(*query, now)

    def _handle_query(self, asker: Asker, payload: bytes, now: float) -> None:
        match self.resolver.handle_query(asker, payload, now):
            case Answer(answer, assignment):
                self._reply(Reply(asker, answer), now)
                if assignment is not None:
                    self._asked.append(assignment)
            case Forward() as forward:
                self._forwards.append(forward)
            case ToSite(query_id, resource_id, _, question, transport):
                query = TunnelQuery(query_id, resource_id, None, question, asker.source.is_ipv6, transport)
                self._to_tunnel.append(query)
            case Waiting():
                self._send_replies(now)
            case None if asker.transport == "tcp":
                self._tcp.handle_answer(asker, None, now)

    def _reply(self, reply: Reply, now: float) -> None:
        if reply.asker.transport == "tcp":
            self._tcp.handle_answer(reply.asker, reply.payload, now)
        else:
            self._packets.append(udp_packet(reply.asker.sentinel, reply.asker.source, reply.payload))

    def _send_replies(self, now: float) -> None:
        while (reply := self.resolver.poll_reply()) is not None:
            self._reply(reply, now)

    def handle_pool_answer(
        self, resource_id: ResourceId, domain: str, addresses: tuple[IpAddress, ...], now: float
    ) -> bool:
        """Takes the portal's word on the name of a device; returns whether it was asked for."""
        is_awaited = self.resolver.handle_pool_answer(resource_id, domain, addresses, now)
        self._send_replies(now)
        self._take_tcp_queries(now)
        return is_awaited

    def handle_query_response(self, query_id: int, payload: bytes | None, now: float) -> None:
        """Takes what became of a query that was forwarded."""
        reply = self.resolver.handle_response(query_id, payload, now)
        if reply is not None:
            self._reply(reply, now)
            self._take_tcp_queries(now)

    # --- through the tunnel --------------------------------------------------------------------------------------

    def ask_tunnel(self, query: TunnelQuery, source: IpAddress, server: SocketAddr, now: float) -> None:
        """Asks a resolver inside the tunnel; drain `poll_tunnel_packet`. Fails at once if too many wait (counted)."""
        port = self._free_port()
        if port is None or len(self._sent_by_port) >= MAX_TUNNEL_QUERIES:
            self.refused += 1
            self.handle_query_response(query.query_id, None, now)
            return
        own = SocketAddr(str(source), port)
        tcp = None
        if query.transport == "tcp":
            tcp = TcpQuery(own, server, query.payload, int.from_bytes(self._random_bytes(4), "big"), now)
        else:
            self._tunnel_packets.append((query.resource_id, udp_packet(own, server, query.payload)))
        self._sent_by_port[port] = sent = _Sent(query, server, now + SITE_TIMEOUT_S, tcp)
        self._follow_tcp(port, sent, now)

    def handle_tunnel_packet(self, packet: Packet, now: float) -> bool:
        """Takes a packet from a gateway and returns whether it belongs to a query of ours."""
        port = packet.destination_port
        sent = self._sent_by_port.get(port) if packet.protocol in (UDP, TCP) else None
        if sent is None or packet.key.source != sent.server or (packet.protocol == TCP) != (sent.tcp is not None):
            return False
        if sent.tcp is not None:
            sent.tcp.handle_packet(packet, now)
            self._follow_tcp(port, sent, now)
            return True
        del self._sent_by_port[port]
        if sent.query.server is None and rcode_of(packet.payload) == Rcode.SERVFAIL:
            # Some gateways cannot hand on what is longer than a datagram of theirs.
            self._to_tunnel.append(replace(sent.query, transport="tcp"))
        else:
            self.handle_query_response(sent.query.query_id, packet.payload, now)
        return True

    def handle_tunnel_error(self, key: FlowKey, now: float) -> bool:
        """Takes an ICMP error about a packet and returns whether that was a query of ours, which has failed then."""
        sent = self._sent_by_port.get(key.source.port)
        if sent is None or key.destination != sent.server or key.protocol != (UDP if sent.tcp is None else TCP):
            return False
        del self._sent_by_port[key.source.port]
        self.handle_query_response(sent.query.query_id, None, now)
        return True

    def _follow_tcp(self, port: int, sent: _Sent, now: float) -> None:
        """Takes what a connection has to send, and its answer once it is there."""
        if sent.tcp is None:
            return
        while (raw := sent.tcp.poll_packet()) is not None:
            self._tunnel_packets.append((sent.query.resource_id, raw))
        if sent.tcp.is_gone:
            self._sent_by_port.pop(port, None)
        if (answered := sent.tcp.poll_answer()) is not None:
            self.handle_query_response(sent.query.query_id, answered[0], now)

    def _free_port(self) -> int | None:
        for _ in range(_ATTEMPTS):
            port = _FIRST_PORT + int.from_bytes(self._random_bytes(2), "big") % _PORTS
            if port not in self._sent_by_port:
                return port
        return None

    # --- time and output -----------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        """Forgets what was not answered in time."""
        self._sent_by_port = {port: sent for port, sent in self._sent_by_port.items() if now < sent.deadline}
        for port, sent in [one for one in self._sent_by_port.items() if one[1].tcp is not None]:
            if sent.tcp is not None:
                sent.tcp.handle_timeout(now)
            self._follow_tcp(port, sent, now)
        self.resolver.handle_timeout(now)
        self._send_replies(now)
        self._tcp.handle_timeout(now)
        self._take_tcp_queries(now)

    def poll_timeout(self) -> float | None:
        """When something is due."""
        oldest = next(iter(self._sent_by_port.values()), None)
        times = [] if oldest is None else [oldest.deadline]
        resends = (sent.tcp.poll_timeout() for sent in self._sent_by_port.values() if sent.tcp is not None)
        times += [at for at in resends if at is not None]
        times += [at for at in (self.resolver.poll_timeout(), self._tcp.poll_timeout()) if at is not None]
        return min(times, default=None)

    def poll_packet(self) -> bytes | None:
        """The next packet for the TUN device."""
        return self._packets.popleft() if self._packets else self._tcp.poll_packet()

    def poll_forward(self) -> Forward | None:
        """The next query for a resolver that the host or the portal named."""
        return self._forwards.popleft() if self._forwards else None

    def poll_to_tunnel(self) -> TunnelQuery | None:
        """The next query for a resolver inside the tunnel."""
        return self._to_tunnel.popleft() if self._to_tunnel else None

    def poll_tunnel_packet(self) -> tuple[ResourceId, bytes] | None:
        """The next packet for the gateway that serves a resource."""
        return self._tunnel_packets.popleft() if self._tunnel_packets else None

    def poll_pool_question(self) -> tuple[ResourceId, str] | None:
        """The next pool and name to ask the portal for."""
        return self.resolver.pools.poll_question()

    def poll_asked(self) -> Assignment | None:
        """The next name of a resource that was asked for, with its proxy IPs and the resources that cover it."""
        return self._asked.popleft() if self._asked else None


def outside(forward: Forward) -> ForwardQuery:
    """The query as the program sends it, outside the tunnel."""
    match forward.upstream:
        case Do53(address):
            return ForwardQuery(forward.query_id, address, forward.payload, forward.transport)
        case Doh(url):
            return ForwardQuery(forward.query_id, url, forward.payload, "https")
