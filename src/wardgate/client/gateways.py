"""The gateways a client knows: which of them serves which resource, and what waits for their connection."""

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from wardgate.client.dns import TunnelQuery
from wardgate.ids import GatewayId, ResourceId, SiteId
from wardgate.tunnel.pending import MAX_WAITING_QUERIES, UniquePackets
from wardgate.wire.ip import IpAddress


@dataclass(slots=True)
class GatewayOnClient:
    """One gateway.

    Attributes:
        numbers: What flows are marked with, by resource that was granted there.
        is_connected: Whether there is a path and a session.
        waiting, queries: What waits for both; it is routed anew then.
    """

    gateway_id: GatewayId
    site_id: SiteId
    ipv4: IPv4Address
    ipv6: IPv6Address
    numbers: dict[ResourceId, int] = field(default_factory=dict)
    is_connected: bool = False
    waiting: UniquePackets = field(default_factory=UniquePackets)
    queries: deque[TunnelQuery] = field(default_factory=lambda: deque(maxlen=MAX_WAITING_QUERIES))

    @property
    def addresses(self) -> tuple[IpAddress, IpAddress]:
        """Its tunnel addresses."""
        return self.ipv4, self.ipv6


class Gateways:
    """Every gateway by id; bounded by the resources, as one without a grant is forgotten.

    Args:
        numbers: What flows are marked with, one for each grant.
    """

    def __init__(self, numbers: Iterator[int] | None = None) -> None:
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._by_id: dict[GatewayId, GatewayOnClient] = {}
        self._by_address: dict[IpAddress, GatewayId] = {}
        self._by_resource: dict[ResourceId, GatewayId] = {}

    def get(self, gateway_id: str) -> GatewayOnClient | None:
        """One gateway."""
        return self._by_id.get(GatewayId(gateway_id))

    def all(self) -> tuple[GatewayOnClient, ...]:
        """Every gateway, by id."""
        return tuple(self._by_id[gateway_id] for gateway_id in sorted(self._by_id))

    def at(self, address: IpAddress) -> GatewayOnClient | None:
        """The gateway with that tunnel address."""
        return self._by_id.get(self._by_address.get(address, GatewayId("")))

    def serving(self, resource_id: ResourceId) -> GatewayOnClient | None:
        """The gateway where access to a resource was granted."""
        return self._by_id.get(self._by_resource.get(resource_id, GatewayId("")))

    def upsert(self, gateway_id: GatewayId, site_id: SiteId, ipv4: IPv4Address, ipv6: IPv6Address) -> GatewayOnClient:
        """The gateway, with these addresses."""
        gateway = self._by_id.get(gateway_id)
        if gateway is None:
            gateway = self._by_id[gateway_id] = GatewayOnClient(gateway_id, site_id, ipv4, ipv6)
        else:
            self._forget_addresses(gateway)
            gateway.ipv4, gateway.ipv6 = ipv4, ipv6
        for address in gateway.addresses:
            self._by_address[address] = gateway_id
        return gateway

    def authorize(self, gateway: GatewayOnClient, resource_id: ResourceId) -> int:
        """Notes that a resource was granted there; returns what its flows are marked with."""
        number = gateway.numbers.get(resource_id)
        if number is None:
            number = gateway.numbers[resource_id] = next(self._numbers)
        self._by_resource[resource_id] = gateway.gateway_id
        return number

    def revoke(self, resource_id: ResourceId) -> tuple[GatewayOnClient, int] | None:
        """A grant has ended; returns where it was, and its flows' mark."""
        gateway = self.serving(resource_id)
        self._by_resource.pop(resource_id, None)
        number = None if gateway is None else gateway.numbers.pop(resource_id, None)
        return None if gateway is None or number is None else (gateway, number)

    def remove(self, gateway_id: GatewayId) -> GatewayOnClient | None:
        """Forgets a gateway with its grants."""
        gateway = self._by_id.pop(gateway_id, None)
        if gateway is not None:
            self._forget_addresses(gateway)
            for resource_id in gateway.numbers:
                if self._by_resource.get(resource_id) == gateway_id:
                    del self._by_resource[resource_id]
        return gateway

    def preferred(self, resource_id: ResourceId) -> tuple[GatewayId, ...]:
        """All gateways, the best for a resource first: granted there, connected, lower id."""

        def order(gateway: GatewayOnClient) -> tuple[bool, bool, GatewayId]:
            return resource_id not in gateway.numbers, not gateway.is_connected, gateway.gateway_id

        return tuple(gateway.gateway_id for gateway in sorted(self._by_id.values(), key=order))

    def _forget_addresses(self, gateway: GatewayOnClient) -> None:
        for address in gateway.addresses:
            if self._by_address.get(address) == gateway.gateway_id:
                del self._by_address[address]
