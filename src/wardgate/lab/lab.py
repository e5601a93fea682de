"""The lab itself: build a topology, run programs in it, change it while it runs, and leave nothing behind.

    with Lab(topologies.demo()) as lab:
        lab.node("portal").spawn(["python3", "-m", "http.server", "80"])
        lab.node("client").run(["curl", "-s", "http://portal/"]).check()

Every call blocks until it is done and may come from any thread. The work happens in the supervisor's process, so the
caller needs no rights beyond those to make namespaces, stays in its own namespaces, and keeps its own signal handlers.
"""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from wardgate.errors import LabError, LabUnavailable
from wardgate.lab import messages, plan
from wardgate.lab.messages import Message
from wardgate.lab.process import Completed, Process, outer_pid
from wardgate.lab.topology import Host, Topology

READY_TIMEOUT_S = 20.0
CLOSE_TIMEOUT_S = 10.0
SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class Lab:
    """A small internet. Use it as a context manager; or call `start` and `close`.

    Attributes:
        topology: What it was built from.
        setup_s: How long building took.
    """

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.setup_s = 0.0
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._lifeline: int | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._nodes: dict[str, Node] = {}
        self._has_ipv6 = os.path.isdir("/proc/sys/net/ipv6")

    def __enter__(self) -> "Lab":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Builds the topology.

        Raises:
            LabUnavailable: This machine does not allow it; the text says how to allow it.
            LabError: A step failed.
        """
        began = time.monotonic()
        try:
            self._start_supervisor()
            for name in self.topology.nodes():
                _, (holder,) = self._request({"request": "node", "name": name, "files": self._files(name)})
                self._nodes[name] = Node(self, name, outer_pid(holder))
                os.close(holder)
            self.apply(plan.plan(self.topology, ipv6=self._has_ipv6))
        except BaseException:
            self.close()
            raise
        self.setup_s = time.monotonic() - began

    def close(self) -> None:
        """Stops every program, then takes everything down. Afterwards no process of the lab exists."""
        control, self._control = self._control, None
        lifeline, self._lifeline = self._lifeline, None
        guard, self._guard = self._guard, None
        if control is not None:
            control.close()
        if lifeline is not None:
            os.close(lifeline)
        if guard is not None:
            guard.wait(CLOSE_TIMEOUT_S)

    def node(self, name: str) -> "Node":
        """A host, a site's router, or `wan`, by name.

        Raises:
            LabError: There is none.
        """
        try:
            return self._nodes[name]
        except KeyError:
            raise LabError(f"there is no node {name!r}; there are {', '.join(self._nodes)}") from None

    @property
    def nodes(self) -> Mapping[str, "Node"]:
        """Every node by name."""
        return self._nodes

    @property
    def wan(self) -> "Node":
        """The router in the middle; it has one interface for each node on the wan, with that node's name."""
        return self.node("wan")

    def apply(self, operations: Sequence[Message]) -> None:
        """Carries out operations of `wardgate.lab.operations`, in order.

        Raises:
            LabError: One failed; those before it are done, those after it are not.
        """
        for operation in operations:
            self._request({"request": "apply", "operations": [operation]})

    def _request(self, request: Message, descriptors: Sequence[int] = ()) -> tuple[Message, list[int]]:
        with self._lock:
            if self._control is None:
                raise LabError("the lab is not running")
            try:
                messages.send(self._control, request, descriptors)
                received = messages.receive(self._control)
            except OSError as error:
                raise LabError(f"the lab's supervisor does not answer: {error}") from error
        if received is None:
            raise LabError("the lab's supervisor has ended")
        if "error" in received[0]:
            raise LabError(received[0]["error"])
        return received

    def _start_supervisor(self) -> None:
        if self._control is not None:
            raise LabError("the lab is already running")
        ours, theirs = messages.pair()
        lifeline_read, self._lifeline = os.pipe2(os.O_CLOEXEC)
        inherited = (theirs.fileno(), lifeline_read)
        argv = [sys.executable, "-m", "wardgate.lab.supervisor", *(str(number) for number in inherited)]
        self._control = ours
        self._guard = subprocess.Popen(
            argv,
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env=_environment(None),
        )
        theirs.close()
        os.close(lifeline_read)
        ours.settimeout(READY_TIMEOUT_S)
        try:
            received = messages.receive(ours)
        except TimeoutError as error:
            raise LabError("the lab's supervisor did not start") from error
        ours.settimeout(None)
        if received is None:
            raise LabError("the lab's supervisor ended at once")
        if "refused" in received[0]:
            raise LabUnavailable(_explain(received[0]["refused"]))

    def _files(self, name: str) -> dict[str, str]:
        host = next((host for host in self._all_hosts() if host.name == name), None)
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost", f"127.0.1.1 {name}"]
        for known in self.topology.hosts:
            if known.name != name:
                lines += [f"{address} {known.name}" for address in (known.ipv4, known.ipv6) if address is not None]
        extra = (*self.topology.names, *(host.names if host else ()))
        lines += [f"{address} {known_name}" for known_name, address in extra]
        resolvers = (host.resolvers if host else ()) or self.topology.resolvers
        resolv = "".join(f"nameserver {address}\n" for address in resolvers)
        return {"hosts": "\n".join(lines) + "\n", "resolv.conf": resolv}

    def _all_hosts(self) -> Iterator[Host]:
        yield from self.topology.hosts
        for site in self.topology.sites:
            yield from site.hosts


