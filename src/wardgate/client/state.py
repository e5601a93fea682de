"""The client: which packets go to which gateway, and what has to be asked of the portal first.

Sans-IO. After each `handle_*`, drain `poll_transmit`, `poll_packet` and `poll_event`, then sleep until `poll_timeout`.
The paths below are in the order of packets: from the host, from a gateway, in-band control, the portal, time.
"""

from collections import Counter, deque
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from wardgate._fastpath import DatagramUpcall, Engine, PacketUpcall, SessionUpcall, StaticKey, Upcall
from wardgate.client.access import Access
from wardgate.client.candidate_messages import candidate_messages
from wardgate.client.device_packets import DevicePackets
from wardgate.client.dns import ClientDns
from wardgate.client.gateways import GatewayOnClient
from wardgate.client.queries import Queries
from wardgate.client.resources import Change, allows_family
from wardgate.client.snapshot import ClientView, client_snapshot
from wardgate.client.ways import Ways
from wardgate.errors import RemoteProtocolError
from wardgate.ids import GatewayId, PeerIndex, RelayId, ResourceId
from wardgate.proto.proxy_ips import Assignment
from wardgate.tunnel.connections import (
    Closed,
    Connections,
    Established,
    Failed,
    InvalidatedCandidates,
    NewCandidates,
    PathChanged,
    RelaySilent,
    RelaysNeeded,
)
from wardgate.tunnel.control import Name
from wardgate.tunnel.events import ClientEvent, ConfigureTun, SendPortal, SessionEnded
from wardgate.tunnel.flows import FlowTable, inner_key, opens_flow
from wardgate.tunnel.path_status import path_snapshots
from wardgate.tunnel.ranges import is_proxy_address, is_sentinel
from wardgate.tunnel.routing import Route
from wardgate.wire import portal
from wardgate.wire.addresses import RandomBytes, SocketAddr, Transmit
from wardgate.wire.control import AssignedIps, DomainStatus, Goodbye, decode_control, encode_control, is_control_packet
from wardgate.wire.icmp_errors import Quote, Unreachable, quoted, unreachable
from wardgate.wire.ip import IpAddress, Packet, parse


