"""The control loop on the real event loop: nobody starves, time goes on, errors cost one item."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.unit.io.fake_portal import FakePortal
from wardgate.io import clock
from wardgate.io.loop import MAX_POSTED, UPCALLS_PER_POLL, ControlLoop
from wardgate.io.websocket import PortalLink
from wardgate.proto.portal_link import Message
from wardgate.wire.addresses import SocketAddr, Transmit

Datagram = tuple[tuple[str, int] | None, tuple[str, int], bytes]
PEER = SocketAddr("192.0.2.1", 7)
FOREVER = 10**9


async def test_idle_run_takes_one_iteration_and_wakes_nobody() -> None:
    async with driven(Counting()) as (loop, _):
        await turns(3)

        assert loop.counters["runs"] == 1
        assert loop.counters["iterations"] == 1
        assert loop.counters["wakes"] == 1  # the one of `start`
        assert loop.counters["forced_yields"] == 0


async def test_output_goes_out_before_new_work_is_taken() -> None:
    state = Counting()
    state.on_upcall = lambda upcall, _: state.transmits.append(Transmit(None, PEER, upcall.payload))

    async with driven(state, upcalls=[Upcall(1, b"a"), Upcall(1, b"b")]) as (_, outside):
        await until(lambda: len(outside.sent) == 2)

        assert [payload for _, _, payload in outside.sent] == [b"a", b"b"]


async def test_network_side_is_served_before_the_tun_side_of_the_same_poll() -> None:
    state = Counting()

    async with driven(state, upcalls=[Upcall(None, b"tun"), Upcall(1, b"net")]):
        await until(lambda: len(state.seen) == 2)

    assert [upcall.payload for upcall in state.seen] == [b"net", b"tun"]


async def test_timer_that_is_always_due_starves_neither_packets_nor_posted_work() -> None:
    state = Counting(deadline=0.0)
    posted: list[float] = []

    async with driven(state, max_iterations=100) as (loop, outside):
        await until(lambda: loop.counters["forced_yields"] > 2)
        outside.add([Upcall(None, b"tun"), Upcall(1, b"net")])
        loop.post(posted.append)
        await until(lambda: len(state.seen) == 2 and len(posted) == 1)

        assert loop.counters["timeouts"] > 200


async def test_loop_heals_as_soon_as_a_packet_changes_the_bad_timer() -> None:
    state = Counting(deadline=0.0)

    def heal(upcall: "Upcall", now: float) -> None:
        state.deadline = None

    state.on_upcall = heal

    async with driven(state, max_iterations=100) as (loop, outside):
        await until(lambda: loop.counters["forced_yields"] > 2)
        outside.add([Upcall(1, b"net")])
        await until(lambda: len(state.seen) == 1)
        await turns(3)
        runs = loop.counters["runs"]
        await turns(20)

        assert loop.counters["runs"] == runs


async def test_permanent_upcalls_keep_neither_timers_nor_posted_work_out() -> None:
    state = Counting(deadline=clock.monotonic() + 0.01)
    posted: list[float] = []

    def serve(now: float) -> None:
        state.deadline = now + 0.01

    state.on_timeout = serve

    async with driven(state, flood=True, max_iterations=50) as (loop, _):
        await until(lambda: state.timeouts >= 5)
        loop.post(posted.append)
        await until(lambda: len(posted) == 1)

        assert loop.counters["network_upcalls"] > 1000


async def test_other_tasks_get_their_turn_during_a_flood() -> None:
    async with driven(Counting(), flood=True, max_iterations=50) as (loop, _):
        await turns(100)

        assert loop.counters["forced_yields"] >= 50


async def test_forced_yield_advances_time_and_is_followed_by_another_run_without_outside_help() -> None:
    state = Counting()

    async with driven(state, flood=True, max_iterations=10) as (loop, _):
        await until(lambda: loop.counters["forced_yields"] == 3)

    assert state.timeouts >= 3
    assert loop.counters["iterations"] == 30


async def test_run_ends_after_its_time_too() -> None:
    ticks = iter(range(FOREVER))

    async with driven(Counting(), flood=True, max_run_s=5.0, now=lambda: float(next(ticks))) as (loop, _):
        await until(lambda: loop.counters["forced_yields"] == 2)

        assert loop.counters["iterations"] <= 12


async def test_error_in_one_packet_loses_neither_its_batch_nor_the_loop() -> None:
    state = Counting()

    def stumble(upcall: "Upcall", _: float) -> None:
        if upcall.payload == b"bad":
            raise ValueError("cannot")

    state.on_upcall = stumble

    async with driven(state, upcalls=[Upcall(1, b"a"), Upcall(1, b"bad"), Upcall(1, b"c")]) as (loop, _):
        await until(lambda: len(state.seen) == 3)

        assert loop.counters["network_errors"] == 1


async def test_error_in_an_event_or_in_posted_work_is_counted_and_the_next_is_served() -> None:
    state = Counting()
    state.events.extend(["bad", "good"])

    def stumble(_: float) -> None:
        raise ValueError("cannot")

    async with driven(state) as (loop, outside):
        loop.post(stumble)
        await until(lambda: outside.events == ["good"] and loop.counters["posted_errors"] == 1)

        assert loop.counters["event_errors"] == 1


async def test_failing_timer_is_tried_again_but_not_at_once() -> None:
    state = Counting(deadline=0.0)

    def fail(_: float) -> None:
        raise ValueError("cannot")

    state.on_timeout = fail

    async with driven(state) as (loop, _):
        await until(lambda: loop.counters["timeout_errors"] == 2)

        assert loop.counters["iterations"] < 20


async def test_timer_fires_once_for_its_deadline() -> None:
    state = Counting(deadline=clock.monotonic() + 0.01)

    def serve(_: float) -> None:
        state.deadline = None

    state.on_timeout = serve

    async with driven(state) as (loop, _):
        await until(lambda: state.timeouts == 1)
        await turns(5)

        assert state.timeouts == 1
        assert loop.counters["forced_yields"] == 0


async def test_posted_work_is_bounded_and_put_waits_for_room() -> None:
    async with driven(Counting()) as (loop, _):
        done: list[float] = []
        accepted = [loop.post(done.append) for _ in range(MAX_POSTED + 5)]

        await loop.put(done.append)
        await until(lambda: len(done) == MAX_POSTED + 1)

        assert accepted.count(False) == 5
        assert loop.counters["posts_refused"] == 5


async def test_state_that_always_has_output_cannot_hang_the_program() -> None:
    state = Counting()

    def endless() -> Transmit:
        return Transmit(None, PEER, b"x")

    state.next_transmit = endless
    posted: list[float] = []

    async with driven(state, max_iterations=5) as (loop, _):
        await until(lambda: loop.counters["forced_yields"] == 2)
        loop.post(posted.append)
        await until(lambda: len(posted) == 1)


async def test_what_waits_inside_stays_within_one_poll_of_upcalls() -> None:
    most = 0

    def look(*_: object) -> None:
        nonlocal most
        most = max(most, len(loop._from_network) + len(loop._from_tun))

    state = Counting(on_upcall=look)
    async with driven(state, flood=True, max_iterations=50) as (loop, _):
        await until(lambda: loop.counters["forced_yields"] > 3)

    assert 0 < most <= UPCALLS_PER_POLL


async def test_the_longest_run_is_that_since_the_last_look() -> None:
    at = 0.0

    def take_long(*_: object) -> None:
        nonlocal at
        at += 0.08

    state = Counting(on_upcall=take_long)
    async with driven(state, upcalls=[Upcall(1, b"slow")], now=lambda: at) as (loop, _):
        await until(lambda: len(state.seen) == 1)
        first, second = loop.figures(), loop.figures()

    assert first["longest_run_seconds"] == pytest.approx(0.08)
    assert first["runs_over_60_ms"] == 1
    assert first["runs_over_100_ms"] == 0
    assert second["longest_run_seconds"] == 0.0


async def test_heartbeats_and_messages_of_the_portal_link_pass_while_a_flood_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wardgate.proto.portal_link.HEARTBEAT_S", 0.05)
    portal, done = FakePortal(("init", {})), 0

    def count(_: float) -> None:
        nonlocal done
        done += 1

    async def follow(link: PortalLink, loop: "ControlLoop[Upcall, str]") -> None:
        async for event in link:
            if isinstance(event, Message):
                await loop.put(count)

    async with portal.listening(), driven(Counting(), flood=True, max_run_s=0.01) as (loop, _):
        link = PortalLink(url=lambda: f"{portal.url}/client/v2/websocket", token="t", topic="client", user_agent="test")
        link.start()
        following = asyncio.create_task(follow(link, loop))
        try:
            await until(lambda: portal.heartbeats >= 5 and done == 1)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await link.close()

    assert loop.counters["forced_yields"] > 5


@pytest.mark.parametrize("flood", [False, True])
async def test_stopped_loop_does_nothing_more(flood: bool) -> None:
    state = Counting(deadline=clock.monotonic() + 0.001)

    async with driven(state, flood=flood, max_iterations=5) as (loop, _):
        await turns(2)
        loop.stop()
        runs = loop.counters["runs"]
        await turns(20)

        assert loop.counters["runs"] == runs


@dataclass(frozen=True)
class Upcall:
    peer: int | None
    payload: bytes


def nothing(*_: object) -> None:
    """What a state does that was not told otherwise."""


@dataclass
class Counting:
    """A state that remembers what it was given and does what the test says."""

    deadline: float | None = None
    seen: list[Upcall] = field(default_factory=list)
    timeouts: int = 0
    transmits: deque[Transmit] = field(default_factory=deque)
    events: deque[str] = field(default_factory=deque)
    on_upcall: Callable[[Upcall, float], None] = nothing
    on_timeout: Callable[[float], None] = nothing
    next_transmit: Callable[[], Transmit | None] | None = None

    def handle_upcalls(self, upcalls: Sequence[Upcall], now: float) -> list[Exception]:
        errors: list[Exception] = []
        for upcall in upcalls:
            self.seen.append(upcall)
            try:
                self.on_upcall(upcall, now)
            except ValueError as error:
                errors.append(error)
        return errors

    def handle_timeout(self, now: float) -> None:
        self.timeouts += 1
        self.on_timeout(now)

    def poll_timeout(self) -> float | None:
        return self.deadline

    def poll_transmit(self) -> Transmit | None:
        if self.next_transmit is not None:
            return self.next_transmit()
        return self.transmits.popleft() if self.transmits else None

    def poll_packet(self) -> bytes | None:
        return None

    def poll_event(self) -> str | None:
        return self.events.popleft() if self.events else None


class Outside:
    """Upcalls in, datagrams out, with an eventfd as the engine has it."""

    def __init__(self, upcalls: list[Upcall], flood: bool) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.flood = flood
        self.waiting: list[Upcall] = []
        self.sent: list[Datagram] = []
        self.events: list[str] = []
        self.add(upcalls)

    def add(self, upcalls: list[Upcall]) -> None:
        self.waiting.extend(upcalls)
        if upcalls:
            os.eventfd_write(self.fd, 1)

    def upcall_fd(self) -> int:
        return self.fd

    def poll_upcalls(self, limit: int = 256) -> list[Upcall]:
        if self.flood:
            return [Upcall(1, b"flood")] * limit
        if self.waiting:
            os.eventfd_read(self.fd)
        taken, self.waiting = self.waiting, []
        return taken

    def send(self, datagrams: list[Datagram]) -> int:
        self.sent.extend(datagrams)
        return len(datagrams)

    def write_tun(self, packets: list[bytes]) -> int:
        return len(packets)

    def on_event(self, event: str) -> None:
        if event == "bad":
            raise ValueError("cannot")
        self.events.append(event)


@asynccontextmanager
async def driven(
    state: Counting,
    *,
    upcalls: list[Upcall] | None = None,
    flood: bool = False,
    max_iterations: int = 5000,
    max_run_s: float = 3600.0,
    now: Callable[[], float] = clock.monotonic,
) -> AsyncIterator[tuple[ControlLoop[Upcall, str], Outside]]:
    outside = Outside(upcalls or [], flood)
    loop = ControlLoop(
        state, outside, outside, outside.on_event, max_iterations=max_iterations, max_run_s=max_run_s, now=now
    )
    loop.start()
    try:
        yield loop, outside
    finally:
        loop.stop()
        os.close(outside.fd)


async def turns(count: int) -> None:
    """Lets the event loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the event loop's turns are what is tested
            await asyncio.sleep(0)
