"""Traffic filters of a resource: as people write them, and as they are sent.

A filter is a protocol and a list of ports such as `443` or `8000 - 8100`; no ports mean all of the protocol, and no
filters mean everything.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, cast

from wardgate.errors import invalid
from wardgate.wire.portal import Filter as WireFilter

Protocol = Literal["tcp", "udp", "icmp"]
PROTOCOLS: Final = ("tcp", "udp", "icmp")
_RANGE: Final = re.compile(r"([0-9]{1,5})(?:\s*-\s*([0-9]{1,5}))?", re.ASCII)
_MAX_RANGES: Final = 1000
_ACCEPTED: Final = "N or N - M, from 1 to 65535"


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
        raise invalid("filters", "is invalid", "invalid", "a list of objects with protocol and ports")
    filters = tuple(_filter(one, f"filters[{index}]") for index, one in enumerate(value))
    for protocol in PROTOCOLS:
        _refuse_overlaps([each for each in enumerate(filters) if each[1].protocol == protocol])
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


def _filter(value: object, place: str) -> TrafficFilter:
    if not isinstance(value, Mapping) or value.get("protocol") not in PROTOCOLS:
        raise invalid(f"{place}.protocol", "needs a protocol: tcp, udp or icmp", "invalid", ", ".join(PROTOCOLS))
    ports = value.get("ports") or []
    place = f"{place}.ports"
    if not isinstance(ports, Sequence) or isinstance(ports, str) or len(ports) > _MAX_RANGES:
        raise invalid(place, "has ports that are not a list", "invalid", f"up to {_MAX_RANGES} texts, {_ACCEPTED}")
    protocol = cast(Protocol, value["protocol"])
    if protocol == "icmp" and ports:
        raise invalid(place, "has ports, but ICMP has none", "not_allowed", "no ports")
    return TrafficFilter(protocol, tuple(_range(one, place) for one in ports))


def _range(value: object, place: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(str(value).strip()) if isinstance(value, str | int) else None
    if match is None:
        raise invalid(place, f"has a port range that is neither N nor N - M: {value!r}", "invalid", _ACCEPTED)
    start = int(match[1])
    end = int(match[2]) if match[2] else start
    if not (1 <= start <= 65535 and 1 <= end <= 65535):
        raise invalid(place, f"has a port outside 1 to 65535: {value!r}", "invalid", _ACCEPTED)
    if start > end:
        raise invalid(place, f"has a port range that starts after its end: {value!r}", "reversed_range", _ACCEPTED)
    return start, end


def _whole(one: TrafficFilter) -> tuple[tuple[int, int], ...]:
    return one.ranges or ((1, 65535),)


def _refuse_overlaps(filters: list[tuple[int, TrafficFilter]]) -> None:
    ranges = sorted((start, end, index) for index, one in filters for start, end in _whole(one))
    for (_, end, _), (start, _, index) in pairwise(ranges):
        if start <= end:
            place = f"filters[{index}].ports"
            raise invalid(
                place, "has port ranges that overlap", "overlap", "ranges of one protocol that do not overlap"
            )


def _range_text(one: tuple[int, int]) -> str:
    start, end = one
    return str(start) if start == end else f"{start} - {end}"
