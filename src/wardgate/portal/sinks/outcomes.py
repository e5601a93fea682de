"""What became of a batch (portal-domain-3 B6)."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from wardgate.portal.domain.log_events import Event

_RETRIABLE: Final = (408, 429)
_SHOWN: Final = 300


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes = b""

    def __repr__(self) -> str:
        return f"Request({self.method})"  # headers hold secrets


@dataclass(frozen=True, slots=True)
class Response:
    """What came back."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def text(self) -> str:
        """The beginning of the body, for people."""
        return " ".join(self.body[: 4 * _SHOWN].decode("utf-8", "replace").split())[:_SHOWN]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The destination has it."""

    warning: str | None = None


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The batch is too large for the destination."""

    detail: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """The destination does not understand one of the events.

    Attributes:
        is_ours: Whether our form of it is at fault, rather than how the destination is set up.
    """

    detail: str
    is_ours: bool = True


@dataclass(frozen=True, slots=True)
class Retriable:
    """It may go better later."""

    detail: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Permanent:
    """It will not go better until somebody changes the sink or the destination."""

    detail: str


Outcome = Accepted | TooLarge | Malformed | Retriable | Permanent
Failure = TooLarge | Malformed | Retriable | Permanent
Send = Callable[[Request], Awaitable[Response]]


class Unreachable(Exception):
    """There was no answer."""


class NotAllowed(Exception):
    """The address is none that a sink may use."""


class Destination(Protocol):
    """One sink's destination, for one run.

    Attributes:
        max_events: How many it takes at once.
    """

    max_events: int

    async def deliver(self, events: Sequence[Event], send: Send) -> Outcome:
        """Brings events of one stream.

        Raises:
            Unreachable: There was no answer.
            NotAllowed: It is at an address that sinks may not use.
        """


def judge(response: Response) -> Failure:
    """What an answer means that is none of success."""
    status = response.status
    detail = f"HTTP {status}: {response.text}" if response.body else f"HTTP {status}"
    if status == 413:
        return TooLarge(detail)
    if 300 <= status < 400:
        return Permanent(f"HTTP {status}: the destination redirects elsewhere, which is not followed")
    if status in _RETRIABLE or status >= 500:
        return Retriable(detail, retry_after(response))
    return Permanent(detail)


def retry_after(response: Response) -> float | None:
    """The seconds that the destination asks for; dates are not read."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
