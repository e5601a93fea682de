"""The kernel's namespaces from Python: leave one, enter one, mount into one.

Python 3.11 has no `os.unshare` and no `os.setns`, so this module calls the C library. Nothing here knows what a lab is.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntFlag


class Clone(IntFlag):
    """Kinds of namespaces, as `unshare(2)` and `setns(2)` name them."""

    MOUNT = 0x00020000
    UTS = 0x04000000
    IPC = 0x08000000
    USER = 0x10000000
    PID = 0x20000000
    NET = 0x40000000


class Mount(IntFlag):
    """Flags of `mount(2)`."""

    DEFAULTS = 0
    READ_ONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    REMOUNT = 32
    BIND = 4096
    RECURSIVE = 16384
    PRIVATE = 1 << 18


PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(kinds: Clone) -> None:
    """Moves this process into new namespaces.

    Raises:
        OSError: The kernel or its policy does not allow it.
    """
    _check(_libc.unshare(ctypes.c_int(kinds)), "unshare")


def enter(namespace_fd: int) -> None:
    """Moves this thread into the namespace that the descriptor stands for."""
    _check(_libc.setns(ctypes.c_int(namespace_fd), ctypes.c_int(0)), "setns")


def mount(
    source: str, target: str, kind: str | None = None, flags: Mount = Mount.DEFAULTS, data: str | None = None
) -> None:
    """Mounts, as `mount(2)` does."""
    arguments = [_text(source), _text(target), _text(kind), ctypes.c_ulong(flags), _text(data)]
    _check(_libc.mount(*arguments), f"mount {target}")


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Makes `source` visible at `target`; `read_only` keeps the flags that an unprivileged process may not clear."""
    mount(source, target, flags=Mount.BIND | Mount.RECURSIVE)
    if read_only:
        present = os.statvfs(target).f_flag
        kept = Mount(present & (Mount.NOSUID | Mount.NODEV | Mount.NOEXEC))
        mount("none", target, flags=Mount.REMOUNT | Mount.BIND | Mount.READ_ONLY | kept)


def set_hostname(name: str) -> None:
    """Names this UTS namespace."""
    encoded = name.encode()
    _check(_libc.sethostname(encoded, ctypes.c_size_t(len(encoded))), "sethostname")


def die_with_parent(signal_number: int) -> None:
    """Asks the kernel to send this process a signal when the thread that made it ends."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0), "prctl")


def open_own(kind: str) -> int:
    """A descriptor of this process's own namespace: `net`, `mnt`, `uts`, `user` or `pid`."""
    return os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def inside_network(namespace_fd: int) -> Iterator[None]:
    """Runs its body in another network namespace; sockets opened there stay there."""
    home = open_own("net")
    try:
        enter(namespace_fd)
        yield
    finally:
        enter(home)
        os.close(home)


def _text(value: str | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
