"""What `client status` shows of a client, as plain JSON. Times are unix seconds."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from wardgate.client.access import Access
from wardgate.client.gateways import GatewayOnClient
from wardgate.ids import ResourceId
from wardgate.tunnel.connections import PathStatus
from wardgate.tunnel.flows import Traffic
from wardgate.tunnel.path_status import path_snapshot
from wardgate.wire.ip import IpAddress
from wardgate.wire.portal import ClientResource


class ClientView(NamedTuple):
    """The parts that a snapshot is made of."""

    access: Access
    own: tuple[IpAddress, ...]
    is_portal_up: bool
    paths: Mapping[str, PathStatus]
    traffic: Mapping[ResourceId, Traffic]
    counters: Mapping[str, int]
    now: float
    epoch: float


def client_snapshot(view: ClientView) -> dict[str, Any]:
    """The whole state of a client, as its user is shown it."""
    return {
        "role": "client",
        "at": view.now + view.epoch,
        "addresses": [str(address) for address in view.own],
        "portal": "up" if view.is_portal_up else "down",
        "resources": [_resource(resource, view) for resource in view.access.resources.all()],
        "gateways": [_gateway(gateway, view) for gateway in view.access.gateways.all()],
        "denials": _denials(view),
        "refusals": _refusals(view),
        "counters": dict(sorted(view.counters.items())),
    }


def _resource(resource: ClientResource, view: ClientView) -> dict[str, Any]:
    gateway = view.access.gateways.serving(resource.id)
    sites = getattr(resource, "sites", ())
    address = getattr(resource, "address", None)
    traffic = view.traffic.get(resource.id, Traffic())
    status = "unknown" if not sites else view.access.sites.of(sites[0].id, view.now)
    is_connected = gateway is not None and gateway.is_connected
    return {
        "id": resource.id,
        "name": resource.name,
        "address": None if address is None else str(address),
        "type": resource.type,
        "sites": [{"id": site.id, "name": site.name} for site in sites],
        "status": "online" if is_connected else status,
        "authorized": gateway is not None,
        "waiting": resource.id in view.access.pending,
        "gateway_id": None if gateway is None else gateway.gateway_id,
        "path": None if gateway is None else path_snapshot(view.paths.get(gateway.gateway_id), view.epoch),
        "sent_bytes": traffic.outbound_bytes,
        "received_bytes": traffic.inbound_bytes,
    }


def _gateway(gateway: GatewayOnClient, view: ClientView) -> dict[str, Any]:
    return {
        "id": gateway.gateway_id,
        "site_id": gateway.site_id,
        "addresses": [str(address) for address in gateway.addresses],
        "connected": gateway.is_connected,
        "resources": sorted(gateway.numbers),
        "path": path_snapshot(view.paths.get(gateway.gateway_id), view.epoch),
    }


def _denials(view: ClientView) -> list[dict[str, Any]]:
    return [
        {
            "resource_id": one.resource_id,
            "resource": one.resource_name,
            "reason": one.reason,
            "violated_properties": list(one.violated_properties),
            "flows_cut": one.flows_cut,
            "at": one.at + view.epoch,
        }
        for one in view.access.denials.denials
    ]


def _refusals(view: ClientView) -> list[dict[str, Any]]:
    return [
        {
            "resource_id": one.resource_id,
            "protocol": one.protocol,
            "destination": one.destination,
            "port": one.port,
            "reason": one.reason,
            "packets": one.packets,
            "at": one.at + view.epoch,
        }
        for one in view.access.denials.refusals
    ]
