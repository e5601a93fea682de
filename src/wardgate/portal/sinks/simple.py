"""Destinations that take a batch in one request: Splunk, Datadog, New Relic, QRadar and any HTTP endpoint.

Source: portal-domain-3 B8.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from wardgate.portal.domain.log_events import Event, compact
from wardgate.portal.sinks.outcomes import Accepted, Malformed, Outcome, Request, Response, Send, judge

BATCH: Final = 500
_JSON: Final = "application/json"
_NEWRELIC_HOSTS: Final = {
    "US": "log-api.newrelic.com",
    "EU": "log-api.eu.newrelic.com",
    "JP": "log-api.jp.nr-data.net",
    "FedRAMP": "gov-log-api.newrelic.com",
}
_SPLUNK_MALFORMED: Final = (6, 12, 13, 15)
_SPLUNK_WARNINGS: Final = (24, 25)


@dataclass
class OneRequest:
    """A destination of one request for each batch."""

    render: Callable[[Sequence[Event]], Request]
    judge: Callable[[Response], Outcome]
    max_events: int = BATCH

    async def deliver(self, events: Sequence[Event], send: Send) -> Outcome:
        """Sends the batch and reads the answer."""
        return self.judge(await send(self.render(events)))


def splunk(settings: dict[str, Any], secrets: dict[str, str]) -> OneRequest:
    """The HTTP event collector of a Splunk."""
    index = f',"index":{compact(settings["index"])}' if settings.get("index") else ""
    headers = {"Authorization": f"Splunk {secrets['hec_token']}"}

    def render(events: Sequence[Event]) -> Request:
        lines = [
            f'{{"time":{one.at_ms // 1000}.{one.at_ms % 1000:03},"source":"firezone",'
            f'"sourcetype":"firezone:{one.stream}"{index},"event":{one.text}}}'
            for one in events
        ]
        url = settings["collector_url"] + "/services/collector/event"
        return Request("POST", url, headers, "\n".join(lines).encode())

    return OneRequest(render, _judge_splunk)


def _judge_splunk(response: Response) -> Outcome:
    code = read_json(response).get("code")
    if response.status == 200:
        return Accepted(response.text if code in _SPLUNK_WARNINGS else None)
    if response.status == 400 and code in _SPLUNK_MALFORMED:
        return Malformed(f"HTTP 400: {response.text}")
    return judge(response)


def datadog(settings: dict[str, Any], secrets: dict[str, str]) -> OneRequest:
    """Datadog's intake."""
    headers = {"dd-api-key": secrets["api_key"], "Content-Type": _JSON}
    url = f"https://http-intake.logs.{settings['site']}/api/v2/logs"
    tags = f",{settings['tags']}" if settings.get("tags") else ""

    def render(events: Sequence[Event]) -> Request:
        items = [
            f'{{"ddsource":"firezone","service":"firezone","ddtags":{compact(f"stream:{one.stream}{tags}")},'
            f'"timestamp":{one.at_ms},"message":{compact(one.message)},"firezone":{one.text}}}'
            for one in events
        ]
        return Request("POST", url, headers, _array(items))

    return OneRequest(render, partial(_judge_status, (202,)))


def newrelic(settings: dict[str, Any], secrets: dict[str, str]) -> OneRequest:
    """New Relic's log API, which drops what is older than 48 hours."""
    headers = {"api-key": secrets["license_key"], "Content-Type": _JSON}
    url = f"https://{_NEWRELIC_HOSTS[settings['region']]}/log/v1"

    def render(events: Sequence[Event]) -> Request:
        items = [
            f'{{"timestamp":{one.at_ms},"message":{compact(one.message)},"attributes":'
            f'{{"logtype":"firezone","stream":"{one.stream}","firezone":{one.text}}}}}'
            for one in events
        ]
        return Request("POST", url, headers, b'[{"logs":' + _array(items) + b"}]")

    return OneRequest(render, partial(_judge_status, (202,)))


def qradar(settings: dict[str, Any], secrets: dict[str, str]) -> OneRequest:
    """A QRadar HTTP receiver: one event a line, each of which begins with its type and id."""
    headers = {"Content-Type": "application/x-ndjson"}
    if "auth_header" in secrets:
        headers["Authorization"] = secrets["auth_header"]

    def render(events: Sequence[Event]) -> Request:
        return Request("POST", settings["endpoint_url"], headers, ndjson(events))

    return OneRequest(render, partial(_judge_status, range(200, 300)))


def http(settings: dict[str, Any], secrets: dict[str, str]) -> OneRequest:
    """Any endpoint that takes a JSON array."""
    headers = {"Content-Type": _JSON}
    if "bearer_token" in secrets:
        headers["Authorization"] = f"Bearer {secrets['bearer_token']}"

    def render(events: Sequence[Event]) -> Request:
        return Request("POST", settings["endpoint_url"], headers, _array([one.text for one in events]))

    return OneRequest(render, _judge_http, settings["batch_max_events"])


def _judge_http(response: Response) -> Outcome:
    if response.status == 400:
        return Malformed(f"HTTP 400: {response.text}", is_ours=False)
    return _judge_status(range(200, 300), response)


def _judge_status(accepted: Sequence[int], response: Response) -> Outcome:
    return Accepted() if response.status in accepted else judge(response)


def _array(items: Sequence[str]) -> bytes:
    return ("[" + ",".join(items) + "]").encode()


def ndjson(events: Sequence[Event]) -> bytes:
    """One event a line."""
    return "".join(one.text + "\n" for one in events).encode()


def read_json(response: Response) -> dict[str, Any]:
    """An answer's object, or nothing if it is none."""
    try:
        value = json.loads(response.body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
