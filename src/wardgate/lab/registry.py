"""Which labs are running on this machine, so that another terminal can look into one.

A lab itself needs nothing on disk. One that is published leaves a small file in a directory of this user's, named for
its process, and files whose process is gone are removed whenever somebody looks.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wardgate.errors import LabError
from wardgate.lab import namespaces
from wardgate.lab.lab import Lab

PREFIX = "lab-"


@dataclass(frozen=True, slots=True)
class PublishedLab:
    """A lab that runs in another process.

    Attributes:
        owner_pid: The process that it belongs to.
        holder_pids: For each node, a process that is in it.
    """

    owner_pid: int
    holder_pids: Mapping[str, int]

    def replace_process(self, node: str, argv: Sequence[str]) -> None:
        """Becomes a program in a node; does not return. This process must have one thread.

        Raises:
            LabError: There is no such node, or it cannot be entered.
            OSError: The program cannot be started.
        """
        if node not in self.holder_pids:
            raise LabError(f"there is no node {node!r}; there are {', '.join(self.holder_pids)}")
        where = os.getcwd()
        _enter(self.holder_pids[node])
        os.chdir(where)
        os.execvp(argv[0], list(argv))


@contextmanager
def published(lab: Lab) -> Iterator[Path]:
    """Lets other terminals find this lab while the block runs."""
    path = _directory() / f"{PREFIX}{os.getpid()}.json"
    value = {
        "started": _start_time(os.getpid()),
        "nodes": {name: node.holder_pid for name, node in lab.nodes.items()},
    }
    path.write_text(json.dumps(value), encoding="utf-8")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def find() -> PublishedLab:
    """The lab that was published last.

    Raises:
        LabError: None is running.
    """
    running = _running()
    if not running:
        raise LabError("no lab is running; `wardgate lab up` starts one")
    return running[-1]


def _running() -> list[PublishedLab]:
    found: list[tuple[int, PublishedLab]] = []
    for path in _directory().glob(f"{PREFIX}*.json"):
        try:
            pid = int(path.stem.removeprefix(PREFIX))
            value = json.loads(path.read_text(encoding="utf-8"))
            started, nodes = int(value["started"]), {str(name): int(holder) for name, holder in value["nodes"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, FileNotFoundError):
            path.unlink(missing_ok=True)
            continue
        if _start_time(pid) == started:
            found.append((started, PublishedLab(pid, nodes)))
        else:
            path.unlink(missing_ok=True)
    return [lab for _, lab in sorted(found, key=lambda item: item[0])]


def _directory() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR")
    place = Path(base) if base and os.path.isdir(base) else Path(tempfile.gettempdir())
    directory = place / f"wardgate-lab-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise LabError(f"{directory} is not a private directory of this user's")
    return directory


def _start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


def _enter(pid: int) -> None:
    try:
        descriptors = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("uts", "net", "mnt")]
        user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        own_user = namespaces.open_own("user")
        if not os.path.sameopenfile(user, own_user):
            namespaces.enter(user)
        for descriptor in descriptors:
            namespaces.enter(descriptor)
    except OSError as error:
        raise LabError(f"cannot enter the lab's namespaces: {error}") from error
