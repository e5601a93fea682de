"""What the service manager hears, over a real datagram socket."""

import asyncio
import os
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.unit.io.fake_portal import until
from tests.unit.io.service_manager import manager
from wardgate.io.runner import Runner
from wardgate.io.service_manager import Beat, ServiceManager

WATCHDOG = {"WATCHDOG_USEC": "40000"}


@pytest.mark.parametrize("abstract", [False, True])
def test_states_are_told_in_the_managers_words(*, abstract: bool) -> None:
    with manager(abstract=abstract) as systemd:
        service = ServiceManager(systemd.environment)

        service.status("joining\nREADY=1")
        service.status("joining READY=1")
        service.reloading()
        service.reloaded()
        before = list(systemd.listen())
        service.ready()
        service.reloading()
        service.reloaded()
        service.stopping()

        heard = systemd.listen()[len(before) :]
    assert before == ["STATUS=joining READY=1"]
    assert [line for line in heard if "USEC" not in line] == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    (moment,) = [line for line in heard if line.startswith("MONOTONIC_USEC=")]
    assert 0 <= time.monotonic() - int(moment.partition("=")[2]) / 1e6 < 60


def test_without_a_manager_nothing_happens_and_a_lost_one_is_counted() -> None:
    nobody, lost = ServiceManager({}), ServiceManager({"NOTIFY_SOCKET": "/nonexistent/notify"})

    nobody.ready()
    lost.ready()

    assert (nobody.failures, lost.failures) == (0, 1)


def test_manager_that_does_not_read_holds_nobody_up() -> None:
    with manager() as systemd:
        service = ServiceManager(systemd.environment)

        for _ in range(5000):
            service.beat()

    assert service.failures > 0


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "0"}, {**WATCHDOG, "WATCHDOG_PID": str(os.getpid() + 1)}],
)
async def test_watchdog_of_nobody_or_of_another_process_is_left_alone(environment: dict[str, str]) -> None:
    asked: list[Beat] = []

    async with asyncio.timeout(30):
        await ServiceManager(environment).watch(asked.append)

    assert asked == []


async def test_watchdog_hears_only_from_who_is_asked() -> None:
    asked: list[Beat] = []
    with manager() as systemd:
        service = ServiceManager({**systemd.environment, **WATCHDOG, "WATCHDOG_PID": str(os.getpid())})
        watching = asyncio.create_task(service.watch(asked.append))
        await until(lambda: len(asked) == 3)
        silent = list(systemd.listen())
        asked[-1]()

        assert silent == []
        await systemd.until("WATCHDOG=1")
        watching.cancel()


async def test_control_loop_that_hangs_misses_the_watchdog() -> None:
    posted: list[Any] = []
    beats: list[None] = []

    def post(work: Any) -> bool:
        posted.append(work)
        return True

    loop = SimpleNamespace(post=post, counters={"runs": 7})
    runner = cast(Any, SimpleNamespace(loop=loop, _runs_seen=0))

    Runner._ask_loop(runner, lambda: beats.append(None))
    while_it_hangs = len(beats)
    posted[0](0.0)
    while_it_turns = len(beats)
    loop.post = lambda _: False  # no room, and no turn since
    Runner._ask_loop(runner, lambda: beats.append(None))
    without_room = len(beats)
    loop.counters["runs"] += 1
    Runner._ask_loop(runner, lambda: beats.append(None))

    assert (while_it_hangs, while_it_turns, without_room, len(beats)) == (0, 1, 1, 2)
