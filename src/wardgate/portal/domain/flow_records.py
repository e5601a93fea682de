"""Records of flows as devices upload them: checked one by one, and merged where they tell of the same flow.

Source: portal-domain-2 A7, portal-protocol section 3.5.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Final

MAX_RECORDS: Final = 10_000
MAX_OUTERS: Final = 1000
_MAX_COUNT: Final = 2**63 - 1
_MAX_TEXT: Final = 255
_COUNTERS: Final = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_BLANK: Final = "can't be blank"
Errors = dict[str, Any]


class MalformedUpload(ValueError):
    """The body as a whole is not what an upload looks like; the text says what is."""


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """One report of a flow: open, or closed if there is a `flow_end`.

    Attributes:
        outers: The paths it took, as JSON, in the order of their use.
    """

    protocol: str
    inner_src_ip: str
    inner_src_port: int
    inner_dst_ip: str
    inner_dst_port: int
    flow_start: datetime
    inner_domain: str | None = None
    outers: tuple[Mapping[str, Any], ...] = ()
    flow_end: datetime | None = None
    last_packet: datetime | None = None
    rx_packets: int | None = None
    tx_packets: int | None = None
    rx_bytes: int | None = None
    tx_bytes: int | None = None

    @property
    def identity(self) -> tuple[Any, ...]:
        """What makes it the same flow as another record of the same grant and side."""
        inner = (self.inner_src_ip, self.inner_src_port, self.inner_dst_ip, self.inner_dst_port)
        return (self.flow_start, self.protocol, *inner)


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload's records, one for each flow, and what was wrong with the others.

    Attributes:
        authorization_ids: Every grant that a record names; naming one is optional.
        errors: By the record's index, from 0.
    """

    records: tuple[FlowRecord, ...]
    authorization_ids: frozenset[str]
    errors: dict[str, Errors]


def read_upload(body: bytes) -> Upload:
    """Reads an upload; records that are not acceptable are left out and told of.

    Raises:
        MalformedUpload: It is not JSON, has no `flow_logs` array, or too many records.
    """
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise MalformedUpload("The body must be JSON.") from None
    items = value.get("flow_logs") if isinstance(value, dict) else None
    if not isinstance(items, list):
        raise MalformedUpload("The body must be an object with an array `flow_logs`.")
    if len(items) > MAX_RECORDS:
        raise MalformedUpload(f"`flow_logs` may hold at most {MAX_RECORDS} records, this has {len(items)}.")
    merged: dict[tuple[Any, ...], FlowRecord] = {}
    named: set[str] = set()
    errors: dict[str, Errors] = {}
    for index, item in enumerate(items):
        if isinstance(item, dict) and item.get("policy_authorization_id") is not None:
            named.add(str(item["policy_authorization_id"]).lower())
        record = read_record(item)
        if isinstance(record, FlowRecord):
            merged[record.identity] = _merge(merged.get(record.identity), record)
        else:
            errors[str(index)] = record
    return Upload(tuple(merged.values()), frozenset(named), errors)


def read_record(item: object) -> FlowRecord | Errors:
    """A record, or what is wrong with it, by field."""
    if not isinstance(item, dict):
        return {"base": ["must be an object"]}
    fields = _Fields(item)
    protocol = fields.choice("protocol", ("tcp", "udp"))
    source, source_port = fields.address("inner_src_ip"), fields.number("inner_src_port", 65535)
    target, target_port = fields.address("inner_dst_ip"), fields.number("inner_dst_port", 65535)
    start, end = fields.instant("flow_start"), fields.instant("flow_end", needed=False)
    domain = fields.text("domain")
    is_close = item.get("flow_end") is not None
    outers = fields.outers(needed=is_close)
    last_packet = fields.instant("last_packet", needed=is_close)
    counters = [fields.number(name, _MAX_COUNT, needed=is_close) for name in _COUNTERS]
    if fields.errors:
        return fields.errors
    assert protocol is not None
    assert source is not None
    assert source_port is not None
    assert target is not None
    assert target_port is not None
    assert start is not None
    opened = FlowRecord(protocol, source, source_port, target, target_port, start, domain, outers)
    if not is_close:
        return opened
    rx_packets, tx_packets, rx_bytes, tx_bytes = counters
    return replace(
        opened,
        flow_end=end,
        last_packet=last_packet,
        rx_packets=rx_packets,
        tx_packets=tx_packets,
        rx_bytes=rx_bytes,
        tx_bytes=tx_bytes,
    )


