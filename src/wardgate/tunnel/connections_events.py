"""What `tunnel.connections` reports, and the small values around it."""

from dataclasses import dataclass, field
from typing import Literal

from wardgate._fastpath import FlowReport
from wardgate.ids import RelayId
from wardgate.wire.addresses import SocketAddr


@dataclass(frozen=True, slots=True)
class Path:
    """How datagrams reach a peer.

    Attributes:
        kind: `relayed` if a relay is involved at either end.
        local: The address we send from: one of the host's, or one of our relayed addresses.
        remote: Where they go to.
        relay_id: Our relay, if our end of the path is at one.
    """

    kind: Literal["direct", "relayed"]
    local: SocketAddr
    remote: SocketAddr
    relay_id: RelayId | None = None


@dataclass(frozen=True, slots=True)
class PathStatus:
    """A peer's connection, for `status`.

    Attributes:
        rtt_s: Round-trip time of the path, if it was measured.
        last_handshake_at: Monotonic; `None` before the first.
    """

    peer_id: str
    path: Path | None
    established: bool
    iceless: bool
    rtt_s: float | None
    last_handshake_at: float | None
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class NoRelays:
    """There is no relay, and so no way to find a path to anybody."""


@dataclass(frozen=True, slots=True)
class NewCandidates:
    """Tell the peer that we may be reached here."""

    peer_id: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InvalidatedCandidates:
    """Tell the peer that these are no longer ours."""

    peer_id: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Established:
    """There is a path and a session: packets can flow both ways."""

    peer_id: str


@dataclass(frozen=True, slots=True)
class PathChanged:
    """The peer's datagrams take this path from now on."""

    peer_id: str
    path: Path


@dataclass(frozen=True, slots=True)
class Failed:
    """The connection is gone, against our will; `flows` ended with it."""

    peer_id: str
    reason: str
    flows: tuple[FlowReport, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is gone because it was to; `flows` ended with it."""

    peer_id: str
    flows: tuple[FlowReport, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class RelaysNeeded:
    """No relay is left or answers: ask for others."""


@dataclass(frozen=True, slots=True)
class RelaySilent:
    """A relay does not answer over UDP: open TCP or TLS to one of its addresses, and say so with `add_relay_way`."""

    relay_id: RelayId
    servers: tuple[SocketAddr, ...]


Event = NewCandidates | InvalidatedCandidates | Established | PathChanged | Failed | Closed | RelaysNeeded | RelaySilent
