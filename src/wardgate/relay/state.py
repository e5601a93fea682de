"""A relay as a whole: its secret, its TURN server, and whether the portal knows it. Sans-IO.

control    upcall -> TurnServer -> transmit | event -> the forwarder opens ports and installs channels
portal     up, down -> readiness; relaying goes on either way
streams    a client by TCP or TLS is a client at another address, its alias
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wardgate.ids import RelayId
from wardgate.proto.turn_auth import Devices, Users
from wardgate.proto.turn_config import StrangerRules, TurnConfig
from wardgate.proto.turn_events import TurnEvent
from wardgate.proto.turn_server import TurnServer
from wardgate.wire.addresses import RandomBytes, SocketAddr, Transmit
from wardgate.wire.portal import RelayJoin
from wardgate.wire.portal_secrets import relay_id
from wardgate.wire.portal_values import Json

SECRET_SIZE = 32


@dataclass(frozen=True, slots=True)
class RelaySnapshot:
    """What a relay does right now, and what it counted since it started."""

    joined: bool
    allocations: int
    channels: int
    permissions: int
    is_draining: bool
    counters: Mapping[str, int]


class RelayState:
    """One relay process."""

    def __init__(
        self,
        config: TurnConfig,
        epoch: float,
        random_bytes: RandomBytes,
        users: Sequence[Users] = (),
        *,
        is_alone: bool = False,
    ) -> None:
        """Makes a relay with a fresh secret, so that credentials of its former self are worthless.

        Args:
            epoch: Unix seconds at monotonic zero.
            users: Who may use it besides the portal's devices.
            is_alone: There is no portal, and so are no devices.
        """
        self._stamp_secret = random_bytes(SECRET_SIZE).hex()
        self._listen_port = config.listen_port
        devices = () if is_alone else (Devices(self._stamp_secret),)
        self._turn = TurnServer(config, (*devices, *users), epoch, random_bytes)
        self._joined = False
        self._away: str | None = None if is_alone else "the portal has not confirmed the join yet"

    @property
    def relay_id(self) -> RelayId:
        """How the portal calls this relay."""
        return relay_id(self._stamp_secret)

    def join_payload(self) -> Json:
        """What the portal is told when the relay joins; holds the secret."""
        return RelayJoin(stamp_secret=self._stamp_secret).payload()

    @property
    def strangers(self) -> StrangerRules:
        """How the forwarder is to answer whoever has not shown who it is."""
        return self._turn.strangers

    def handle_portal_up(self) -> None:
        """The portal confirmed the join."""
        self._joined = True
        self._away = None

    def handle_portal_down(self, reason: str) -> None:
        """The portal link is lost; clients that know this relay go on using it."""
        self._joined = False
        self._away = f"the portal is away: {reason}"

    def drain(self) -> None:
        """The relay is to end: what it holds goes on, nothing is added."""
        self._turn.drain()

    def problem(self) -> str | None:
        """Why nobody should be sent here now; `None` if all is well."""
        if self._turn.is_draining:
            return f"it ends, {self._turn.allocations} allocations are still served"
        return self._away

    def handle_stream_opened(self, alias: SocketAddr, client: SocketAddr) -> None:
        """A client that came by TCP or TLS; its messages come from `alias`."""
        self._turn.handle_stream_opened(alias, client)

    def handle_stream_closed(self, alias: SocketAddr) -> None:
        """Its connection is closed."""
        self._turn.handle_client_gone(alias)

    def has_allocation(self, client: SocketAddr) -> bool:
        """Whether that client holds something."""
        return self._turn.has_allocation(client)

    def handle_upcall(self, port: int, source: SocketAddr, payload: bytes, now: float) -> None:
        """Takes a datagram that was not forwarded by itself."""
        if port == self._listen_port:
            self._turn.handle_datagram(source, payload, now)
        else:
            self._turn.handle_peer_datagram(port, source, payload)

    def handle_port_opened(self, port: int, now: float) -> None:
        """Answers an `OpenPort`."""
        self._turn.handle_port_opened(port, now)

    def handle_port_refused(self, port: int) -> None:
        """Answers an `OpenPort`."""
        self._turn.handle_port_refused(port)

    def handle_timeout(self, now: float) -> None:
        self._turn.handle_timeout(now)

    def poll_timeout(self) -> float | None:
        return self._turn.poll_timeout()

    def poll_event(self) -> TurnEvent | None:
        return self._turn.poll_event()

    def poll_transmit(self) -> Transmit | None:
        return self._turn.poll_transmit()

    @property
    def allocations(self) -> int:
        """How many allocations there are."""
        return self._turn.allocations

    def snapshot(self) -> RelaySnapshot:
        """For metrics and readiness."""
        turn = self._turn
        return RelaySnapshot(
            self._joined, turn.allocations, turn.channels, turn.permissions, turn.is_draining, dict(turn.counters)
        )
