"""What can be said of a log sink, by its type, and which of it is secret.

Source: portal-domain section 1.9, portal-domain-3 B8.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from wardgate.portal.domain.log_ids import STREAMS

PRODUCTS: Final = {
    "splunk": "Splunk",
    "datadog": "Datadog",
    "newrelic": "New Relic",
    "elastic": "Elastic",
    "sentinel": "Microsoft Sentinel",
    "s3": "Amazon S3",
    "qradar": "IBM QRadar",
    "http": "HTTP",
}
DATADOG_SITES: Final = (
    "datadoghq.com",
    "us3.datadoghq.com",
    "us5.datadoghq.com",
    "ap1.datadoghq.com",
    "ap2.datadoghq.com",
    "datadoghq.eu",
    "ddog-gov.com",
)
NEWRELIC_REGIONS: Final = ("US", "EU", "JP", "FedRAMP")
_MAX_URL: Final = 2048
_BLANK: Final = "can't be blank"
_Check = Callable[[Any], Any]


class _Bad(ValueError):
    """A value is not acceptable; the text says what is."""


@dataclass(frozen=True, slots=True)
class Field:
    """One setting of a sink.

    Attributes:
        check: Gives the value to keep, or raises.
    """

    check: _Check
    is_needed: bool = False
    is_secret: bool = False
    default: Any = None


def _text(most: int, pattern: str = r"[^\x00-\x1f\x7f]+", said: str = "has characters that it may not have") -> _Check:
    shape = re.compile(pattern)

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise _Bad("must be text")
        if len(value) > most:
            raise _Bad(f"should be at most {most} character(s)")
        if not shape.fullmatch(value):
            raise _Bad(said)
        return value

    return check


def _url(value: Any) -> str:
    text: str = _text(_MAX_URL, r"[!-~]+", "must be an address such as https://logs.example")(value)
    try:
        parts = urlsplit(text)
        is_fine = parts.scheme in ("https", "http") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_fine = False
    if not is_fine:
        raise _Bad("must be an address such as https://logs.example")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise _Bad("must not hold a user name, a password or a fragment")
    return text


def _base_url(value: Any) -> str:
    return _url(value).rstrip("/")


def _one_of(*accepted: str) -> _Check:
    def check(value: Any) -> str:
        if value not in accepted:
            raise _Bad(f"must be one of {', '.join(accepted)}")
        return str(value)

    return check


def _number(least: int, most: int) -> _Check:
    def check(value: Any) -> int:
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _Bad(f"must be a whole number from {least} to {most}")
        return value

    return check


def _elastic_url(value: Any) -> str:
    return _base_url(value).removesuffix("/_bulk").rstrip("/")


def _tags(value: Any) -> str:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(one, str) for one in parts):
        raise _Bad("must be text, with commas")
    tags = [one.strip() for one in parts if one.strip()]
    for tag in tags:
        if len(tag) > 200 or not tag[0].isalpha() or not tag.isprintable():
            raise _Bad("each must have at most 200 characters and start with a letter")
    text = ",".join(tags)
    if len(text) > 2000:
        raise _Bad("should be at most 2000 character(s)")
    return text


def _secret(most: int = 255, *, is_needed: bool = True) -> Field:
    return Field(_text(most, r"[ -~]+", "may hold printable ASCII only"), is_needed=is_needed, is_secret=True)


def _prefix(value: Any) -> str:
    return str(_text(512, r"[A-Za-z0-9._/-]+", "may hold letters, digits and ._/- only")(value)).strip("/")


FIELDS: Final[dict[str, dict[str, Field]]] = {
    "splunk": {
        "collector_url": Field(_base_url, is_needed=True),
        "hec_token": _secret(),
        "index": Field(_text(255)),
    },
    "datadog": {
        "site": Field(_one_of(*DATADOG_SITES), default=DATADOG_SITES[0]),
        "api_key": _secret(),
        "tags": Field(_tags),
    },
    "newrelic": {
        "region": Field(_one_of(*NEWRELIC_REGIONS), default="US"),
        "license_key": _secret(),
    },
    "elastic": {
        "endpoint_url": Field(_elastic_url, is_needed=True),
        "api_key": _secret(),
        "data_stream": Field(
            _text(255, r"[a-z0-9][a-z0-9._-]*", "may hold small letters, digits and ._- only"),
            default="logs-firezone-default",
        ),
    },
    "sentinel": {
        "tenant_id": Field(_text(255, r"[A-Za-z0-9.-]+", "must be the id or domain of a tenant"), is_needed=True),
        "ingestion_endpoint": Field(_base_url, is_needed=True),
        "dcr_immutable_id": Field(_text(36, r"dcr-[0-9a-f]{32}", "must be dcr- and 32 hex digits"), is_needed=True),
        "stream_name": Field(
            _text(207, r"Custom-[A-Za-z0-9_-]{1,200}", "must be Custom- and at most 200 letters, digits, _ or -"),
            default="Custom-FirezoneLogs_CL",
        ),
    },
    "s3": {
        "bucket": Field(_text(63, r"[a-z0-9-]{3,63}", "must be 3 to 63 small letters, digits or -"), is_needed=True),
        "region": Field(_text(64, r"[a-z0-9-]+", "must be a region such as eu-central-1"), is_needed=True),
        "role_arn": Field(
            _text(2048, r"arn:aws:iam::\d{12}:role/[\w+=,.@/-]+", "must be arn:aws:iam::<12 digits>:role/…"),
            is_needed=True,
        ),
        "key_prefix": Field(_prefix),
    },
    "qradar": {
        "endpoint_url": Field(_url, is_needed=True),
        "auth_header": _secret(2048, is_needed=False),
    },
    "http": {
        "endpoint_url": Field(_url, is_needed=True),
        "bearer_token": _secret(4096, is_needed=False),
        "batch_max_events": Field(_number(1, 1000), default=100),
    },
}
"""What each type of sink has."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Settings that were given, split, and what is wrong with them by field."""

    settings: dict[str, Any]
    secrets: dict[str, str]
    errors: dict[str, list[str]]


def check_settings(
    kind: str, given: Mapping[str, Any], known_secrets: frozenset[str] = frozenset(), *, may_be_private: bool = False
) -> Checked:
    """Checks all settings of a sink.

    Args:
        given: By name; `None` and an empty text mean that there is no such setting.
        known_secrets: Secrets that are kept if none is given.
        may_be_private: Whether plain HTTP is allowed.
    """
    fields = FIELDS[kind]
    settings: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    errors = {name: [f"is not a setting of {kind}: {', '.join(fields)}"] for name in given if name not in fields}
    for name, field in fields.items():
        value = given.get(name)
        if value is None or value == "":
            if field.is_needed and name not in known_secrets:
                errors[name] = [_BLANK]
            elif field.default is not None:
                settings[name] = field.default
            continue
        try:
            kept = field.check(value)
        except _Bad as error:
            errors[name] = [str(error)]
            continue
        if name.endswith(("_url", "_endpoint")) and not may_be_private and not kept.lower().startswith("https://"):
            errors[name] = ["must start with https://"]
        elif field.is_secret:
            secrets[name] = kept
        else:
            settings[name] = kept
    return Checked(settings, secrets, errors)


def check_streams(given: Any) -> list[str] | None:
    """The streams in their usual order, if they are at least one of those that there are."""
    if not isinstance(given, list | tuple) or not given or not all(one in STREAMS for one in given):
        return None
    return [stream for stream in STREAMS if stream in given]
