"""How peers are reached, as `status` shows it."""

from typing import Any

from wardgate.tunnel.connections import Connections, PathStatus
from wardgate.wire.addresses import SocketAddr


def path_snapshots(connections: Connections, epoch: float) -> dict[str, dict[str, Any]]:
    """Every peer's path, by peer; a peer without one is missing. Times are unix seconds."""
    return {
        one.peer_id: _snapshot(one, connections, epoch)
        for one in sorted(connections.paths(), key=lambda one: one.peer_id)
        if one.path is not None
    }


def _snapshot(status: PathStatus, connections: Connections, epoch: float) -> dict[str, Any]:
    path = status.path
    assert path is not None
    return {
        "kind": path.kind,
        "local": str(path.local),
        "local_public": _text(connections.public_address_of(path.local)),
        "remote": str(path.remote),
        "relay": _text(connections.relay_address(path.relay_id)),
        "relay_way": connections.relay_way(path.relay_id),
        "established": status.established,
        "mode": "iceless" if status.iceless else "ice",
        "rtt_ms": None if status.rtt_s is None else round(status.rtt_s * 1000, 3),
        "last_handshake": None if status.last_handshake_at is None else status.last_handshake_at + epoch,
        "sent_bytes": status.sent_bytes,
        "received_bytes": status.received_bytes,
    }


def _text(address: SocketAddr | None) -> str | None:
    return None if address is None else str(address)
