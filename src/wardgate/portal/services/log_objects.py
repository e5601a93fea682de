"""Log rows as the REST API shows them; sinks get the same objects, but for flows (`domain/log_events.py`).

Source: portal-domain-2 A6.
"""

from datetime import UTC, datetime
from typing import Any, Final

from wardgate.portal.db.log_tables import ApiRequestLog, FlowLog, SessionLog
from wardgate.portal.db.logs import AnyLog

_REQUEST_FIELDS: Final = (
    "actor_id",
    "api_token_id",
    "method",
    "path",
    "content_length",
    "request_id",
    "user_agent",
    "ip",
    "ip_region",
    "ip_city",
    "ip_lat",
    "ip_lon",
)
_FLOW_FIELDS: Final = (
    "role",
    "protocol",
    "initiator_device_id",
    "responder_device_id",
    "policy_authorization_id",
    "policy_id",
    "flow_start",
    "flow_end",
    "last_packet",
    "authorized_at",
    "authorization_expires_at",
    "initiator_auth_provider_id",
    "initiator_actor_id",
    "initiator_actor_name",
    "initiator_actor_email",
    "initiator_client_version",
    "initiator_device_os_name",
    "initiator_device_os_version",
    "initiator_device_serial",
    "initiator_device_uuid",
    "initiator_device_identifier_for_vendor",
    "initiator_device_firebase_installation_id",
    "resource_id",
    "resource_name",
    "resource_address",
    "inner_src_ip",
    "inner_src_port",
    "inner_dst_ip",
    "inner_dst_port",
    "inner_domain",
    "outers",
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
)
_CLOSING_FIELDS: Final = ("last_packet", "outers", "rx_packets", "tx_packets", "rx_bytes", "tx_bytes")


def iso_utc(at: datetime) -> str:
    """An instant in ISO 8601, in UTC and with microseconds."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def log_object(row: AnyLog) -> dict[str, Any]:
    """The object of a row; its values are JSON."""
    if isinstance(row, FlowLog):
        return _flow(row)
    if isinstance(row, ApiRequestLog):
        head = {"type": "api_request", "log_id": row.log_id, "timestamp": iso_utc(row.inserted_at)}
        return head | {name: getattr(row, name) for name in _REQUEST_FIELDS}
    if isinstance(row, SessionLog):
        head = {"type": "session", "log_id": row.log_id, "timestamp": iso_utc(row.timestamp)}
        return head | {"context": row.context, "subject": row.subject}
    return {
        "type": "change",
        "log_id": row.log_id,
        "timestamp": iso_utc(row.timestamp),
        "object": row.object,
        "operation": row.operation,
        "before": row.before,
        "after": row.after,
        "subject": row.subject,
    }


def _flow(row: FlowLog) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in _FLOW_FIELDS}
    if row.flow_end is None:
        values |= dict.fromkeys(_CLOSING_FIELDS)
    shown = {name: iso_utc(value) if isinstance(value, datetime) else value for name, value in values.items()}
    return {"type": "flow", "log_id": row.log_id, "timestamp": iso_utc(row.inserted_at), **shown}
