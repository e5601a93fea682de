"""What a TURN server asks the program around it to open, install and close."""

from dataclasses import dataclass

from wardgate.wire.addresses import SocketAddr
from wardgate.wire.stun import AddressFamily


@dataclass(frozen=True, slots=True)
class OpenPort:
    """Open this UDP port in each family; answer with `handle_port_opened` or `handle_port_refused`."""

    port: int
    families: tuple[AddressFamily, ...]


@dataclass(frozen=True, slots=True)
class ClosePort:
    """The allocation has no longer these families; its channels and permissions there were removed before."""

    port: int
    families: tuple[AddressFamily, ...]


@dataclass(frozen=True, slots=True)
class AddChannel:
    """Forward between a client's channel and a peer of the allocation's port. May repeat what is there."""

    client: SocketAddr
    channel: int
    port: int
    peer: SocketAddr


@dataclass(frozen=True, slots=True)
class RemoveChannel:
    """Stop forwarding."""

    client: SocketAddr
    channel: int
    port: int
    peer: SocketAddr


@dataclass(frozen=True, slots=True)
class AddPermission:
    """Forward between a client's indications and any port of that host. May repeat what is there."""

    client: SocketAddr
    port: int
    host: str


@dataclass(frozen=True, slots=True)
class RemovePermission:
    """Stop forwarding."""

    client: SocketAddr
    port: int
    host: str


TurnEvent = OpenPort | ClosePort | AddChannel | RemoveChannel | AddPermission | RemovePermission
