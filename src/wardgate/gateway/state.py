"""The gateway: what its clients may reach, decided once for each flow.

Sans-IO. After each `handle_*`, drain `poll_transmit`, `poll_packet` and `poll_event`, then sleep until `poll_timeout`.
The paths below are in the order of packets: from a client, to a client, in-band control, the portal's messages, time.
"""

from collections import Counter, deque
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from wardgate._fastpath import (
    DatagramUpcall,
    Decided,
    Engine,
    FlowReport,
    PacketUpcall,
    SessionUpcall,
    StaticKey,
    Upcall,
)
from wardgate.errors import RemoteProtocolError
from wardgate.gateway.client_on_gateway import ClientOnGateway
from wardgate.gateway.resolving import Announced, Resolving
from wardgate.gateway.snapshot import GatewayView, gateway_snapshot
from wardgate.ids import ClientId, PeerIndex, RelayId, ResourceId
from wardgate.tunnel.authorizations import Authorization, Authorizations
from wardgate.tunnel.candidates import CandidateHold
from wardgate.tunnel.connections import (
    Closed,
    Connections,
    Established,
    Failed,
    InvalidatedCandidates,
    NewCandidates,
    NoRelays,
    PathChanged,
    RelaySilent,
    RelaysNeeded,
)
from wardgate.tunnel.events import ConfigureTun, GatewayEvent, SendPortal, SessionEnded
from wardgate.tunnel.flows import Drop, FlowTable, Forward, Refuse, inner_key, transmits
from wardgate.tunnel.nat import SHORTEST_LINGER_S, Side
from wardgate.tunnel.path_status import path_snapshots
from wardgate.tunnel.ranges import GATEWAY_ROUTES, is_proxy_address
from wardgate.wire import portal
from wardgate.wire.addresses import RandomBytes, SocketAddr, Transmit
from wardgate.wire.control import (
    AssignedIps,
    ControlMessage,
    DomainStatus,
    Goodbye,
    NatStatus,
    decode_control,
    encode_control,
    is_control_packet,
)
from wardgate.wire.icmp_errors import is_translatable, quoted, translate_error, unreachable
from wardgate.wire.ip import TCP, UDP, IpAddress, Packet, parse

MAX_PORTS_TRIED: Final = 64


class Grant(NamedTuple):
    """What an authorization is for."""

    client_id: ClientId
    resource_id: ResourceId


