"""What this client may reach now, through which gateway, and how that begins and ends."""

import itertools
from collections.abc import Iterable
from ipaddress import ip_address

from wardgate._fastpath import FlowReport
from wardgate.client.denials import Denial, Denials
from wardgate.client.devices import Devices
from wardgate.client.dns import TunnelQuery
from wardgate.client.gateways import GatewayOnClient, Gateways
from wardgate.client.outbox import Outbox
from wardgate.client.resources import Change, Resources, SiteStatus
from wardgate.client.revocations import Revocations
from wardgate.ids import GatewayId, PeerIndex, ResourceId, SiteId
from wardgate.tunnel.candidates import CandidateHold
from wardgate.tunnel.connections import Connections, NoRelays
from wardgate.tunnel.control import NameAnnouncements
from wardgate.tunnel.flows import FlowTable, inner_key
from wardgate.tunnel.pending import PendingAuthorizations
from wardgate.wire import portal
from wardgate.wire.icmp_errors import Unreachable, unreachable
from wardgate.wire.ip import FlowKey, Packet
from wardgate.wire.portal import CidrResource

ACCESS_REMOVED = "access_removed"
RESOURCE_CHANGED = "resource_changed"
OFFLINE = "offline"
RENEW_INTERVAL_S = 5.0
REFUSED_AT_ONCE = frozenset({"forbidden", "not_found", "disabled", "version_mismatch"})
"""Reasons that do not pass by themselves soon: what waits is refused, so that programs fail rather than hang."""


