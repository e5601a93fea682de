"""When to doubt a peer that leaves data unanswered: first its path, then every path, then the peer itself.

A tunnel is not torn down for mere loss: probes get their chance in between. Each step gets its time even if this
process was stopped for a while.
"""

from enum import Enum, auto

CHECK_AFTER_S = 0.8
DISTRESS_AFTER_S = 1.1
DEAD_AFTER_S = 2.2
MIN_CHECK_S = 0.3
MIN_DISTRESS_S = 1.0


class Doubt(Enum):
    """What to do next."""

    CHECK_PATH = auto()
    TRY_EVERY_PATH = auto()
    GIVE_UP = auto()


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

    def try_again(self, now: float) -> None:
        """Not the peer is to blame: gives it the time of the last step once more."""
        self._step, self._step_at = 2, now

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
        due_at, doubt = self._next(since + max(0.0, 2.0 * rtt_s - CHECK_AFTER_S / 2))
        if doubt is None or now < due_at:
            return None
        self._step, self._step_at = self._step + 1, now
        return doubt

    def _next(self, since: float) -> tuple[float, Doubt | None]:
        match self._step:
            case 0:
                return since + CHECK_AFTER_S, Doubt.CHECK_PATH
            case 1:
                return max(since + DISTRESS_AFTER_S, self._step_at + MIN_CHECK_S), Doubt.TRY_EVERY_PATH
            case 2:
                return max(since + DEAD_AFTER_S, self._step_at + MIN_DISTRESS_S), Doubt.GIVE_UP
        return 0.0, None
