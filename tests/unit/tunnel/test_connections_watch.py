"""When a peer that leaves data unanswered is doubted."""

from collections.abc import Sequence

from wardgate.tunnel.connections_watch import Doubt, Watch


def steps(times: Sequence[tuple[float | None, float]]) -> list[tuple[float, Doubt]]:
    watch = Watch()
    found = [(now, watch.handle_unanswered(since, now)) for since, now in times]
    return [(now, doubt) for now, doubt in found if doubt]


def test_steps_come_in_order_and_once() -> None:
    quarter_seconds = [(10.0, 10.0 + number / 4) for number in range(40)]

    assert steps(quarter_seconds) == [(11.0, Doubt.CHECK_PATH), (11.5, Doubt.TRY_EVERY_PATH), (12.5, Doubt.GIVE_UP)]


def test_an_answer_starts_it_over() -> None:
    times = [(10.0, 11.0), (None, 11.2), (11.3, 12.0), (11.3, 12.3)]

    assert steps(times) == [(11.0, Doubt.CHECK_PATH), (12.3, Doubt.CHECK_PATH)]


def test_other_data_unanswered_later_starts_it_over_too() -> None:
    assert steps([(10.0, 11.0), (11.4, 11.6), (11.4, 12.4)]) == [(11.0, Doubt.CHECK_PATH), (12.4, Doubt.CHECK_PATH)]


def test_process_that_was_stopped_still_gives_every_step_its_time() -> None:
    times: list[tuple[float | None, float]] = [(10.0, 60.0), (10.0, 60.1), (10.0, 60.4), (10.0, 61.0), (10.0, 61.9)]

    assert steps(times) == [(60.0, Doubt.CHECK_PATH), (60.4, Doubt.TRY_EVERY_PATH), (61.9, Doubt.GIVE_UP)]


def test_slow_path_gets_more_patience() -> None:
    watch = Watch()

    assert watch.handle_unanswered(10.0, 11.5, rtt_s=0.6) is None
    assert watch.handle_unanswered(10.0, 11.8, rtt_s=0.6) is Doubt.CHECK_PATH
