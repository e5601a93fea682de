"""What `gateway status` and `/metrics` show of a gateway, as plain JSON. Times are unix seconds."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from wardgate.gateway.client_on_gateway import ClientOnGateway
from wardgate.ids import ClientId, ResourceId
from wardgate.tunnel.flows import FlowTable
from wardgate.wire.ip import IpAddress


class GatewayView(NamedTuple):
    """The parts that a snapshot is made of."""

    clients: Mapping[ClientId, ClientOnGateway]
    expiries: Mapping[tuple[ClientId, ResourceId], float | None]
    flows: FlowTable
    own: tuple[IpAddress, ...]
    is_portal_up: bool
    paths: Mapping[str, dict[str, Any]]
    counters: Mapping[str, int]
    now: float
    epoch: float


def gateway_snapshot(view: GatewayView) -> dict[str, Any]:
    """The whole state of a gateway."""
    traffic = view.flows.traffic()
    return {
        "role": "gateway",
        "at": view.now + view.epoch,
        "addresses": [str(address) for address in view.own],
        "portal": "up" if view.is_portal_up else "down",
        "clients": [_client(client_id, view) for client_id in sorted(view.clients)],
        "flows": len(view.flows),
        "traffic": {
            resource_id: {"outbound_bytes": one.outbound_bytes, "inbound_bytes": one.inbound_bytes}
            for resource_id, one in sorted(traffic.items())
        },
        "counters": dict(sorted(view.counters.items())),
    }


def _client(client_id: ClientId, view: GatewayView) -> dict[str, Any]:
    client = view.clients[client_id]
    return {
        "id": client_id,
        "addresses": [str(address) for address in client.addresses],
        "resources": [
            {"id": resource_id, "type": admitted.resource.type, "expires_at": _expiry(client_id, resource_id, view)}
            for resource_id, admitted in client.admitted.items()
        ],
        "path": view.paths.get(client_id),
    }


def _expiry(client_id: ClientId, resource_id: ResourceId, view: GatewayView) -> float | None:
    at = view.expiries.get((client_id, resource_id))
    return None if at is None else at + view.epoch
