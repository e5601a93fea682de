"""The in-band control messages of a client and a gateway: IPv6 packets from `::` to `::` with next header 0xFF.

Payload: one byte of type, seven zero bytes, compact JSON. Delivery is not guaranteed, so every message is idempotent.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import assert_never
from uuid import UUID

from wardgate.errors import RemoteProtocolError
from wardgate.ids import ResourceId
from wardgate.wire.ip import IPV6_HEADER, MAX_PACKET, IpAddress, ip_packet

CONTROL_PROTOCOL = 0xFF
MAX_PROXY_IPS = 64
MAX_NAME = 255
_ASSIGNED_IPS, _DOMAIN_STATUS, _GOODBYE = 0, 1, 2
_HEADER = 8
_NOBODY = IPv6Address("::")


class NatStatus(Enum):
    """What the gateway says about a domain's proxy IPs."""

    ACTIVE = "Active"
    INACTIVE = "Inactive"


@dataclass(frozen=True, slots=True)
class AssignedIps:
    """Client to gateway: these proxy IPs stand for this name, under this resource."""

    resource_id: ResourceId
    domain: str
    proxy_ips: tuple[IpAddress, ...]


@dataclass(frozen=True, slots=True)
class DomainStatus:
    """Gateway to client: whether the name's proxy IPs work now."""

    status: NatStatus
    resource_id: ResourceId
    domain: str


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Either to the other: forget this connection now."""


ControlMessage = AssignedIps | DomainStatus | Goodbye


def is_control_packet(packet: bytes) -> bool:
    """Whether an IP packet is an in-band control packet."""
    return len(packet) >= IPV6_HEADER + _HEADER and packet[0] >> 4 == 6 and packet[6] == CONTROL_PROTOCOL


def encode_control(message: ControlMessage) -> bytes:
    """The message as a whole IP packet."""
    match message:
        case AssignedIps(resource_id, domain, proxy_ips):
            ips = [str(ip) for ip in proxy_ips]
            kind, body = _ASSIGNED_IPS, _compact({"resource": resource_id, "domain": domain, "proxy_ips": ips})
        case DomainStatus(status, resource_id, domain):
            fields = {"status": status.value, "resource": resource_id, "domain": domain}
            kind, body = _DOMAIN_STATUS, _compact(fields)
        case Goodbye():
            kind, body = _GOODBYE, b""
        case _:
            assert_never(message)
    return ip_packet(_NOBODY, _NOBODY, CONTROL_PROTOCOL, bytes((kind,)) + bytes(7) + body, hop_limit=0)


def decode_control(packet: bytes) -> ControlMessage:
    """Reads a control packet.

    Raises:
        RemoteProtocolError: It is not one, is of an unknown type, or its JSON is not what the type wants.
    """
    if not is_control_packet(packet) or packet[8:IPV6_HEADER] != bytes(32):
        raise RemoteProtocolError("not a control packet")
    (length,) = struct.unpack_from("!H", packet, 4)
    if not _HEADER <= length <= MAX_PACKET - IPV6_HEADER or IPV6_HEADER + length > len(packet):
        raise RemoteProtocolError("control packet has a wrong length")
    kind = packet[IPV6_HEADER]
    if kind == _GOODBYE:
        return Goodbye()
    fields = _json_object(packet[IPV6_HEADER + _HEADER : IPV6_HEADER + length])
    if kind == _ASSIGNED_IPS:
        return AssignedIps(_resource(fields), _domain(fields), _proxy_ips(fields))
    if kind == _DOMAIN_STATUS:
        status = NatStatus.ACTIVE if fields.get("status") == "Active" else NatStatus.INACTIVE
        return DomainStatus(status, _resource(fields), _domain(fields))
    raise RemoteProtocolError("unknown control message")


def _compact(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def _json_object(body: bytes) -> dict[str, object]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise RemoteProtocolError("control message is not JSON") from None
    if not isinstance(fields, dict):
        raise RemoteProtocolError("control message is not an object")
    return fields


def _resource(fields: dict[str, object]) -> ResourceId:
    value = fields.get("resource")
    try:
        return ResourceId(str(UUID(value if isinstance(value, str) else "")))
    except ValueError:
        raise RemoteProtocolError("control message without a resource id") from None


def _domain(fields: dict[str, object]) -> str:
    """The name in its case, without the trailing dot that some senders leave."""
    value = fields.get("domain")
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise RemoteProtocolError("control message without a domain")
    name = value.removesuffix(".")
    if not name or len(name) > MAX_NAME or " " in name:
        raise RemoteProtocolError("control message without a domain")
    return name


def _proxy_ips(fields: dict[str, object]) -> tuple[IpAddress, ...]:
    values = fields.get("proxy_ips")
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_PROXY_IPS:
        raise RemoteProtocolError("control message with no or too many proxy IPs")
    return tuple(_address(value) for value in values)


def _address(value: object) -> IPv4Address | IPv6Address:
    if not isinstance(value, str) or "%" in value:
        raise RemoteProtocolError("a proxy IP is not an address")
    try:
        return ip_address(value)
    except (AddressValueError, ValueError):
        raise RemoteProtocolError("a proxy IP is not an address") from None
