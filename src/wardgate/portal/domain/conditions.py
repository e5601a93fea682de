"""Conditions of a policy: what they may say, and whether they hold now and until when.

Source: portal-domain section 2.4. All conditions of a policy must hold. A whole day lasts until midnight, an empty list
is refused, and an unknown region fails `is_in` and `is_not_in` alike, because nothing is known that could allow access.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from wardgate.errors import InvalidInput, invalid
from wardgate.portal.domain import hours
from wardgate.portal.domain.checks import is_uuid
from wardgate.portal.domain.regions import REGIONS

OPERATORS: Final[dict[str, tuple[str, ...]]] = {
    "remote_ip_location_region": ("is_in", "is_not_in"),
    "remote_ip": ("is_in_cidr", "is_not_in_cidr"),
    "auth_provider_id": ("is_in", "is_not_in"),
    "current_utc_datetime": ("is_in_day_of_week_time_ranges",),
    "client_verified": ("is",),
}
_DAYS: Final = "MTWRFSU"
_TIME: Final = re.compile(r"([0-9]{1,2})(?::([0-9]{2}))?(?::([0-9]{2}))?", re.ASCII)
_DAY_S: Final = 24 * 3600
_MAX_VALUES: Final = 1000
_ACCEPTED: Final = {
    "remote_ip_location_region": "ISO 3166 codes of two capital letters, such as AT",
    "remote_ip": "IP addresses and networks, such as 192.0.2.1 or 10.0.0.0/8",
    "auth_provider_id": "UUIDs",
    "client_verified": "one of true and false",
    "current_utc_datetime": "day/ranges/zone, such as M/09:00-17:00,18:00-20:00/Europe/Vienna or S/true/UTC",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A limit on a policy."""

    property: str
    operator: str
    values: tuple[str, ...]

    def stored(self) -> dict[str, Any]:
        """The form of the database and of the REST API."""
        return {"property": self.property, "operator": self.operator, "values": list(self.values)}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What conditions look at: of the current connection, at this moment.

    Attributes:
        at: An aware instant.
    """

    at: datetime
    remote_ip: str | None = None
    region: str | None = None
    auth_provider_id: str | None = None
    is_verified: bool = False


@dataclass(frozen=True, slots=True)
class Passed:
    """All conditions hold; until `expires_at` if a time range ends then."""

    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Violated:
    """The properties whose conditions do not hold, in the order of the conditions."""

    properties: tuple[str, ...]


def parse_conditions(value: object) -> tuple[Condition, ...]:
    """Reads conditions as people give them.

    Raises:
        InvalidInput: A property, operator or value is not allowed, or a property comes twice.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise invalid("conditions", "is invalid", "invalid", "a list of objects with property, operator and values")
    if len(value) > len(OPERATORS):
        raise invalid("conditions", "may have each property only once", "duplicate", ", ".join(OPERATORS))
    conditions: list[Condition] = []
    for index, one in enumerate(value):
        place = f"conditions[{index}]"
        condition = _condition(one, place)
        if condition.property in [each.property for each in conditions]:
            raise invalid(f"{place}.property", "may have each property only once", "duplicate", "another property")
        conditions.append(condition)
    return tuple(conditions)


def evaluate(conditions: Sequence[Condition], circumstances: Circumstances) -> Passed | Violated:
    """Whether all hold, and until when."""
    violated: list[str] = []
    expires_at: datetime | None = None
    for condition in conditions:
        outcome = _evaluate_one(condition, circumstances)
        if outcome is False:
            violated.append(condition.property)
        elif isinstance(outcome, datetime):
            expires_at = outcome if expires_at is None else min(expires_at, outcome)
    return Violated(tuple(violated)) if violated else Passed(expires_at)


def _evaluate_one(condition: Condition, now: Circumstances) -> bool | datetime:
    negated = condition.operator.startswith("is_not")
    match condition.property:
        case "remote_ip_location_region":
            return now.region is not None and (now.region in condition.values) is not negated
        case "remote_ip":
            return now.remote_ip is not None and _is_in_any(now.remote_ip, condition.values) is not negated
        case "auth_provider_id":
            return (now.auth_provider_id in condition.values) is not negated
        case "client_verified":
            return now.is_verified or condition.values != ("true",)
        case "current_utc_datetime":
            return _end_of_matching_range(condition.values, now.at) or False
        case _:
            return False


