"""What a client does with systemd-resolved, told as JSON: `python -m tests.interop.resolved_conversation`.

Runs beside a real one, see `systemd_resolved.sh`.
"""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from tests.unit.io.namespace import in_thread
from wardgate.io.dns_control import DnsControlError
from wardgate.io.dns_methods import dns_control

TUNNEL = "tun-test"
SERVERS = ["100.100.111.1", "fd00:2021:1111:8000:100:100:111:1"]
NOWHERE = Path("/run/wardgate/backup")


async def converse() -> dict[str, Any]:
    """Sets the tunnel's servers, has them forgotten, and takes the tunnel away."""
    control = dns_control("auto", NOWHERE)
    said: dict[str, Any] = {"method": control.name, "before": await control.system_nameservers()}
    await control.set(TUNNEL, SERVERS, "corp.example")
    said["tunnel"] = shown(TUNNEL)
    said["others"] = await control.system_nameservers()
    said["forgotten"] = await control.keep()
    resolvectl("revert", TUNNEL)
    await control.system_nameservers()
    said["told again"] = await control.keep()
    said["tunnel again"] = shown(TUNNEL)
    await control.flush()
    try:
        await dns_control("etc-resolv-conf", NOWHERE).set(TUNNEL, SERVERS, None)
    except DnsControlError as error:
        said["refusal"] = str(error)
    in_thread(lambda: change_tunnel("del"))
    said["afterwards"] = await control.system_nameservers()
    return said


def shown(interface: str) -> str:
    """What it knows of an interface."""
    return resolvectl("status", interface)


def resolvectl(*words: str) -> str:
    """Asks its program."""
    return subprocess.run(["resolvectl", *words], check=True, capture_output=True, text=True, timeout=30).stdout


def change_tunnel(what: str) -> None:
    """Makes an interface, or takes it away."""
    with IPRoute() as netlink:
        if what == "add":
            netlink.link("add", ifname=TUNNEL, kind="tuntap", mode="tun")
        (index,) = netlink.link_lookup(ifname=TUNNEL)
        netlink.link("set" if what == "add" else "del", index=index, **({"state": "up"} if what == "add" else {}))


if __name__ == "__main__":
    change_tunnel("add")
    print(json.dumps(asyncio.run(converse())))
