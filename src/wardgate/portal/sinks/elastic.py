"""Elasticsearch: a data stream with its template, filled by `_bulk`.

Source: portal-domain-3 B8. Objects below `firezone` are mapped `flattened`, so that no row can conflict with the
mapping of an earlier one; where one does, the stream is rolled over, at most once an hour.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from wardgate.portal.domain.log_events import Event, compact
from wardgate.portal.sinks.outcomes import (
    Accepted,
    Failure,
    Malformed,
    Outcome,
    Request,
    Response,
    Retriable,
    Send,
    judge,
)
from wardgate.portal.sinks.simple import BATCH, read_json

ROLL_OVER_EVERY_S: Final = 3600.0
_KEYWORD: Final = {"type": "keyword", "ignore_above": 8191}  # in UTF-8 at most 32,764 bytes, which Lucene takes
_CONFLICTS: Final = ("mapper_parsing_exception", "document_parsing_exception", "strict_dynamic_mapping_exception")
_DYNAMIC: Final = [
    {"objects": {"path_match": "firezone.*", "match_mapping_type": "object", "mapping": {"type": "flattened"}}},
    {"strings": {"match_mapping_type": "string", "mapping": _KEYWORD}},
]
_MAPPING: Final[dict[str, Any]] = {
    "date_detection": False,
    "dynamic_templates": _DYNAMIC,
    "properties": {"@timestamp": {"type": "date"}, "message": _KEYWORD, "stream": _KEYWORD},
}


@dataclass
class RollOvers:
    """When a sink's data stream was rolled over last, in monotonic seconds."""

    at: float | None = None


@dataclass
class Elastic:
    """A data stream, for one run.

    Attributes:
        now: Monotonic seconds at the beginning of the run.
    """

    settings: dict[str, Any]
    secrets: dict[str, str]
    roll_overs: RollOvers
    now: float
    max_events: int = BATCH
    _is_ready: bool = field(default=False, init=False)

    async def deliver(self, events: Sequence[Event], send: Send) -> Outcome:
        """Makes the data stream ready, before the first batch, and indexes the events."""
        if not self._is_ready:
            failure = await self._set_up(send)
            if failure is not None:
                return failure
            self._is_ready = True
        outcome = await self._index(events, send)
        if isinstance(outcome, Malformed) and outcome.is_ours and await self._roll_over(send):
            outcome = await self._index(events, send)
        return outcome

    async def _set_up(self, send: Send) -> Failure | None:
        name = self.settings["data_stream"]
        template = {
            "index_patterns": [name],
            "data_stream": {},
            "priority": 500,
            "template": {"mappings": _MAPPING},
        }
        for path, body in (
            (f"_index_template/firezone-{name}", template),
            (f"_data_stream/{name}", None),
            (f"{name}/_mapping", _MAPPING),
        ):
            response = await send(self._request("PUT", path, compact(body) if body else "", "application/json"))
            if response.status // 100 != 2 and not _exists_already(response):
                return judge(response)
        return None

    async def _index(self, events: Sequence[Event], send: Send) -> Outcome:
        lines = []
        for one in events:
            lines.append(f'{{"create":{{"_index":"{self.settings["data_stream"]}","_id":"{one.log_id}"}}}}')
            lines.append(
                f'{{"@timestamp":{one.at_ms},"message":{compact(one.message)},"stream":"{one.stream}",'
                f'"firezone":{one.text}}}'
            )
        body = "\n".join(lines) + "\n"
        response = await send(self._request("POST", "_bulk", body, "application/x-ndjson"))
        return judge_items(response, len(events)) if response.status == 200 else judge(response)

    async def _roll_over(self, send: Send) -> bool:
        at = self.roll_overs.at
        if at is not None and self.now - at < ROLL_OVER_EVERY_S:
            return False
        self.roll_overs.at = self.now
        path = f"{self.settings['data_stream']}/_rollover"
        return (await send(self._request("POST", path, "", "application/json"))).status == 200

    def _request(self, method: str, path: str, body: str, media_type: str) -> Request:
        headers = {"Authorization": f"ApiKey {self.secrets['api_key']}", "Content-Type": media_type}
        return Request(method, f"{self.settings['endpoint_url']}/{path}", headers, body.encode())


def judge_items(response: Response, count: int) -> Outcome:
    """What the items of an answer mean together: each was taken or is there already, or the batch failed."""
    try:
        items = [next(iter(one.values())) for one in json.loads(response.body)["items"]]
        statuses = [int(one["status"]) for one in items]
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration, RecursionError):
        return Retriable("the answer to _bulk is not that of Elasticsearch")
    if len(items) != count:
        return Retriable(f"_bulk answered for {len(items)} of {count} events")
    failed = [one for one, status in zip(items, statuses, strict=True) if status // 100 != 2 and status != 409]
    if not failed:
        return Accepted()
    first = next((one for one in failed if one["status"] in (429, 503)), failed[0])
    error = first.get("error") if isinstance(first.get("error"), dict) else {}
    detail = f"item: HTTP {first['status']}: {error.get('type')}: {error.get('reason')}"[:300]
    if first["status"] in (429, 503):
        return Retriable(detail)
    return Malformed(detail, is_ours=all(_is_conflict(one) for one in failed))


def _is_conflict(item: dict[str, Any]) -> bool:
    error = item.get("error")
    return isinstance(error, dict) and error.get("type") in _CONFLICTS


def _exists_already(response: Response) -> bool:
    error = read_json(response).get("error")
    return (
        response.status == 400 and isinstance(error, dict) and error.get("type") == "resource_already_exists_exception"
    )
