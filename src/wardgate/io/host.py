"""What a component says of its host."""

import platform

from wardgate import __version__
from wardgate.proto.portal_login import user_agent


def host_user_agent(component: str) -> str:
    """The User-Agent of a component on this host."""
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        system = {}
    name = "".join(system.get("NAME", "Linux").split()[:1]) or "Linux"
    version = "".join(system.get("VERSION_ID", "0").split()) or "0"
    return user_agent(name, version, component, __version__, platform.machine(), platform.release())
