"""Logging never waits: for a disk that is full, a pipe that nobody reads, or a terminal."""

import io
import os
import threading
from collections.abc import Callable

from wardgate.io.log_sink import MAX_LINE, LogSink, Stderr


class Held:
    """Takes lines once it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()
        self.text = ""

    def write(self, text: str) -> None:
        self.begun.set()
        self.go.wait(30)
        self.text += text

    def tick(self) -> None:
        pass


class Failing:
    """As a full disk."""

    def write(self, text: str) -> None:
        raise OSError(28, "No space left on device")

    def tick(self) -> None:
        raise OSError(28, "No space left on device")


def test_who_logs_does_not_wait_and_what_is_lost_is_counted_and_told() -> None:
    target = Held()
    sink = LogSink([target], "{} lost\n".format, limit=10)
    sink.write("first\n")
    target.begun.wait(30)

    for number in range(25):
        sink.write(f"{number}\n")
    lost = sink.counters["lines_lost"]
    in_time = sink.drain(0.01)
    target.go.set()

    assert sink.drain(30)
    assert not in_time
    assert lost == 15
    assert target.text == "first\n" + "".join(f"{number}\n" for number in range(10)) + "15 lost\n"


def test_target_that_fails_is_counted_and_the_others_go_on() -> None:
    stream = io.StringIO()
    sink = LogSink([Failing(), Stderr(stream)], "{}".format)

    sink.write("one\n")
    sink.drain(30)
    sink.write("two\n")
    sink.drain(30)

    assert stream.getvalue() == "one\ntwo\n"
    assert sink.counters["write_errors"] == 3  # a tick and two writes


def test_pipe_that_nobody_reads_holds_nobody_up() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with os.fdopen(reader, "rb") as read, os.fdopen(writer, "w") as write:
        sink = LogSink([Stderr(write)], "{} lost\n".format, limit=100)
        for _ in range(100):
            sink.write("x" * 10_000 + "\n")
        held = sink.drain(0.1)
        text = b""
        while text.count(b"\n") < 100:
            text += os.read(read.fileno(), 65536)

        assert not held
        assert sink.drain(30)
        assert len(text) == 100 * 10_001


def test_long_lines_are_cut() -> None:
    stream = io.StringIO()
    sink = LogSink([Stderr(stream)], "{}".format)

    sink.write("x" * (MAX_LINE + 1000) + "\n")
    sink.drain(30)

    assert stream.getvalue() == "x" * MAX_LINE + " ...\n"


def test_stream_that_was_closed_is_no_reason_to_stop() -> None:
    stream = io.StringIO()
    sink = LogSink([Stderr(stream)], "{}".format)
    stream.close()

    sink.write("one\n")

    assert sink.drain(30)
    assert sink.counters["write_errors"] == 1


def test_closed_sink_has_written_everything() -> None:
    stream = io.StringIO()
    describe: Callable[[int], str] = "{}".format
    sink = LogSink([Stderr(stream)], describe)
    for number in range(500):
        sink.write(f"{number}\n")

    sink.close()

    assert stream.getvalue().splitlines() == [str(number) for number in range(500)]
