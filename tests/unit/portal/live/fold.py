"""What a peer knows, folded from everything that it was told: as a real component would keep it."""

from dataclasses import dataclass, field
from typing import Any

from tests.unit.portal.sockets.harness import Peer
from wardgate.wire.portal import ApiVersion, Frame

Payload = dict[str, Any]


@dataclass
class ClientFold:
    """The list, the interface and the inbound grants of a client.

    Attributes:
        granted: Resources behind gateways that it believes it may use: a real client does not ask for them again.
        reached: Addresses of other clients that it believes it may reach.
    """

    resources: dict[str, Payload] = field(default_factory=dict)
    interface: Payload = field(default_factory=dict)
    inbound: dict[tuple[str, str], int] = field(default_factory=dict)
    granted: dict[str, str] = field(default_factory=dict)
    reached: set[tuple[str, str]] = field(default_factory=set)
    is_over: bool = False

    def take(self, frame: Frame) -> None:
        """Takes one frame in."""
        payload: Any = frame.payload
        match frame.event:
            case "init":
                self._replace({one["id"]: one for one in payload["resources"]})
                self.interface = payload["interface"]
                listed = {
                    (one["client_id"], one["resource_id"]): one["expires_at"] for one in payload["authorizations"]
                }
                self.inbound = {pair: listed[pair] for pair in self.inbound if pair in listed} | listed
            case "config_changed":
                self.interface = payload["interface"]
            case "resource_created_or_updated":
                self._replace({**self.resources, payload["id"]: payload})
            case "resource_deleted":
                self._replace({one: view for one, view in self.resources.items() if one != payload})
            case "authorization_created" | "flow_created":
                self.granted[payload["resource_id"]] = payload["gateway_id"]
            case "client_device_access_authorized" if payload.get("resource"):
                self.inbound[payload["client_id"], payload["resource"]["id"]] = payload["expires_at"]
            case "client_device_access_authorized":
                self.reached.add((payload["client_ipv4"], payload["client_ipv6"]))
            case "client_device_access_denied":
                self.reached = {pair for pair in self.reached if payload.get("ipv4") not in pair}
            case "reject_access":
                self.inbound.pop((payload["client_id"], payload["resource_id"]), None)
            case "disconnect":
                self.is_over = True

    def _replace(self, resources: dict[str, Payload]) -> None:
        for one in list(self.granted):
            if one not in resources or not _is_same_route(self.resources[one], resources[one]):
                del self.granted[one]
        listed = {
            str(device["ipv4"]).partition("/")[0] for view in resources.values() for device in view.get("devices", ())
        }
        self.reached = {pair for pair in self.reached if pair[0] in listed}
        self.resources = resources


def _is_same_route(before: Payload, after: Payload) -> bool:
    """Whether a client takes it for the same resource; else it asks again with the next packet."""
    names = ("type", "address", "filters", "ip_stack", "sites", "gateway_groups")
    return all(_route(before, name) == _route(after, name) for name in names)


def _route(view: Payload, name: str) -> Any:
    value = view.get(name)
    return [one["id"] for one in value] if name in ("sites", "gateway_groups") and value else value


@dataclass
class GatewayFold:
    """The grants of a gateway, with their expiry in unix seconds, and the filters it enforces."""

    grants: dict[tuple[str, str], int] = field(default_factory=dict)
    filters: dict[str, Any] = field(default_factory=dict)
    interface: Payload = field(default_factory=dict)
    slug: str | None = None
    is_over: bool = False

    def take(self, frame: Frame) -> None:
        """Takes one frame in."""
        payload: Any = frame.payload
        match frame.event:
            case "init":
                listed = {
                    (one["client_id"], one["resource_id"]): one["expires_at"] for one in payload["authorizations"]
                }
                self.grants = listed
                self.interface, self.slug = payload["interface"], payload["account_slug"]
            case "create_authorization" | "authorize_flow":
                self.grants[payload["client"]["id"], payload["resource"]["id"]] = payload["expires_at"]
                self.filters[payload["resource"]["id"]] = payload["resource"].get("filters")
            case "reject_access":
                self.grants.pop((payload["client_id"], payload["resource_id"]), None)
            case "resource_updated":
                self.filters[payload["id"]] = payload["filters"]
            case "disconnect":
                self.is_over = True

    def at(self, unix: float) -> dict[tuple[str, str], int]:
        """What is still in force."""
        return {pair: end for pair, end in self.grants.items() if end > unix}


def fold_client(peer: Peer) -> ClientFold:
    """What a client knows."""
    fold = ClientFold()
    for frame in peer.seen:
        fold.take(frame)
    return fold


def fold_gateway(peer: Peer) -> GatewayFold:
    """What a gateway knows."""
    fold = GatewayFold()
    for frame in peer.seen:
        fold.take(frame)
    return fold


def wire_name(event: str, topic: str, version: ApiVersion) -> str:
    """An event's V2 name as this version has it."""
    if version is ApiVersion.V2:
        return event
    return _V1_NAMES.get((topic, event), event)


_V1_NAMES = {
    ("client", "authorization_created"): "flow_created",
    ("client", "authorization_creation_failed"): "flow_creation_failed",
    ("gateway", "create_authorization"): "authorize_flow",
}
