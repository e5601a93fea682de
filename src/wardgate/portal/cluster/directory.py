"""Who is connected to which other portal, as far as those have said.

A device that two portals have at the same time is one of them alone: `wins` decides, the same everywhere, and the
portal of the other connection closes it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from wardgate.ids import AccountId, ClientId, GatewayId, RelayId, SiteId
from wardgate.portal.cluster.messages import ClientRecord, GatewayRecord, Record, RelayRecord
from wardgate.portal.cluster.remote import RemoteClient, RemoteGateway, Sender
from wardgate.portal.index import Index


class Placed(Protocol):
    """A connection as far as its right to a device's place goes."""

    @property
    def order(self) -> int:
        """Which connection it is."""

    @property
    def replaces(self) -> int | None:
        """The order of the connection whose place it took."""


def newer_wins(one: Placed, other: Placed) -> bool:
    """Whether a client's or relay's connection keeps its place against another one of the same device."""
    if one.replaces == other.order or other.replaces == one.order:
        return one.replaces == other.order
    return one.order > other.order


def gateway_wins(one: Placed, other: Placed, *, same_key: bool) -> bool:
    """Whether a gateway's connection keeps its place: the same program's newer one, else the first one."""
    if one.replaces == other.order or other.replaces == one.order:
        return one.replaces == other.order
    return one.order > other.order if same_key else one.order < other.order


@dataclass(slots=True)
class Node:
    """Another portal."""

    id: str
    records: dict[int, Record] = field(default_factory=dict)
    by_device: dict[str, Record] = field(default_factory=dict)


class Directory:
    """The channels of other portals."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.sender: Sender | None = None
        self.arrived: Callable[[str, Record], None] = lambda node_id, record: None
        self.relays_changed: Callable[[], None] = lambda: None
        self._clients: Index[ClientId, RemoteClient] = Index(lambda client: client.account_id)
        self._gateways: Index[GatewayId, RemoteGateway] = Index(lambda gateway: (gateway.account_id, gateway.site_id))
        self._relays: dict[RelayId, RelayRecord] = {}

    # --- looking ----------------------------------------------------------------------------------------------------

    def client(self, client_id: ClientId) -> RemoteClient | None:
        """The client with that id."""
        return self._clients.get(client_id)

    def gateway(self, gateway_id: GatewayId) -> RemoteGateway | None:
        """The gateway with that id."""
        return self._gateways.get(gateway_id)

    def gateways(self, account_id: AccountId, site_id: SiteId | None) -> list[RemoteGateway]:
        """The gateways of a site."""
        return self._gateways.of(0, (account_id, site_id))

    def relays(self) -> list[RelayRecord]:
        """All relays."""
        return list(self._relays.values())

    def relay(self, relay_id: RelayId) -> RelayRecord | None:
        """The relay with that id."""
        return self._relays.get(relay_id)

    # --- learning ---------------------------------------------------------------------------------------------------

    def change(self, node_id: str, changed: Iterable[Record], gone: Iterable[int] = ()) -> None:
        """Channels of a portal came, changed or left."""
        node = self.nodes.setdefault(node_id, Node(node_id))
        touched: dict[tuple[str, str], None] = {}
        for order in gone:
            record = node.records.pop(order, None)
            if record is not None:
                if node.by_device.get(record.id) is record:
                    del node.by_device[record.id]
                touched[record.kind, record.id] = None
        for record in changed:
            node.records[record.order] = record
            node.by_device[record.id] = record
            touched[record.kind, record.id] = None
        self._settle(touched)
        for record in changed:
            self.arrived(node_id, record)

    def replace(self, node_id: str, records: Iterable[Record]) -> None:
        """These are all channels of a portal."""
        new = {record.order: record for record in records}
        node = self.nodes.setdefault(node_id, Node(node_id))
        gone = [order for order in node.records if order not in new]
        self.change(node_id, [one for order, one in new.items() if node.records.get(order) != one], gone)

    def drop(self, node_id: str) -> None:
        """A portal is gone."""
        node = self.nodes.pop(node_id, None)
        if node is not None:
            self._settle({(record.kind, record.id): None for record in node.records.values()})

    def _settle(self, touched: Iterable[tuple[str, str]]) -> None:
        has_relays = False
        for kind, device_id in touched:
            held = [
                (node.id, record)
                for node in self.nodes.values()
                if (record := node.by_device.get(device_id)) is not None and record.kind == kind
            ]
            if kind == "relay":
                has_relays = True
                self._settle_relay(RelayId(device_id), held)
            elif kind == "client":
                self._settle_client(ClientId(device_id), held)
            else:
                self._settle_gateway(GatewayId(device_id), held)
        if has_relays:
            self.relays_changed()

    def _settle_relay(self, relay_id: RelayId, held: list[tuple[str, Record]]) -> None:
        self._relays.pop(relay_id, None)
        relays = [record for _, record in held if isinstance(record, RelayRecord)]
        if relays:
            self._relays[relay_id] = max(relays, key=lambda record: record.order)

    def _settle_client(self, client_id: ClientId, held: list[tuple[str, Record]]) -> None:
        best: tuple[str, ClientRecord] | None = None
        for node_id, record in held:
            if isinstance(record, ClientRecord) and (best is None or newer_wins(record, best[1])):
                best = node_id, record
        if best is None:
            self._clients.remove(client_id)
        elif self.sender is not None:
            self._clients.put(client_id, RemoteClient(*best, self.sender))

    def _settle_gateway(self, gateway_id: GatewayId, held: list[tuple[str, Record]]) -> None:
        best: tuple[str, GatewayRecord] | None = None
        for node_id, record in held:
            if not isinstance(record, GatewayRecord):
                continue
            if best is not None:
                same_key = record.device.public_key == best[1].device.public_key
                if not gateway_wins(record, best[1], same_key=same_key):
                    continue
            best = node_id, record
        if best is None:
            self._gateways.remove(gateway_id)
        elif self.sender is not None:
            self._gateways.put(gateway_id, RemoteGateway(*best, self.sender))
