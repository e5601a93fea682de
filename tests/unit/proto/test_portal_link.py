"""The portal link in virtual time: join, heartbeats, refusals, and how long it waits between attempts."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.proto.portal_link import (
    Dial,
    Ended,
    Event,
    Fatal,
    FatalKind,
    HangUp,
    Joined,
    Link,
    LinkDown,
    LinkUp,
    Message,
    RetryPolicy,
)
from wardgate.proto.portal_login import Refusal


def test_first_dial_is_due_at_once() -> None:
    link = new_link()

    link.handle_timeout(0.0)

    assert events(link) == [Dial()]


def test_join_is_the_first_frame_and_messages_wait_for_its_reply() -> None:
    link = dialled_link()
    link.handle_connected(0.0)

    assert link.send("no_relays", {})
    before = frames(link)
    link.handle_text(reply(0), 0.1)
    after = frames(link)

    assert before == [{"topic": "client", "event": "phx_join", "payload": None, "ref": 0}]
    assert after == [{"topic": "client", "event": "no_relays", "payload": {}, "ref": 1}]
    assert events(link) == [LinkUp()]


@pytest.mark.parametrize(
    "answer",
    [
        {"topic": "client", "event": "phx_reply", "ref": "0", "payload": {"status": "ok", "response": {}}},
        {"topic": "client", "event": "phx_reply", "ref": 0, "payload": {"status": "ok", "response": {"x": 1}}},
        {"topic": "client", "event": "phx_reply", "ref": 0, "payload": {"status": "ok", "response": None}},
        {"topic": "client", "event": "phx_reply", "ref": 9, "payload": {"status": "ok", "response": {}}},
    ],
)
def test_reply_that_does_not_confirm_the_join_lets_it_time_out(answer: dict[str, Any]) -> None:
    link = dialled_link()
    link.handle_connected(1.0)

    link.handle_text(json.dumps(answer), 1.1)
    link.handle_timeout(5.9)
    early = events(link)
    link.handle_timeout(6.0)

    assert early == []
    assert events(link) == [HangUp(), LinkDown("the portal did not confirm the join", 1.0)]


def test_refused_join_is_fatal_but_keeps_the_token() -> None:
    link = dialled_link()
    link.handle_connected(0.0)

    link.handle_text(error_reply(0, "disabled"), 0.1)

    *_, last = events(link)
    assert isinstance(last, Fatal)
    assert not last.requires_sign_in
    assert "disabled" in last.reason
    assert link.poll_timeout() is None


def test_unmatched_topic_later_joins_again_on_the_same_connection() -> None:
    link = joined_link()
    link.send("no_relays", {})
    frames(link)

    link.handle_text(error_reply(1, "unmatched topic"), 1.0)
    rejoin = frames(link)
    link.handle_text(reply(2), 1.1)

    assert rejoin == [{"topic": "client", "event": "phx_join", "payload": None, "ref": 2}]
    assert events(link) == [LinkUp()]


def test_heartbeats_go_out_every_ten_seconds_and_answers_keep_the_link() -> None:
    link = joined_link()

    for number in range(1, 20):
        link.handle_timeout(10.0 * number)
        (heartbeat,) = frames(link)
        assert heartbeat == {"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": number}
        link.handle_text(reply(number, topic="phoenix"), 10.0 * number + 0.1)

    assert events(link) == []
    assert isinstance(link.state, Joined)


def test_unanswered_heartbeats_end_the_connection_after_forty_seconds() -> None:
    link = joined_link()

    for at in (10.0, 20.0, 30.0, 39.9):
        link.handle_timeout(at)
    sent = len(frames(link))
    link.handle_timeout(40.0)

    assert sent == 3
    hang_up, down = events(link)
    assert hang_up == HangUp()
    assert isinstance(down, LinkDown)
    assert 0.5 <= down.retry_in_s <= 1.0


def test_portal_that_was_never_joined_is_tried_sixteen_times_in_fifteen_seconds() -> None:
    link = new_link()

    now, dials = 0.0, 0
    while not isinstance(link.state, Ended):
        due = link.poll_timeout()
        assert due is not None
        now = due
        link.handle_timeout(now)
        dials += events(link).count(Dial())
        link.handle_refused(Refusal(500), now)
        last = events(link)[-1]

    assert (dials, now) == (16, 15.0)
    assert isinstance(last, Fatal)
    assert last.kind is FatalKind.GAVE_UP
    assert "15 s" in last.reason


def test_black_hole_gives_up_after_fifteen_seconds_too() -> None:
    link = new_link()

    now = 0.0
    while not isinstance(link.state, Ended):
        now = link.poll_timeout() or now
        link.handle_timeout(now)
        events(link)

    assert now == 15.0


def test_retry_after_is_obeyed_to_the_letter_and_spends_no_budget() -> None:
    link = new_link()

    now = 0.0
    for _ in range(100):
        link.handle_timeout(now)
        link.handle_refused(Refusal(503, "rate_limit", retry_after_s=2.0), now)
        due = link.poll_timeout()
        assert due == now + 2.0
        now = due

    assert not isinstance(link.state, Ended)


def test_waits_grow_from_half_a_second_to_a_minute_after_the_first_join() -> None:
    waits = outage_waits(fraction=0.0, failures=16)

    assert waits[:4] == [0.5, 0.75, 1.125, 1.6875]
    assert waits[-1] == 60.0
    assert all(later >= earlier for earlier, later in pairwise(waits))


def test_waits_are_lengthened_at_random_and_never_beyond_the_cap() -> None:
    waits = outage_waits(fraction=0.999999, failures=16)

    assert waits[0] == pytest.approx(1.0, abs=1e-3)
    assert max(waits) == 60.0


def test_outage_longer_than_the_budget_is_fatal() -> None:
    link = joined_link(policy=RetryPolicy(budget_s=100.0))
    link.handle_lost("gone", 0.0)

    now = 0.0
    while not isinstance(link.state, Ended):
        now = link.poll_timeout() or now
        link.handle_timeout(now)
        link.handle_lost("still away", now)

    assert 100.0 <= now <= 160.0


def test_join_resets_the_backoff() -> None:
    link = joined_link()
    for at in (1.0, 20.0, 40.0):
        link.handle_lost("gone", at)
        link.handle_timeout(at + 10.0)
    link.handle_connected(60.0)
    link.handle_text(reply(0), 60.1)
    events(link)

    link.handle_lost("gone again", 70.0)

    assert events(link)[-1] == LinkDown("gone again", 0.5)


@pytest.mark.parametrize(("code", "kind"), [("invalid_token", "TOKEN_REFUSED"), (None, "LOGIN_REFUSED")])
def test_unauthorized_is_fatal_and_only_the_portals_own_word_costs_the_token(code: str | None, kind: str) -> None:
    link = dialled_link()

    link.handle_refused(Refusal(401, code, "nope"), 0.1)

    *_, last = events(link)
    assert isinstance(last, Fatal)
    assert last.kind is FatalKind[kind]
    assert "nope" in last.reason


def test_withdrawn_token_is_fatal_and_other_disconnects_are_not() -> None:
    link = joined_link()

    link.handle_text(push("disconnect", {"reason": "certificate_revoked"}), 1.0)
    ignored = events(link)
    link.handle_text(push("disconnect", {"reason": "token_expired"}), 2.0)

    assert ignored == []
    *_, last = events(link)
    assert isinstance(last, Fatal)
    assert last.requires_sign_in


def test_closed_channel_is_a_lost_connection() -> None:
    link = joined_link()

    link.handle_text(push("phx_close", {}), 1.0)

    assert events(link) == [HangUp(), LinkDown("the portal closed the channel", 0.5)]


def test_pushes_are_passed_on_and_foreign_topics_are_not() -> None:
    link = joined_link()

    link.handle_text(push("resource_deleted", "0d7"), 1.0)
    link.handle_text(json.dumps({"topic": "gateway", "event": "init", "payload": {}, "ref": None}), 1.0)

    assert events(link) == [Message("resource_deleted", "0d7")]
    assert link.counters["frames_foreign"] == 1


def test_sending_without_a_connection_is_refused_and_an_equal_waiting_message_is_not_doubled() -> None:
    link = new_link()
    refused = link.send("no_relays", {})
    link = joined_link()

    assert not refused
    assert link.send("no_relays", {})
    assert link.send("no_relays", {})
    assert len(frames(link)) == 1


def test_waiting_messages_are_bounded_and_die_with_the_connection() -> None:
    link = joined_link()

    sent = [link.send("x", number) for number in range(200)]
    link.handle_lost("gone", 1.0)

    assert sent.count(True) == 128
    assert frames(link) == []


def test_changed_network_reconnects_at_once() -> None:
    link = joined_link()

    link.handle_reset(5.0)
    link.handle_timeout(5.0)

    assert events(link) == [HangUp(), LinkDown("the network changed", 0.0), Dial()]


def test_references_start_anew_on_each_connection() -> None:
    link = joined_link()
    link.handle_lost("gone", 1.0)
    link.handle_timeout(2.0)

    link.handle_connected(2.0)

    assert [frame["ref"] for frame in frames(link)] == [0]


@given(st.lists(st.one_of(st.text(max_size=60), st.binary(max_size=60)), max_size=20))
def test_any_text_is_survived(texts: list[str | bytes]) -> None:
    link = joined_link()

    for text in texts:
        link.handle_text(text, 1.0)

    assert isinstance(link.state, Joined)


def new_link(policy: RetryPolicy | None = None, fraction: float = 0.0) -> Link:
    return Link("client", None, policy or RetryPolicy(), lambda n: int(fraction * 2**32).to_bytes(n, "big"), 0.0)


def dialled_link(policy: RetryPolicy | None = None, fraction: float = 0.0) -> Link:
    link = new_link(policy, fraction)
    link.handle_timeout(0.0)
    events(link)
    return link


def joined_link(policy: RetryPolicy | None = None, fraction: float = 0.0) -> Link:
    link = dialled_link(policy, fraction)
    link.handle_connected(0.0)
    frames(link)
    link.handle_text(reply(0), 0.0)
    assert events(link) == [LinkUp()]
    return link


def outage_waits(fraction: float, failures: int) -> list[float]:
    link = joined_link(RetryPolicy(budget_s=None), fraction)
    waits, now = [], 0.0
    for _ in range(failures):
        link.handle_lost("gone", now)
        due = link.poll_timeout()
        assert due is not None
        waits.append(due - now)
        now = due
        link.handle_timeout(now)
    return waits


def events(link: Link) -> list[Event]:
    found = []
    while (event := link.poll_event()) is not None:
        found.append(event)
    return found


def frames(link: Link) -> list[dict[str, Any]]:
    found = []
    while (text := link.poll_transmit()) is not None:
        found.append(json.loads(text))
    return found


def reply(ref: int, topic: str = "client") -> str:
    return json.dumps({"topic": topic, "event": "phx_reply", "ref": ref, "payload": {"status": "ok", "response": {}}})


def error_reply(ref: int, reason: str) -> str:
    payload = {"status": "error", "response": {"reason": reason}}
    return json.dumps({"topic": "client", "event": "phx_reply", "ref": ref, "payload": payload})


def push(event: str, payload: object) -> str:
    return json.dumps({"topic": "client", "event": event, "payload": payload, "ref": None})
