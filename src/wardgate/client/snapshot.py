"""What `client status` shows of a client, as plain JSON (see `docs/contracts.md`).

Times are unix seconds, but for those that end in `_s`: seconds ago.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from wardgate.client.access import Access
from wardgate.client.devices import DeviceOnClient
from wardgate.client.gateways import GatewayOnClient
from wardgate.ids import ResourceId
from wardgate.tunnel.flows import Traffic
from wardgate.wire.ip import IpAddress
from wardgate.wire.portal import ClientResource


class ClientView(NamedTuple):
    """The parts that a snapshot is made of."""

    access: Access
    own: tuple[IpAddress, ...]
    is_portal_up: bool
    paths: Mapping[str, dict[str, Any]]
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
        "ipv4": next((str(address) for address in view.own if address.version == 4), None),
        "ipv6": next((str(address) for address in view.own if address.version == 6), None),
        "portal": "up" if view.is_portal_up else "down",
        "resources": [_resource(resource, view) for resource in view.access.resources.all()],
        "gateways": [_gateway(gateway, view) for gateway in view.access.gateways.all()],
        "devices": [_device(device, view) for device in view.access.devices.all()],
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
    devices = [one for one in view.access.devices.all() if resource.id in one.outbound]
    is_connected = (gateway is not None and gateway.is_connected) or any(one.is_connected for one in devices)
    path = None if gateway is None else view.paths.get(gateway.gateway_id)
    handshake = None if path is None else path["last_handshake"]
    return {
        "id": resource.id,
        "name": resource.name,
        "address": None if address is None else str(address),
        "type": resource.type,
        "site": sites[0].name if sites else None,
        "sites": [{"id": site.id, "name": site.name} for site in sites],
        "status": "online" if is_connected else status,
        "authorized": gateway is not None or bool(devices),
        "waiting": resource.id in view.access.pending,
        "gateway_id": None if gateway is None else gateway.gateway_id,
        "path": path,
        "last_handshake_s": None if handshake is None else round(view.now + view.epoch - handshake, 3),
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
        "path": view.paths.get(gateway.gateway_id),
    }


def _device(device: DeviceOnClient, view: ClientView) -> dict[str, Any]:
    return {
        "id": device.client_id,
        "name": device.name,
        "addresses": [str(address) for address in device.addresses],
        "connected": device.is_connected,
        "reached_through": sorted(device.outbound),
        "reaches_us_through": sorted(device.inbound),
        "path": view.paths.get(device.client_id),
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
