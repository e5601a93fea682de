"""Deliveries to a real server: what is sent when, and what becomes of failures."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
import structlog
from sqlalchemy import select

from tests.unit.portal.sinks.conftest import SETTLE_S, Bench
from tests.unit.portal.sinks.receiver import Answer, Receiver, Seen, running
from wardgate.errors import Conflict, Forbidden, InvalidInput
from wardgate.portal.channels.hub import Hub
from wardgate.portal.config import Settings
from wardgate.portal.db import log_sinks
from wardgate.portal.db.tables import Account, ChangeLog
from wardgate.portal.domain.schedules import Every
from wardgate.portal.jobs import standard_jobs
from wardgate.portal.services import accounts
from wardgate.portal.services import log_sinks as services
from wardgate.portal.services.log_objects import log_object
from wardgate.portal.sinks.client import Client
from wardgate.portal.sinks.delivery import Delivery
from wardgate.portal.sinks.destinations import open_secrets
from wardgate.portal.sinks.outcomes import Accepted, Permanent


async def test_a_new_sink_is_sent_what_happens_from_then_on(bench: Bench) -> None:
    await bench.changes(3)
    sink = await bench.sink()
    await bench.run()
    assert bench.receiver.seen == []

    ids = await bench.changes(2)
    await bench.run()

    assert bench.receiver.ids()[-2:] == ids
    assert all(event["type"] == "change" for seen in bench.receiver.seen for event in seen.json)
    assert (await bench.cursors(sink))["change", "live"].synced_count == len(bench.receiver.ids())


async def test_an_event_is_the_object_of_the_rest_api(bench: Bench) -> None:
    await bench.sink(bearer_token="s3cret token")
    await bench.run()
    ids = await bench.changes(1)
    await bench.run()

    async with bench.db.unscoped() as session:
        row = (await session.scalars(select(ChangeLog).where(ChangeLog.log_id == ids[0]))).one()
    seen = bench.receiver.seen[-1]
    assert seen.json[-1] == log_object(row)
    assert (seen.method, seen.path) == ("POST", "/in")
    assert seen.headers["authorization"] == "Bearer s3cret token"
    assert seen.headers["content-type"] == "application/json"


async def test_nothing_to_send_is_no_request_at_all(bench: Bench) -> None:
    await bench.sink()
    await bench.changes(1)
    await bench.run()
    await bench.run()
    bench.receiver.asked = 0

    await bench.run()
    await bench.run()

    assert bench.receiver.asked == 0


async def test_rows_younger_than_half_a_minute_wait(bench: Bench) -> None:
    await bench.sink()
    await bench.run()
    ids = await bench.changes(1)
    bench.clock.advance(-2.0)

    await bench.delivery.run()
    assert ids[0] not in bench.receiver.ids()
    bench.clock.advance(3.0)
    await bench.delivery.run()
    assert ids[0] in bench.receiver.ids()


async def test_a_retroactive_sink_is_sent_what_was_there_before_as_well(bench: Bench) -> None:
    before = await bench.changes(3)
    sink = await bench.sink(retroactive=True)
    await bench.run()
    after = await bench.changes(2)
    await bench.run()

    ids = bench.receiver.ids()
    assert [one for one in ids if one in before] == before
    assert [one for one in ids if one in after] == after
    assert len(ids) == len(set(ids))
    backfill = (await bench.cursors(sink))["change", "backfill"]
    assert backfill.completed_at is not None
    assert backfill.synced_count == backfill.backfill_total


async def test_switching_retroactive_on_later_changes_nothing_for_streams_that_have_begun(bench: Bench) -> None:
    sink = await bench.sink()
    await bench.run()
    async with bench.db.writing(bench.lab.subject) as unit:
        row = await services.get_sink(unit, sink.id)
        await services.update_sink(unit, row, {"retroactive": True}, may_be_private=True)
    await bench.run()

    assert list(await bench.cursors(sink)) == [("change", "live")]


async def test_a_stream_that_was_off_goes_on_where_it_stopped(bench: Bench) -> None:
    sink = await bench.sink(enabled_streams=["change", "session"])
    await bench.run()
    for streams in (["session"], ["change", "session"]):
        ids = await bench.changes(2)
        async with bench.db.writing(bench.lab.subject) as unit:
            row = await services.get_sink(unit, sink.id)
            await services.update_sink(unit, row, {"enabled_streams": streams}, may_be_private=True)
        bench.clock.advance(SETTLE_S)
        await bench.run()
        assert (ids[0] in bench.receiver.ids()) == ("change" in streams)
    assert len(bench.receiver.ids()) == len(set(bench.receiver.ids()))
    everything = await bench.changes(0)
    assert everything == []


async def test_batches_are_as_small_as_the_sink_wants_and_twenty_a_run(bench: Bench) -> None:
    await bench.sink(batch_max_events=2)
    await bench.run()
    ids = await bench.changes(50)
    await bench.run()
    assert len(bench.receiver.seen) == 20
    assert max(len(seen.json) for seen in bench.receiver.seen) == 2
    await bench.run()

    assert [one for one in bench.receiver.ids() if one in ids] == ids


async def test_a_batch_that_is_too_large_is_halved_until_it_is_taken(bench: Bench) -> None:
    bench.receiver.play = lambda seen: Answer(413 if len(seen.json) > 2 else 202)
    sink = await bench.sink()
    await bench.run()
    ids = await bench.changes(7)
    await bench.run()

    assert [one for one in bench.receiver.ids() if one in ids] == ids
    assert len(bench.receiver.ids()) == len(set(bench.receiver.ids()))
    assert (await bench.row(sink)).error_message is None


async def test_a_stream_stops_at_an_event_that_is_refused_by_itself_and_the_others_go_on(bench: Bench) -> None:
    sink = await bench.sink(enabled_streams=["change", "api_request"], retroactive=True)
    await bench.run()
    bench.receiver.seen.clear()
    ids = await bench.changes(6)
    poison = ids[3]
    bench.receiver.play = lambda seen: Answer(400 if poison in seen.body.decode() else 200, b"bad event")
    await _write_api_request(bench)
    bench.clock.advance(SETTLE_S)
    await bench.run()

    assert [one for one in bench.receiver.ids() if one in ids] == ids[:3]
    assert "api_request" in {event["type"] for seen in bench.receiver.seen for event in seen.json}
    row = await bench.row(sink)
    assert row.error_message == f"{poison}: HTTP 400: bad event"
    assert not row.is_disabled

    bench.receiver.play = lambda seen: Answer()
    await bench.run()
    assert [one for one in bench.receiver.ids() if one in ids] == ids
    assert (await bench.row(sink)).error_message is None


async def test_an_event_that_we_render_wrongly_is_the_operators_matter(bench: Bench) -> None:
    sink = await bench.sink(
        "splunk", collector_url=bench.receiver.url, hec_token="t", enabled_streams=["change", "session"]
    )
    await bench.run()
    await bench.changes(1)
    bench.receiver.play = lambda seen: Answer(400, b'{"text":"Invalid data format","code":6}')
    with structlog.testing.capture_logs() as logs:
        await bench.run()

    row = await bench.row(sink)
    assert (row.error_message, row.is_disabled) == (None, False)
    assert bench.counted == ["poison"]
    assert [one["log_level"] for one in logs] == ["error"]
    assert (await bench.cursors(sink))["change", "live"].synced_count == 0


async def test_who_asks_for_time_gets_it(bench: Bench) -> None:
    asked: list[float] = []

    def play(seen: Seen) -> Answer:
        asked.append(bench.clock.now())
        return Answer(429, b"slow down", {"retry-after": "150"})

    sink = await bench.sink()
    await bench.run()
    await bench.changes(1)
    bench.receiver.play = play
    for _ in range(4):
        await bench.run()

    assert len(asked) == 2
    assert asked[1] - asked[0] >= 150
    row = await bench.row(sink)
    assert row.error_message == "HTTP 429: slow down"
    assert not row.is_disabled


async def test_a_day_of_failures_disables_and_a_success_before_forgives(bench: Bench) -> None:
    sink = await bench.sink()
    await bench.run()
    await bench.changes(1)
    bench.receiver.play = lambda seen: Answer(503)
    await bench.run()
    began = (await bench.row(sink)).errored_at
    assert began is not None
    bench.clock.advance(23 * 3600)
    await bench.run()
    assert (await bench.row(sink)).errored_at == began

    bench.receiver.play = lambda seen: Answer()
    await bench.run()
    row = await bench.row(sink)
    assert (row.error_message, row.errored_at, row.is_disabled) == (None, None, False)

    await bench.changes(1)
    bench.receiver.play = lambda seen: Answer(503)
    await bench.run()
    bench.clock.advance(24 * 3600)
    await bench.run()
    row = await bench.row(sink)
    assert (row.is_disabled, row.disabled_reason, row.error_message) == (True, "Sync error", "HTTP 503")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(401, b"who are you?"), "HTTP 401: who are you?"),
        (Answer(404), "HTTP 404"),
        (Answer(302, b"", {"location": "http://127.0.0.1/"}), "redirects elsewhere"),
        (Answer(308, b"", {"location": "/in2"}), "redirects elsewhere"),
    ],
)
async def test_what_only_a_person_can_repair_disables_at_once(bench: Bench, answer: Answer, said: str) -> None:
    sink = await bench.sink()
    await bench.run()
    ids = await bench.changes(1)
    bench.receiver.asked = 0
    bench.receiver.play = lambda seen: answer
    await bench.run()
    await bench.run()

    assert bench.receiver.asked == 1
    row = await bench.row(sink)
    assert row.is_disabled
    assert said in (row.error_message or "")
    with pytest.raises(Conflict):
        await _change(bench, sink, services.enable_sink)
    await _change(bench, sink, services.disable_sink)
    with pytest.raises(Conflict):
        await _change(bench, sink, services.enable_sink)

    bench.receiver.play = lambda seen: Answer()
    async with bench.db.writing(bench.lab.subject) as unit:
        await services.update_sink(unit, await services.get_sink(unit, sink.id), {}, may_be_private=True)
    await bench.run()
    assert ids[0] in bench.receiver.ids()
    row = await bench.row(sink)
    assert (row.is_disabled, row.error_message, row.errored_at) == (False, None, None)


async def test_a_server_that_does_not_answer_in_time_is_tried_again(bench: Bench) -> None:
    async def late(seen: Seen) -> Answer:
        await asyncio.sleep(5)
        return Answer()

    sink = await bench.sink()
    await bench.run()
    ids = await bench.changes(1)
    bench.receiver.play = late
    bench.delivery.client = lambda: Client(allows_private=True, timeout_s=0.2)
    await bench.run()
    assert "no answer within 0.2 s" in ((await bench.row(sink)).error_message or "")

    bench.receiver.play = lambda seen: Answer()
    bench.delivery.client = lambda: Client(allows_private=True)
    await bench.run()
    assert ids[0] in bench.receiver.ids()


async def test_a_server_that_goes_away_in_the_middle_gets_everything_once_it_is_back(bench: Bench) -> None:
    taken: list[str] = []

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        taken.extend(event["log_id"] for event in json.loads(await reader.readexactly(length)))
        writer.transport.abort()  # it has the batch, and says nothing

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sink = await bench.sink(endpoint_url=f"http://127.0.0.1:{port}/in")
    await bench.run()
    ids = await bench.changes(3)
    await bench.run()
    server.close()
    await server.wait_closed()
    assert set(ids) <= set(taken)
    first = (await bench.row(sink)).error_message
    await bench.run()
    assert first
    assert (await bench.row(sink)).errored_at is not None

    again = Receiver()
    again.port = port
    async with running(again):
        await bench.run()
    assert [one for one in again.ids() if one in ids] == ids
    assert (await bench.row(sink)).error_message is None


async def test_private_addresses_and_plain_http_are_refused_unless_the_operator_allows_them(bench: Bench) -> None:
    with pytest.raises(InvalidInput, match="https"):
        async with bench.db.writing(bench.lab.subject) as unit:
            await services.create_sink(unit, "http", {"endpoint_url": "http://logs.example/"})
    guarded = Delivery(bench.db, bench.clock)
    for url in ("https://127.0.0.1/in", "https://[::1]/", "https://localhost/", f"{bench.receiver.url}/in"):
        sink = await bench.sink(endpoint_url=url, retroactive=True)
        await guarded.run()
        row = await bench.row(sink)
        assert row.is_disabled
        assert "not public" in (row.error_message or "") or "https" in (row.error_message or "")
    assert bench.receiver.seen == []


async def test_two_runs_at_once_move_a_cursor_only_once(bench: Bench) -> None:
    sink = await bench.sink(retroactive=True)
    ids = await bench.changes(5)
    other = Delivery(bench.db, bench.clock, bench.delivery.operator, bench.delivery.client)
    rows = await log_sinks.due(bench.db)
    await log_sinks.cursors(bench.db, rows[0], "change", bench.clock.utc_now())

    await asyncio.gather(bench.delivery.run(), other.run())

    backfill = (await bench.cursors(sink))["change", "backfill"]
    assert backfill.synced_count == backfill.backfill_total
    assert set(ids) <= set(bench.receiver.ids())


async def test_sinks_rest_that_are_disabled_or_whose_account_is_or_lacks_the_feature(bench: Bench) -> None:
    sink = await bench.sink(retroactive=True)

    async def is_due() -> bool:
        return [one.id for one in await log_sinks.due(bench.db)] == [sink.id]

    assert await is_due()
    await _change(bench, sink, services.disable_sink)
    assert not await is_due()
    await _change(bench, sink, services.enable_sink)
    assert await is_due()
    async with bench.db.writing(bench.lab.subject) as unit:
        await accounts.set_features(unit, {"log_sinks": False})
    assert not await is_due()
    with pytest.raises(Forbidden):
        await bench.sink()
    await _change(bench, sink, services.disable_sink)
    with pytest.raises(Forbidden):
        await _change(bench, sink, services.enable_sink)
    async with bench.db.unscoped_write() as session:
        account = (await session.scalars(select(Account))).one()
        account.features = {**account.features, "log_sinks": True}
        account.is_disabled = True
    assert not await is_due()


async def test_secrets_are_sealed_and_never_shown(bench: Bench) -> None:
    secret = "hec-0123456789"
    with structlog.testing.capture_logs() as logs:
        sink = await bench.sink(
            "splunk", collector_url=bench.receiver.url, hec_token=secret, enabled_streams=["change"], retroactive=True
        )
        bench.receiver.play = lambda seen: Answer(403, seen.headers["authorization"].encode())
        await bench.changes(1)
        await bench.run()

    row = await bench.row(sink)
    assert row.error_message == "HTTP 403: Splunk [redacted]"
    assert secret not in str(logs)
    assert secret.encode() not in (row.credentials or b"")
    assert open_secrets(bench.db.keyring, row) == {"hec_token": secret}
    async with bench.db.unscoped() as session:
        changes = (await session.scalars(select(ChangeLog).where(ChangeLog.object == "splunk_log_sinks"))).all()
    assert [(one.operation, (one.after or {})["credentials"]) for one in changes] == [
        ("insert", "[redacted]"),
        ("update", "[redacted]"),
    ]
    assert (changes[0].after or {})["collector_url"] == bench.receiver.url
    assert changes[1].subject is None
    assert secret not in str([one.after for one in changes])


async def test_a_deleted_sink_takes_its_cursors_along(bench: Bench) -> None:
    sink = await bench.sink(retroactive=True)
    await bench.run()
    await _change(bench, sink, services.delete_sink)

    assert await bench.cursors(sink) == {}
    async with bench.db.unscoped() as session:
        objects = (await session.scalars(select(ChangeLog.object).order_by(ChangeLog.log_id))).all()
    assert objects[-1] == "http_log_sinks"


async def test_a_sink_can_be_tried_out(bench: Bench) -> None:
    sink = await bench.sink()
    assert await bench.delivery.try_out(sink) == Accepted()
    event: dict[str, Any] = bench.receiver.seen[0].json[0]
    assert event["type"] == "test"
    assert await bench.cursors(sink) == {}
    bench.receiver.play = lambda seen: Answer(401)
    assert await bench.delivery.try_out(sink) == Permanent("HTTP 401")
    assert not (await bench.row(sink)).is_disabled


async def test_events_of_a_year_are_kept_for_their_time(bench: Bench) -> None:
    from wardgate.portal.db.purge import remove_logs

    await bench.changes(1)
    await _write_api_request(bench)
    at = bench.clock.utc_now()
    await remove_logs(bench.db, at + timedelta(days=89))
    async with bench.db.unscoped() as session:
        assert (await session.scalars(select(ChangeLog))).all()
    await remove_logs(bench.db, at + timedelta(days=91))
    async with bench.db.unscoped() as session:
        assert not (await session.scalars(select(ChangeLog).where(ChangeLog.timestamp <= at))).all()


async def _change(bench: Bench, sink: Any, action: Any) -> None:
    async with bench.db.writing(bench.lab.subject) as unit:
        await action(unit, await services.get_sink(unit, sink.id))


async def _write_api_request(bench: Bench) -> None:
    from dataclasses import replace

    from wardgate.ids import ActorId, TokenId
    from wardgate.portal.db.logs import RequestSeen, write_api_request

    ids = {"actor_id": ActorId(bench.lab.actor.id), "token_id": TokenId(bench.lab.client_token_id)}
    subject = replace(bench.lab.subject, **ids)  # type: ignore[arg-type]
    seen = RequestSeen("GET", "/sites", None, None)
    async with bench.db.unscoped_write() as session:
        write_api_request(session, subject, seen, bench.clock.utc_now(), bench.db.sequencer)


async def test_the_regular_job_of_a_portal_delivers(bench: Bench, database_url: str) -> None:
    settings = Settings(database=database_url, log_sinks_allow_private=True)
    hub = Hub(settings, bench.db, bench.clock)
    await bench.sink(retroactive=True)
    ids = await bench.changes(2)
    (job,) = [one for one in standard_jobs() if one.name == "log-deliveries"]

    await job.run(hub)

    assert [one for one in bench.receiver.ids() if one in ids] == ids
    assert job.schedule == Every(minutes=1)