def _is_in_any(remote_ip: str, networks: Sequence[str]) -> bool:
    try:
        address = ip_address(remote_ip)
    except ValueError:
        return False
    return any(address in _network(one) for one in networks)


@lru_cache(maxsize=10_000)
def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text, strict=False)


# --- time ranges ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _DayRanges:
    day: str
    ranges: tuple[tuple[int, int], ...]
    zone: ZoneInfo


def _end_of_matching_range(values: Sequence[str], at: datetime) -> datetime | None:
    by_zone: dict[str, list[tuple[int, int]]] = {}
    for value in values:
        one = _parse_day(value)
        if one.day == _DAYS[at.astimezone(one.zone).weekday()]:
            by_zone.setdefault(one.zone.key, []).extend(one.ranges)
    ends = [_end_in_zone(_merged(ranges), at.astimezone(ZoneInfo(zone))) for zone, ranges in by_zone.items()]
    return max((end for end in ends if end is not None), default=None)


def _end_in_zone(ranges: list[tuple[int, int]], local: datetime) -> datetime | None:
    assert isinstance(local.tzinfo, ZoneInfo)
    now_s = local.hour * 3600 + local.minute * 60 + local.second + local.microsecond / 1_000_000
    at = local.astimezone(UTC)
    for start, end in ranges:
        if start <= now_s <= end:
            ends = hours.instants(local.date(), end, local.tzinfo)
            return min((one for one in ends if one >= at), default=at)
    return None


@lru_cache(maxsize=4096)
def openings(values: tuple[str, ...], start: datetime, end: datetime) -> tuple[tuple[datetime, datetime], ...]:
    """When the time ranges allow access between two UTC instants: in order, apart from each other."""
    found: list[tuple[datetime, datetime]] = []
    for begin in sorted(_possible_starts(values, start, end)):
        until = _end_of_matching_range(values, begin)
        if until is None or until <= begin:
            continue
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], min(until, end)))
        else:
            found.append((begin, min(until, end)))
    return tuple(found)