class Node:
    """One machine in the lab: a host, a router, or the wan.

    Attributes:
        name: Its name in the topology; also its host name.
        holder_pid: A process on this machine that is in the node's namespaces, for `nsenter -t`.
    """

    def __init__(self, lab: Lab, name: str, holder_pid: int) -> None:
        self._lab = lab
        self.name = name
        self.holder_pid = holder_pid

    def __repr__(self) -> str:
        return f"<Node {self.name}>"

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        log_path: Path | str | None = None,
        cwd: Path | str | None = None,
    ) -> Process:
        """Starts a program and returns at once.

        Args:
            argv: The program and its arguments; without a slash, it is looked up in `PATH`.
            env: Added to the caller's environment.
            log_path: A file that gets all its output, appended; without one, the output is dropped.
            cwd: Where it starts; the caller's directory if not given.

        Raises:
            LabError: It could not be started.
        """
        path = None if log_path is None else Path(log_path)
        with open(os.devnull, "rb") as nothing, open(path or os.devnull, "ab") as output:
            return self.spawn_with(argv, (nothing, output, output), env=env, cwd=cwd, log_path=path)

    def spawn_with(
        self,
        argv: Sequence[str],
        streams: tuple[Any, Any, Any],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        log_path: Path | None = None,
        terminal: bool = False,
    ) -> Process:
        """As `spawn`, with files of the caller as input, output and errors; `terminal` makes the first its terminal."""
        words = [str(argument) for argument in argv]
        request = {
            "request": "spawn",
            "node": self.name,
            "argv": words,
            "env": _environment(env),
            "cwd": str(cwd or Path.cwd()),
            "terminal": terminal,
        }
        reply, (pidfd,) = self._lab._request(request, [stream.fileno() for stream in streams])
        return Process(self.name, words, log_path, pidfd, reply["token"], self._lab_status)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 30.0,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        stdin: bytes = b"",
    ) -> Completed:
        """Runs a program to its end and gives what it wrote.

        Raises:
            LabError: It could not be started.
            TimeoutError: It did not end in time; it has been killed.
        """
        began = time.monotonic()
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin)
            given.seek(0)
            process = self.spawn_with(argv, (given, out, err), env=env, cwd=cwd)
            try:
                returncode = process.wait(timeout_s)
            except BaseException:
                process.kill()
                raise
            elapsed_s = time.monotonic() - began
            return Completed(process.argv, returncode, _read_back(out), _read_back(err), elapsed_s)

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM, protocol: int = 0) -> socket.socket:
        """A socket on this node's network, in the caller's hands."""
        request = {
            "request": "socket",
            "node": self.name,
            "family": int(family),
            "kind": int(kind),
            "protocol": protocol,
        }
        _, (descriptor,) = self._lab._request(request)
        return socket.socket(fileno=descriptor)

    @contextmanager
    def open_file(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> Iterator[BinaryIO]:
        """A file as this node sees it, in the caller's hands.

        Raises:
            LabError: It could not be opened.
        """
        _, (descriptor,) = self._lab._request(
            {"request": "open", "node": self.name, "path": path, "flags": flags, "mode": mode}
        )
        with os.fdopen(descriptor, "wb" if flags & os.O_WRONLY else "rb") as file:
            yield file

    def read_text(self, path: str) -> str:
        """The text of a file as this node sees it."""
        with self.open_file(path) as file:
            return file.read().decode()

    def write_text(self, path: str, text: str) -> None:
        """Writes a file as this node sees it; its own `/etc` and `/run`, else the machine's."""
        with self.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
            file.write(text.encode())

    def path_exists(self, path: str) -> bool:
        """Whether this node sees something at this path."""
        try:
            with self.open_file(path, os.O_PATH):
                return True
        except LabError:
            return False

    def _lab_status(self, token: int) -> int | None:
        try:
            reply, _ = self._lab._request({"request": "status", "token": token})
        except LabError:
            return None
        status: int | None = reply["status"]
        return status


def _environment(added: Mapping[str, str] | None) -> dict[str, str]:
    merged = {**os.environ, **(added or {})}
    present = merged.get("PATH", "/usr/bin:/bin").split(":")
    merged["PATH"] = ":".join([*present, *(path for path in SYSTEM_DIRECTORIES if path not in present)])
    return merged


def _read_back(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode("utf-8", errors="backslashreplace")


def _explain(refusal: str) -> str:
    return (
        f"this machine does not let us make network namespaces ({refusal}). Run as root; or allow unprivileged user "
        "namespaces (sysctl kernel.unprivileged_userns_clone=1, and on Ubuntu "
        "kernel.apparmor_restrict_unprivileged_userns=0); or give the container CAP_SYS_ADMIN"
    )
