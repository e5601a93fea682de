"""The eight destinations at their real names over TLS, answered by a server that plays them."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.portal.sinks.receiver import Answer, Receiver, Seen, make_authority, running
from wardgate.portal.db.log_tables import LogSink
from wardgate.portal.domain.log_events import Event, event
from wardgate.portal.domain.sink_settings import check_settings
from wardgate.portal.sinks.client import Client
from wardgate.portal.sinks.destinations import Moment, Operator, destination
from wardgate.portal.sinks.elastic import RollOvers
from wardgate.portal.sinks.outcomes import (
    Accepted,
    Destination,
    Malformed,
    Outcome,
    Permanent,
    Request,
    Response,
    Retriable,
    TooLarge,
)
from wardgate.portal.sinks.sentinel import Application
from wardgate.portal.sinks.sigv4 import Credentials, sign

SHOWN = {
    "type": "change",
    "log_id": "c" + "0" * 22 + "1",
    "timestamp": "2026-11-23T12:00:00.123456Z",
    "object": "sites",
    "after": {"name": "Zürich"},
}
AT_MS = 1795435200123
EVENTS = [event("change", SHOWN, 10), event("change", {**SHOWN, "log_id": "c" + "0" * 22 + "2"}, 11)]
NAMES = [
    "splunk.example",
    "http-intake.logs.us5.datadoghq.com",
    "log-api.eu.newrelic.com",
    "elastic.example",
    "login.microsoftonline.com",
    "dce.ingest.monitor.azure.com",
    "sts.eu-central-1.amazonaws.com",
    "logs-bucket.s3.eu-central-1.amazonaws.com",
    "qradar.example",
    "hook.example",
]
OPERATOR = Operator(sentinel=Application("app-id", "app secret"), aws=Credentials("AKIDOPERATOR", "operator secret"))
EXTERNAL_ID = "11111111-2222-4333-8444-555555555555"
RULE = "dcr-" + "0a" * 16
GIVEN: dict[str, dict[str, Any]] = {
    "splunk": {"collector_url": "https://splunk.example/", "hec_token": "token", "index": "main"},
    "datadog": {"site": "us5.datadoghq.com", "api_key": "key", "tags": "env:prod, team:sec"},
    "newrelic": {"region": "EU", "license_key": "key"},
    "elastic": {"endpoint_url": "https://elastic.example/_bulk", "api_key": "key"},
    "sentinel": {
        "tenant_id": "corp.example",
        "ingestion_endpoint": "https://dce.ingest.monitor.azure.com",
        "dcr_immutable_id": RULE,
    },
    "s3": {
        "bucket": "logs-bucket",
        "region": "eu-central-1",
        "role_arn": "arn:aws:iam::123456789012:role/logs",
        "key_prefix": "/wardgate/",
    },
    "qradar": {"endpoint_url": "https://qradar.example/in", "auth_header": "Basic abc"},
    "http": {"endpoint_url": "https://hook.example/in?a=b", "bearer_token": "token"},
}


class World:
    """All the vendors at once."""

    def __init__(self, receiver: Receiver, client: Client) -> None:
        self.receiver, self.client = receiver, client
        self.now = 1000.0
        self.roll_overs = RollOvers()

    def destination(self, kind: str, operator: Operator = OPERATOR, **change: Any) -> Destination:
        checked = check_settings(kind, {**GIVEN[kind], **change})
        assert checked.errors == {}
        settings = checked.settings | ({"external_id": EXTERNAL_ID} if kind == "s3" else {})
        sink = LogSink(
            account_id=str(uuid4()), id="5" * 8 + "-0000-4000-8000-000000000000", type=kind, settings=settings
        )
        moment = Moment(self.now, lambda: datetime(2026, 11, 23, 12, 1, tzinfo=UTC), self.roll_overs)
        return destination(sink, checked.secrets, operator, moment)

    async def deliver(self, kind: str, events: list[Event] = EVENTS, **change: Any) -> Outcome:
        return await self.destination(kind, **change).deliver(events, self.client.send)

    def answer(self, *answers: Answer) -> None:
        """Plays these answers in turn; the last one stays."""
        left = list(answers)
        self.receiver.play = lambda seen: left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    authority = make_authority(tmp_path, NAMES)
    async with running(Receiver(), authority.certificate) as receiver:
        there = dict.fromkeys(NAMES, ("127.0.0.1", receiver.port))
        client = Client(tls=authority.tls, connect_to=there)
        yield World(receiver, client)
        await client.close()


async def test_splunk(world: World) -> None:
    assert await world.deliver("splunk") == Accepted()

    (seen,) = world.receiver.seen
    assert (seen.method, seen.path, seen.headers["host"]) == ("POST", "/services/collector/event", "splunk.example")
    assert seen.headers["authorization"] == "Splunk token"
    assert "content-type" not in seen.headers
    assert seen.body.startswith(b'{"time":1795435200.123,')
    assert seen.lines[0] == {
        "time": 1795435200.123,
        "source": "firezone",
        "sourcetype": "firezone:change",
        "index": "main",
        "event": SHOWN,
    }
    assert len(seen.lines) == 2
    assert await world.deliver("splunk", index=None) == Accepted()
    assert "index" not in world.receiver.seen[1].lines[0]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (200, 24, Accepted),
        (200, 25, Accepted),
        (400, 6, Malformed),
        (400, 12, Malformed),
        (400, 13, Malformed),
        (400, 15, Malformed),
        (400, 7, Permanent),
        (403, 4, Permanent),
        (503, 9, Retriable),
        (429, 9, Retriable),
        (413, 27, TooLarge),
    ],
)
async def test_what_splunk_says(world: World, status: int, code: int, expected: type[Outcome]) -> None:
    world.answer(Answer(status, json.dumps({"text": "said", "code": code}).encode()))

    outcome = await world.deliver("splunk")

    assert isinstance(outcome, expected)
    if isinstance(outcome, Accepted):
        assert outcome.warning
    if isinstance(outcome, Malformed):
        assert outcome.is_ours


async def test_datadog(world: World) -> None:
    world.answer(Answer(202))
    assert await world.deliver("datadog") == Accepted()

    (seen,) = world.receiver.seen
    assert (seen.path, seen.headers["host"]) == ("/api/v2/logs", "http-intake.logs.us5.datadoghq.com")
    assert (seen.headers["dd-api-key"], seen.headers["content-type"]) == ("key", "application/json")
    assert seen.json[0] == {
        "ddsource": "firezone",
        "service": "firezone",
        "ddtags": "stream:change,env:prod,team:sec",
        "timestamp": AT_MS,
        "message": f"firezone change {SHOWN['log_id']}",
        "firezone": SHOWN,
    }
    world.answer(Answer(200))
    assert isinstance(await world.deliver("datadog"), Permanent)


async def test_newrelic(world: World) -> None:
    world.answer(Answer(202))
    assert await world.deliver("newrelic") == Accepted()

    (seen,) = world.receiver.seen
    assert (seen.path, seen.headers["host"], seen.headers["api-key"]) == ("/log/v1", "log-api.eu.newrelic.com", "key")
    (batch,) = seen.json
    assert len(batch["logs"]) == 2
    assert batch["logs"][0] == {
        "timestamp": AT_MS,
        "message": f"firezone change {SHOWN['log_id']}",
        "attributes": {"logtype": "firezone", "stream": "change", "firezone": SHOWN},
    }


async def test_qradar(world: World) -> None:
    world.answer(Answer(204))
    assert await world.deliver("qradar") == Accepted()

    (seen,) = world.receiver.seen
    assert (seen.headers["content-type"], seen.headers["authorization"]) == ("application/x-ndjson", "Basic abc")
    lines = seen.body.decode().splitlines()
    assert len(lines) == 2
    assert all(line.startswith('{"type":"change","log_id":') for line in lines)
    assert await world.deliver("qradar", auth_header=None) == Accepted()
    assert "authorization" not in world.receiver.seen[1].headers


async def test_http(world: World) -> None:
    world.answer(Answer(201))
    assert await world.deliver("http") == Accepted()

    (seen,) = world.receiver.seen
    assert (seen.path, seen.query, seen.headers["authorization"]) == ("/in", "a=b", "Bearer token")
    assert seen.json[0] == SHOWN
    assert world.destination("http", batch_max_events="7").max_events == 7
    assert world.destination("http").max_events == 100
    world.answer(Answer(400, b"no"))
    assert await world.deliver("http") == Malformed("HTTP 400: no", is_ours=False)


# --- Elasticsearch ----------------------------------------------------------------------------------------------------


def bulk(*statuses: int, error: str = "mapper_parsing_exception") -> Answer:
    items = [
        {"create": {"status": one, **({} if one < 300 else {"error": {"type": error, "reason": "why"}})}}
        for one in statuses
    ]
    return Answer(200, json.dumps({"errors": True, "items": items}).encode())


def elastic(*bulks: Answer) -> Any:
    left = list(bulks)

    def play(seen: Seen) -> Answer:
        if seen.path == "/_bulk":
            return left.pop(0) if len(left) > 1 else left[0]
        if seen.path.startswith("/_data_stream/"):
            return Answer(400, b'{"error":{"type":"resource_already_exists_exception"}}')
        return Answer(200, b"{}")

    return play


async def test_elastic_is_set_up_once_a_run_and_filled_in_bulk(world: World) -> None:
    world.receiver.play = elastic(bulk(201, 409))
    there = world.destination("elastic")
    assert await there.deliver(EVENTS, world.client.send) == Accepted()
    assert await there.deliver(EVENTS, world.client.send) == Accepted()

    seen = world.receiver.seen
    assert [(one.method, one.path) for one in seen] == [
        ("PUT", "/_index_template/firezone-logs-firezone-default"),
        ("PUT", "/logs-firezone-default/_mapping"),
        ("POST", "/_bulk"),
        ("POST", "/_bulk"),
    ]
    assert {one.headers["authorization"] for one in seen} == {"ApiKey key"}
    template = seen[0].json
    assert (template["index_patterns"], template["priority"]) == (["logs-firezone-default"], 500)
    assert template["template"]["mappings"]["date_detection"] is False
    assert template["template"]["mappings"]["dynamic_templates"][0]["objects"]["mapping"] == {"type": "flattened"}
    assert seen[2].headers["content-type"] == "application/x-ndjson"
    action, document = seen[2].lines[:2]
    assert action == {"create": {"_index": "logs-firezone-default", "_id": SHOWN["log_id"]}}
    assert document == {
        "@timestamp": AT_MS,
        "message": f"firezone change {SHOWN['log_id']}",
        "stream": "change",
        "firezone": SHOWN,
    }
    assert seen[2].body.endswith(b"\n")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (bulk(201, 429), Retriable),
        (bulk(400, 503), Retriable),
        (bulk(201), Retriable),
        (Answer(200, b"<html>"), Retriable),
        (Answer(200, b'{"items":[{},{}]}'), Retriable),
        (Answer(413), TooLarge),
        (Answer(401), Permanent),
        (Answer(500), Retriable),
    ],
)
async def test_what_elastic_says_of_items(world: World, answer: Answer, expected: type[Outcome]) -> None:
    world.receiver.play = elastic(answer)

    assert isinstance(await world.deliver("elastic"), expected)


async def test_other_errors_of_items_are_the_customers(world: World) -> None:
    world.receiver.play = elastic(bulk(201, 403, error="security_exception"))

    outcome = await world.deliver("elastic")

    assert outcome == Malformed("item: HTTP 403: security_exception: why", is_ours=False)


async def test_a_conflict_of_mappings_rolls_the_stream_over_at_most_once_an_hour(world: World) -> None:
    world.receiver.play = elastic(bulk(201, 400), bulk(409, 201))
    assert await world.deliver("elastic") == Accepted()
    assert [one.path for one in world.receiver.seen].count("/logs-firezone-default/_rollover") == 1

    world.now += 3599
    world.receiver.play = elastic(bulk(201, 400))
    outcome = await world.deliver("elastic")
    assert isinstance(outcome, Malformed)
    assert outcome.is_ours
    assert [one.path for one in world.receiver.seen].count("/logs-firezone-default/_rollover") == 1

    world.now += 1
    await world.deliver("elastic")
    assert [one.path for one in world.receiver.seen].count("/logs-firezone-default/_rollover") == 2


async def test_elastic_without_rights_to_set_up_is_a_matter_of_the_customer(world: World) -> None:
    world.answer(Answer(403, b"forbidden"))

    assert await world.deliver("elastic") == Permanent("HTTP 403: forbidden")


# --- Microsoft Sentinel -----------------------------------------------------------------------------------------------

TOKEN = Answer(200, b'{"access_token":"bearer","expires_in":3599}')


async def test_sentinel_gets_a_token_once_a_run(world: World) -> None:
    world.answer(TOKEN, Answer(204))
    there = world.destination("sentinel")
    assert await there.deliver(EVENTS, world.client.send) == Accepted()
    assert await there.deliver(EVENTS, world.client.send) == Accepted()

    token, first, second = world.receiver.seen
    assert (token.headers["host"], token.path) == ("login.microsoftonline.com", "/corp.example/oauth2/v2.0/token")
    assert parse_qs(token.body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["app-id"],
        "client_secret": ["app secret"],
        "scope": ["https://monitor.azure.com//.default"],
    }
    assert first.path == f"/dataCollectionRules/{RULE}/streams/Custom-FirezoneLogs_CL"
    assert (first.query, first.headers["authorization"]) == ("api-version=2023-01-01", "Bearer bearer")
    assert first.json[0] == {
        "TimeGenerated": "2026-11-23T12:00:00.123Z",
        "Message": f"firezone change {SHOWN['log_id']}",
        "Stream": "change",
        "Firezone": SHOWN,
    }
    assert second.path == first.path


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(403), Retriable),
        (Answer(400, b'{"error":{"code":"InvalidStream","message":"no such stream"}}'), Retriable),
        (Answer(400, b'{"error":{"code":"InvalidDcr","message":"data collection rule"}}'), Retriable),
        (Answer(400, b'{"error":{"code":"InvalidPayload","message":"not an array"}}'), Malformed),
        (Answer(413), TooLarge),
        (Answer(404), Permanent),
        (Answer(429), Retriable),
    ],
)
async def test_what_sentinel_says(world: World, answer: Answer, expected: type[Outcome]) -> None:
    world.answer(TOKEN, answer)

    assert isinstance(await world.deliver("sentinel"), expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(401, b'{"error":"invalid_client","error_description":"app secret"}'), Retriable),
        (Answer(400, b'{"error":"unauthorized_client"}'), Permanent),
        (Answer(200, b"{}"), Retriable),
        (Answer(503), Retriable),
    ],
)
async def test_sentinel_without_a_token(world: World, answer: Answer, expected: type[Outcome]) -> None:
    world.answer(answer)

    outcome = await world.deliver("sentinel")

    assert isinstance(outcome, expected)
    assert "app secret" not in str(outcome)
    assert isinstance(await world.deliver("sentinel", operator=Operator()), Retriable)


# --- Amazon S3 --------------------------------------------------------------------------------------------------------

ASSUMED = (
    b"<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIATEMP</AccessKeyId>"
    b"<SecretAccessKey>temporary/secret+</SecretAccessKey><SessionToken>session==</SessionToken>"
    b"</Credentials></AssumeRoleResult></AssumeRoleResponse>"
)
DENIED = Answer(403, b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>")


def aws(knows: str | None = EXTERNAL_ID, put: Answer | None = None) -> Any:
    """STS and S3: they check the signature, and the role's condition on the external id, if it has one."""

    def play(seen: Seen) -> Answer:
        is_sts = seen.headers["host"].startswith("sts.")
        keys = OPERATOR.aws if is_sts else Credentials("ASIATEMP", "temporary/secret+", "session==")
        assert keys is not None
        if not is_signed(seen, keys, "sts" if is_sts else "s3"):
            return Answer(403, b"<Code>SignatureDoesNotMatch</Code>")
        if not is_sts:
            return put or Answer(200)
        external_id = parse_qs(seen.body.decode())["ExternalId"][0]
        return DENIED if knows is not None and external_id != knows else Answer(200, ASSUMED)

    return play


