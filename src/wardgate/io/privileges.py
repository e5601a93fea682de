"""What this process may do, and how to grant what it lacks."""

import errno
import os
import stat
import sys
from pathlib import Path
from typing import Final

CAP_NET_ADMIN: Final = 12
CAP_NET_BIND_SERVICE: Final = 10
TUN_PATH: Final = Path("/dev/net/tun")

_NAMES: Final = {CAP_NET_ADMIN: "CAP_NET_ADMIN", CAP_NET_BIND_SERVICE: "CAP_NET_BIND_SERVICE"}


def has_capability(number: int, status: str | None = None) -> bool:
    """Whether the capability is effective in this process.

    Args:
        number: The capability's bit.
        status: The text of `/proc/self/status`, read if not given.
    """
    if status is None:
        try:
            status = Path("/proc/self/status").read_text()
        except OSError:
            return os.geteuid() == 0
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value.strip(), 16) >> number & 1)
    return False


def missing_capability(number: int, purpose: str) -> str | None:
    """A sentence that says what is missing and how to grant it; `None` if nothing is."""
    if has_capability(number):
        return None
    name = _NAMES[number]
    program = os.path.realpath(sys.executable)
    return (
        f"{name} is missing, which is needed {purpose}. Run this as root, or grant it: in a systemd unit with "
        f"AmbientCapabilities={name}, in a container with --cap-add={name.removeprefix('CAP_')}, or to the interpreter "
        f"with: setcap {name.lower()}+ep {program}"
    )


def tun_problem(path: Path = TUN_PATH) -> str | None:
    """What keeps a TUN interface from being made, apart from capabilities; makes the device node if it may."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not path.exists():
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(10, 200))
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        return f"{path} cannot be opened ({error.strerror}). {tun_remedy(error, path)}"
    return None


def tun_remedy(error: OSError, path: Path = TUN_PATH) -> str:
    """What helps against that error; a user namespace has every capability, but no more rights to a device."""
    if error.errno == errno.EACCES:
        return f"Let every user open it, which gives nobody more rights over the network, with: chmod 666 {path}"
    return f"Load the kernel module with: modprobe tun; in a container, pass the device with --device={path}"


def network_problem() -> str | None:
    """What a client or gateway lacks to run here, with how to grant it."""
    return missing_capability(CAP_NET_ADMIN, "to make a tunnel interface and set its routes") or tun_problem()
