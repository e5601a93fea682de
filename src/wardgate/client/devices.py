"""Other clients: those that we reach through device pools, and those that reach us.

A grant is one-way. What we may reach is asked for by pool and address, and ends with the pool, the device's place in
it, or the portal's word. Who may reach us the portal says unasked, with filters and an expiry. Both ways share one
connection, and one that serves neither any more is ended with a goodbye, so that the other end asks anew instead of
sending into the void.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple, NewType

from wardgate._fastpath import FlowReport
from wardgate.client.denials import Denial, Denials
from wardgate.client.outbox import Outbox
from wardgate.client.resources import Resources
from wardgate.ids import ClientId, PeerIndex, ResourceId
from wardgate.tunnel.authorizations import Authorizations
from wardgate.tunnel.candidates import CandidateHold
from wardgate.tunnel.connections import Connections, NoRelays
from wardgate.tunnel.filters import Filters
from wardgate.tunnel.flows import Drop, FlowTable, Forward, Refuse, Verdict
from wardgate.tunnel.pending import PendingAuthorizations, UniquePackets
from wardgate.wire import portal
from wardgate.wire.icmp_errors import Unreachable, unreachable
from wardgate.wire.ip import IpAddress, Packet

FIRST_INBOUND_NUMBER: Final = 1 << 32
"""Inbound flows are marked from here on; below are those of what we may reach."""

OFFLINE: Final = "offline"
"""The one reason that passes by itself: what waits is dropped, not refused."""
Ask = NewType("Ask", str)
"""A pool and an address in it: what the portal is asked for."""


class Inbound(NamedTuple):
    """A grant of the portal: that client may reach us through that pool."""

    client_id: ClientId
    resource_id: ResourceId


@dataclass(slots=True)
class DeviceOnClient:
    """One other client.

    Attributes:
        outbound: What flows to it are marked with, by pool that it was granted through.
        inbound: Through which pools it may reach us, with their filters.
        is_connected: Whether there is a path and a session.
        waiting: What waits for both; it is routed anew then.
    """

    client_id: ClientId
    name: str
    ipv4: IPv4Address
    ipv6: IPv6Address
    outbound: dict[ResourceId, int] = field(default_factory=dict)
    inbound: dict[ResourceId, Filters] = field(default_factory=dict)
    is_connected: bool = False
    waiting: UniquePackets = field(default_factory=UniquePackets)

    @property
    def addresses(self) -> tuple[IpAddress, IpAddress]:
        """Its tunnel addresses."""
        return self.ipv4, self.ipv6


class Devices:
    """Every other client by id; bounded by the connections and by the inbound grants."""

    def __init__(
        self,
        connections: Connections,
        flows: FlowTable,
        resources: Resources,
        denials: Denials,
        candidates: CandidateHold,
        outbox: Outbox,
        epoch: float,
        numbers: Iterator[int],
    ) -> None:
        self._connections = connections
        self._flows = flows
        self._resources = resources
        self._denials = denials
        self._candidates = candidates
        self._outbox = outbox
        self._numbers = numbers
        self._grants = Authorizations[Inbound](epoch, FIRST_INBOUND_NUMBER)
        self._pending = PendingAuthorizations[Ask, None]()
        self._by_id: dict[ClientId, DeviceOnClient] = {}
        self._by_address: dict[IpAddress, ClientId] = {}
        self._peers: dict[ClientId, PeerIndex] = {}

    # --- looking up ----------------------------------------------------------------------------------------------

    def get(self, client_id: str) -> DeviceOnClient | None:
        """One other client."""
        return self._by_id.get(ClientId(client_id))

    def all(self) -> tuple[DeviceOnClient, ...]:
        """Every other client, by id."""
        return tuple(self._by_id[client_id] for client_id in sorted(self._by_id))

    def at(self, address: IpAddress) -> DeviceOnClient | None:
        """The client with that tunnel address."""
        return self._by_id.get(self._by_address.get(address, ClientId("")))

    def is_pool(self, resource_id: ResourceId) -> bool:
        """Whether a resource is a pool of devices."""
        return isinstance(self._resources.get(resource_id), portal.StaticDevicePool | portal.DynamicDevicePool)

    def granted(self, resource_id: ResourceId, address: IpAddress) -> DeviceOnClient | None:
        """The device of that address, if it was granted through that pool."""
        device = self.at(address)
        return device if device is not None and resource_id in device.outbound else None

    # --- reaching others -----------------------------------------------------------------------------------------

    def wait(self, resource_id: ResourceId, packet: Packet, now: float) -> None:
        """Keeps a packet until access is granted, and asks for it if that is due."""
        address = packet.destination
        if not self._pending.add_packet(_ask(resource_id, address), packet, now):
            return
        family = "ipv4" if address.version == 4 else "ipv6"
        ask = portal.RequestAuthorization.model_validate({"resource_id": resource_id, family: str(address)})
        self._outbox.to_portal.append(ask)

    def authorized(self, message: portal.ClientDeviceAccessAuthorized, now: float) -> bool:
        """Takes a grant, of ours or to us; returns whether it was of use (else ignored)."""
        addresses = (message.client_ipv4, message.client_ipv6)
        asked = self._asked_for(addresses) if message.resource is None else {}
        if message.resource is None and not asked:
            return False
        peer = self._connections.upsert(
            message.client_id,
            message.client_public_key,
            message.preshared_key,
            message.local_ice_credentials,
            message.remote_ice_credentials,
            controlling=message.ice_role == "controlling",
            iceless=message.use_iceless,
            now=now,
        )
        if isinstance(peer, NoRelays):
            self._outbox.to_portal.append(portal.NoRelays())
            return False
        if self._peers.get(message.client_id, peer) != peer:
            self._disconnected(message.client_id)
        self._peers[message.client_id] = peer
        device = self._upsert(message)
        if message.resource is not None:
            self._admit(device, message.resource, message.expires_at)
        for ask, resource_id in asked.items():
            if resource_id not in device.outbound:
                number = device.outbound[resource_id] = next(self._numbers)
                self._flows.label(number, resource_id)
            waiting = self._pending.take(ask)
            self._outbox.to_route.extend(() if waiting is None else waiting.packets.take())
        return True

    def _asked_for(self, addresses: Iterable[IpAddress]) -> dict[Ask, ResourceId]:
        """What is being asked of a device: the portal's grant does not say which pool it is for."""
        pools = [resource.id for resource in self._resources.all() if self.is_pool(resource.id)]
        asks = {_ask(pool, address): pool for pool in pools for address in addresses}
        return {ask: pool for ask, pool in asks.items() if ask in self._pending}

    def _upsert(self, message: portal.ClientDeviceAccessAuthorized) -> DeviceOnClient:
        device = self._by_id.get(message.client_id)
        if device is None:
            device = DeviceOnClient(message.client_id, message.client_name, message.client_ipv4, message.client_ipv6)
            self._by_id[device.client_id] = device
        self._forget_addresses(device)
        device.name, device.ipv4, device.ipv6 = message.client_name, message.client_ipv4, message.client_ipv6
        for address in device.addresses:
            self._by_address[address] = device.client_id
        return device

    def denied(self, message: portal.ClientDeviceAccessDenied, now: float) -> None:
        """Takes the portal's no: to what was asked, or else to a device that we reached so far."""
        addresses = [one for one in (message.ipv4, message.ipv6) if one is not None]
        asked = self._asked_for(addresses)
        for ask, resource_id in asked.items():
            waiting = self._pending.take(ask)
            self._deny(resource_id, message.reason, now)
            if waiting is not None and message.reason != OFFLINE:
                self._refuse(waiting.packets.take())
        device = next((found for one in addresses if (found := self.at(one)) is not None), None)
        if device is not None and not asked:
            for resource_id in device.outbound:
                self._deny(resource_id, message.reason, now)
            self.leave(device, now)

    def _deny(self, resource_id: ResourceId, reason: str, now: float) -> None:
        resource = self._resources.get(resource_id)
        if resource is not None:
            self._denials.deny(Denial(resource_id, resource.name, reason, now))

    def _refuse(self, packets: Iterable[Packet]) -> None:
        errors = (unreachable(packet, Unreachable.PROHIBITED) for packet in packets)
        self._outbox.to_tun.extend(error for error in errors if error is not None)

    def end(self, resource_id: ResourceId, now: float) -> list[FlowReport]:
        """A pool is gone or another one: cuts its flows, and leaves the devices that are in it no more."""
        cut: list[FlowReport] = []
        for device in self.all():
            number = device.outbound.get(resource_id)
            if number is None:
                continue
            cut += self._flows.remove_authorization(self._peers[device.client_id], number)
            if not any(self._is_in(resource_id, address) for address in device.addresses):
                del device.outbound[resource_id]
                self._flows.unlabel(number)
                self._end_if_unused(device, now)
        return cut

    def _is_in(self, resource_id: ResourceId, address: IpAddress) -> bool:
        return self._resources.routes.covers((resource_id,), address)

    # --- being reached -------------------------------------------------------------------------------------------

    def _admit(self, device: DeviceOnClient, pool: portal.StaticDevicePool, expires_at: int | None) -> None:
        if self._grants.grant(Inbound(device.client_id, pool.id), expires_at) is not None:
            device.inbound[pool.id] = Filters(pool.filters)

    def retain(self, listed: Iterable[portal.AuthorizationRef], now: float) -> None:
        """Keeps the inbound grants that the portal lists, with their expiry, and ends the others."""
        kept: Mapping[Inbound, float] = {Inbound(one.client_id, one.resource_id): one.expires_at for one in listed}
        for grant, _ in self._grants.retain(kept):
            self._close(grant, now)

    def reject(self, message: portal.RejectAccess, now: float) -> None:
        """Ends an inbound grant."""
        grant = Inbound(message.client_id, message.resource_id)
        if self._grants.revoke(grant) is not None:
            self._close(grant, now)

    def refilter(self, message: portal.ResourceFiltersUpdated) -> None:
        """A pool that others reach us through has other filters: their flows are decided anew."""
        for device in self.all():
            if message.id in device.inbound:
                device.inbound[message.id] = Filters(message.filters)
                self._cut_inbound(device)

    def _close(self, grant: Inbound, now: float) -> None:
        device = self._by_id.get(grant.client_id)
        if device is not None and device.inbound.pop(grant.resource_id, None) is not None:
            self._cut_inbound(device)
            self._end_if_unused(device, now)

    def _cut_inbound(self, device: DeviceOnClient) -> None:
        """Several pools may permit one flow, so all flows from a device are marked alike, and decided anew together."""
        peer = self._peers.get(device.client_id)
        if peer is not None:
            self._flows.remove_authorization(peer, FIRST_INBOUND_NUMBER)

    def decide(self, device: DeviceOnClient, packet: Packet, own: tuple[IpAddress, ...]) -> Verdict:
        """What becomes of a packet from another client that no flow knows."""
        if packet.source not in device.addresses:
            return Drop("foreign_source")
        if packet.destination not in own:
            return Drop("foreign_destination")
        if not any(one.permits(packet.protocol, packet.destination_port) for one in device.inbound.values()):
            return Refuse(Unreachable.PROHIBITED, "inbound")
        return Forward(FIRST_INBOUND_NUMBER)

    # --- connections ---------------------------------------------------------------------------------------------

    def connected(self, device: DeviceOnClient) -> None:
        """A path and a session are there: what waited for them goes on."""
        device.is_connected = True
        self._outbox.to_route.extend(device.waiting.take())

    def lost(self, device: DeviceOnClient, reports: Iterable[FlowReport] = ()) -> None:
        """Its connection is gone: the next packet to it asks anew. What it may reach stays, in case it comes back."""
        self._disconnected(device.client_id, reports)
        self._peers.pop(device.client_id, None)
        self._candidates.forget(device.client_id)
        for resource_id, number in device.outbound.items():
            self._flows.unlabel(number)
            for address in device.addresses:
                self._pending.hurry(_ask(resource_id, address))
        device.outbound.clear()
        self._outbox.to_route.extend(device.waiting.take())
        if not device.inbound:
            self._forget(device)

    def leave(self, device: DeviceOnClient, now: float) -> None:
        """Ends the connection with a goodbye."""
        self._connections.remove(device.client_id, now, goodbye=True)
        self.lost(device)

    def leave_all(self, now: float) -> None:
        """Tells every other client goodbye."""
        for device in self.all():
            self.leave(device, now)

    def _end_if_unused(self, device: DeviceOnClient, now: float) -> None:
        if not device.outbound and not device.inbound:
            self.leave(device, now)

    def _disconnected(self, client_id: ClientId, reports: Iterable[FlowReport] = ()) -> None:
        device, peer = self._by_id.get(client_id), self._peers.get(client_id)
        if peer is not None:
            self._flows.remove_peer(peer, reports)
        if device is not None:
            device.is_connected = False

    def _forget(self, device: DeviceOnClient) -> None:
        self._forget_addresses(device)
        self._by_id.pop(device.client_id, None)

    def _forget_addresses(self, device: DeviceOnClient) -> None:
        for address in device.addresses:
            if self._by_address.get(address) == device.client_id:
                del self._by_address[address]

    # --- time ----------------------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        """Ends inbound grants that ran out."""
        for grant, _ in self._grants.expire(now):
            self._close(grant, now)

    def poll_timeout(self) -> float | None:
        """When the next one does."""
        return self._grants.poll_timeout()


def _ask(resource_id: ResourceId, address: IpAddress) -> Ask:
    return Ask(f"{resource_id} {address}")