def is_signed(seen: Seen, keys: Credentials, service: str) -> bool:
    given = seen.headers["authorization"]
    names = given.split("SignedHeaders=")[1].split(",")[0].split(";")
    added = {"host", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"}
    expected = sign(
        seen.method,
        f"https://{seen.headers['host']}{seen.path}",
        {name: seen.headers[name] for name in names if name not in added},
        seen.body,
        credentials=keys,
        region="eu-central-1",
        service=service,
        at=datetime.strptime(seen.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
    )
    return expected["authorization"] == given


async def test_s3_assumes_the_role_after_a_probe_and_puts_an_object(world: World) -> None:
    world.receiver.play = aws()
    there = world.destination("s3")
    assert await there.deliver(EVENTS, world.client.send) == Accepted()
    assert await there.deliver(EVENTS, world.client.send) == Accepted()

    assumed, first, second = world.receiver.seen
    form = parse_qs(assumed.body.decode())
    assert (form["Action"], form["ExternalId"]) == (["AssumeRole"], [EXTERNAL_ID])
    assert form["RoleSessionName"] == ["firezone-55555555-0000-4000-8000-000000000000"]
    assert form["RoleArn"] == ["arn:aws:iam::123456789012:role/logs"]
    assert (first.method, first.path) == ("PUT", "/wardgate/change/2026/11/23/10-11.ndjson")
    assert first.headers["host"] == "logs-bucket.s3.eu-central-1.amazonaws.com"
    assert first.lines[0] == SHOWN
    assert second.path == first.path
    assert world.receiver.asked == 4


async def test_a_role_that_anybody_can_assume_is_refused(world: World) -> None:
    world.receiver.play = aws(knows=None)

    outcome = await world.deliver("s3")

    assert isinstance(outcome, Permanent)
    assert "sts:ExternalId" in outcome.detail
    assert world.receiver.asked == 1


async def test_s3_failures(world: World) -> None:
    world.receiver.play = aws(knows="another")
    assert isinstance(await world.deliver("s3"), Permanent)
    for status in (429, 500, 502, 503, 504):
        world.receiver.play = aws(put=Answer(status))
        assert isinstance(await world.deliver("s3"), Retriable)
    for status in (301, 403, 404):
        world.receiver.play = aws(put=Answer(status))
        assert isinstance(await world.deliver("s3"), Permanent)
    wrong = Operator(aws=Credentials("AKIDOPERATOR", "wrong"))
    world.receiver.play = aws()
    assert isinstance(await world.deliver("s3", operator=wrong), Retriable)
    assert isinstance(await world.deliver("s3", operator=Operator()), Retriable)
    world.answer(DENIED, Answer(200, b"<html>"))
    assert isinstance(await world.deliver("s3"), Retriable)


async def test_the_probe_is_another_id_each_time(world: World) -> None:
    probes: list[str] = []

    async def send(request: Request) -> Response:
        if request.url.startswith("https://sts."):
            external_id = parse_qs(request.body.decode())["ExternalId"][0]
            if external_id != EXTERNAL_ID:
                probes.append(external_id)
                return Response(403)
            return Response(200, {}, ASSUMED)
        return Response(200)

    for _ in range(2):
        assert await world.destination("s3").deliver(EVENTS, send) == Accepted()
    assert len(set(probes)) == 2


# --- Whatever they say ------------------------------------------------------------------------------------------------

OUTCOMES = (Accepted, TooLarge, Malformed, Retriable, Permanent)
SAID = (
    b'{"items":[{"create":{"status":201}},{"create":{"status":"x"}}]}',
    b'{"items":[[],{}]}',
    b'{"items":{}}',
    b'{"items":[{"a":7},{}]}',
    b'{"access_token":"a\\nb"}',
    b'{"error":{"code":null}}',
    b'{"code":[]}',
    b"[" * 3000,
    ASSUMED,
)


@given(
    st.sampled_from(sorted(GIVEN)),
    st.lists(
        st.tuples(st.integers(200, 599), st.binary(max_size=60) | st.sampled_from(SAID), st.text(max_size=4)),
        min_size=1,
        max_size=5,
    ),
)
def test_any_answers_give_an_outcome(kind: str, answers: list[tuple[int, bytes, str]]) -> None:
    left = [Response(status, {"retry-after": after}, body) for status, body, after in answers]

    async def send(request: Request) -> Response:
        return left.pop(0) if len(left) > 1 else left[0]

    world = World(Receiver(), Client())
    outcome = asyncio.run(world.destination(kind).deliver(EVENTS, send))

    assert isinstance(outcome, OUTCOMES)
