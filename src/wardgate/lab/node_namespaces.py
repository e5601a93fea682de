"""One node: its network, mount and host name namespaces, with an `/etc` and a `/run` of its own.

A node's `/etc` is a small file system in memory: links to the machine's files, and `hosts`, `hostname` and
`resolv.conf` of the node. Programs there may replace any of them, as a client that takes over name resolution does,
and nobody else notices. `/run` is empty, so two clients' control sockets do not meet.
"""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wardgate.lab import messages, namespaces
from wardgate.lab.namespaces import Clone, Mount

MACHINE_ETC = "/run/machine-etc"


@dataclass(frozen=True, slots=True)
class NamespaceFds:
    """Descriptors that keep a node's namespaces, and the process that lets others find them.

    Attributes:
        holder_pid: A process that does nothing but be in the node; `nsenter -t` takes it.
    """

    net: int
    mnt: int
    uts: int
    holder_pid: int

    def enter(self) -> None:
        """Moves this process, which must have one thread, into the node."""
        for descriptor in (self.uts, self.net, self.mnt):
            namespaces.enter(descriptor)

    def open_file(self, path: str, flags: int, mode: int) -> int:
        """Opens a file as a program in the node would.

        Raises:
            OSError: As `open(2)` does, or the node's namespaces cannot be entered.
        """

        def work() -> list[int]:
            self.enter()
            return [os.open(path, flags, mode)]

        pid, (descriptor,) = _in_child(work)
        os.waitpid(pid, 0)
        return descriptor


def hold_node(name: str, files: dict[str, str]) -> NamespaceFds:
    """Makes a node with these files in its `/etc`.

    Raises:
        OSError: The kernel refused one of the steps; the text says which.
    """

    def build() -> list[int]:
        namespaces.unshare(Clone.NET | Clone.MOUNT | Clone.UTS)
        namespaces.set_hostname(name)
        _mount_private_directories({**files, "hostname": name + "\n"})
        return [namespaces.open_own(kind) for kind in ("net", "mnt", "uts")]

    pid, (net, mnt, uts) = _in_child(build, then=["sleep", "infinity"])
    return NamespaceFds(net, mnt, uts, pid)


def _mount_private_directories(files: dict[str, str]) -> None:
    namespaces.mount("tmpfs", "/run", "tmpfs", Mount.NOSUID | Mount.NODEV, "mode=755")
    for path in (MACHINE_ETC, "/run/lock"):
        os.mkdir(path)
    namespaces.bind("/etc", MACHINE_ETC, read_only=True)
    namespaces.mount("tmpfs", "/etc", "tmpfs", Mount.NOSUID | Mount.NODEV, "mode=755")
    for entry in os.scandir(MACHINE_ETC):
        if entry.name not in files:
            target = os.readlink(entry.path) if entry.is_symlink() else entry.path
            os.symlink(target, f"/etc/{entry.name}")
    for file_name, text in files.items():
        with open(f"/etc/{file_name}", "w", encoding="utf-8") as file:
            file.write(text)


def _in_child(work: Callable[[], list[int]], then: Sequence[str] = ("true",)) -> tuple[int, list[int]]:
    """Does `work` in a new process, which then becomes another program; gives its id and what `work` opened.

    Raises:
        OSError: As `work` raised it.
    """
    ours, theirs = messages.pair()
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            messages.send(theirs, {}, work())
            os.execvp(then[0], list(then))
        except OSError as error:
            messages.send(theirs, {"errno": error.errno, "text": error.strerror})
        finally:
            os._exit(1)
    theirs.close()
    with ours:
        received = messages.receive(ours)
    if received is None or "errno" in received[0]:
        os.waitpid(pid, 0)
        failure = received[0] if received else {"errno": 0, "text": "the process that prepares a node ended"}
        raise OSError(failure["errno"], failure["text"])
    return pid, received[1]
