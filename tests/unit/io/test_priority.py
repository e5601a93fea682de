"""Who goes first when the machine has too little for all."""

import os
import threading
from collections.abc import Callable

import pytest

from wardgate.io.priority import MAX_NICE, STEPS_BACK, Priority


def in_a_thread(work: Callable[[], None]) -> None:
    """Runs it where a priority does not outlive the test."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_only_the_thread_that_steps_back_does() -> None:
    before = nice()

    def work() -> None:
        Priority().step_back()
        assert nice() == min(before + STEPS_BACK, MAX_NICE)

    in_a_thread(work)
    assert nice() == before


def test_without_the_privilege_to_come_back_it_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    def work() -> None:
        priority = Priority()
        priority.step_back()
        stepped_back = nice()
        monkeypatch.setattr(os, "setpriority", refuse)
        priority.restore()
        assert nice() == stepped_back

    in_a_thread(work)
