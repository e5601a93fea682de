"""Microsoft Sentinel: the Logs Ingestion API, with a token of the operator's application.

Source: portal-domain-3 B8.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, urlencode

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
    retry_after,
)
from wardgate.portal.sinks.simple import BATCH, read_json

_LOGIN: Final = "https://login.microsoftonline.com"
_SCOPE: Final = "https://monitor.azure.com//.default"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ABOUT_THE_RULE: Final = ("stream", "dcr", "datacollectionrule", "data collection rule", "immutable")


@dataclass(frozen=True, slots=True)
class Application:
    """The operator's application, which customers consent to."""

    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        return f"Application({self.client_id})"


@dataclass
class Sentinel:
    """A stream of a data collection rule, for one run."""

    settings: dict[str, Any]
    application: Application | None
    max_events: int = BATCH
    _token: str | None = field(default=None, init=False)

    async def deliver(self, events: Sequence[Event], send: Send) -> Outcome:
        """Gets a token, before the first batch, and sends the events."""
        if self._token is None:
            token = await self._ask_token(send)
            if not isinstance(token, str):
                return token
            self._token = token
        response = await send(self._request(events, self._token))
        if response.status // 100 == 2:
            return Accepted()
        if response.status == 403:  # the grant of a role takes up to half an hour
            return Retriable(f"HTTP 403: {response.text}", retry_after(response))
        if response.status == 400:
            return _judge_400(response)
        return judge(response)

    async def _ask_token(self, send: Send) -> str | Failure:
        if self.application is None:
            return Retriable("this portal has no application for Microsoft Sentinel; its operator sets it up")
        form = {
            "grant_type": "client_credentials",
            "client_id": self.application.client_id,
            "client_secret": self.application.client_secret,
            "scope": _SCOPE,
        }
        url = f"{_LOGIN}/{self.settings['tenant_id']}/oauth2/v2.0/token"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = await send(Request("POST", url, headers, urlencode(form).encode()))
        token = read_json(response).get("access_token")
        if response.status == 200 and isinstance(token, str) and token.isascii() and token.isprintable():
            return token
        if response.status == 200:
            return Retriable("the sign-in service gave no token")
        error = str(read_json(response).get("error", ""))
        if error == "invalid_client":
            return Retriable(
                "the sign-in service does not accept this portal's application; its operator must see to it"
            )
        return judge(Response(response.status, response.headers, error.encode()))

    def _request(self, events: Sequence[Event], token: str) -> Request:
        items = [
            f'{{"TimeGenerated":{compact(_iso(one.at_ms))},"Message":{compact(one.message)},"Stream":"{one.stream}",'
            f'"Firezone":{one.text}}}'
            for one in events
        ]
        rule, stream = self.settings["dcr_immutable_id"], quote(self.settings["stream_name"], safe="")
        url = (
            f"{self.settings['ingestion_endpoint']}/dataCollectionRules/{rule}/streams/{stream}?api-version=2023-01-01"
        )
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return Request("POST", url, headers, ("[" + ",".join(items) + "]").encode())


def _judge_400(response: Response) -> Outcome:
    error = read_json(response).get("error")
    said = f"{error.get('code')} {error.get('message')}" if isinstance(error, dict) else response.text
    if any(word in said.lower() for word in _ABOUT_THE_RULE):
        return Retriable(f"HTTP 400: {said[:300]}")
    return Malformed(f"HTTP 400: {said[:300]}")


def _iso(at_ms: int) -> str:
    at = _EPOCH + timedelta(milliseconds=at_ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
