"""The words of the admin commands: what people type for filters, conditions and durations, and how values are shown."""

import json
import re
from datetime import timedelta
from typing import Any

import typer


def cell(value: Any, column: str) -> str:
    """A value of that column for people."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case []:
            return "everything" if column == "filters" else "-"
        case list() if all(isinstance(item, dict) and "protocol" in item for item in value):
            return ", ".join(_filter_text(item) for item in value)
        case list() if all(isinstance(item, dict) and "operator" in item for item in value):
            return ", ".join(f"{item['property']}:{item['operator']}:{';'.join(item['values'])}" for item in value)
        case dict() | list():
            return json.dumps(value)
        case _:
            return str(value)


def _filter_text(item: dict[str, Any]) -> str:
    ports = ",".join(item.get("ports") or [])
    return f"{item['protocol']}:{ports}" if ports else str(item["protocol"])


def parse_filter(text: str) -> dict[str, Any]:
    """Reads `tcp:80,8000-8100`, `udp` or `icmp`."""
    protocol, _, ports = text.partition(":")
    if protocol not in ("tcp", "udp", "icmp"):
        why = f"{text!r}: a filter is tcp, udp or icmp, with ports as in tcp:80,8000-8100"
        raise typer.BadParameter(why, param_hint="--filter")
    return {"protocol": protocol, "ports": [part.strip() for part in ports.split(",") if part.strip()]}


def parse_condition(text: str) -> dict[str, Any]:
    """Reads `property:operator:value[;value…]`."""
    parts = text.split(":", 2)
    if len(parts) != 3 or not all(parts):
        why = f"{text!r}: a condition is property:operator:value, more values after a semicolon"
        raise typer.BadParameter(why, param_hint="--condition")
    return {"property": parts[0], "operator": parts[1], "values": [value for value in parts[2].split(";") if value]}


def parse_duration(text: str) -> timedelta:
    """Reads `90s`, `15m`, `12h` or `365d`."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        why = f"{text!r}: a duration is a number and s, m, h or d, as in 12h"
        raise typer.BadParameter(why, param_hint="--expires-in")
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2]]
    return timedelta(**{unit: int(match[1])})
