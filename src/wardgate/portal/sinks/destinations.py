"""A sink's destination, of its settings and the operator's; and its secrets, sealed and opened."""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import uuid4

from wardgate.portal.config import Settings
from wardgate.portal.db.keyring import Keyring
from wardgate.portal.db.log_tables import LogSink
from wardgate.portal.db.sealing import seal, unseal
from wardgate.portal.sinks import simple
from wardgate.portal.sinks.elastic import Elastic, RollOvers
from wardgate.portal.sinks.outcomes import Destination
from wardgate.portal.sinks.s3 import S3
from wardgate.portal.sinks.sentinel import Application, Sentinel
from wardgate.portal.sinks.sigv4 import Credentials


@dataclass(frozen=True, slots=True)
class Operator:
    """What the portal's operator sets up for all sinks.

    Attributes:
        allows_private: Whether destinations may be at addresses that are not public, and speak plain HTTP.
    """

    allows_private: bool = False
    sentinel: Application | None = None
    aws: Credentials | None = None


def operator_of(settings: Settings) -> Operator:
    """What the portal's settings say of sinks."""
    sentinel, aws = None, None
    if settings.sentinel_client_id and settings.sentinel_client_secret:
        secret = settings.sentinel_client_secret.get_secret_value()
        sentinel = Application(settings.sentinel_client_id, secret)
    if settings.aws_access_key_id and settings.aws_secret_access_key:
        session = settings.aws_session_token.get_secret_value() if settings.aws_session_token else None
        aws = Credentials(settings.aws_access_key_id, settings.aws_secret_access_key.get_secret_value(), session)
    return Operator(settings.log_sinks_allow_private, sentinel, aws)


@dataclass
class Moment:
    """When a run is, and what its destination may need besides.

    Attributes:
        now: Monotonic seconds.
        utc_now: The wall-clock time.
    """

    now: float
    utc_now: Callable[[], datetime]
    roll_overs: RollOvers = field(default_factory=RollOvers)


def destination(sink: LogSink, opened: Mapping[str, str], operator: Operator, moment: Moment) -> Destination:
    """The destination of a sink, for one run.

    Args:
        opened: The sink's secrets.
    """
    settings, known = dict(sink.settings), dict(opened)
    match sink.type:
        case "splunk":
            return simple.splunk(settings, known)
        case "datadog":
            return simple.datadog(settings, known)
        case "newrelic":
            return simple.newrelic(settings, known)
        case "elastic":
            return Elastic(settings, known, moment.roll_overs, moment.now)
        case "sentinel":
            return Sentinel(settings, operator.sentinel)
        case "s3":
            return S3(sink.id, settings, operator.aws, moment.utc_now, lambda: str(uuid4()))
        case "qradar":
            return simple.qradar(settings, known)
        case "http":
            return simple.http(settings, known)
        case other:
            raise ValueError(f"there is no type of sinks {other}")


def open_secrets(keyring: Keyring, sink: LogSink) -> dict[str, str]:
    """A sink's secrets, by name.

    Raises:
        SettingError: They were sealed with another key.
    """
    if sink.credentials is None:
        return {}
    opened: dict[str, str] = json.loads(unseal(keyring, sink, "credentials"))
    return opened


def seal_secrets(keyring: Keyring, sink_id: str, values: Mapping[str, str]) -> bytes | None:
    """A sink's secrets for its row."""
    if not values:
        return None
    return seal(keyring, json.dumps(dict(values)).encode(), LogSink, "credentials", sink_id)


def scrub(text: str, opened: Mapping[str, str]) -> str:
    """A text without a sink's secrets, should its destination have sent them back."""
    for value in opened.values():
        text = text.replace(value, "[redacted]")
    return text


def new_external_id() -> str:
    """An external id for the trust policy of a role."""
    return str(uuid4())


def trial_id() -> str:
    """An id for an event that tells of nothing."""
    return f"test-{secrets.token_hex(8)}"
