"""Amazon S3: an object for each batch, written in a role that the customer gives us.

The role must demand the sink's external id, or any customer of this portal could name it: before it is used, an id
that nobody knows is tried, and if that works nothing is delivered. Source: portal-domain-3 B8.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from wardgate.portal.domain.log_events import Event
from wardgate.portal.sinks.outcomes import (
    Accepted,
    Failure,
    Outcome,
    Permanent,
    Request,
    Response,
    Retriable,
    Send,
    judge,
    retry_after,
)
from wardgate.portal.sinks.sigv4 import Credentials, sign
from wardgate.portal.sinks.simple import BATCH, ndjson

_OPERATORS_FAULT: Final = ("InvalidClientTokenId", "ExpiredToken", "SignatureDoesNotMatch", "IncompleteSignature")
_RETRIABLE: Final = (429, 500, 502, 503, 504)
_SESSION_S: Final = 900


@dataclass
class S3:
    """A bucket, for one run.

    Attributes:
        operator: The portal's own credentials, which may assume roles.
        at: When requests are signed.
        random_id: Makes an external id that nobody knows.
    """

    sink_id: str
    settings: dict[str, Any]
    operator: Credentials | None
    at: Callable[[], datetime]
    random_id: Callable[[], str]
    max_events: int = BATCH
    _credentials: Credentials | None = field(default=None, init=False)

    async def deliver(self, events: Sequence[Event], send: Send) -> Outcome:
        """Assumes the role, before the first batch, and writes the object."""
        if self._credentials is None:
            found = await self._assume(send)
            if not isinstance(found, Credentials):
                return found
            self._credentials = found
        region = self.settings["region"]
        host = f"{self.settings['bucket']}.s3.{region}.amazonaws.com"
        url = f"https://{host}/{quote(object_key(self.settings.get('key_prefix'), events), safe='/~')}"
        body = ndjson(events)
        headers = sign(
            "PUT",
            url,
            {"Content-Type": "application/x-ndjson"},
            body,
            credentials=self._credentials,
            region=region,
            service="s3",
            at=self.at(),
        )
        response = await send(Request("PUT", url, headers, body))
        if response.status // 100 == 2:
            return Accepted()
        if response.status in _RETRIABLE:
            return Retriable(f"HTTP {response.status}: {response.text}", retry_after(response))
        return judge(response)

    async def _assume(self, send: Send) -> Credentials | Failure:
        if self.operator is None:
            return Retriable("this portal has no AWS credentials; its operator sets them up")
        probe = await send(self._assume_request(self.operator, self.random_id()))
        if probe.status == 200:
            return Permanent(
                "the role can be assumed with any external id: its trust policy lacks the condition on sts:ExternalId"
            )
        if probe.status >= 500 or probe.status == 429:
            return judge(probe)
        response = await send(self._assume_request(self.operator, self.settings["external_id"]))
        if response.status == 200:
            return _read_credentials(response)
        if any(code in response.text for code in _OPERATORS_FAULT):
            return Retriable(f"AWS does not accept this portal's credentials: HTTP {response.status}")
        return judge(response)

    def _assume_request(self, operator: Credentials, external_id: str) -> Request:
        region = self.settings["region"]
        url = f"https://sts.{region}.amazonaws.com/"
        form = {
            "Action": "AssumeRole",
            "Version": "2011-06-15",
            "RoleArn": self.settings["role_arn"],
            "RoleSessionName": f"firezone-{self.sink_id}",
            "ExternalId": external_id,
            "DurationSeconds": str(_SESSION_S),
        }
        body = urlencode(form).encode()
        headers = sign(
            "POST",
            url,
            {"Content-Type": "application/x-www-form-urlencoded"},
            body,
            credentials=operator,
            region=region,
            service="sts",
            at=self.at(),
        )
        return Request("POST", url, headers, body)


def object_key(prefix: str | None, events: Sequence[Event]) -> str:
    """The key of a batch's object: the same batch has the same key, so sending it again overwrites it."""
    day = datetime.fromtimestamp(events[0].at_ms / 1000, UTC).strftime("%Y/%m/%d")
    head = f"{prefix}/" if prefix else ""
    return f"{head}{events[0].stream}/{day}/{events[0].seq}-{events[-1].seq}.ndjson"


def _read_credentials(response: Response) -> Credentials | Failure:
    text = response.body.decode("utf-8", "replace")
    found = [re.search(rf"<{name}>([!-;=?-~]+)</{name}>", text) for name in _NAMES]
    if not all(found):
        return Retriable("the answer to AssumeRole holds no credentials")
    return Credentials(*[one.group(1) for one in found if one])


_NAMES: Final = ("AccessKeyId", "SecretAccessKey", "SessionToken")
