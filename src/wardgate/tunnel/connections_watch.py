"""When to doubt a peer that leaves data unanswered: first its path, then every path, then the peer itself.

A tunnel is not torn down for mere loss: probes get their chance in between. Each step gets its time even if this
process was stopped for a while.
"""

from enum import Enum, auto

CHECK_RELAYS_AFTER_S = 0.35
LEAVE_RELAY_AFTER_S = 0.6
CHECK_AFTER_S = 0.8
DISTRESS_AFTER_S = 1.1
DEAD_AFTER_S = 2.2
ACTIVE_POLL_S = 0.25
QUIET_POLL_S = 1.0
DOUBTFUL_POLL_S = 0.1
MIN_RELAYS_S = 0.2
MIN_CHECK_S = 0.3
MIN_DISTRESS_S = 1.0


class Doubt(Enum):
    """What to do next."""

    CHECK_RELAYS = auto()
    LEAVE_SILENT_RELAY = auto()
    CHECK_PATH = auto()
    TRY_EVERY_PATH = auto()
    GIVE_UP = auto()


_STEPS = (
    (Doubt.CHECK_RELAYS, CHECK_RELAYS_AFTER_S, 0.0),
    (Doubt.LEAVE_SILENT_RELAY, LEAVE_RELAY_AFTER_S, MIN_RELAYS_S),
    (Doubt.CHECK_PATH, CHECK_AFTER_S, 0.0),
    (Doubt.TRY_EVERY_PATH, DISTRESS_AFTER_S, MIN_CHECK_S),
    (Doubt.GIVE_UP, DEAD_AFTER_S, MIN_DISTRESS_S),
)
"""What is done when, and how long after the step before at least; seconds."""


class Watch:
    """Follows how long data of one peer has been unanswered."""

    def __init__(self) -> None:
        self._step = 0
        self._step_at = 0.0
        self._since = 0.0

    @property
    def is_doubtful(self) -> bool:
        """Whether steps were taken, so that the next ones may be due soon."""
        return self._step > 0

    def gap_s(self, *, is_active: bool) -> float:
        """How long to wait before the next look at the peer."""
        if self.is_doubtful:
            return DOUBTFUL_POLL_S
        return ACTIVE_POLL_S if is_active else QUIET_POLL_S

    def try_again(self, now: float) -> None:
        """Not the peer is to blame: gives it the time of the last step once more."""
        self._step, self._step_at = len(_STEPS) - 1, now

    def handle_unanswered(self, since: float | None, now: float, rtt_s: float = 0.0) -> Doubt | None:
        """Takes since when data is unanswered, and gives the step that is due now, each once.

        Args:
            since: `None` if nothing is.
            rtt_s: Of the path; slow ones get more patience.
        """
        if since is None:
            self._step = 0
            return None
        if since != self._since:
            self._step, self._since = 0, since
        if self._step == len(_STEPS):
            return None
        doubt, after_s, spacing_s = _STEPS[self._step]
        if now < max(since + after_s + max(0.0, 2.0 * rtt_s - CHECK_AFTER_S / 2), self._step_at + spacing_s):
            return None
        self._step, self._step_at = self._step + 1, now
        return doubt
