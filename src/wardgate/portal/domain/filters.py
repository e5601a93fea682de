"""Traffic filters of a resource: as people write them, and as they are sent.

A filter is a protocol and a list of ports such as `443` or `8000 - 8100`; no ports mean all of the protocol, and no
filters mean everything.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, cast

from wardgate.errors import InvalidInput
from wardgate.wire.portal import Filter as WireFilter

Protocol = Literal["tcp", "udp", "icmp"]
PROTOCOLS: Final = ("tcp", "udp", "icmp")
_RANGE: Final = re.compile(r"([0-9]{1,5})(?:\s*-\s*([0-9]{1,5}))?", re.ASCII)
_MAX_RANGES: Final = 1000


@dataclass(frozen=True, slots=True)
class TrafficFilter:
    """One protocol and its allowed port ranges, both ends included; none stand for all."""

    protocol: Protocol
    ranges: tuple[tuple[int, int], ...] = ()

    def stored(self) -> dict[str, Any]:
        """The form of the database and of the REST API."""
        return {"protocol": self.protocol, "ports": [_range_text(one) for one in self.ranges]}


def parse_filters(value: object) -> tuple[TrafficFilter, ...]:
    """Reads filters as people give them.

    Raises:
        InvalidInput: A protocol or range is wrong, a range reversed, or two of one protocol overlap.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise _invalid("is invalid")
    filters = tuple(_filter(one) for one in value)
    for protocol in PROTOCOLS:
        _refuse_overlaps([one for each in filters if each.protocol == protocol for one in _whole(each)])
    return filters


def wire_filters(stored: Sequence[Mapping[str, Any]]) -> tuple[WireFilter, ...]:
    """Stored filters as they are sent: one object for each range."""
    sent: list[WireFilter] = []
    for one in parse_filters(stored):
        if one.ranges:
            sent += [
                WireFilter(protocol=one.protocol, port_range_start=start, port_range_end=end)
                for start, end in one.ranges
            ]
        else:
            sent.append(WireFilter(protocol=one.protocol))
    return tuple(sent)


def _filter(value: object) -> TrafficFilter:
    if not isinstance(value, Mapping) or value.get("protocol") not in PROTOCOLS:
        raise _invalid("needs a protocol: tcp, udp or icmp")
    ports = value.get("ports") or []
    if not isinstance(ports, Sequence) or isinstance(ports, str) or len(ports) > _MAX_RANGES:
        raise _invalid("has ports that are not a list")
    protocol = cast(Protocol, value["protocol"])
    if protocol == "icmp" and ports:
        raise _invalid("has ports, but ICMP has none")
    return TrafficFilter(protocol, tuple(_range(one) for one in ports))


def _range(value: object) -> tuple[int, int]:
    match = _RANGE.fullmatch(str(value).strip()) if isinstance(value, str | int) else None
    if match is None:
        raise _invalid(f"has a port range that is neither N nor N - M: {value!r}")
    start = int(match[1])
    end = int(match[2]) if match[2] else start
    if not (1 <= start <= 65535 and 1 <= end <= 65535):
        raise _invalid(f"has a port outside 1 to 65535: {value!r}")
    if start > end:
        raise _invalid(f"has a port range that starts after its end: {value!r}")
    return start, end


def _whole(one: TrafficFilter) -> tuple[tuple[int, int], ...]:
    return one.ranges or ((1, 65535),)


def _refuse_overlaps(ranges: list[tuple[int, int]]) -> None:
    ranges = sorted(ranges)
    for (_, end), (start, _) in pairwise(ranges):
        if start <= end:
            raise _invalid("has port ranges that overlap")


def _range_text(one: tuple[int, int]) -> str:
    start, end = one
    return str(start) if start == end else f"{start} - {end}"


def _invalid(text: str) -> InvalidInput:
    return InvalidInput({"filters": [text]})
