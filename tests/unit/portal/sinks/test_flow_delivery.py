"""Flows on their way to a sink: a beginning and an end each, once, whatever the times."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.unit.portal.sinks.conftest import SETTLE_S, Bench
from tests.unit.portal.sinks.receiver import Answer
from wardgate.portal.db.flow_logs import store_flows
from wardgate.portal.domain.flow_records import FlowRecord

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
IDS = ("initiator_device_id", "responder_device_id", "policy_authorization_id", "policy_id", "resource_id")


class Flows:
    """Reports flows by their source port."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        now = bench.clock.utc_now()
        self._shared: dict[str, Any] = {
            **{name: str(uuid4()) for name in IDS},
            "account_id": bench.lab.account.id,
            "role": "initiator",
            "resource_name": "Wiki",
            "authorized_at": now,
            "authorization_expires_at": now + timedelta(days=1),
        }

    async def open(self, *ports: int) -> None:
        await self._store([FlowRecord("tcp", "100.64.0.1", port, "10.0.0.9", 443, START) for port in ports])

    async def close(self, *ports: int) -> None:
        end = {"flow_end": START, "last_packet": START, "outers": ({"dst_ip": "203.0.113.1", "dst_port": 1},)}
        counters = dict.fromkeys(("rx_packets", "tx_packets", "rx_bytes", "tx_bytes"), 1)
        closed = [FlowRecord("tcp", "100.64.0.1", p, "10.0.0.9", 443, START, **end, **counters) for p in ports]  # type: ignore[arg-type]
        await self._store(closed)

    async def _store(self, records: list[FlowRecord]) -> None:
        await store_flows(self._bench.db, self._shared, records, self._bench.clock.utc_now())

    def sent(self) -> list[str]:
        """The events that the receiver took: the port and which of the two it is."""
        events = [event for seen in self._bench.receiver.seen for event in seen.json]
        return [f"{event['inner_src_port']}{event['log_id'][-2:]}" for event in events]


@pytest.fixture
def flows(bench: Bench) -> Flows:
    return Flows(bench)


async def test_a_long_flow_is_sent_when_it_begins_and_when_it_ends(bench: Bench, flows: Flows) -> None:
    await bench.sink(enabled_streams=["flow"])
    await bench.run()
    await flows.open(1)
    bench.clock.advance(SETTLE_S)
    await bench.run()
    assert flows.sent() == ["1-s"]
    await flows.close(1)
    bench.clock.advance(SETTLE_S)
    await bench.run()
    await bench.run()

    assert flows.sent() == ["1-s", "1-e"]


async def test_a_flow_that_ended_before_it_was_sent_is_sent_as_a_pair_in_one_request(
    bench: Bench, flows: Flows
) -> None:
    await bench.sink(enabled_streams=["flow"], batch_max_events=1)
    await bench.run()
    await flows.open(1)
    await flows.close(1, 2)
    bench.clock.advance(SETTLE_S)
    await bench.run()

    assert sorted(flows.sent()) == ["1-e", "1-s", "2-e", "2-s"]
    assert [len(seen.json) for seen in bench.receiver.seen] == [2, 2]


async def test_a_short_flow_keeps_its_beginning_when_the_cursor_passes_it_unseen(bench: Bench, flows: Flows) -> None:
    await bench.sink(enabled_streams=["flow"])
    await bench.run()
    await flows.open(1)
    bench.clock.advance(1)
    await flows.open(2)  # lets the cursor pass the place where 1 was open
    bench.clock.advance(10)
    await flows.close(1)
    bench.clock.advance(25)
    await bench.run()  # 2 has settled, the end of 1 has not
    assert flows.sent() == ["2-s"]
    await bench.run()

    assert flows.sent() == ["2-s", "1-s", "1-e"]


async def test_a_backlog_loses_no_beginning(bench: Bench, flows: Flows) -> None:
    await bench.sink(enabled_streams=["flow"], batch_max_events=2)
    await bench.run()
    bench.receiver.play = lambda seen: Answer(503)
    for port in range(8):
        await flows.open(port)
        bench.clock.advance(1)
    await bench.run()
    for port in range(8):
        await flows.close(port)
        bench.clock.advance(1)
    bench.clock.advance(SETTLE_S)
    bench.receiver.play = lambda seen: Answer()
    await bench.run()

    assert sorted(flows.sent()) == sorted(f"{port}{suffix}" for port in range(8) for suffix in ("-s", "-e"))


async def test_what_was_open_before_a_sink_is_ended_by_it_alone(bench: Bench, flows: Flows) -> None:
    await flows.open(1)
    bench.clock.advance(SETTLE_S)
    await bench.sink(enabled_streams=["flow"])
    await bench.run()
    await flows.close(1)
    bench.clock.advance(SETTLE_S)
    await bench.run()

    assert flows.sent() == ["1-e"]


async def test_a_backfill_and_the_live_stream_share_a_flow_that_ends_between_them(bench: Bench, flows: Flows) -> None:
    await flows.open(1, 2)
    bench.clock.advance(SETTLE_S)
    sink = await bench.sink(enabled_streams=["flow"], retroactive=True, batch_max_events=1)
    bench.receiver.play = lambda seen: Answer(503 if seen.json[0]["inner_src_port"] == 2 else 200)
    await bench.run()
    assert flows.sent() == ["1-s"]
    await flows.close(1, 2)  # 2 leaves the backfill before it was sent
    bench.clock.advance(SETTLE_S)
    bench.receiver.play = lambda seen: Answer()
    for _ in range(3):
        await bench.run()

    assert sorted(flows.sent()) == ["1-e", "1-s", "2-e", "2-s"]
    assert (await bench.cursors(sink))["flow", "backfill"].completed_at is not None


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_of_events_runs_and_failures_sends_each_event_at_least_once(
    bench: Bench, flows: Flows, seed: int
) -> None:
    choose = random.Random(seed)
    await bench.sink(enabled_streams=["flow"], batch_max_events=choose.choice((1, 2, 5)))
    await bench.run()
    opened: list[int] = []
    closed: list[int] = []
    for step in range(60):
        match choose.choice(("open", "open", "close", "wait", "run", "fail", "late")):
            case "open":
                await flows.open(step)
                opened.append(step)
            case "close" if opened:
                await flows.close(opened[0])
                closed.append(opened.pop(choose.randrange(len(opened)) * 0))
            case "late":
                await flows.close(step)
                closed.append(step)
            case "wait":
                bench.clock.advance(choose.choice((0.1, 5, 29, 31)))
            case "run":
                bench.receiver.play = lambda seen: Answer()
                await bench.run()
            case "fail":
                bench.receiver.play = lambda seen: Answer(choose.choice((503, 413)))
                await bench.delivery.run()
    bench.receiver.play = lambda seen: Answer()
    for _ in range(12):
        bench.clock.advance(SETTLE_S)
        await bench.run()

    wanted = {f"{port}-s" for port in opened + closed} | {f"{port}-e" for port in closed}
    assert set(flows.sent()) == wanted
    assert len(flows.sent()) <= len(wanted) * 1.2, "beginnings are sent twice more often than they need be"
