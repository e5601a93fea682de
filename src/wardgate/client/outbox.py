"""What the parts of a client that decide about access want done."""

from collections import deque
from dataclasses import dataclass, field

from wardgate.client.dns import TunnelQuery
from wardgate.wire.ip import Packet
from wardgate.wire.portal import Message


@dataclass(slots=True)
class Outbox:
    """Queues that the state empties after each call.

    Attributes:
        to_portal: Messages for the portal.
        to_tun: Packets for the host.
        to_route: Packets to be routed again.
        to_ask: Queries to be sent to a resolver in the tunnel again.
        unanswerable: Queries that fail.
    """

    to_portal: deque[Message] = field(default_factory=deque)
    to_tun: deque[bytes] = field(default_factory=deque)
    to_route: deque[Packet] = field(default_factory=deque)
    to_ask: deque[TunnelQuery] = field(default_factory=deque)
    unanswerable: deque[TunnelQuery] = field(default_factory=deque)
