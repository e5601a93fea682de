"""What a TURN server looks at in requests, whatever its state."""

from dataclasses import dataclass

from wardgate.errors import RemoteProtocolError
from wardgate.proto.turn_allocations import Allocation
from wardgate.proto.turn_auth import Authenticated
from wardgate.wire import stun, turn
from wardgate.wire.stun import Method

METHODS = (Method.BINDING, Method.ALLOCATE, Method.REFRESH, Method.CHANNEL_BIND, Method.CREATE_PERMISSION)


def is_bad_request(request: stun.Message) -> bool:
    """What is wrong whoever asks."""
    if request.malformed:
        return True
    match request.method:
        case Method.ALLOCATE:
            return request.requested_transport is None
        case Method.CHANNEL_BIND:
            return request.channel_number is None or not request.peer_addresses
    return request.method not in METHODS


def check_owner(allocation: Allocation, user: Authenticated) -> None:
    """A device's renewed credentials differ in their expiry only."""
    if (allocation.user.owner, allocation.user.is_device) != (user.owner, user.is_device):
        raise RemoteProtocolError("the allocation is another user's", turn.WRONG_CREDENTIALS)


def lifetime_of(request: stun.Message, user: Authenticated) -> int:
    """Seconds; devices may ask for less than RFC 8656 (section 7.2) gives to others."""
    asked = turn.DEFAULT_LIFETIME_S if request.lifetime_s is None else request.lifetime_s
    is_end = asked == 0 and request.method == Method.REFRESH
    least = 0 if user.is_device or is_end else turn.DEFAULT_LIFETIME_S
    return max(least, min(asked, turn.MAX_LIFETIME_S))


SUCCESSES = {method: f"responses_success_{method.name.lower()}" for method in Method}
"""What successful answers are counted as."""
_NAMES = {method.value: method.name.lower() for method in Method}


def method_name(method: int) -> str:
    return _NAMES.get(method, "unknown")


@dataclass(frozen=True, slots=True)
class Reply:
    """What of a request its reply repeats."""

    method: int
    transaction_id: bytes
    unknown: tuple[int, ...] = ()

    @classmethod
    def to(cls, request: stun.Message) -> "Reply":
        return cls(request.method, request.transaction_id, request.unknown_required)
