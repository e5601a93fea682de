"""What a component says of its host, and what it tells the service manager."""

import contextlib
import os
import platform
import socket

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


def notify_service_manager(text: str) -> None:
    """Tells systemd, if it asked to be told, `READY=1` and the like."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(address)
        notify.sendall(text.encode())
