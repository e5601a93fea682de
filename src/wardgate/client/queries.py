"""Where a client's DNS questions go that its own resolver cannot answer: to the portal, into the tunnel, or outside."""

from collections import deque

from wardgate.client.access import Access
from wardgate.client.dns import ClientDns, TunnelQuery, outside
from wardgate.proto.dns_upstreams import Do53
from wardgate.proto.stub_resolver import SITE_RESOLVER_PORT, Forward
from wardgate.tunnel.connections import Connections
from wardgate.tunnel.events import ClientEvent, SendPortal
from wardgate.wire import portal
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import TCP, UDP, IpAddress


class Queries:
    """All questions under way.

    Args:
        events: Takes what the program is asked to do.
    """

    def __init__(self, dns: ClientDns, access: Access, connections: Connections, events: deque[ClientEvent]) -> None:
        self._dns = dns
        self._access = access
        self._connections = connections
        self._events = events

    def settle(self, own: tuple[IpAddress, ...], now: float) -> bool:
        """Sends every question on its way; returns whether anything was done that may have led to more."""
        outbox, did = self._access.outbox, False
        while outbox.unanswerable:
            self._dns.handle_query_response(outbox.unanswerable.popleft().query_id, None, now)
            did = True
        while (forward := self._dns.poll_forward()) is not None:
            self._forward(forward, own, now)
        while (asked_for := self._dns.poll_pool_question()) is not None:
            question = portal.ResolveDevicePoolDomain(resource_id=asked_for[0], domain=asked_for[1])
            self._events.append(SendPortal(question))
        while outbox.to_ask:
            self._send(outbox.to_ask.popleft(), own, now)
            did = True
        while (query := self._dns.poll_to_tunnel()) is not None:
            self._send(query, own, now)
            did = True
        while (packet := self._dns.poll_tunnel_packet()) is not None:
            gateway = self._access.gateways.serving(packet[0])
            if gateway is not None:
                self._connections.send(gateway.gateway_id, packet[1], now)
        return did

    def _forward(self, forward: Forward, own: tuple[IpAddress, ...], now: float) -> None:
        """Asks a resolver: through the tunnel if the portal named it and it is behind a resource."""
        if isinstance(forward.upstream, Do53) and self._dns.is_from_portal(forward.upstream.address):
            server, protocol = forward.upstream.address, TCP if forward.transport == "tcp" else UDP
            route = self._access.resources.routes.lookup(server.ip, protocol, server.port)
            if route is not None and route.filters.permits(protocol, server.port):
                query = TunnelQuery(
                    forward.query_id, route.resource_id, server, forward.payload, server.is_ipv6, forward.transport
                )
                self._send(query, own, now)
                return
        self._events.append(outside(forward))

    def _send(self, query: TunnelQuery, own: tuple[IpAddress, ...], now: float) -> None:
        gateway = self._access.gateways.serving(query.resource_id)
        if gateway is None:
            if self._access.pending.add_query(query.resource_id, query, now):
                self._access.ask(query.resource_id)
            return
        if not gateway.is_connected:
            gateway.queries.append(query)
            return
        source, near = (own[1], gateway.ipv6) if query.is_ipv6 else (own[0], gateway.ipv4)
        server = query.server or SocketAddr(str(near), SITE_RESOLVER_PORT)
        self._dns.ask_tunnel(query, source, server, now)
