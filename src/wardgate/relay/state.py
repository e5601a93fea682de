"""A relay as a whole: its secret, its TURN server, and whether the portal knows it. Sans-IO.

control    upcall -> TurnServer -> transmit | event -> the forwarder opens ports and installs channels
portal     up, down -> readiness; relaying goes on either way
"""

from collections.abc import Mapping
from dataclasses import dataclass

from wardgate.ids import RelayId
from wardgate.proto.turn_server import TurnConfig, TurnEvent, TurnServer
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
    counters: Mapping[str, int]


class RelayState:
    """One relay process."""

    def __init__(self, config: TurnConfig, epoch: float, random_bytes: RandomBytes) -> None:
        """Makes a relay with a fresh secret, so that credentials of its former self are worthless.

        Args:
            epoch: Unix seconds at monotonic zero.
        """
        self._stamp_secret = random_bytes(SECRET_SIZE).hex()
        self._listen_port = config.listen_port
        self._turn = TurnServer(config, self._stamp_secret, epoch, random_bytes)
        self._joined = False

    @property
    def relay_id(self) -> RelayId:
        """How the portal calls this relay."""
        return relay_id(self._stamp_secret)

    def join_payload(self) -> Json:
        """What the portal is told when the relay joins; holds the secret."""
        return RelayJoin(stamp_secret=self._stamp_secret).payload()

    def handle_portal_up(self) -> None:
        """The portal confirmed the join."""
        self._joined = True

    def handle_portal_down(self) -> None:
        """The portal link is lost; clients that know this relay go on using it."""
        self._joined = False

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

    def snapshot(self) -> RelaySnapshot:
        """For metrics and readiness."""
        return RelaySnapshot(self._joined, self._turn.allocations, self._turn.channels, dict(self._turn.counters))
