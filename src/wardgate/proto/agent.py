"""What the two path finders share: `ice.IceAgent` and `path_agent.PathAgent` look alike to `tunnel.connections`.

Candidates of both ends go in; datagrams to send on a given pair, and the pair to use, come out.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from wardgate.wire.addresses import SocketAddr
from wardgate.wire.candidates import Candidate


class Pair(NamedTuple):
    """A way to the peer.

    Attributes:
        local: The address that we send from: one of the host's, or one of our relayed addresses.
        remote: The address that the peer receives at.
    """

    local: SocketAddr
    remote: SocketAddr


class PairTransmit(NamedTuple):
    """Something to send on a pair.

    Attributes:
        inner: The payload is an IP packet to be sealed first; otherwise it is a datagram as it is.
        is_answer: Nobody answers it.
    """

    pair: Pair
    payload: bytes
    inner: bool
    is_answer: bool = False


@dataclass(frozen=True, slots=True)
class Nominated:
    """This pair carries the tunnel from now on."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class Disconnected:
    """No pair has worked for so long that the peer is gone."""

    reason: str


AgentEvent = Nominated | Disconnected


class LearningLimit:
    """How fast peer-reflexive candidates may come up: two symmetric NATs would make each other new ones for ever."""

    BURST = 4
    EVERY_S = 5.0

    def __init__(self) -> None:
        self._credit = float(self.BURST)
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Whether one more may be learned now."""
        self._credit = min(self.BURST, self._credit + (now - self._at) / self.EVERY_S)
        self._at = now
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True


class Agent(Protocol):
    """Finds out which pairs of local and remote candidates work, and which of them is best."""

    def add_local(self, candidate: Candidate, now: float) -> None:
        """Adds or updates a candidate of ours. What is known already changes nothing."""

    def remove_local(self, address: SocketAddr, now: float) -> None:
        """Forgets the local candidates that send from `address`, with their pairs."""

    def add_remote(self, candidate: Candidate, now: float) -> None:
        """Adds a candidate of the peer's. What is known already changes nothing."""

    def remove_remote(self, address: SocketAddr, now: float) -> None:
        """Forgets the peer's candidates of that address, with their pairs."""

    def reset(self, now: float) -> None:
        """Forgets all local candidates: this host moved to another network."""

    def handle_distress(self, now: float) -> None:
        """Doubts the path in use: tries every pair at once; the first that answers is used."""

    def handle_timeout(self, now: float) -> None:
        """Does what is due at `now`. Calling it early, late or twice is harmless."""

    def poll_transmit(self) -> PairTransmit | None:
        """The next datagram to send."""

    def poll_event(self) -> AgentEvent | None:
        """The next event."""

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` has something to do; due now while output is queued."""