class GatewayState:
    """One gateway.

    Args:
        engine: The native tables; shared with the threads that forward.
        static: This process's WireGuard key.
        epoch: Unix seconds at monotonic 0.
    """

    def __init__(self, engine: Engine, static: StaticKey, epoch: float, random_bytes: RandomBytes) -> None:
        self._engine = engine
        self._epoch = epoch
        self._connections = Connections(engine, static, "gateway", epoch, random_bytes)
        self._flows = FlowTable(engine)
        self._grants = Authorizations[Grant](epoch)
        self._clients: dict[ClientId, ClientOnGateway] = {}
        self._client_by_peer: dict[PeerIndex, ClientOnGateway] = {}
        self._client_by_address: dict[IpAddress, ClientId] = {}
        self._resolving = Resolving()
        self._candidates = CandidateHold()
        self._own: tuple[IpAddress, ...] = ()
        self._is_portal_up = False
        self._now = 0.0
        self._nat_due = float("inf")
        self._transmits: deque[Transmit] = deque()
        self._packets: deque[bytes] = deque()
        self._decided: list[Decided] = []
        self._events: deque[GatewayEvent] = deque()
        self.counters: Counter[str] = Counter()

    # --- from a client -------------------------------------------------------------------------------------------

    def handle_upcall(self, upcall: Upcall, now: float) -> None:
        """Takes what the native side could not decide."""
        for error in self.handle_upcalls((upcall,), now):
            raise error

    def handle_upcalls(self, upcalls: Iterable[Upcall], now: float) -> list[Exception]:
        """As `handle_upcall`, for many at once; one that fails is lost alone, and its error given back."""
        errors: list[Exception] = []
        for upcall in upcalls:
            try:
                if not isinstance(upcall, PacketUpcall):
                    self._install(now)
                    self._handle_other(upcall, now)
                elif upcall.peer is None:
                    self._handle_tun_packet(upcall, now)
                else:
                    self._handle_peer_packet(upcall, PeerIndex(upcall.peer), now)
            except Exception as error:
                errors.append(error)
        try:
            self._settle(now)
        except Exception as error:
            errors.append(error)
        return errors

    def _handle_other(self, upcall: DatagramUpcall | SessionUpcall, now: float) -> None:
        if isinstance(upcall, DatagramUpcall):
            self._connections.handle_datagram(upcall, now)
        else:
            self._connections.handle_session(upcall, now)

    def _handle_peer_packet(self, upcall: PacketUpcall, peer: PeerIndex, now: float) -> None:
        """Peer -> client -> what holds for its target -> translation; what is neither TCP nor UDP goes the long way."""
        client, target = self._client_by_peer.get(peer), upcall.target
        if client is None or target is None or target[0] not in (TCP, UDP):
            self._handle_other_packet(client, upcall, peer, now)
            return
        inside = Side(upcall.inside or b"")
        admission = client.passes.get(target) or client.admit_target(target, inside, self._own)
        if isinstance(admission, Refuse):
            self._refuse(client, upcall.packet, admission, now)
            return
        outside = b"" if admission.real is None else client.nat.bind(inside, admission.real, now)
        if outside is None:
            self.counters["dropped_nat_full"] += 1
        else:
            self._decided.append((upcall, peer, admission.authorization, outside))

    def _refuse(self, client: ClientOnGateway, raw: bytes, refusal: Refuse, now: float) -> None:
        """Answers a packet that may not pass, unless it was sent to everybody."""
        packet = self._parse(raw)
        if packet is None:
            return
        if packet.destination.is_multicast:
            self.counters["dropped_multicast"] += 1
            return
        self.counters[f"refused_{refusal.reason}"] += 1
        answer = unreachable(packet, refusal.why)
        if answer is not None:
            self._connections.send(client.client_id, answer, now)

    def _handle_other_packet(
        self, client: ClientOnGateway | None, upcall: PacketUpcall, peer: PeerIndex, now: float
    ) -> None:
        """Takes probes, control packets, and what else is neither TCP nor UDP of a client."""
        if self._connections.handle_probe(upcall, now):
            return
        if client is None:
            self.counters["dropped_unknown_peer"] += 1
            return
        if is_control_packet(upcall.packet):
            self._install(now)
            self._handle_control(client, upcall.packet, now)
            return
        packet = self._parse(upcall.packet)
        if packet is None:
            return
        if packet.destination.is_multicast:
            self.counters["dropped_multicast"] += 1
            return
        match client.decide(packet, self._own, now):
            case Forward() if upcall.target is None:
                self._packets.append(packet.raw)
            case Forward(number, _, outside):
                self._decided.append((upcall, peer, number, outside or b""))
            case Refuse() as refusal:
                self._refuse(client, upcall.packet, refusal, now)
            case Drop(reason):
                self.counters[f"dropped_{reason}"] += 1

    def _install(self, now: float) -> None:
        """Opens the flows that were decided, and passes their packets."""
        decided, self._decided = self._decided, []
        if not decided:
            return
        packets, datagrams, exceptions = self._flows.install(decided, now)
        self._packets.extend(packets)
        self._transmits.extend(transmits(datagrams))
        self.counters["flows_installed"] += len(decided) - len(exceptions)
        for position, what in exceptions:
            upcall, peer, number, outside = decided[position]
            client = self._client_by_peer.get(PeerIndex(peer))
            if client is not None and outside:
                client.release(Side(upcall.inside or b""), now)
            if what == "full":
                self.counters["dropped_not_installed"] += 1
            elif what == "taken" and client is not None and upcall.peer is not None:
                self._install_elsewhere(client, upcall, number, Side(outside or upcall.inside or b""), now)

    def _install_elsewhere(
        self, client: ClientOnGateway, upcall: PacketUpcall, number: int, outside: Side, now: float
    ) -> None:
        """Gives a flow another port, as one of the client's own looks the same outside."""
        inside, taken = Side(upcall.inside or b""), {outside}
        for _ in range(MAX_PORTS_TRIED):
            other = client.nat.bind(inside, outside[3:], now, taken)
            if other is None:
                break
            packets, _, exceptions = self._flows.install([(upcall, upcall.peer or 0, number, other)], now)
            if not exceptions:
                self._packets.extend(packets)
                self.counters["flows_installed"] += 1
                return
            client.release(inside, now)
            if other in taken:  # other flows share its binding, which stays where it is
                break
            taken.add(other)
        self.counters["dropped_nat_full"] += 1

    def _parse(self, raw: bytes) -> Packet | None:
        try:
            return parse(raw)
        except RemoteProtocolError:
            self.counters["dropped_malformed"] += 1
            return None

    # --- to a client ---------------------------------------------------------------------------------------------

    def _handle_tun_packet(self, upcall: PacketUpcall, now: float) -> None:
        """Takes a packet from behind the gateway that no flow knows: nobody inside asked for it, but for errors."""
        packet = self._parse(upcall.packet)
        if packet is None:
            return
        client = self._clients.get(self._client_by_address.get(packet.destination, ClientId("")))
        peer = None if client is None else self._connections.index_of(client.client_id)
        if client is None or peer is None:
            self.counters["dropped_unknown_destination"] += 1
        elif packet.is_icmp_error:
            self._pass_error(client, peer, packet, now)
        elif packet.source not in self._own:
            self.counters["dropped_unsolicited"] += 1
        elif upcall.target is None:
            self._connections.send(client.client_id, packet.raw, now)
        else:
            self._decided.append((upcall, peer, 0, b""))

    def _pass_error(self, client: ClientOnGateway, peer: PeerIndex, packet: Packet, now: float) -> None:
        try:
            quote = quoted(packet)
        except RemoteProtocolError:
            self.counters["dropped_malformed"] += 1
            return
        flow = self._flows.by_host(quote.key)
        if flow is None or flow.peer != peer or not is_translatable(packet):
            self.counters["dropped_error_of_no_flow"] += 1
            return
        raw = packet.raw
        if flow.is_translated:
            inner = inner_key(flow)
            proxy_ip = inner.destination.ip
            raw = translate_error(
                packet,
                quote,
                source=proxy_ip if is_proxy_address(proxy_ip) else packet.source,
                destination=packet.destination,
                quoted_source=inner.source,
                quoted_destination=inner.destination,
            )
        self._connections.send(client.client_id, raw, now)

    # --- in-band control -----------------------------------------------------------------------------------------

    def _handle_control(self, client: ClientOnGateway, raw: bytes, now: float) -> None:
        try:
            message = decode_control(raw)
        except RemoteProtocolError:
            self.counters["dropped_malformed_control"] += 1
            return
        match message:
            case AssignedIps():
                self._handle_announcement(client, message, now)
            case Goodbye():
                self._lose(client.client_id)
                self._connections.remove(client.client_id, now, goodbye=False)
            case DomainStatus():
                self.counters["dropped_unexpected_control"] += 1

    def _handle_announcement(self, client: ClientOnGateway, message: AssignedIps, now: float) -> None:
        if client.begins_anew(message):
            self._cut_names(client)
        if not client.accepts(message):
            self._answer_announcement(client.client_id, message, False, now)
        elif not self._resolving.start(client.client_id, message, now):
            self.counters["dropped_resolving_full"] += 1

    def _cut_names(self, client: ClientOnGateway) -> None:
        client.forget_names()
        peer = self._connections.index_of(client.client_id)
        self._flows.remove_if(
            lambda flow: flow.peer == peer and is_proxy_address(ip_address(flow.inner_destination[0]))
        )

    def handle_resolved(
        self, request_id: int, ipv4s: Iterable[IpAddress], ipv6s: Iterable[IpAddress], error: str | None, now: float
    ) -> None:
        """Takes the answer to a `Resolve`: addresses, none of a family that has none; or why there is no answer."""
        announced = self._resolving.finish(request_id)
        if announced is not None:
            self._assign(announced, (*ipv4s, *ipv6s), error is None, now)
        self._settle(now)

    def _assign(self, announced: Announced, resolved: tuple[IpAddress, ...], is_answer: bool, now: float) -> None:
        client = self._clients.get(announced.client_id)
        if client is not None:
            is_active = is_answer and client.assign(announced.message, resolved)
            self._answer_announcement(announced.client_id, announced.message, is_active, now)

    def _answer_announcement(self, client_id: ClientId, message: AssignedIps, is_active: bool, now: float) -> None:
        status = NatStatus.ACTIVE if is_active else NatStatus.INACTIVE
        self._send_control(client_id, DomainStatus(status, message.resource_id, message.domain), now)

    def _send_control(self, client_id: ClientId, message: ControlMessage, now: float) -> None:
        self._connections.send(client_id, encode_control(message), now)

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

    def handle_portal(self, message: portal.ToGateway, now: float) -> None:
        """Takes one message of the portal."""
        match message:
            case portal.GatewayInit():
                self._handle_init(message, now)
            case portal.CreateAuthorization():
                self._handle_create_authorization(message, now)
            case portal.RejectAccess(client_id=client_id, resource_id=resource_id):
                self._end_grant(Grant(client_id, resource_id), now)
            case portal.ResourceUpdated(resource=resource):
                self._handle_resource_updated(resource)
            case portal.ClientIceCandidates(client_id=client_id, candidates=lines):
                self._connections.add_remote_candidates(client_id, lines, now)
            case portal.InvalidateClientIceCandidates(client_id=client_id, candidates=lines):
                self._connections.remove_remote_candidates(client_id, lines, now)
            case portal.RelaysPresence(disconnected_ids=remove, connected=add):
                self._connections.update_relays(remove, add, now)
            case portal.Disconnect(reason=portal.TOKEN_EXPIRED):
                self._events.append(SessionEnded(portal.TOKEN_EXPIRED))
            case portal.Disconnect() | portal.Unknown():
                self.counters["ignored_portal_messages"] += 1
        self._settle(now)

    def _handle_init(self, init: portal.GatewayInit, now: float) -> None:
        self._connections.update_relays((), init.relays, now)
        own = (init.interface.ipv4, init.interface.ipv6)
        is_changed, self._own = self._own != own, own
        listed = {Grant(one.client_id, one.resource_id): float(one.expires_at) for one in init.authorizations}
        for grant, authorization in self._grants.retain(listed):
            self._close(grant, authorization, now)
        if is_changed:
            for client in self._clients.values():
                client.passes.clear()
            self._events.append(ConfigureTun(init.interface.ipv4, init.interface.ipv6, GATEWAY_ROUTES))

    def _handle_create_authorization(self, message: portal.CreateAuthorization, now: float) -> None:
        asking = message.client
        before = self._connections.index_of(asking.id)
        peer = self._connections.upsert(
            asking.id,
            asking.public_key,
            asking.preshared_key,
            message.gateway_ice_credentials,
            message.client_ice_credentials,
            controlling=False,
            iceless=message.use_iceless,
            now=now,
        )
        if isinstance(peer, NoRelays):
            self._events.append(SendPortal(portal.NoRelays()))
            return
        if before != peer:
            self._lose(asking.id)
        client = self._upsert_client(asking)
        self._client_by_peer[peer] = client
        granted = self._grants.grant(Grant(asking.id, message.resource.id), message.expires_at)
        if granted is None:
            self.counters["refused_authorizations_full"] += 1
            return
        self._flows.label(granted.number, message.resource.id)
        if client.admit(message.resource, granted.number):
            self._flows.remove_authorization(peer, granted.number)
        self._events.append(SendPortal(portal.AuthorizationAcknowledged(ref=message.ref)))

    def _upsert_client(self, asking: portal.AuthorizedClient) -> ClientOnGateway:
        client = self._clients.get(asking.id)
        if client is None:
            client = self._clients[asking.id] = ClientOnGateway(asking.id, asking.ipv4, asking.ipv6)
        elif client.addresses != (asking.ipv4, asking.ipv6):
            self._forget_addresses(client)
            client.move(asking.ipv4, asking.ipv6)
            peer = self._connections.index_of(asking.id)
            if peer is not None:
                self._flows.remove_peer(peer)
        for address in client.addresses:
            self._client_by_address[address] = client.client_id
        return client

    def _forget_addresses(self, client: ClientOnGateway) -> None:
        for address in client.addresses:
            if self._client_by_address.get(address) == client.client_id:
                del self._client_by_address[address]

    def _handle_resource_updated(self, resource: portal.GatewayResource) -> None:
        for client_id, client in self._clients.items():
            admitted = client.admission(resource.id)
            if admitted is not None and client.admit(resource, admitted.number):
                peer = self._connections.index_of(client_id)
                if peer is not None:
                    self._flows.remove_authorization(peer, admitted.number)

    # --- the end of access ---------------------------------------------------------------------------------------

    def _end_grant(self, grant: Grant, now: float) -> None:
        authorization = self._grants.revoke(grant)
        if authorization is not None:
            self._close(grant, authorization, now)

    def _close(self, grant: Grant, authorization: Authorization, now: float) -> None:
        """Cuts the flows of a grant that has ended; with a client's last one, its connection."""
        client = self._clients.get(grant.client_id)
        if client is None:
            return
        client.revoke(grant.resource_id)
        peer = self._connections.index_of(grant.client_id)
        if peer is not None:
            self._flows.remove_authorization(peer, authorization.number)
        self._flows.unlabel(authorization.number)
        self.counters["authorizations_ended"] += 1
        if not client.admitted:
            self._lose(grant.client_id)
            self._connections.remove(grant.client_id, now, goodbye=True)
            self._candidates.forget(grant.client_id)
            self._forget_addresses(client)
            del self._clients[grant.client_id]

    def _lose(self, client_id: ClientId, reports: Iterable[FlowReport] = ()) -> None:
        """The connection is gone or about to be; what the client may reach stays, in case it comes back."""
        for peer in [peer for peer, owner in self._client_by_peer.items() if owner.client_id == client_id]:
            self._flows.remove_peer(peer, reports)
            self._release_ended(self._now)
            del self._client_by_peer[peer]

    # --- time and output -----------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        """Does what is due at `now`. Calling it early, late or twice is harmless."""
        self._connections.handle_timeout(now)
        for grant, authorization in self._grants.expire(now):
            self._close(grant, authorization, now)
        for announced in self._resolving.expire(now):
            self._assign(announced, (), False, now)
        self._flows.handle_timeout(now)
        if now >= self._nat_due:
            self._expire_nat(now)
        self._settle(now)

    def reset(self, now: float) -> None:
        """The host's network changed: finds new paths. Connections with ICE are closed, and their clients ask again."""
        self._connections.reset(now)
        self._settle(now)

    def handle_relay_way(self, relay_id: RelayId, alias: SocketAddr, kind: str | None, now: float) -> None:
        """Answers a `RelaySilent`, see `Connections.handle_relay_way`."""
        self._connections.handle_relay_way(relay_id, alias, kind, now)
        self._settle(now)

    def handle_goodbye(self, now: float) -> None:
        """Orderly end: tells every client, so that each asks for another gateway at once."""
        for client_id in sorted(self._clients):
            self._connections.remove(client_id, now, goodbye=True)
        self._settle(now)

    def _settle(self, now: float) -> None:
        """Takes what the parts produced and makes it this machine's output."""
        self._now = now
        self._install(now)
        while (event := self._connections.poll_event()) is not None:
            match event:
                case NewCandidates(peer_id, lines):
                    self._candidates.add(peer_id, tuple(lines))
                case InvalidatedCandidates(peer_id, lines):
                    self._candidates.remove(peer_id, tuple(lines))
                case Failed(peer_id, _, reports) | Closed(peer_id, reports):
                    self._lose(ClientId(peer_id), reports)
                    self._candidates.forget(peer_id)
                    self.counters["connections_lost"] += 1
                case RelaysNeeded():
                    self._events.append(SendPortal(portal.NoRelays()))
                case RelaySilent():
                    self._events.append(event)
                case Established() | PathChanged():
                    pass
        self._release_ended(now)
        while (request := self._resolving.poll_request()) is not None:
            self._events.append(request)
        if self._is_portal_up:
            self._send_candidates()

    def _release_ended(self, now: float) -> None:
        while (ended := self._flows.poll_ended()) is not None:
            client = self._client_by_peer.get(PeerIndex(ended.flow.peer)) if ended.flow.is_translated else None
            if client is not None:
                client.release(Side(ended.flow.inside), now, linger=ended.is_lost)
                self._nat_due = min(self._nat_due, now + SHORTEST_LINGER_S) if ended.is_lost else self._nat_due

    def _send_candidates(self) -> None:
        for batch in self._candidates.take():
            ids = (ClientId(batch.peer_id),)
            if batch.removed:
                gone = portal.BroadcastWithdrawnClientCandidates(client_ids=ids, candidates=batch.removed)
                self._events.append(SendPortal(gone))
            if batch.added:
                new = portal.BroadcastClientCandidates(client_ids=ids, candidates=batch.added)
                self._events.append(SendPortal(new))

    def poll_transmit(self) -> Transmit | None:
        """The next datagram to send."""
        return self._transmits.popleft() if self._transmits else self._connections.poll_transmit()

    def poll_packet(self) -> bytes | None:
        """The next packet for the TUN device."""
        return self._packets.popleft() if self._packets else None

    def poll_event(self) -> GatewayEvent | None:
        """The next thing to ask of the program."""
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> float | None:
        """When to call `handle_timeout`; at once while output waits."""
        if self._transmits or self._packets or self._events:
            return self._now
        times = [self._connections.poll_timeout(), self._grants.poll_timeout(), self._resolving.poll_timeout()]
        times += [self._flows.poll_timeout(), self._nat_due if self._nat_due != float("inf") else None]
        return min((time for time in times if time is not None), default=None)

    def _expire_nat(self, now: float) -> None:
        for client in self._clients.values():
            client.nat.expire(now)
        self._nat_due = min((client.nat.next_expiry() for client in self._clients.values()), default=float("inf"))

    def snapshot(self) -> dict[str, Any]:
        """What `status` and `/metrics` show; plain JSON."""
        grants = {grant: self._grants.get(grant) for grant in self._grants}
        return gateway_snapshot(
            GatewayView(
                clients=self._clients,
                expiries={grant: one.expires_at for grant, one in grants.items() if one is not None},
                flows=self._flows,
                own=self._own,
                is_portal_up=self._is_portal_up,
                paths=path_snapshots(self._connections, self._epoch),
                counters={**self.counters, **self._connections.counts, **self._flows.counters()},
                now=self._now,
                epoch=self._epoch,
            )
        )
