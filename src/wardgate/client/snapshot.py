"""What `client status` shows of a client, as plain JSON (see `docs/contracts.md`).

Times are unix seconds, but for those that end in `_s` (seconds ago) and those in `ended` and `refused` (ISO 8601).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from wardgate.client.access import ACCESS_REMOVED, RESOURCE_CHANGED, Access
from wardgate.client.denials import Denial, Refusal
from wardgate.client.gateways import GatewayOnClient
from wardgate.ids import ResourceId
from wardgate.tunnel.flows import Traffic
from wardgate.wire.ip import ICMP, ICMPV6, TCP, UDP, IpAddress
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
        "portal": "connected" if view.is_portal_up else "disconnected",
        "resources": [_resource(resource, view) for resource in view.access.resources.all()],
        "gateways": [_gateway(gateway, view) for gateway in view.access.gateways.all()],
        "denials": _denials(view),
        "refusals": _refusals(view),
        "ended": [_ended(one, view) for one in view.access.denials.denials if one.reason in _ENDED],
        "refused": [_refused(one, view) for one in view.access.denials.refusals],
        "counters": dict(sorted(view.counters.items())),
    }


def _resource(resource: ClientResource, view: ClientView) -> dict[str, Any]:
    gateway = view.access.gateways.serving(resource.id)
    sites = getattr(resource, "sites", ())
    address = getattr(resource, "address", None)
    traffic = view.traffic.get(resource.id, Traffic())
    status = "unknown" if not sites else view.access.sites.of(sites[0].id, view.now)
    is_connected = gateway is not None and gateway.is_connected
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
        "authorized": gateway is not None,
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


_ENDED = (ACCESS_REMOVED, RESOURCE_CHANGED)
_WHY = {
    ACCESS_REMOVED: "access was removed",
    RESOURCE_CHANGED: "the resource was changed",
    "filter": "the resource does not allow",
    "gateway_prohibited": "the gateway does not allow",
    "no_resource": "no resource covers",
}
_PROTOCOLS = {ICMP: "ping", ICMPV6: "ping", TCP: "TCP port", UDP: "UDP port"}


def _ended(denial: Denial, view: ClientView) -> dict[str, Any]:
    flows = f"; {denial.flows_cut} running connection(s) were ended" if denial.flows_cut else ""
    return {
        "resource": denial.resource_name,
        "reason": f"{_WHY[denial.reason]}{flows}",
        "at": _iso(denial.at + view.epoch),
    }


def _refused(refusal: Refusal, view: ClientView) -> dict[str, Any]:
    resource = None if refusal.resource_id is None else view.access.resources.get(refusal.resource_id)
    what = _PROTOCOLS.get(refusal.protocol, f"protocol {refusal.protocol}")
    port = f" {refusal.port}" if refusal.protocol in (TCP, UDP) else ""
    return {
        "resource": None if resource is None else resource.name,
        "destination": refusal.destination,
        "reason": f"{_WHY.get(refusal.reason, refusal.reason)} {what}{port}",
        "at": _iso(refusal.at + view.epoch),
    }


def _iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")


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
