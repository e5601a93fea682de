"""The control loop: drives the sans-IO state of a client or gateway, and is the one place that polls and sleeps.

Each iteration does the first of these that has work, and starts over: empty the state's buffers, do what is due, take
upcalls of the network side, take upcalls of the TUN side. So no new work is accepted while old work waits, and buffers
stay small without limits of their own. Two safety nets keep everything else alive: a run ends after a bounded number of
iterations, and then time is advanced and the next run scheduled at once. A timer that is due again right after it was
served gives way to one batch of upcalls, so not even a timer that is always due keeps packets out. Work from outside
(portal messages, DNS answers, commands) is posted to a bounded inbox and done between runs.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from wardgate.io import clock
from wardgate.wire.addresses import Transmit

MAX_ITERATIONS: Final = 5000
MAX_RUN_S: Final = 0.05
"""A run also ends after so long, since what an iteration costs is not ours to know."""
MAX_POSTED: Final = 128
POSTED_PER_RUN: Final = 32
DRAIN_BATCH: Final = 256
UPCALLS_PER_POLL: Final = 256
UPCALL_BATCH: Final = 64
ERROR_LOG_INTERVAL_S: Final = 1.0
FAILED_TIMER_PAUSE_S: Final = 0.1
LONG_RUNS: Final = ((0.01, "runs_over_10_ms"), (0.06, "runs_over_60_ms"), (0.1, "runs_over_100_ms"))
"""Runs that took longer than that, each counted in every class below."""
ALWAYS_SHOWN: Final = (
    "runs",
    "iterations",
    "forced_yields",
    "timeouts",
    "network_upcalls",
    "tun_upcalls",
    "posted",
    *(name for _, name in LONG_RUNS),
)
"""Counters that are there before the first count, so that whoever watches them sees a zero."""

EventT = TypeVar("EventT")
EventT_co = TypeVar("EventT_co", covariant=True)
UpcallT = TypeVar("UpcallT")
UpcallT_co = TypeVar("UpcallT_co", covariant=True)
UpcallT_contra = TypeVar("UpcallT_contra", contravariant=True)
Work = Callable[[float], None]
"""Something to do with the state between two runs; gets `now`."""

log = structlog.get_logger("io.loop")


class DrivenState(Protocol[UpcallT_contra, EventT_co]):
    """What a state must offer to be driven; see the state machines of `docs/contracts.md`."""

    def handle_upcalls(self, upcalls: Sequence[UpcallT_contra], now: float) -> Sequence[Exception]: ...
    def handle_timeout(self, now: float) -> None: ...
    def poll_timeout(self) -> float | None: ...
    def poll_transmit(self) -> Transmit | None: ...
    def poll_packet(self) -> bytes | None: ...
    def poll_event(self) -> EventT_co | None: ...


class UpcallSource(Protocol[UpcallT_co]):
    """Where upcalls come from: the native engine."""

    def poll_upcalls(self, limit: int = ...) -> Sequence[UpcallT_co]: ...
    def upcall_fd(self) -> int: ...


class Outlet(Protocol):
    """Where datagrams and packets go: the native threads' shell."""

    def send(self, datagrams: list[tuple[tuple[str, int] | None, tuple[str, int], bytes]]) -> int: ...
    def write_tun(self, packets: list[bytes]) -> int: ...


class Budget:
    """How much one run may do: a number of iterations, and a time."""

    def __init__(self, iterations: int, seconds: float, now: float) -> None:
        self._left = iterations
        self._ends_at = now + seconds
        self._is_fresh = True

    def grant(self, now: float) -> bool:
        """Whether another iteration may start. The first always may, however late it is."""
        if self._left <= 0 or (now >= self._ends_at and not self._is_fresh):
            return False
        self._left -= 1
        self._is_fresh = False
        return True


