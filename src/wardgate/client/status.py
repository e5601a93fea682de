"""What `wardgate client status` prints for people."""

import time
from collections.abc import Mapping
from typing import Any

from wardgate.text_tables import one_line, table_lines

Json = Mapping[str, Any]
MAX_SHOWN_REASONS = 10


def render(status: Json) -> list[str]:
    """The answer of a running client, as lines."""
    at = float(status.get("at") or time.time())
    lines = [
        f"portal      {status.get('api_url', '')} ({status.get('portal', 'down')})",
        f"interface   {status.get('interface', '')}{_link(status)}  {'  '.join(status.get('addresses', []))}",
    ]
    resources = status.get("resources", [])
    if not resources:
        lines.append("resources   none that this user may reach")
    else:
        lines += ["", *_resources(resources, at), ""]
    devices = status.get("devices", [])
    if devices:
        lines += [*_devices(devices, resources), ""]
    return [one_line(line) for line in (*lines, *_denials(status, at), *_refusals(status, at))]


def _link(status: Json) -> str:
    if "link" not in status:
        return ""
    link = status["link"]
    return " (gone)" if link is None else f" ({'up' if link['up'] else 'down'}, mtu {link['mtu']})"


def _resources(resources: list[Json], at: float) -> list[str]:
    head = ("RESOURCE", "ADDRESS", "SITE", "STATUS", "PATH", "RTT", "SENT", "RECEIVED", "HANDSHAKE")
    rows = []
    for resource in resources:
        path = resource.get("path") or {}
        sites = ", ".join(str(site.get("name", "")) for site in resource.get("sites", []))
        row = (
            str(resource.get("name") or "-"),
            str(resource.get("address") or "-"),
            sites or "-",
            str(resource.get("status", "-")),
            _way(path),
            "-" if path.get("rtt_ms") is None else f"{path['rtt_ms']:.1f} ms",
            size(resource.get("sent_bytes", 0)),
            size(resource.get("received_bytes", 0)),
            "-" if path.get("last_handshake") is None else f"{age(at - path['last_handshake'])} ago",
        )
        rows.append(row)
    return table_lines(head, rows)


def _way(path: Json) -> str:
    """`direct`, `relayed`, or `relayed (tls)` where the relay is reached by another way than UDP."""
    way = path.get("relay_way")
    return f"{path.get('kind') or '-'}" + (f" ({way})" if way not in (None, "udp") else "")


def _devices(devices: list[Json], resources: list[Json]) -> list[str]:
    names = {resource.get("id"): str(resource.get("name")) for resource in resources}
    rows = []
    for device in devices:
        path = device.get("path") or {}
        row = (
            str(device.get("name") or "-"),
            str(next(iter(device.get("addresses", [])), "-")),
            ", ".join(names.get(pool, str(pool)) for pool in device.get("reached_through", [])) or "-",
            "yes" if device.get("reaches_us_through") else "no",
            "online" if device.get("connected") else "connecting",
            _way(path),
            "-" if path.get("rtt_ms") is None else f"{path['rtt_ms']:.1f} ms",
        )
        rows.append(row)
    return table_lines(("DEVICE", "ADDRESS", "REACHED THROUGH", "MAY REACH US", "STATUS", "PATH", "RTT"), rows)


def _denials(status: Json, at: float) -> list[str]:
    lines = []
    for denial in status.get("denials", [])[-MAX_SHOWN_REASONS:]:
        why = ", ".join([str(denial.get("reason")), *map(str, denial.get("violated_properties", []))])
        name = denial.get("resource") or denial.get("resource_id")
        word = "ended " if denial.get("flows_cut") else "denied"
        lines.append(f"{word}      {name}: {why} ({age(at - float(denial.get('at', at)))} ago)")
    return lines


def _refusals(status: Json, at: float) -> list[str]:
    return [
        f"refused     {one.get('destination')} port {one.get('port')}: {one.get('reason')}, "
        f"{one.get('packets')} packets ({age(at - float(one.get('at', at)))} ago)"
        for one in status.get("refusals", [])[-MAX_SHOWN_REASONS:]
    ]


def size(count: float) -> str:
    """Bytes for people: `0 B`, `1.5 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def age(seconds: float) -> str:
    """A span for people: `5s`, `3m`, `2h`, `4d`."""
    whole = max(0, int(seconds))
    for limit, divisor, unit in ((60, 1, "s"), (3600, 60, "m"), (86400, 3600, "h")):
        if whole < limit:
            return f"{whole // divisor}{unit}"
    return f"{whole // 86400}d"
