"""What can be said of a sink, and what is refused by name."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.portal.domain.sink_settings import FIELDS, PRODUCTS, check_settings, check_streams

FINE: dict[str, dict[str, Any]] = {
    "splunk": {"collector_url": "https://s.example:8088", "hec_token": "t"},
    "datadog": {"api_key": "k"},
    "newrelic": {"license_key": "k"},
    "elastic": {"endpoint_url": "https://e.example/", "api_key": "k"},
    "sentinel": {
        "tenant_id": "corp.example",
        "ingestion_endpoint": "https://d.example",
        "dcr_immutable_id": "dcr-" + "0" * 32,
    },
    "s3": {"bucket": "abc", "region": "us-east-1", "role_arn": "arn:aws:iam::123456789012:role/a/b"},
    "qradar": {"endpoint_url": "https://q.example"},
    "http": {"endpoint_url": "https://h.example"},
}


@pytest.mark.parametrize("kind", PRODUCTS)
def test_the_least_that_is_needed_is_enough_and_each_part_of_it_is_needed(kind: str) -> None:
    assert check_settings(kind, FINE[kind]).errors == {}
    for name in FINE[kind]:
        less = {key: value for key, value in FINE[kind].items() if key != name}
        assert check_settings(kind, less).errors == {name: ["can't be blank"]}


def test_secrets_are_kept_apart_and_defaults_filled_in() -> None:
    assert check_settings("datadog", FINE["datadog"]).settings == {"site": "datadoghq.com"}
    assert check_settings("datadog", FINE["datadog"]).secrets == {"api_key": "k"}
    assert check_settings("http", FINE["http"]).settings["batch_max_events"] == 100
    assert check_settings("elastic", FINE["elastic"]).settings["data_stream"] == "logs-firezone-default"
    assert check_settings("sentinel", FINE["sentinel"]).settings["stream_name"] == "Custom-FirezoneLogs_CL"
    without = {"collector_url": "https://s.example"}
    assert check_settings("splunk", without, frozenset({"hec_token"})).errors == {}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("splunk", "collector_url", "http://s.example"),
        ("splunk", "collector_url", "https://user:pass@s.example"),
        ("splunk", "collector_url", "https://s.example/#x"),
        ("splunk", "collector_url", "https://s.example:99999"),
        ("splunk", "collector_url", "https://" + "x" * 2048),
        ("splunk", "collector_url", "https:// s.example"),
        ("splunk", "hec_token", "a\r\nb"),
        ("splunk", "hec_token", "ü"),
        ("splunk", "hec_token", "x" * 256),
        ("splunk", "index", "x" * 256),
        ("splunk", "color", "red"),
        ("datadog", "site", "datadog.example"),
        ("datadog", "tags", "1st:tag"),
        ("datadog", "tags", "a" * 201),
        ("datadog", "tags", ",".join("t" * 199 for _ in range(11))),
        ("newrelic", "region", "us"),
        ("elastic", "data_stream", "Logs"),
        ("elastic", "data_stream", "-logs"),
        ("elastic", "data_stream", 'a","b'),
        ("sentinel", "dcr_immutable_id", "dcr-1234"),
        ("sentinel", "stream_name", "Logs"),
        ("sentinel", "stream_name", "Custom-" + "x" * 201),
        ("sentinel", "tenant_id", "a/../b"),
        ("s3", "bucket", "a.b.c"),
        ("s3", "bucket", "ab"),
        ("s3", "region", "eu/central"),
        ("s3", "role_arn", "arn:aws:iam::12:role/x"),
        ("s3", "key_prefix", "a b"),
        ("qradar", "auth_header", "x" * 2049),
        ("http", "bearer_token", "x" * 4097),
        ("http", "batch_max_events", 0),
        ("http", "batch_max_events", 1001),
        ("http", "batch_max_events", True),
        ("http", "batch_max_events", "many"),
    ],
)
def test_unacceptable_settings_are_refused_by_name(kind: str, name: str, value: Any) -> None:
    assert list(check_settings(kind, {**FINE[kind], name: value}).errors) == [name]


def test_private_addresses_may_be_plain_http_if_allowed() -> None:
    assert check_settings("http", {"endpoint_url": "http://10.0.0.1/"}, may_be_private=True).errors == {}


def test_streams() -> None:
    assert check_streams(["flow", "change", "flow"]) == ["change", "flow"]
    unacceptable: tuple[Any, ...] = ([], ["everything"], "change", None, [[]], {"change": 1})
    for bad in unacceptable:
        assert check_streams(bad) is None


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=2)


@given(st.sampled_from(list(PRODUCTS)), st.data())
def test_any_values_are_kept_or_refused(kind: str, data: st.DataObject) -> None:
    given_ = data.draw(st.dictionaries(st.sampled_from([*FIELDS[kind], "other"]), ANYTHING))

    checked = check_settings(kind, given_)

    assert all(isinstance(texts[0], str) for texts in checked.errors.values())
    for value in checked.secrets.values():
        assert value.isascii()
        assert value.isprintable()
