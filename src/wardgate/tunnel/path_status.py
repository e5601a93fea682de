"""How a peer is reached, as `status` shows it."""

from typing import Any

from wardgate.tunnel.connections import PathStatus


def path_snapshot(status: PathStatus | None, epoch: float) -> dict[str, Any] | None:
    """How a peer is reached; `None` if there is no connection."""
    if status is None:
        return None
    path = status.path
    return {
        "kind": None if path is None else path.kind,
        "local": None if path is None else str(path.local),
        "remote": None if path is None else str(path.remote),
        "relay_id": None if path is None else path.relay_id,
        "established": status.established,
        "mode": "iceless" if status.iceless else "ice",
        "rtt_ms": None if status.rtt_s is None else round(status.rtt_s * 1000, 3),
        "last_handshake": None if status.last_handshake_at is None else status.last_handshake_at + epoch,
        "sent_bytes": status.sent_bytes,
        "received_bytes": status.received_bytes,
    }
