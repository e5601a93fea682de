"""Client half of DNS-resource NAT: telling a gateway which name its proxy IPs stand for.

One state for each (gateway, resource, name). Packets to a name wait until the gateway confirmed it once; a gateway that
cannot serve the name gets the packets all the same, as it answers them with the right ICMP error. Messages are repeated
while traffic asks for it, two seconds apart.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from wardgate.ids import GatewayId, ResourceId
from wardgate.tunnel.pending import UniquePackets
from wardgate.wire.control import AssignedIps, DomainStatus, NatStatus
from wardgate.wire.ip import IpAddress, Packet

MAX_NAMES: Final = 65_536
MAX_WAITING_PACKETS: Final = 32
RESEND_S: Final = 2.0


class Name(NamedTuple):
    """What is announced: a name of a resource, to a gateway."""

    gateway_id: GatewayId
    resource_id: ResourceId
    domain: str


@dataclass(slots=True)
class _Unanswered:
    """Pending, or Recreating: asked and not answered yet.

    Attributes:
        passes: Packets flow meanwhile, as the name was confirmed before.
        packets: What waits, if they do not.
    """

    proxy_ips: tuple[IpAddress, ...]
    sent_at: float
    passes: bool
    packets: UniquePackets = field(default_factory=lambda: UniquePackets(MAX_WAITING_PACKETS))


@dataclass(slots=True)
class _Answered:
    """Confirmed, or Failed."""

    proxy_ips: tuple[IpAddress, ...]
    is_confirmed: bool


class NameAnnouncements:
    """Every name announced to a gateway, and what waits for an answer."""

    def __init__(self) -> None:
        self._states: dict[Name, _Unanswered | _Answered] = {}
        self._messages: deque[tuple[GatewayId, AssignedIps]] = deque()
        self.refused = 0

    def __len__(self) -> int:
        return len(self._states)

    def admit(self, name: Name, proxy_ips: tuple[IpAddress, ...], packet: Packet, now: float) -> bool:
        """Whether a packet to this name may go to the gateway now; else it waits here (or is dropped and counted)."""
        state = self._state(name, proxy_ips, now)
        if state is None:
            return False
        if isinstance(state, _Answered):
            return True
        self._resend(name, state, now)
        if not state.passes:
            state.packets.add(packet)
        return state.passes

    def is_answered(self, name: Name) -> bool:
        """Whether the gateway has answered, so that packets pass without another thought."""
        return isinstance(self._states.get(name), _Answered)

    def refresh(self, name: Name, proxy_ips: tuple[IpAddress, ...], now: float) -> None:
        """Lets the gateway resolve the name anew, as somebody asked the resolver for it."""
        state = self._state(name, proxy_ips, now)
        if isinstance(state, _Unanswered):
            state.proxy_ips = proxy_ips
            self._resend(name, state, now)
        elif state is not None:
            self._states[name] = _Unanswered(proxy_ips, now, passes=state.is_confirmed)
            self._send(name, proxy_ips)

    def handle_status(self, gateway_id: GatewayId, message: DomainStatus) -> list[Packet]:
        """Takes a gateway's answer; returns the packets that waited for it. An answer to nothing is ignored."""
        name = Name(gateway_id, message.resource_id, message.domain.lower())
        state = self._states.get(name)
        if not isinstance(state, _Unanswered):
            return []
        is_confirmed = message.status is NatStatus.ACTIVE
        self._states[name] = _Answered(state.proxy_ips, is_confirmed)
        return state.packets.take() if is_confirmed else []

    def poll_message(self) -> tuple[GatewayId, AssignedIps] | None:
        """The next message to a gateway."""
        return self._messages.popleft() if self._messages else None

    def remove_gateway(self, gateway_id: GatewayId) -> None:
        """Forgets what a gateway knows: the connection is gone."""
        self._remove(lambda name: name.gateway_id == gateway_id)

    def remove_resource(self, resource_id: ResourceId) -> None:
        """Forgets the names of a resource."""
        self._remove(lambda name: name.resource_id == resource_id)

    def _remove(self, is_gone: Callable[[Name], bool]) -> None:
        self._states = {name: state for name, state in self._states.items() if not is_gone(name)}
        self._messages = deque(
            (gateway_id, message)
            for gateway_id, message in self._messages
            if not is_gone(Name(gateway_id, message.resource_id, message.domain))
        )

    def _state(self, name: Name, proxy_ips: tuple[IpAddress, ...], now: float) -> _Unanswered | _Answered | None:
        state = self._states.get(name)
        if state is None:
            if len(self._states) >= MAX_NAMES:
                self.refused += 1
                return None
            state = self._states[name] = _Unanswered(proxy_ips, now, passes=False)
            self._send(name, proxy_ips)
        return state

    def _resend(self, name: Name, state: _Unanswered, now: float) -> None:
        if now - state.sent_at >= RESEND_S:
            state.sent_at = now
            self._send(name, state.proxy_ips)

    def _send(self, name: Name, proxy_ips: tuple[IpAddress, ...]) -> None:
        self._messages.append((name.gateway_id, AssignedIps(name.resource_id, name.domain, proxy_ips)))