def _merge(known: FlowRecord | None, record: FlowRecord) -> FlowRecord:
    """Of two reports the close counts, and of two closes the first; a name that only the opening has is kept."""
    if known is None:
        return record
    if known.flow_end is None and record.flow_end is not None:
        return replace(record, inner_domain=record.inner_domain or known.inner_domain)
    return known


class _Fields:
    """Reads the fields of one object and collects what is wrong."""

    def __init__(self, item: dict[str, Any]) -> None:
        self._item = item
        self.errors: Errors = {}

    def _get(self, name: str, needed: bool) -> Any:
        value = self._item.get(name)
        if value is None and needed:
            self.errors[name] = [_BLANK]
        return value

    def choice(self, name: str, accepted: tuple[str, ...]) -> str | None:
        value = self._get(name, True)
        if value is None:
            return None
        if not isinstance(value, str) or value not in accepted:
            self.errors[name] = [f"must be one of {', '.join(accepted)}"]
            return None
        return value

    def address(self, name: str, *, needed: bool = True) -> str | None:
        value = self._get(name, needed)
        if value is None:
            return None
        try:
            if not isinstance(value, str) or "%" in value or len(value) > 45:
                raise ValueError(name)
            return str(ip_address(value))
        except ValueError:
            self.errors[name] = ["must be an IP address"]
            return None

    def number(self, name: str, most: int, *, needed: bool = True) -> int | None:
        value = self._get(name, needed)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            self.errors[name] = [f"must be a whole number from 0 to {most}"]
            return None
        return value

    def instant(self, name: str, *, needed: bool = True) -> datetime | None:
        value = self._get(name, needed)
        if value is None:
            return None
        try:
            if not isinstance(value, str) or len(value) > 64 or not _INSTANT.fullmatch(value):
                raise ValueError(name)
            return datetime.fromisoformat(value.upper().replace(" ", "T")).astimezone(UTC)
        except (ValueError, OverflowError):
            self.errors[name] = ["must be an RFC 3339 instant"]
            return None

    def text(self, name: str) -> str | None:
        value = self._get(name, False)
        if value is None:
            return None
        if not isinstance(value, str) or "\x00" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            self.errors[name] = ["must be text"]
            return None
        if len(value) > _MAX_TEXT:
            self.errors[name] = [f"should be at most {_MAX_TEXT} character(s)"]
            return None
        return value.strip() or None

    def outers(self, *, needed: bool) -> tuple[Mapping[str, Any], ...]:
        value = self._get("outers", needed)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.errors["outers"] = ["must be an array"]
            return ()
        if needed and not value:
            self.errors["outers"] = [_BLANK]
        if len(value) > MAX_OUTERS:
            self.errors["outers"] = [f"may hold at most {MAX_OUTERS}"]
            return ()
        read = [_read_outer(one) for one in value]
        if any(problems for _, problems in read):
            self.errors["outers"] = [problems for _, problems in read]
        return tuple(outer for outer, _ in read)


def _read_outer(item: object) -> tuple[Mapping[str, Any], Errors]:
    if not isinstance(item, dict):
        return {}, {"base": ["must be an object"]}
    fields = _Fields(item)
    source, port = fields.address("src_ip", needed=False), fields.number("src_port", 65535, needed=False)
    target, target_port = fields.address("dst_ip"), fields.number("dst_port", 65535)
    at = fields.instant("path_activated_at", needed=False)
    if not fields.errors and (source is None) != (port is None):
        fields.errors["src_ip" if source is None else "src_port"] = ["must be given together with the other one"]
    outer = {
        "src_ip": source,
        "src_port": port,
        "dst_ip": target,
        "dst_port": target_port,
        "path_activated_at": at.isoformat(timespec="microseconds").replace("+00:00", "Z") if at else None,
    }
    return outer, fields.errors


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
