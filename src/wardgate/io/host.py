"""What a component says of its host."""

import platform

from wardgate import __version__
from wardgate.proto.portal_login import user_agent


def host_addresses() -> tuple[str, ...]:
    """Every address of this host's interfaces."""
    from pyroute2 import IPRoute  # a large import, for a single question

    with IPRoute() as netlink:
        rows = [dict(message["attrs"]) for message in netlink.get_addr()]
    return tuple(dict.fromkeys(row.get("IFA_LOCAL") or row["IFA_ADDRESS"] for row in rows if "IFA_ADDRESS" in row))


def host_user_agent(component: str) -> str:
    """The User-Agent of a component on this host."""
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        system = {}
    name = "".join(system.get("NAME", "Linux").split()[:1]) or "Linux"
    version = "".join(system.get("VERSION_ID", "0").split()) or "0"
    return user_agent(name, version, component, __version__, platform.machine(), platform.release())