class ControlLoop(Generic[UpcallT, EventT]):
    """Drives one state.

    Args:
        state: Who decides.
        upcalls: Where work comes from.
        outlet: Where the state's datagrams and packets go.
        on_event: Takes the state's events; must not block.
        max_iterations: Of one run.
        max_run_s: Of one run.
        now: The clock.
    """

    def __init__(
        self,
        state: DrivenState[UpcallT, EventT],
        upcalls: UpcallSource[UpcallT],
        outlet: Outlet,
        on_event: Callable[[EventT], None],
        *,
        max_iterations: int = MAX_ITERATIONS,
        max_run_s: float = MAX_RUN_S,
        now: Callable[[], float] = clock.monotonic,
    ) -> None:
        self._state = state
        self._upcalls = upcalls
        self._outlet = outlet
        self._on_event = on_event
        self._max_iterations = max_iterations
        self._max_run_s = max_run_s
        self._now = now
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled: asyncio.Handle | None = None
        self._timer: tuple[float, asyncio.TimerHandle] | None = None
        self._posted: deque[Work] = deque()
        self._room = asyncio.Event()
        self._from_network: deque[UpcallT] = deque()
        self._from_tun: deque[UpcallT] = deque()
        self._timer_gives_way = False
        self._timer_paused_until = 0.0
        self._deadline: float | None = None
        self._is_changed = True
        self._logged_at: dict[str, float] = {}
        self.counters: Counter[str] = Counter(dict.fromkeys(ALWAYS_SHOWN, 0))
        self.step_seconds: dict[str, float] = dict.fromkeys(("posted", "drain", "timeout", "network", "tun"), 0.0)
        self._longest_run_s = 0.0

    # --- the outside's side ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts to serve upcalls and timers, inside a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._upcalls.upcall_fd(), self._run)
        self.wake()

    def stop(self) -> None:
        """Ends it; what the state still holds stays there. See `flush`."""
        if self._loop is None:
            return
        self._loop.remove_reader(self._upcalls.upcall_fd())
        for handle in (self._scheduled, self._timer[1] if self._timer else None):
            if handle is not None:
                handle.cancel()
        self._loop, self._scheduled, self._timer = None, None, None

    def wake(self) -> None:
        """Makes a run happen soon; needed after the state was changed other than through `post`."""
        self._is_changed = True
        if self._loop is not None and self._scheduled is None:
            self.counters["wakes"] += 1
            self._scheduled = self._loop.call_soon(self._run_scheduled)

    def post(self, work: Work) -> bool:
        """Has the work done between two runs; `False` if too much waits already, and then it is lost."""
        if len(self._posted) >= MAX_POSTED:
            self.counters["posts_refused"] += 1
            return False
        self._posted.append(work)
        self.wake()
        return True

    async def put(self, work: Work) -> None:
        """Has the work done between two runs, and waits for room first: for sources that can hold back."""
        while len(self._posted) >= MAX_POSTED:
            self._room.clear()
            await self._room.wait()
        self.post(work)

    def flush(self) -> None:
        """Empties the state's buffers once more, as before the end of the program."""
        budget = Budget(self._max_iterations, self._max_run_s, self._now())
        while budget.grant(self._now()) and self._drain():
            pass

    # --- one run --------------------------------------------------------------------------------------------------

    def _run_scheduled(self) -> None:
        self._scheduled = None
        self._run()

    def _run(self) -> None:
        began = at = self._now()
        self.counters["runs"] += 1
        self._do_posted(at)
        at = self._clocked("posted", at)
        budget = Budget(self._max_iterations, self._max_run_s, at)
        idle = False
        while not idle and budget.grant(at):
            self.counters["iterations"] += 1
            step = self._iterate(at)
            if step is None:
                idle = True
            else:
                at = self._clocked(step, at)
        self._note_run(at - began)
        if not idle:
            self._yield(at)
        if self._posted:
            self.wake()
        self._arm()

    def _note_run(self, took_s: float) -> None:
        self._longest_run_s = max(self._longest_run_s, took_s)
        for limit_s, name in LONG_RUNS:
            if took_s > limit_s:
                self.counters[name] += 1

    def figures(self) -> dict[str, Any]:
        """Counters, the time of each step since the start, and the longest run since the last call of this."""
        longest, self._longest_run_s = self._longest_run_s, 0.0
        return {**self.counters, "longest_run_seconds": longest, "step_seconds": dict(self.step_seconds)}

    def _clocked(self, step: str, since: float) -> float:
        at = self._now()
        self.step_seconds[step] += at - since
        return at

    def _do_posted(self, now: float) -> None:
        for _ in range(min(len(self._posted), POSTED_PER_RUN)):
            work = self._posted.popleft()
            self._is_changed = True
            self.counters["posted"] += 1
            self._guarded("posted", work, now)
        if len(self._posted) < MAX_POSTED:
            self._room.set()

    def _iterate(self, now: float) -> str | None:
        """Does the first thing that has work and names it; `None` if nothing has."""
        if self._drain():
            return "drain"
        is_due = self._is_due(now)
        if is_due and not self._timer_gives_way:
            self._advance(now)
            return "timeout"
        side = self._take_upcalls(now)
        self._timer_gives_way = False
        if side is None and is_due:
            self._advance(now)
            return "timeout"
        return side

    def _drain(self) -> bool:
        """Passes on what the state has ready: one bounded batch of each kind."""
        events = _take(self._state.poll_event)
        packets = _take(self._state.poll_packet)
        transmits = _take(self._state.poll_transmit)
        self._is_changed |= bool(events or packets or transmits)
        for event in events:
            self._guarded("event", self._on_event, event)
        if packets:
            self._guarded("write", self._outlet.write_tun, packets)
        if transmits:
            self._guarded("send", self._outlet.send, transmits)
        self.counters["events"] += len(events)
        self.counters["packets"] += len(packets)
        self.counters["transmits"] += len(transmits)
        return bool(events or packets or transmits)

    def _is_due(self, now: float) -> bool:
        if now < self._timer_paused_until:
            return False
        deadline = self._poll_deadline()
        return deadline is not None and deadline <= now

    def _poll_deadline(self) -> float | None:
        """The state's deadline; it is asked again only after something was done with it, as that costs more than it
        seems: a run with few upcalls would spend most of its time there."""
        if self._is_changed:
            self._deadline, self._is_changed = self._state.poll_timeout(), False
        return self._deadline

    def _advance(self, now: float) -> None:
        self.counters["timeouts"] += 1
        self._timer_gives_way = self._is_changed = True
        if not self._guarded("timeout", self._state.handle_timeout, now):
            self._timer_paused_until = now + FAILED_TIMER_PAUSE_S

    def _take_upcalls(self, now: float) -> str | None:
        if not self._from_network and not self._from_tun:
            self._sort_upcalls()
        for side, waiting in (("network", self._from_network), ("tun", self._from_tun)):
            if waiting:
                batch = [waiting.popleft() for _ in range(min(len(waiting), UPCALL_BATCH))]
                self.counters[f"{side}_upcalls"] += len(batch)
                self._is_changed = True
                self._guarded(side, self._handle_batch, side, batch, now)
                return side
        return None

    def _handle_batch(self, side: str, batch: Sequence[UpcallT], now: float) -> None:
        for error in self._state.handle_upcalls(batch, now):
            self._note_error(side, error)

    def _sort_upcalls(self) -> None:
        for upcall in self._upcalls.poll_upcalls(UPCALLS_PER_POLL):
            is_from_tun = getattr(upcall, "peer", 0) is None
            (self._from_tun if is_from_tun else self._from_network).append(upcall)

    def _yield(self, now: float) -> None:
        """Time advances and another run follows, so that no load keeps timers out and nothing is left suspended."""
        self.counters["forced_yields"] += 1
        self._is_changed = True
        self._guarded("timeout", self._state.handle_timeout, now)
        self.wake()

    def _arm(self) -> None:
        """Sets the one timer to the state's deadline, unless a run is scheduled anyway."""
        deadline = None if self._loop is None or self._scheduled is not None else self._poll_deadline()
        if deadline is not None:
            deadline = max(deadline, self._timer_paused_until)
        if self._timer is not None:
            if self._timer[0] == deadline:
                return
            self._timer[1].cancel()
            self._timer = None
        if deadline is not None and self._loop is not None:
            delay = max(0.0, deadline - self._now())
            self._timer = (deadline, self._loop.call_later(delay, self._on_timer))

    def _on_timer(self) -> None:
        self._timer = None
        self._run()

    def _guarded(self, step: str, call: Callable[..., object], *args: object) -> bool:
        """Calls and returns whether it went well; an error costs this item alone."""
        try:
            call(*args)
        except Exception as error:
            self._note_error(step, error)
            return False
        return True

    def _note_error(self, step: str, error: Exception) -> None:
        self.counters[f"{step}_errors"] += 1
        now = self._now()
        if now - self._logged_at.get(step, -ERROR_LOG_INTERVAL_S) >= ERROR_LOG_INTERVAL_S:
            self._logged_at[step] = now
            log.error("item lost", step=step, total=self.counters[f"{step}_errors"], exc_info=error)


ItemT = TypeVar("ItemT")


def _take(poll: Callable[[], ItemT | None]) -> list[ItemT]:
    items: list[ItemT] = []
    while len(items) < DRAIN_BATCH and (item := poll()) is not None:
        items.append(item)
    return items