class ClientState:
    """One client.

    Args:
        engine: The native tables; shared with the threads that forward.
        static: This process's WireGuard key.
        epoch: Unix seconds at monotonic 0.
        is_internet_active: Whether the Internet resource is used, if there is one.
    """

    def __init__(
        self,
        engine: Engine,
        static: StaticKey,
        epoch: float,
        random_bytes: RandomBytes,
        *,
        is_internet_active: bool = False,
    ) -> None:
        self._engine = engine
        self._epoch = epoch
        self._connections = Connections(engine, static, "client", epoch, random_bytes)
        self._flows = FlowTable(engine)
        self._access = Access(self._connections, self._flows, epoch, is_internet_active=is_internet_active)
        self._dns = ClientDns(random_bytes)
        self._interface: portal.Interface | None = None
        self._own: tuple[IpAddress, ...] = ()
        self._configured: ConfigureTun | None = None
        self._is_outdated = False
        self._is_portal_up = False
        self._now = 0.0
        self._transmits: deque[Transmit] = deque()
        self._packets: deque[bytes] = deque()
        self._events: deque[ClientEvent] = deque()
        self.counters: Counter[str] = Counter()
        self._queries = Queries(self._dns, self._access, self._connections, self._events)
        self._ways = Ways(self._flows, self.counters)
        self._devices = DevicePackets(
            self._access.devices, self._connections, self._flows, self._ways, self.counters, self._packets
        )

    # --- from the host -------------------------------------------------------------------------------------------

    def handle_upcall(self, upcall: Upcall, now: float) -> None:
        """Takes what the native side could not decide."""
        for error in self.handle_upcalls((upcall,), now):
            raise error

    def handle_upcalls(self, upcalls: Iterable[Upcall], now: float) -> list[Exception]:
        """As `handle_upcall`, for many at once; one that fails is lost alone, and its error given back."""
        errors: list[Exception] = []
        for upcall in upcalls:
            try:
                if isinstance(upcall, PacketUpcall) and upcall.peer is None:
                    self._handle_tun_packet(upcall, now)
                else:
                    self._install(now)
                    self._handle_from_network(upcall, now)
            except Exception as error:
                errors.append(error)
        try:
            self._settle(now)
        except Exception as error:
            errors.append(error)
        return errors

    def _handle_from_network(self, upcall: Upcall, now: float) -> None:
        match upcall:
            case PacketUpcall():
                self._handle_peer_packet(upcall, PeerIndex(upcall.peer or 0), now)
            case DatagramUpcall():
                self._connections.handle_datagram(upcall, now)
            case SessionUpcall():
                self._connections.handle_session(upcall, now)

    def _handle_tun_packet(self, upcall: PacketUpcall, now: float) -> None:
        if self._access.revocations.is_idle and self._ways.take(upcall):
            return
        packet = self._parse(upcall.packet)
        if packet is None:
            return
        if packet.source not in self._own or packet.destination in self._own:
            self.counters["dropped_foreign_source"] += 1
        elif packet.destination.is_multicast:
            self.counters["dropped_multicast"] += 1
        elif is_sentinel(packet.destination):
            if self._is_outdated:
                self._configure()
            self._dns.handle_packet(packet, now)
        else:
            self._route(packet, now)

    def _route(self, packet: Packet, now: float) -> None:
        """Destination -> gateway or resource -> filter -> access -> connection -> name -> flow."""
        gateway = self._access.gateways.at(packet.destination)
        if gateway is not None and gateway.is_connected:
            self._send(gateway.gateway_id, packet, 0, now)
            return
        if packet.is_icmp_error:
            self._send_error(packet, now)
            return
        route = self._find(packet)
        if route is None or not route.filters.permits(packet.protocol, packet.destination_port):
            self._refuse(packet, route, now)
            return
        if self._access.devices.is_pool(route.resource_id):
            self._route_to_device(route.resource_id, packet, now)
            return
        gateway = self._access.gateways.serving(route.resource_id)
        if gateway is None:
            self._access.wait(route.resource_id, packet, now)
        elif not gateway.is_connected:
            gateway.waiting.add(packet)
        elif route.domain is None:
            self._send(gateway.gateway_id, packet, gateway.numbers[route.resource_id], now)
        elif self._is_announced(name := Name(gateway.gateway_id, route.resource_id, route.domain), packet, now):
            is_lasting = self._access.announcements.is_answered(name)
            self._send(gateway.gateway_id, packet, gateway.numbers[route.resource_id], now, is_lasting=is_lasting)

    def _route_to_device(self, resource_id: ResourceId, packet: Packet, now: float) -> None:
        device = self._access.devices.granted(resource_id, packet.destination)
        if device is None:
            self._access.devices.wait(resource_id, packet, now)
        elif not device.is_connected:
            device.waiting.add(packet)
        else:
            self._send(device.client_id, packet, device.outbound[resource_id], now)

    def _send_error(self, packet: Packet, now: float) -> None:
        device = self._access.devices.at(packet.destination)
        if device is None:
            self.counters["dropped_outbound_icmp_error"] += 1
        else:
            self._devices.send_error(device, packet, now)

    def _find(self, packet: Packet) -> Route | None:
        return self._access.resources.routes.lookup(packet.destination, packet.protocol, packet.destination_port)

    def _refuse(self, packet: Packet, route: Route | None, now: float) -> None:
        """Answers what no resource permits, so that programs fail at once; what is nobody's is dropped."""
        if self._access.revocations.answer(packet, now):
            self.counters["refused_access_ended"] += 1
            return
        is_ours = is_proxy_address(packet.destination) or self._access.revocations.is_lingering(packet.destination)
        if route is None and not is_ours:
            self.counters["dropped_unroutable"] += 1
            return
        reason = "no_resource" if route is None else "filter"
        self.counters[f"refused_{reason}"] += 1
        self._access.denials.refuse(None if route is None else route.resource_id, packet.key, reason, now)
        error = unreachable(packet, Unreachable.PROHIBITED)
        if error is not None:
            self._packets.append(error)

    def _is_announced(self, name: Name, packet: Packet, now: float) -> bool:
        proxy_ips = self._allowed(name.resource_id, self._dns.proxy_ips_beside(packet.destination))
        return self._access.announcements.admit(name, proxy_ips, packet, now)

    def _allowed(self, resource_id: ResourceId, proxy_ips: Iterable[IpAddress]) -> tuple[IpAddress, ...]:
        resource = self._access.resources.get(resource_id)
        if not isinstance(resource, portal.DnsResource):
            return ()
        return tuple(one for one in proxy_ips if allows_family(resource, one))

    def _send(self, peer_id: str, packet: Packet, number: int, now: float, *, is_lasting: bool = True) -> None:
        """Has the packet's flow opened and the packet sent on that way; what opens no flow goes by itself.

        Args:
            is_lasting: Whether all packets to the same target may take the same way until something changes.
        """
        peer = self._connections.index_of(peer_id)
        if peer is None:
            self.counters["dropped_unknown_peer"] += 1
            return
        if not opens_flow(packet):
            self._connections.send(peer_id, packet.raw, now)
            return
        self._ways.open(PacketUpcall.of(None, packet.raw), peer, number, is_lasting=is_lasting)
        if not self._access.revocations.is_idle:
            self._access.revocations.found(packet.key)

    def _install(self, now: float) -> None:
        packets, datagrams = self._ways.install(now)
        self._packets.extend(packets)
        self._transmits.extend(datagrams)

    def _parse(self, raw: bytes) -> Packet | None:
        try:
            return parse(raw)
        except RemoteProtocolError:
            self.counters["dropped_malformed"] += 1
            return None

    # --- from a gateway ------------------------------------------------------------------------------------------

    def _handle_peer_packet(self, upcall: PacketUpcall, peer: PeerIndex, now: float) -> None:
        if self._connections.handle_probe(upcall, now):
            return
        peer_id = self._connections.peer_id_of(peer) or ""
        gateway, device = self._access.gateways.get(peer_id), self._access.devices.get(peer_id)
        if gateway is None and device is None:
            self.counters["dropped_unknown_peer"] += 1
        elif is_control_packet(upcall.packet):
            self._handle_control(peer_id, upcall.packet, now)
        elif (packet := self._parse(upcall.packet)) is None:
            pass
        elif gateway is not None:
            self._handle_gateway_packet(gateway, packet, now)
        elif device is not None:
            self._devices.receive(device, upcall, packet, self._own, now)

    def _handle_gateway_packet(self, gateway: GatewayOnClient, packet: Packet, now: float) -> None:
        if packet.destination not in self._own:
            self.counters["dropped_foreign_destination"] += 1
        elif packet.is_icmp_error:
            self._handle_error(gateway, packet, now)
        elif self._dns.handle_tunnel_packet(packet, now):
            self.counters["tunnel_answers"] += 1
        elif self._is_from(gateway, packet.source):
            self._packets.append(packet.raw)
        else:
            self.counters["dropped_foreign_source"] += 1

    def _is_from(self, gateway: GatewayOnClient, source: IpAddress) -> bool:
        return source in gateway.addresses or self._access.resources.routes.covers(gateway.numbers, source)

    def _handle_error(self, gateway: GatewayOnClient, packet: Packet, now: float) -> None:
        """Takes an ICMP error, from whomever on the way, if it is about a packet that we may have sent there."""
        try:
            quote = quoted(packet)
        except RemoteProtocolError:
            self.counters["dropped_malformed"] += 1
            return
        destination = ip_address(quote.key.destination.host)
        if ip_address(quote.key.source.host) not in self._own or not self._is_from(gateway, destination):
            self.counters["dropped_foreign_error"] += 1
            return
        if self._dns.handle_tunnel_error(quote.key, now):
            return
        if _is_prohibited(packet):
            self._note_prohibited(gateway, packet, quote, now)
        self._packets.append(packet.raw)

    def _note_prohibited(self, gateway: GatewayOnClient, packet: Packet, quote: Quote, now: float) -> None:
        destination = ip_address(quote.key.destination.host)
        port = 0 if quote.icmp_type is not None else quote.key.destination.port
        route = self._access.resources.routes.lookup(destination, quote.key.protocol, port)
        self.counters["refused_by_gateway"] += 1
        if route is None:
            return
        resource_id = route.resource_id
        self._access.denials.refuse(resource_id, quote.key, "gateway_prohibited", now)
        if resource_id in gateway.numbers and packet.source == destination:
            self._access.renew(resource_id, now)

    # --- in-band control -----------------------------------------------------------------------------------------

    def _handle_control(self, peer_id: str, raw: bytes, now: float) -> None:
        try:
            message = decode_control(raw)
        except RemoteProtocolError:
            self.counters["dropped_malformed_control"] += 1
            return
        match message:
            case DomainStatus():
                for packet in self._access.announcements.handle_status(GatewayId(peer_id), message):
                    self._route(packet, now)
            case Goodbye():
                self._ways.forget()
                self._access.lost(peer_id)
                self._connections.remove(peer_id, now, goodbye=False)
            case AssignedIps():
                self.counters["dropped_unexpected_control"] += 1

    def _handle_name_asked(self, asked: Assignment, now: float) -> None:
        """Somebody asked the resolver for a resource's name: it is routed now, and its gateways look it up anew."""
        self._ways.forget()
        resource_ids = [one.resource_id for one in asked.resources]
        self._access.resources.add_name(asked.domain, asked.proxy_ips, resource_ids)
        for resource_id in resource_ids:
            gateway = self._access.gateways.serving(resource_id)
            if gateway is not None and gateway.is_connected:
                name = Name(gateway.gateway_id, resource_id, asked.domain)
                self._access.announcements.refresh(name, self._allowed(resource_id, asked.proxy_ips), now)

    def handle_query_response(self, query_id: int, payload: bytes | None, now: float) -> None:
        """Takes the answer to a `ForwardQuery`; `None` if there is none."""
        self._dns.handle_query_response(query_id, payload, now)
        self._settle(now)

    # --- from the portal -----------------------------------------------------------------------------------------

    def handle_portal_up(self, now: float) -> None:
        """The portal confirmed that we joined."""
        self._is_portal_up = True
        self._events.append(SendPortal(portal.SetSnownetCapabilities(iceless=True)))
        self._settle(now)

    def handle_portal_down(self, now: float) -> None:
        """The portal is away; tunnels keep working."""
        self._is_portal_up = False
        self._settle(now)

    def handle_portal(self, message: portal.ToClient, now: float) -> None:
        """Takes one message of the portal."""
        self._ways.forget()
        match message:
            case portal.ClientInit():
                self._set_interface(message.interface, now)
                self._apply(self._access.resources.replace(message.resources), now)
                self._connections.update_relays((), message.relays, now)
                self._access.devices.retain(message.authorizations, now)
            case portal.ConfigChanged(interface=interface):
                self._set_interface(interface, now)
            case portal.ResourceCreatedOrUpdated(resource=resource):
                self._apply(self._access.resources.upsert(resource), now)
            case portal.ResourceDeleted(resource_id=resource_id):
                self._apply(self._access.resources.remove(resource_id), now)
            case portal.RelaysPresence(disconnected_ids=remove, connected=add):
                self._connections.update_relays(remove, add, now)
            case portal.AuthorizationCreated():
                if not self._access.granted(message, now):
                    self.counters["ignored_authorizations"] += 1
            case portal.AuthorizationCreationFailed():
                self._access.refused(message, now)
            case portal.GatewayIceCandidates(gateway_id=peer_id, candidates=lines):
                self._connections.add_remote_candidates(peer_id, lines, now)
            case portal.InvalidateGatewayIceCandidates(gateway_id=peer_id, candidates=lines):
                self._connections.remove_remote_candidates(peer_id, lines, now)
            case portal.PeerIceCandidates(client_id=peer_id, candidates=lines):
                self._connections.add_remote_candidates(peer_id, lines, now)
            case portal.InvalidatePeerIceCandidates(client_id=peer_id, candidates=lines):
                self._connections.remove_remote_candidates(peer_id, lines, now)
            case portal.PeerIceCandidateError(client_id=peer_id):
                self._connections.remove(peer_id, now, goodbye=False)
            case portal.ClientDeviceAccessAuthorized():
                if not self._access.devices.authorized(message, now):
                    self.counters["ignored_authorizations"] += 1
            case portal.ClientDeviceAccessDenied():
                self._access.devices.denied(message, now)
            case portal.ResourceFiltersUpdated():
                self._access.devices.refilter(message)
            case portal.RejectAccess():
                self._access.devices.reject(message, now)
            case portal.DevicePoolDomainResolved(resource_id=pool, domain=domain, ipv4=ipv4, ipv6=ipv6):
                if self._dns.handle_pool_answer(pool, domain, (ipv4, ipv6), now):
                    self._access.resources.add_device(pool, (ipv4, ipv6))
            case portal.DevicePoolDomainResolutionFailed(resource_id=pool, domain=domain):
                self._dns.handle_pool_answer(pool, domain, (), now)
            case portal.Disconnect(reason=portal.TOKEN_EXPIRED):
                self._events.append(SessionEnded(portal.TOKEN_EXPIRED))
            case _:
                self.counters["ignored_portal_messages"] += 1
        self._settle(now)

    def _set_interface(self, interface: portal.Interface, now: float) -> None:
        own = (interface.ipv4, interface.ipv6)
        if self._own and self._own != own:
            self._access.leave_all(now)
        self._own = own
        self._interface = interface
        self._dns.set_upstreams(interface)
        self._is_outdated = True

    def _apply(self, change: Change, now: float) -> None:
        self._access.apply(change, now)
        resources = self._access.resources
        for domain, proxy_ips in self._dns.names():
            resources.add_name(domain, proxy_ips, change.added)
        self._is_outdated = True

    def set_internet_active(self, is_active: bool, now: float) -> None:
        """Uses the Internet resource, or stops to."""
        self._ways.forget()
        self._apply(self._access.resources.set_internet_active(is_active), now)
        self._settle(now)

    def set_system_resolvers(self, servers: Iterable[IpAddress], now: float) -> None:
        """The host's own resolvers, which are asked where the portal names none."""
        self._dns.set_system_resolvers(servers)
        self._is_outdated = True
        self._settle(now)

    def _configure(self) -> None:
        """Tells resolver and host what changed, once for many messages."""
        self._is_outdated = False
        self._dns.set_resources(self._access.resources.all())
        if self._interface is None:
            return
        routes = self._access.resources.tun_routes(self._access.revocations.lingering_routes())
        wanted = ConfigureTun(
            self._interface.ipv4, self._interface.ipv6, routes, self._dns.servers(), self._interface.search_domain
        )
        if wanted != self._configured:
            self._configured = wanted
            self._events.append(wanted)

    # --- time and output -----------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        """Does what is due at `now`. Calling it early, late or twice is harmless."""
        self._connections.handle_timeout(now)
        self._dns.handle_timeout(now)
        self._access.devices.handle_timeout(now)
        self._is_outdated |= self._access.revocations.handle_timeout(now)
        if self._is_outdated:
            self._configure()
        self._flows.handle_timeout(now)
        self._settle(now)

    def reset(self, now: float) -> bool:
        """The host's network changed: finds new paths.

        Returns:
            Whether connections live on. Otherwise the program makes a new key, hands it to `set_static`, and joins the
            portal with it.
        """
        is_kept = self._connections.reset(now)
        self._settle(now)
        return is_kept

    def set_static(self, static: StaticKey, now: float) -> None:
        """Uses another WireGuard key from now on."""
        self._connections.set_static(static)
        self._settle(now)

    def handle_relay_way(self, relay_id: RelayId, alias: SocketAddr, kind: str | None, now: float) -> None:
        """Answers a `RelaySilent`, see `Connections.handle_relay_way`."""
        self._connections.handle_relay_way(relay_id, alias, kind, now)
        self._settle(now)

    def handle_goodbye(self, now: float) -> None:
        """Orderly end: tells every gateway."""
        self._ways.forget()
        self._access.leave_all(now)
        self._settle(now)

    def _settle(self, now: float) -> None:
        """Takes what the parts produced and makes it this machine's output; loops until none has anything left."""
        self._now = now
        self._install(now)
        while self._settle_connections() or self._settle_dns(now) or self._settle_access(now):
            pass
        self._note_lost_flows(now)
        if self._is_portal_up:
            self._send_candidates()

    def _settle_connections(self) -> bool:
        event = self._connections.poll_event()
        if event is None:
            return False
        self._ways.forget()
        match event:
            case NewCandidates(peer_id, lines):
                self._access.candidates.add(peer_id, tuple(lines))
            case InvalidatedCandidates(peer_id, lines):
                self._access.candidates.remove(peer_id, tuple(lines))
            case Established(peer_id):
                self._access.connected(peer_id)
            case Failed(peer_id, _, reports) | Closed(peer_id, reports):
                self.counters["connections_lost"] += 1
                self._access.lost(peer_id, reports)
            case RelaysNeeded():
                self._events.append(SendPortal(portal.NoRelays()))
            case RelaySilent():
                self._events.append(event)
            case PathChanged():
                pass
        return True

    def _settle_dns(self, now: float) -> bool:
        did = False
        while (asked := self._dns.poll_asked()) is not None:
            self._handle_name_asked(asked, now)
            did = True
        did = self._queries.settle(self._own, now) or did
        while (raw := self._dns.poll_packet()) is not None:
            self._packets.append(raw)
        return did

    def _settle_access(self, now: float) -> bool:
        access, did = self._access, False
        while access.outbox.to_route:
            self._route(access.outbox.to_route.popleft(), now)
            did = True
        self._install(now)
        while (told := access.announcements.poll_message()) is not None:
            self._connections.send(told[0], encode_control(told[1]), now)
            did = True
        while access.outbox.to_portal:
            self._events.append(SendPortal(access.outbox.to_portal.popleft()))
        self._packets.extend(access.outbox.to_tun)
        access.outbox.to_tun.clear()
        while (raw := access.revocations.poll_packet()) is not None:
            self._packets.append(raw)
        return did

    def _note_lost_flows(self, now: float) -> None:
        while (ended := self._flows.poll_ended()) is not None:
            resource_id = self._flows.resource_of(ended.flow) if ended.is_lost else None
            if resource_id is not None:
                self._access.revocations.lose(inner_key(ended.flow), resource_id, now)

    def _send_candidates(self) -> None:
        for batch in self._access.candidates.take():
            for message in candidate_messages(batch, is_client=self._access.devices.get(batch.peer_id) is not None):
                self._events.append(SendPortal(message))

    def poll_transmit(self) -> Transmit | None:
        """The next datagram to send."""
        return self._transmits.popleft() if self._transmits else self._connections.poll_transmit()

    def poll_packet(self) -> bytes | None:
        """The next packet for the TUN device."""
        return self._packets.popleft() if self._packets else None

    def poll_event(self) -> ClientEvent | None:
        """The next thing to ask of the program."""
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> float | None:
        """When to call `handle_timeout`; at once while output waits."""
        if self._transmits or self._packets or self._events or self._is_outdated:
            return self._now
        times = [
            self._connections.poll_timeout(),
            self._dns.poll_timeout(),
            self._access.devices.poll_timeout(),
            self._access.revocations.poll_timeout(),
            self._flows.poll_timeout(),
        ]
        return min((time for time in times if time is not None), default=None)

    def snapshot(self) -> dict[str, Any]:
        """What `client status` shows; plain JSON."""
        return client_snapshot(
            ClientView(
                access=self._access,
                own=self._own,
                is_portal_up=self._is_portal_up,
                paths=path_snapshots(self._connections, self._epoch),
                traffic=self._flows.traffic(),
                counters={**self.counters, **self._connections.counts, **self._flows.counters()},
                now=self._now,
                epoch=self._epoch,
            )
        )


def _is_prohibited(packet: Packet) -> bool:
    kind = (packet.icmp_type, packet.icmp_code)
    return kind in (((3, 9), (3, 10), (3, 13)) if packet.version == 4 else ((1, 1),))
