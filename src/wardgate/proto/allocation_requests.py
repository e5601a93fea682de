"""What a TURN client has asked of its relay, and which answers it believes without a signature.

Source: RFC 8489, section 9.2.
"""

from dataclasses import dataclass, field
from enum import Enum, auto

from wardgate.wire import turn
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.stun import Message, MessageClass, Method

MAX_NONCE_ROUNDS = 4


class Purpose(Enum):
    """Why it was asked."""

    FIND = auto()
    KEEPALIVE = auto()
    ALLOCATE = auto()
    DELETE = auto()
    REFRESH = auto()
    BIND = auto()


ANSWERS = (MessageClass.SUCCESS, MessageClass.ERROR)
METHODS = {
    Purpose.FIND: Method.BINDING,
    Purpose.KEEPALIVE: Method.BINDING,
    Purpose.ALLOCATE: Method.ALLOCATE,
    Purpose.DELETE: Method.REFRESH,
    Purpose.REFRESH: Method.REFRESH,
    Purpose.BIND: Method.CHANNEL_BIND,
}


@dataclass(slots=True)
class Request:
    """A request in flight; every copy has a transaction id of its own.

    Attributes:
        gaps: Seconds from a copy to the next; at the end of the last it is given up.
        copies: When each was sent.
        with_nonce: Whether the last copy had one.
        is_bare: Whether it goes without credentials.
        nonce_rounds: How often the relay has had it sent otherwise.
    """

    purpose: Purpose
    server: SocketAddr
    gaps: tuple[float, ...]
    channel: int = 0
    copies: dict[bytes, float] = field(default_factory=dict)
    with_nonce: bool = False
    is_bare: bool = False
    nonce_rounds: int = 0
    due_at: float = 0.0


def is_challenge(request: Request, message: Message) -> bool:
    """Whether an answer that nobody signed only asks to be asked otherwise; no unsigned answer is believed more.

    A relay cannot sign for a user of whom it knows nothing yet, and later it need not (RFC 8489, section 9.2.4); ours
    does. To the first request coturn says as well, unsigned, that this socket has an allocation.
    """
    if message.has_integrity or message.error is None or request.nonce_rounds >= MAX_NONCE_ROUNDS:
        return False
    code, brings_nonce = message.error.code, message.nonce is not None and message.realm == turn.REALM
    if request.with_nonce:
        return code == turn.STALE_NONCE and brings_nonce
    if code == turn.ALLOCATION_MISMATCH:
        return request.purpose is Purpose.ALLOCATE
    asks_for_nonce = code in (turn.UNAUTHORIZED, turn.STALE_NONCE)
    return (asks_for_nonce and brings_nonce) or is_refused_without_nonce(request, message)


def is_refused_without_nonce(request: Request, message: Message) -> bool:
    """Whether the relay wants the first request without credentials: 400 for those that come without a nonce."""
    is_bad = message.error is not None and message.error.code == turn.BAD_REQUEST
    had_credentials = METHODS[request.purpose] != Method.BINDING and not request.is_bare
    return is_bad and had_credentials and not (message.has_integrity or request.with_nonce)
