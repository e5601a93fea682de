"""Which events a flow becomes, and how events are cut into batches."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.portal.helpers import ManualClock
from wardgate.portal.domain.log_events import Event, batches, flow_events, was_passed_while_open
from wardgate.portal.domain.log_ids import Sequencer, change_id, random_id, seed_of, seq_at, stream_of

OTHERS = """
    initiator_device_id responder_device_id policy_authorization_id policy_id authorized_at authorization_expires_at
    initiator_auth_provider_id initiator_actor_id initiator_actor_name initiator_actor_email initiator_client_version
    initiator_device_os_name initiator_device_os_version initiator_device_serial initiator_device_uuid resource_id
    resource_name resource_address inner_src_ip inner_src_port inner_dst_ip inner_dst_port
""".split()  # noqa: SIM905
FLOW: dict[str, Any] = {
    "type": "flow",
    "log_id": "f" * 24,
    "timestamp": "2026-11-23T12:00:00.000000Z",
    "role": "initiator",
    "protocol": "tcp",
    **dict.fromkeys(OTHERS, "x"),
    "flow_start": "2026-11-23T12:00:00.500000Z",
    "flow_end": "2026-11-23T12:00:05.000000Z",
    "last_packet": "2026-11-23T12:00:04.000000Z",
    "inner_domain": "wiki.corp.example",
    "outers": [{"dst_ip": "203.0.113.1"}],
    "rx_packets": 1,
    "tx_packets": 2,
    "rx_bytes": 3,
    "tx_bytes": 4,
}
OPEN = {**FLOW, "flow_end": None, "last_packet": None, "outers": None, "rx_packets": None}


def test_an_open_flow_is_its_beginning() -> None:
    (start,) = flow_events(OPEN, 7, start_was_sent=False)

    shown = json.loads(start.text)
    assert start.text.startswith('{"type":"flow","log_id":"')
    assert shown["log_id"] == start.log_id == "f" * 24 + "-s"
    assert shown["timestamp"] == shown["flow_start"] == FLOW["flow_start"]
    assert start.at_ms == 1795435200500
    assert shown["domain"] == "wiki.corp.example"
    assert [shown[name] for name in ("flow_end", "last_packet", "outers", "rx_bytes", "tx_packets")] == [None] * 5
    assert not {"inner_domain", "initiator_auth_provider_id", "authorized_at", "initiator_device_serial"} & set(shown)


def test_a_closed_flow_is_its_beginning_and_its_end_or_the_end_alone() -> None:
    start, end = flow_events(FLOW, 7, start_was_sent=False)
    (alone,) = flow_events(FLOW, 7, start_was_sent=True)

    assert json.loads(start.text)["rx_bytes"] is None
    assert alone == end
    shown = json.loads(end.text)
    assert (shown["log_id"], shown["timestamp"]) == ("f" * 24 + "-e", FLOW["flow_end"])
    assert (shown["rx_bytes"], shown["outers"]) == (3, FLOW["outers"])


@pytest.mark.parametrize(
    ("passes", "expected"),
    [
        ([], False),
        ([[9, 50]], False),  # the cursor has not come to it
        ([[9, 50], [10, 60]], True),  # came to it at 60, and the flow ended at 100
        ([[12, 60], [90, 99]], True),
        ([[12, 100]], False),  # when the cursor came past it, the flow had ended: the open row was not there any more
        ([[12, 150], [90, 160]], False),
    ],
)
def test_a_beginning_counts_as_sent_only_if_the_cursor_passed_it_while_the_flow_was_open(
    passes: list[list[int]], expected: bool
) -> None:
    assert was_passed_while_open(10, 100, passes) == expected


EVENTS = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 50)), max_size=30).map(
    lambda items: [Event("flow", f"id{number}", seq, 0, "x" * size) for number, (seq, size) in enumerate(sorted(items))]
)


@given(EVENTS, st.integers(1, 10), st.integers(1, 200))
def test_batches_keep_order_and_numbers_together_and_stay_below_their_bounds(
    events: list[Event], max_events: int, max_bytes: int
) -> None:
    cut = batches(events, max_events=max_events, max_bytes=max_bytes)

    assert [one for batch in cut for one in batch] == events
    seqs = [sorted({one.seq for one in batch}) for batch in cut]
    assert [seq for some in seqs for seq in some] == sorted({one.seq for one in events})
    for batch, some in zip(cut, seqs, strict=True):
        size = sum(len(one.text) + 1 for one in batch)
        assert len(some) == 1 or (len(batch) <= max_events and size <= max_bytes)


def test_ids_tell_their_stream_and_changes_sort() -> None:
    assert stream_of(random_id("session", bytes(range(12)))) == "session"
    assert stream_of(random_id("flow", b"\xff" * 12)) == "flow"
    assert stream_of("c" * 23) is stream_of("g" * 24) is stream_of("0" * 24) is stream_of("c" * 24 + "\n") is None
    ids = [change_id(5, 9), change_id(5, 10), change_id(5, 2**20), change_id(6, 0), change_id(2**51, 0)]
    assert ids == sorted(ids)
    assert [seed_of(one) for one in ids] == [5, 5, 5, 6, 2**51]


def test_numbers_rise_also_when_the_clock_steps_back() -> None:
    clock, sequencer = ManualClock(), Sequencer()
    first = sequencer.next(clock.utc_now())
    clock.advance(-3600)
    second = sequencer.next(clock.utc_now())
    clock.advance(7200)

    assert first == seq_at(ManualClock().utc_now())
    assert second == first + 1
    assert sequencer.next(clock.utc_now()) == seq_at(clock.utc_now()) > second
