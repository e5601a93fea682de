"""What a TURN allocation reports to the device that holds it."""

from dataclasses import dataclass

from wardgate.wire.addresses import SocketAddr
from wardgate.wire.candidates import Candidate


@dataclass(frozen=True, slots=True)
class CandidateFound:
    """A candidate of ours came up."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class CandidateLost:
    """A relay candidate of ours is gone; those of other kinds are never withdrawn."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class ChannelBound:
    """Data may arrive on this channel from now on."""

    number: int
    peer: SocketAddr


@dataclass(frozen=True, slots=True)
class ChannelLost:
    """The channel is no longer valid."""

    number: int
    peer: SocketAddr


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The relay does not answer, or refuses our credentials."""

    reason: str


@dataclass(frozen=True, slots=True)
class Silent:
    """The relay has not answered over UDP for a while: another way may be opened, see `Allocation.add_way`."""


Event = CandidateFound | CandidateLost | ChannelBound | ChannelLost | Unreachable | Silent
