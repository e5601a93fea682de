"""When a peer that leaves data unanswered is doubted."""

from collections.abc import Sequence

from wardgate.tunnel.connections_watch import Doubt, Watch


def steps(times: Sequence[tuple[float | None, float]]) -> list[tuple[float, Doubt]]:
    watch = Watch()
    found = [(now, watch.handle_unanswered(since, now)) for since, now in times]
    return [(now, doubt) for now, doubt in found if doubt]


def test_steps_come_in_order_and_once() -> None:
    tenths = [(10.0, round(10.0 + number / 10, 1)) for number in range(60)]

    assert steps(tenths) == [
        (10.4, Doubt.CHECK_RELAYS),
        (10.6, Doubt.LEAVE_SILENT_RELAY),
        (10.8, Doubt.CHECK_PATH),
        (11.2, Doubt.TRY_EVERY_PATH),
        (12.2, Doubt.GIVE_UP),
    ]


def test_an_answer_starts_it_over() -> None:
    times = [(10.0, 11.0), (None, 11.2), (11.3, 11.4), (11.3, 12.3)]

    assert steps(times) == [(11.0, Doubt.CHECK_RELAYS), (12.3, Doubt.CHECK_RELAYS)]


def test_other_data_unanswered_later_starts_it_over_too() -> None:
    assert steps([(10.0, 11.0), (11.4, 11.6), (11.4, 12.4)]) == [
        (11.0, Doubt.CHECK_RELAYS),
        (12.4, Doubt.CHECK_RELAYS),
    ]


def test_process_that_was_stopped_still_gives_every_step_its_time() -> None:
    tenths: list[tuple[float | None, float]] = [(10.0, round(60.0 + number / 10, 1)) for number in range(30)]

    assert steps(tenths) == [
        (60.0, Doubt.CHECK_RELAYS),
        (60.2, Doubt.LEAVE_SILENT_RELAY),
        (60.3, Doubt.CHECK_PATH),
        (60.6, Doubt.TRY_EVERY_PATH),
        (61.6, Doubt.GIVE_UP),
    ]


def test_slow_path_gets_more_patience() -> None:
    watch = Watch()

    assert watch.handle_unanswered(10.0, 11.1, rtt_s=0.6) is None
    assert watch.handle_unanswered(10.0, 11.2, rtt_s=0.6) is Doubt.CHECK_RELAYS
