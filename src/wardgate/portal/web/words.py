"""Rows in words: what a resource lets through, what a condition asks, what a change did."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

DAYS: Final = {"M": "Mon", "T": "Tue", "W": "Wed", "R": "Thu", "F": "Fri", "S": "Sat", "U": "Sun"}
OBJECTS: Final = {
    "accounts": "the account",
    "actors": "actor",
    "api_tokens": "API token",
    "client_tokens": "client token",
    "devices": "device",
    "gateway_tokens": "gateway token",
    "groups": "group",
    "memberships": "membership",
    "one_time_passcodes": "sign-in code",
    "policies": "policy",
    "resources": "resource",
    "sites": "site",
    "static_device_pool_members": "pool member",
}
VERBS: Final = {"insert": "added", "update": "changed", "delete": "deleted"}


def traffic(filters: Sequence[Mapping[str, Any]]) -> str:
    """Such as `TCP 22, 443, ICMP`."""
    if not filters:
        return "Everything"
    parts = []
    for one in filters:
        ports = ", ".join(str(port).replace(" ", "") for port in one.get("ports") or [])
        parts.append(f"{str(one['protocol']).upper()} {ports}".strip())
    return ", ".join(parts)


def address(type_: str, given: str | None, members: int | None = None) -> str:
    """What a resource covers."""
    if type_ == "internet":
        return "All other traffic"
    if type_ == "static_device_pool":
        return "Clients" if members is None else f"{members} client{'' if members == 1 else 's'}"
    return given or "–"


def condition(one: Mapping[str, Any], providers: Mapping[str, str]) -> str:
    """One condition as a sentence's part, such as `from AT or DE`."""
    values = [str(value) for value in one["values"]]
    negated = str(one["operator"]).startswith("is_not")
    match one["property"]:
        case "remote_ip_location_region":
            return f"{'not from' if negated else 'from'} {_or(values)}"
        case "remote_ip":
            return f"{'not from' if negated else 'from'} the address {_or(values)}"
        case "auth_provider_id":
            names = [providers.get(value, "a deleted provider") for value in values]
            return f"{'not signed in' if negated else 'signed in'} with {_or(names)}"
        case "client_verified":
            return "the client is verified" if values == ["true"] else "verified or not"
        case "current_utc_datetime":
            return "at " + "; ".join(hours(value) for value in values)
    return str(one["property"])


def hours(value: str) -> str:
    """`M/09:00-17:00/Europe/Vienna` as `Mon 09:00–17:00 (Europe/Vienna)`."""
    day, ranges, zone = [*value.split("/", 2), "", ""][:3]
    text = {"true": "all day", "": "never"}.get(ranges, ranges.replace("-", "–").replace(",", ", "))
    return f"{DAYS.get(day, day)} {text} ({zone})"


def change(row: Any) -> str:
    """What a row of the change log did, such as `added the site Berlin`."""
    what = OBJECTS.get(row.object, row.object.replace("_", " ").rstrip("s"))
    shown = row.after or row.before or {}
    name = shown.get("name") or shown.get("email") or shown.get("description")
    verb = VERBS.get(row.operation, row.operation)
    return f"{verb} {what if what.startswith('the ') else 'the ' + what}{f' {name}' if name else ''}"


def differences(row: Any) -> list[tuple[str, Any, Any]]:
    """Columns whose values differ: name, before, after."""
    before, after = row.before or {}, row.after or {}
    return [
        (name, before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name) and name not in ("updated_at", "inserted_at", "account_id")
    ]


def _or(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} or {values[-1]}" if values else "nowhere"
