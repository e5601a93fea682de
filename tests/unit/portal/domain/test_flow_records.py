"""Records of flows: what is accepted, what is said of the rest, and that any bytes give a value or one error."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.portal.domain.flow_records import (
    MAX_OUTERS,
    FlowRecord,
    MalformedUpload,
    Upload,
    read_record,
    read_upload,
)

OPEN: dict[str, Any] = {
    "protocol": "tcp",
    "inner_src_ip": "100.64.0.1",
    "inner_src_port": 50000,
    "inner_dst_ip": "10.0.0.9",
    "inner_dst_port": 443,
    "flow_start": "2026-11-23T12:00:00.123456789Z",
}
OUTER = {"dst_ip": "203.0.113.9", "dst_port": 51820}
CLOSE: dict[str, Any] = {
    **OPEN,
    "flow_end": "2026-11-23T13:00:05+01:00",
    "last_packet": "2026-11-23T12:00:04Z",
    "rx_packets": 1,
    "tx_packets": 2,
    "rx_bytes": 3,
    "tx_bytes": 2**63 - 1,
    "outers": [OUTER],
}


def upload_of(*records: object) -> Upload:
    return read_upload(json.dumps({"flow_logs": records}).encode())


def test_an_open_and_a_closed_record_are_read() -> None:
    opened, closed = read_record(OPEN), read_record({**CLOSE, "domain": " wiki.corp.example "})

    assert isinstance(opened, FlowRecord)
    assert isinstance(closed, FlowRecord)
    assert opened.flow_start == datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
    assert opened.flow_end is None
    assert closed.flow_end == datetime(2026, 11, 23, 12, 0, 5, tzinfo=UTC)
    assert closed.inner_domain == "wiki.corp.example"
    assert closed.tx_bytes == 2**63 - 1
    assert closed.outers == ({**OUTER, "src_ip": None, "src_port": None, "path_activated_at": None},)


def test_an_open_record_has_no_counters_whatever_it_says() -> None:
    record = read_record({**OPEN, "rx_packets": 5, "flow_end": None, "outers": [OUTER]})

    assert isinstance(record, FlowRecord)
    assert record.rx_packets is None
    assert len(record.outers) == 1


def test_clocks_may_be_out_of_order() -> None:
    assert isinstance(read_record({**CLOSE, "flow_end": "2020-01-01T00:00:00Z"}), FlowRecord)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"protocol": "icmp"}, "protocol"),
        ({"protocol": None}, "protocol"),
        ({"protocol": ["tcp"]}, "protocol"),
        ({"inner_src_ip": "example.com"}, "inner_src_ip"),
        ({"inner_src_ip": "fe80::1%eth0"}, "inner_src_ip"),
        ({"inner_src_ip": 1}, "inner_src_ip"),
        ({"inner_src_port": 65536}, "inner_src_port"),
        ({"inner_src_port": -1}, "inner_src_port"),
        ({"inner_src_port": True}, "inner_src_port"),
        ({"inner_dst_port": 44.3}, "inner_dst_port"),
        ({"flow_start": "2026-11-23T12:00:00"}, "flow_start"),
        ({"flow_start": "0001-01-01T00:00:00+23:59"}, "flow_start"),
        ({"flow_start": 1764000000}, "flow_start"),
        ({"domain": "x" * 256}, "domain"),
        ({"domain": "a\x00b"}, "domain"),
        ({"domain": "\ud800"}, "domain"),
        ({"flow_end": "late"}, "flow_end"),
        ({"last_packet": None}, "last_packet"),
        ({"rx_bytes": None}, "rx_bytes"),
        ({"tx_bytes": 2**63}, "tx_bytes"),
        ({"outers": []}, "outers"),
        ({"outers": None}, "outers"),
        ({"outers": {}}, "outers"),
        ({"outers": [OUTER] * (MAX_OUTERS + 1)}, "outers"),
        ({"outers": [{**OUTER, "src_ip": "1.2.3.4"}]}, "outers"),
        ({"outers": [{**OUTER, "src_port": 4}]}, "outers"),
        ({"outers": [{"dst_ip": "1.2.3.4"}]}, "outers"),
        ({"outers": ["nonsense"]}, "outers"),
    ],
)
def test_a_record_that_is_not_acceptable_is_told_of_by_field(change: dict[str, Any], field: str) -> None:
    errors = read_record({**CLOSE, **change})

    assert isinstance(errors, dict)
    assert list(errors) == [field]


def test_errors_of_outers_are_at_their_place() -> None:
    errors = read_record({**CLOSE, "outers": [OUTER, {**OUTER, "dst_port": 70000}]})

    assert errors == {"outers": [{}, {"dst_port": ["must be a whole number from 0 to 65535"]}]}


def test_of_duplicates_the_close_counts_in_any_order() -> None:
    named = {**OPEN, "domain": "wiki.corp.example"}
    second = {**CLOSE, "rx_packets": 99}

    for records in ([named, CLOSE, second], [CLOSE, second, named], [named, named, CLOSE]):
        upload = upload_of(*records)
        assert len(upload.records) == 1
        assert upload.records[0].rx_packets == 1


def test_bad_records_are_told_of_by_their_index_and_the_others_kept() -> None:
    upload = upload_of(OPEN, "nonsense", {**OPEN, "inner_src_port": 1}, {**OPEN, "protocol": "gre"})

    assert len(upload.records) == 2
    assert list(upload.errors) == ["1", "3"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b"{}", b'{"flow_logs": {}}', b'{"flow_logs": NaN}', b"[" * 100_000, b"\xff\xfe\x00"],
)
def test_a_body_of_another_shape_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedUpload):
        read_upload(body)


def test_ten_thousand_records_are_accepted_and_no_more() -> None:
    assert len(upload_of(*[{**OPEN, "inner_src_port": port} for port in range(10_000)]).records) == 10_000
    with pytest.raises(MalformedUpload):
        upload_of(*[OPEN] * 10_001)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
MUTATED = st.builds(
    lambda record, changes, dropped: {
        name: value for name, value in {**record, **changes}.items() if name not in dropped
    },
    st.sampled_from([OPEN, CLOSE]),
    st.dictionaries(st.sampled_from([*CLOSE, "domain", "policy_authorization_id"]), JSON, max_size=3),
    st.sets(st.sampled_from(list(CLOSE)), max_size=2),
)


@given(st.binary(max_size=200))
def test_any_bytes_give_an_upload_or_one_error(body: bytes) -> None:
    with suppress(MalformedUpload):
        assert isinstance(read_upload(body), Upload)


@given(st.lists(MUTATED | JSON, max_size=4))
def test_any_records_are_accepted_or_told_of_and_what_is_accepted_can_be_stored(records: list[Any]) -> None:
    upload = read_upload(json.dumps({"flow_logs": records}).encode())

    assert len(upload.records) + len(upload.errors) <= len(records)
    json.dumps(upload.errors)
    for record in upload.records:
        assert record.flow_start.tzinfo is UTC
        assert 0 <= record.inner_src_port <= 65535
        (record.inner_domain or "").encode()
        assert (record.flow_end is None) == (record.rx_bytes is None)
        json.dumps(record.outers).encode()
