"""What a client and a gateway have in common while they run: a state, its control loop, its tunnel, its portal link."""

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from wardgate._fastpath import DatagramUpcall, Engine, PacketUpcall, SessionUpcall
from wardgate.errors import InterfaceLost, RemoteProtocolError
from wardgate.io import clock
from wardgate.io.loop import ControlLoop, DrivenState, Work
from wardgate.io.service_manager import Beat, ServiceManager
from wardgate.io.tunnel import Tunnel
from wardgate.io.websocket import PortalLink
from wardgate.proto.portal_link import Fatal, LinkDown, LinkUp, Message
from wardgate.wire.portal import Json

Upcall = PacketUpcall | DatagramUpcall | SessionUpcall
WATCH_INTERVAL_S: Final = 0.5
MAX_TASKS: Final = 1000
GOODBYE_GRACE_S: Final = 0.05

MessageT = TypeVar("MessageT")
MessageT_contra = TypeVar("MessageT_contra", contravariant=True)
EventT = TypeVar("EventT")
EventT_co = TypeVar("EventT_co", covariant=True)

log = structlog.get_logger("portal")


class TunnelState(DrivenState[Upcall, EventT_co], Protocol[MessageT_contra, EventT_co]):
    """A client's or a gateway's state."""

    def handle_portal(self, message: MessageT_contra, now: float) -> None: ...
    def handle_portal_up(self, now: float) -> None: ...
    def handle_portal_down(self, now: float) -> None: ...
    def handle_goodbye(self, now: float) -> None: ...
    def snapshot(self) -> dict[str, Any]: ...


class Runner(Generic[MessageT, EventT]):
    """Runs one state until it is told to stop or cannot go on.

    Args:
        state: Who decides.
        engine: The native tables that the state installs into.
        tunnel: The threads around the engine.
        link: The portal link, not started yet.
        decode: Reads a push of the portal.
        on_event: Takes the state's events.
        on_reopened: Called after the TUN device had to be opened again, to give it its addresses.
    """

    def __init__(
        self,
        state: TunnelState[MessageT, EventT],
        engine: Engine,
        tunnel: Tunnel,
        link: PortalLink,
        *,
        decode: Callable[[str, Json], MessageT],
        on_event: Callable[[EventT], None],
        on_reopened: Callable[[], None],
    ) -> None:
        self._state = state
        self._tunnel = tunnel
        self.link = link
        self._decode = decode
        self._on_reopened = on_reopened
        self.loop: ControlLoop[Upcall, EventT] = ControlLoop(state, engine, tunnel, on_event)
        self._tasks: set[asyncio.Task[None]] = set()
        self._end: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.counters: Counter[str] = Counter()
        self.service = ServiceManager()
        self._runs_seen = 0

    def end(self, reason: str | None) -> None:
        """Makes `run` return."""
        if not self._end.done():
            self._end.set_result(reason)

    def post(self, work: Work) -> None:
        """Has work done with the state; see `ControlLoop.post`."""
        self.loop.post(work)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> bool:
        """Runs something beside the loop; `False` if too much runs already, and then it does not."""
        if len(self._tasks) >= MAX_TASKS:
            coroutine.close()
            self.counters["tasks_refused"] += 1
            return False
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return True

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.counters["task_errors"] += 1
            log.error("background work failed", exc_info=error)

    async def run(self) -> str | None:
        """Runs until `end` is called, the portal refuses us for good, or the tunnel is lost and cannot be opened.

        Returns:
            Why it ended; `None` if it was asked to.
        """
        self._tunnel.start()
        self.loop.start()
        self.link.start()
        self.service.status("joining the portal")
        duties = (self._follow(), self._watch(), self.service.watch(self._ask_loop))
        helpers = [asyncio.create_task(duty) for duty in duties]
        for helper in helpers:
            helper.add_done_callback(self._helper_ended)
        try:
            return await self._end
        finally:
            self.service.stopping()
            for task in (*helpers, *self._tasks):
                task.cancel()
            await asyncio.gather(*helpers, *self._tasks, return_exceptions=True)
            await self._say_goodbye()
            self._tunnel.close()

    def _helper_ended(self, helper: asyncio.Task[None]) -> None:
        if not helper.cancelled() and (error := helper.exception()) is not None:
            log.error("the program failed", exc_info=error)
            self.end(f"internal error: {error!r}")

    def _ask_loop(self, beat: Beat) -> None:
        """Lets the control loop itself tell the watchdog; one with no room for that is alive if it still turns."""
        if not self.loop.post(lambda _: beat()) and self.loop.counters["runs"] != self._runs_seen:
            beat()
        self._runs_seen = self.loop.counters["runs"]

    async def _say_goodbye(self) -> None:
        """Tells the portal, then the peers, so that nobody is sent here or waits for us."""
        with contextlib.suppress(OSError):
            await self.link.close()
        self.loop.stop()
        self._state.handle_goodbye(clock.monotonic())
        self.loop.flush()
        await asyncio.sleep(GOODBYE_GRACE_S)

    async def _follow(self) -> None:
        async for event in self.link:
            match event:
                case LinkUp():
                    log.info("portal joined")
                    self.service.status("joined the portal")
                    self.counters["portal_connections"] += 1
                    await self.loop.put(self._state.handle_portal_up)
                case LinkDown(reason, retry_in_s):
                    log.warning("portal away", reason=reason, retry_in_s=round(retry_in_s, 2))
                    self.service.status(f"the portal is away: {reason}")
                    await self.loop.put(self._state.handle_portal_down)
                case Message(name, payload):
                    await self._deliver(name, payload)
                case Fatal(_, reason):
                    self.end(reason)

    async def _deliver(self, name: str, payload: Json) -> None:
        try:
            message = self._decode(name, payload)
        except RemoteProtocolError as error:
            self.counters["portal_messages_malformed"] += 1
            log.warning("portal message dropped", message=name, reason=str(error))
            return
        self.counters["portal_messages"] += 1
        log.debug("portal message", message=name)
        await self.loop.put(functools.partial(self._state.handle_portal, message))

    async def _watch(self) -> None:
        """Opens the tunnel again when a thread of it has ended."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            failure = self._tunnel.failure()
            if failure is None:
                continue
            self.counters["tunnel_failures"] += 1
            log.error("tunnel lost, opening it again", reason=failure)
            try:
                self._tunnel.reopen()
            except InterfaceLost as error:
                self.end(f"{failure}; {error}")
                return
            self._on_reopened()