def _possible_starts(values: tuple[str, ...], start: datetime, end: datetime) -> set[datetime]:
    """Every instant at which a range may begin to hold."""
    starts = {start}
    days = (end - start).days + 3
    for one in map(_parse_day, values):
        first = start.astimezone(one.zone).date() - timedelta(days=1)
        for local in (first + timedelta(days=number) for number in range(days)):
            midnight = datetime.combine(local, time(), one.zone)
            if one.day == _DAYS[local.weekday()]:
                walls = [
                    midnight.replace(hour=at // 3600, minute=at // 60 % 60, second=at % 60) for at, _ in one.ranges
                ]
                starts |= {wall.replace(fold=fold).astimezone(UTC) for wall in walls for fold in (0, 1)}
            if midnight.utcoffset() != (midnight + timedelta(days=1)).utcoffset():
                quarters = (midnight.astimezone(UTC) + timedelta(minutes=15 * quarter) for quarter in range(104))
                starts.update(quarters)  # where clocks are changed, an hour is missing or comes twice
    return {one for one in starts if start <= one < end}


def next_change(conditions: Iterable[Condition], at: datetime) -> datetime | None:
    """When time ranges among the conditions next begin to hold or cease to; a bit early is possible, late is not."""
    times = [one.values for one in conditions if one.property == "current_utc_datetime"]
    found = (hours.next_of(_edges(values, at.astimezone(UTC).date()), at) for values in times)
    return min((one for one in found if one is not None), default=None)


@lru_cache(maxsize=4096)
def _edges(values: tuple[str, ...], day: date) -> tuple[datetime, ...]:
    days = (_parse_day(value) for value in values)
    return hours.edges((hours.DayHours(_DAYS.index(one.day), one.ranges, one.zone) for one in days), day)


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


@lru_cache(maxsize=4096)
def _parse_day(value: str) -> _DayRanges:
    day, _, rest = value.partition("/")
    ranges, separator, zone = rest.partition("/")
    if len(day) != 1 or day not in _DAYS or not separator:
        raise _invalid(f"has a time that is not day/ranges/zone: {value!r}")
    try:
        zone_info = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise _invalid(f"has an unknown time zone: {value!r}") from None
    if ranges == "true":
        return _DayRanges(day, ((0, _DAY_S),), zone_info)
    return _DayRanges(day, tuple(_time_range(one, value) for one in ranges.split(",") if one), zone_info)


def _time_range(text: str, value: str) -> tuple[int, int]:
    start_text, separator, end_text = text.strip().partition("-")
    start, end = _seconds(start_text), _seconds(end_text)
    if not separator or start is None or end is None:
        raise _invalid(f"has a time range that is not HH:MM-HH:MM: {value!r}")
    if start > end:
        raise _invalid(f"has a time range that starts after its end: {value!r}")
    return start, _DAY_S if end == _DAY_S - 1 else end


def _seconds(text: str) -> int | None:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    hour, minute, second = (int(part or 0) for part in match.groups())
    if (hour, minute, second) == (24, 0, 0):
        return _DAY_S
    return hour * 3600 + minute * 60 + second if hour < 24 and minute < 60 and second < 60 else None


# --- checking what people give --------------------------------------------------------------------------------------


def _condition(value: object, place: str) -> Condition:
    if not isinstance(value, Mapping):
        raise invalid(place, "is invalid", "invalid", "an object with property, operator and values")
    name = value.get("property", "remote_ip_location_region")
    operator = value.get("operator", "is_in")
    values = value.get("values")
    if not isinstance(name, str) or name not in OPERATORS:
        accepted = ", ".join(OPERATORS)
        raise invalid(f"{place}.property", f"has an unknown property: {name!r}", "invalid", accepted)
    if operator not in OPERATORS[name]:
        accepted = ", ".join(OPERATORS[name])
        text = f"has an operator that {name} does not allow: {operator!r}"
        raise invalid(f"{place}.operator", text, "invalid", accepted)
    place = f"{place}.values"
    if not isinstance(values, list | tuple) or not values or len(values) > _MAX_VALUES:
        accepted = f"1 to {_MAX_VALUES} texts"
        raise invalid(place, f"needs a list of values for {name}", "required", accepted)
    if not all(isinstance(one, str) for one in values):
        raise invalid(place, f"needs texts as values of {name}", "invalid", _ACCEPTED[name])
    if name == "client_verified" and len(values) != 1:
        raise invalid(place, "needs one value for client_verified", "invalid", _ACCEPTED[name])
    cleaned = tuple(_checked(name, one.strip(), place) for one in values)
    if len(set(cleaned)) != len(cleaned):
        raise invalid(place, f"needs different values of {name}", "duplicate", _ACCEPTED[name])
    return Condition(name, operator, cleaned)


def _checked(name: str, value: str, place: str) -> str:
    match name:
        case "remote_ip_location_region" if value not in REGIONS:
            raise invalid(place, f"needs two-letter country codes: {value!r}", "invalid", _ACCEPTED[name])
        case "remote_ip":
            try:
                return str(ip_network(value, strict=False)) if "/" in value else str(ip_address(value))
            except ValueError:
                text = f"needs addresses or networks: {value!r}"
                raise invalid(place, text, "invalid", _ACCEPTED[name]) from None
        case "auth_provider_id" if not is_uuid(value):
            raise invalid(place, f"needs ids of sign-in providers: {value!r}", "invalid", _ACCEPTED[name])
        case "client_verified" if value not in ("true", "false"):
            raise invalid(place, "needs true or false for client_verified", "invalid", _ACCEPTED[name])
        case "current_utc_datetime":
            _check_day(value, place)
    return value


def _check_day(value: str, place: str) -> None:
    try:
        _parse_day(value)
    except InvalidInput as error:
        text = error.fields["conditions"][0]
        raise invalid(place, text, "invalid", _ACCEPTED["current_utc_datetime"]) from None


def _invalid(text: str) -> InvalidInput:
    return invalid("conditions", text)