class Access:
    """Resources, the gateways that serve them, and everything that waits for or hangs on a grant."""

    def __init__(self, connections: Connections, flows: FlowTable, epoch: float, *, is_internet_active: bool) -> None:
        numbers = itertools.count(1)
        self._connections = connections
        self._flows = flows
        self._peers: dict[GatewayId, PeerIndex] = {}
        self._renewed_at: dict[ResourceId, float] = {}
        self.resources = Resources(is_internet_active=is_internet_active)
        self.gateways = Gateways(numbers)
        self.sites = SiteStatus()
        self.pending = PendingAuthorizations[ResourceId, TunnelQuery]()
        self.announcements = NameAnnouncements()
        self.candidates = CandidateHold()
        self.revocations = Revocations()
        self.denials = Denials()
        self.outbox = Outbox()
        self.devices = Devices(
            connections, flows, self.resources, self.denials, self.candidates, self.outbox, epoch, numbers
        )

    # --- asking --------------------------------------------------------------------------------------------------

    def wait(self, resource_id: ResourceId, packet: Packet, now: float) -> None:
        """Keeps a packet until access is granted, and asks for it if that is due."""
        if self.pending.add_packet(resource_id, packet, now):
            self.ask(resource_id)

    def ask(self, resource_id: ResourceId) -> None:
        """Asks the portal for access."""
        ids = self.gateways.preferred(resource_id)
        self.outbox.to_portal.append(portal.RequestAuthorization(resource_id=resource_id, connected_gateway_ids=ids))

    def renew(self, resource_id: ResourceId, now: float) -> None:
        """Asks again for what a gateway prohibits although it was granted: it has forgotten, or the grant ran out.

        Meanwhile everything stays as it is.
        """
        asked_at = self._renewed_at.get(resource_id)
        if asked_at is None or now - asked_at >= RENEW_INTERVAL_S:
            self._renewed_at[resource_id] = now
            self.ask(resource_id)

    def granted(self, message: portal.AuthorizationCreated, now: float) -> bool:
        """Connects to the gateway and lets go what waited; returns whether it was of use (else ignored)."""
        if not self._is_awaited(message.resource_id):
            return False
        peer = self._connections.upsert(
            message.gateway_id,
            message.gateway_public_key,
            message.preshared_key,
            message.client_ice_credentials,
            message.gateway_ice_credentials,
            controlling=True,
            iceless=message.use_iceless,
            now=now,
        )
        if isinstance(peer, NoRelays):
            self.outbox.to_portal.append(portal.NoRelays())
            return False
        if self._peers.get(message.gateway_id, peer) != peer:
            self.lost(message.gateway_id)
        self._peers[message.gateway_id] = peer
        gateway = self.gateways.upsert(message.gateway_id, message.site_id, message.gateway_ipv4, message.gateway_ipv6)
        self._move(message.resource_id, gateway, now)
        self._flows.label(self.gateways.authorize(gateway, message.resource_id), message.resource_id)
        waiting = self.pending.take(message.resource_id)
        if waiting is not None:
            self.outbox.to_route.extend(waiting.packets.take())
            self.outbox.to_ask.extend(waiting.queries)
        return True

    def refused(self, message: portal.AuthorizationCreationFailed, now: float) -> None:
        """Notes why access was not given; the next ask comes with traffic, two seconds after the last."""
        resource = self.resources.get(message.resource_id)
        if resource is None or not self._is_awaited(message.resource_id):
            return
        self.denials.deny(Denial(message.resource_id, resource.name, message.reason, now, message.violated_properties))
        if message.reason == OFFLINE:
            waiting = self.pending.take(message.resource_id)
            self.outbox.unanswerable.extend(() if waiting is None else waiting.queries)
            for site_id in _sites(resource):
                self.sites.offline(site_id, now)
        elif message.reason in REFUSED_AT_ONCE:
            self._refuse_waiting(message.resource_id)

    def _is_awaited(self, resource_id: ResourceId) -> bool:
        is_asked = resource_id in self.pending or resource_id in self._renewed_at
        return is_asked and resource_id in self.resources

    def _refuse_waiting(self, resource_id: ResourceId) -> None:
        waiting = self.pending.take(resource_id)
        self.outbox.unanswerable.extend(() if waiting is None else waiting.queries)
        for packet in () if waiting is None else waiting.packets.take():
            error = unreachable(packet, Unreachable.PROHIBITED)
            if error is not None:
                self.outbox.to_tun.append(error)

    def _move(self, resource_id: ResourceId, gateway: GatewayOnClient, now: float) -> None:
        """Ends a grant at another gateway."""
        before = self.gateways.serving(resource_id)
        if before is not None and before is not gateway:
            self._revoke(resource_id, now)

    # --- connections ---------------------------------------------------------------------------------------------

    def connected(self, gateway_id: str) -> None:
        """A path and a session are there: what waited for them goes on."""
        gateway, device = self.gateways.get(gateway_id), self.devices.get(gateway_id)
        if device is not None:
            self.devices.connected(device)
        if gateway is None:
            return
        if not gateway.is_connected:
            gateway.is_connected = True
            self.sites.connected(gateway.site_id)
        self.outbox.to_route.extend(gateway.waiting.take())
        self.outbox.to_ask.extend(gateway.queries)
        gateway.queries.clear()

    def lost(self, gateway_id: str, reports: Iterable[FlowReport] = ()) -> None:
        """A connection is gone: forgets the gateway, so that the next packet asks for one at once.

        Args:
            reports: Of its flows, if the engine has forgotten them already.
        """
        gateway, device = self.gateways.get(gateway_id), self.devices.get(gateway_id)
        if device is not None:
            self.devices.lost(device, reports)
        if gateway is None:
            return
        self._disconnected(gateway.gateway_id, reports)
        self._peers.pop(gateway.gateway_id, None)
        self.gateways.remove(gateway.gateway_id)
        self.candidates.forget(gateway_id)
        for resource_id in gateway.numbers:
            self.pending.hurry(resource_id)
            self._renewed_at.pop(resource_id, None)
        self.outbox.to_route.extend(gateway.waiting.take())
        self.outbox.to_ask.extend(gateway.queries)
        gateway.queries.clear()

    def leave_all(self, now: float) -> None:
        """Tells everybody goodbye and forgets them: nothing is asked of them any more, or from another address."""
        self.devices.leave_all(now)
        for gateway in self.gateways.all():
            self._connections.remove(gateway.gateway_id, now, goodbye=True)
            self.lost(gateway.gateway_id)

    def _disconnected(self, gateway_id: GatewayId, reports: Iterable[FlowReport] = ()) -> None:
        """The connection is gone or was replaced: its flows and what the gateway was told are void."""
        peer = self._peers.get(gateway_id)
        if peer is not None:
            self._flows.remove_peer(peer, reports)
        self.announcements.remove_gateway(gateway_id)
        gateway = self.gateways.get(gateway_id)
        if gateway is not None and gateway.is_connected:
            gateway.is_connected = False
            self.sites.disconnected(gateway.site_id)

    # --- changes of resources ------------------------------------------------------------------------------------

    def apply(self, change: Change, now: float) -> None:
        """Ends and reconsiders what a change of the resources concerns."""
        for resource in change.removed:
            self._end(resource, now)
        for resource_id in change.added:
            self.revocations.restore(resource_id, self._is_permitted)
        if change.added:
            self._flows.remove_if(self._is_misrouted)

    def _end(self, resource: portal.ClientResource, now: float) -> None:
        """Ends access; flows that no other resource permits are cut, the others may be asked for anew."""
        is_gone = resource.id not in self.resources
        flows = self._revoke(resource.id, now) + self.devices.end(resource.id, now)
        keys = [inner_key(flow) for flow in flows] + self.revocations.take_lost(resource.id)
        cut = [key for key in keys if not self._is_permitted(key)]
        self.pending.forget(resource.id)
        network = resource.address if isinstance(resource, CidrResource) else None
        count = self.revocations.cut(resource.id, cut, network, now)
        if is_gone or count:
            reason = ACCESS_REMOVED if is_gone else RESOURCE_CHANGED
            self.denials.deny(Denial(resource.id, resource.name, reason, now, flows_cut=count))

    def _revoke(self, resource_id: ResourceId, now: float) -> list[FlowReport]:
        """Ends a grant with its flows; a gateway without any grant left is told goodbye."""
        self.announcements.remove_resource(resource_id)
        self._renewed_at.pop(resource_id, None)
        revoked = self.gateways.revoke(resource_id)
        if revoked is None:
            return []
        gateway, number = revoked
        flows = self._flows.remove_authorization(self._peers[gateway.gateway_id], number)
        self._flows.unlabel(number)
        if not gateway.numbers:
            self._connections.remove(gateway.gateway_id, now, goodbye=True)
            self.lost(gateway.gateway_id)
        return flows

    def _is_permitted(self, key: FlowKey) -> bool:
        route = self._lookup(key)
        return route is not None and route[1]

    def _is_misrouted(self, flow: FlowReport) -> bool:
        resource_id = self._flows.resource_of(flow)
        if resource_id is None:
            return False
        route = self._lookup(inner_key(flow))
        return route is None or route[0] != resource_id

    def _lookup(self, key: FlowKey) -> tuple[ResourceId, bool] | None:
        port = key.destination.port if key.protocol in (6, 17) else 0
        route = self.resources.routes.lookup(ip_address(key.destination.host), key.protocol, port)
        return None if route is None else (route.resource_id, route.filters.permits(key.protocol, port))


def _sites(resource: portal.ClientResource) -> tuple[SiteId, ...]:
    return tuple(site.id for site in getattr(resource, "sites", ()))
