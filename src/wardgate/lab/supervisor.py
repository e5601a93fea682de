"""The one process that a whole lab lives in: it is process 1 of the lab's PID namespace.

    caller -- Lab -- control socket --> supervisor (pid 1) -- programs, one holder per node
           \\------ lifeline pipe ----> guard

Whatever happens to the caller, even `kill -9`, both ends close: the supervisor asks every program to stop, and when it
ends the kernel kills whatever is left and takes every namespace, interface and mount with it. The guard, the
supervisor's parent outside the PID namespace, sees to it that this takes a bounded time. There is nothing on disk.
"""

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wardgate.lab import messages, namespaces
from wardgate.lab.messages import Message
from wardgate.lab.namespaces import Clone, Mount
from wardgate.lab.network import Network
from wardgate.lab.node_namespaces import NamespaceFds, hold_node

STOP_GRACE_S = 3.0
"""How long programs may take to end after SIGTERM."""
MAX_STATUSES = 10_000
"""How many exit statuses that nobody asked for are kept, the newest."""
GUARD_GRACE_S = STOP_GRACE_S + 2.0


@dataclass(frozen=True, slots=True)
class Start:
    """A program to start: where, what, and with which descriptors 0, 1 and 2."""

    node: str
    argv: Sequence[str]
    env: dict[str, str]
    cwd: str
    terminal: bool
    descriptors: Sequence[int]


class Supervisor:
    """Answers the lab's requests until the control socket closes."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._nodes: dict[str, NamespaceFds] = {}
        self._network = Network(self._nodes)
        self._tokens_by_pid: dict[int, int] = {}
        self._statuses_by_token: dict[int, int] = {}
        self._next_token = 1
        self._requests: dict[str, Callable[[Message, list[int]], tuple[Message, list[int]]]] = {
            "node": self._on_node,
            "apply": self._on_apply,
            "spawn": self._on_spawn,
            "status": self._on_status,
            "socket": self._on_socket,
            "open": self._on_open,
            "counters": self._on_counters,
        }

    def serve(self) -> None:
        """Returns when the caller is gone or has said that it is done."""
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        control = self._control.fileno()
        while True:
            readable, _, _ = select.select([control, wake_read], [], [])
            if wake_read in readable:
                os.read(wake_read, 512)
                self._reap()
            if control in readable and not self._answer_one():
                break
        self._stop_everything()

    def _answer_one(self) -> bool:
        received = messages.receive(self._control)
        if received is None:
            return False
        request, descriptors = received
        answered: list[int] = []
        try:
            reply, answered = self._requests[request["request"]](request, descriptors)
        except Exception as error:
            # Whatever went wrong belongs to the request; the caller decides whether the lab can go on.
            reply = {"error": f"{type(error).__name__}: {error}"}
        try:
            messages.send(self._control, {**reply, "number": request["number"]}, answered)
        except OSError:
            return False
        finally:
            for descriptor in (*descriptors, *answered):
                os.close(descriptor)
        return True

    def _on_node(self, request: Message, _: list[int]) -> tuple[Message, list[int]]:
        node = hold_node(request["name"], request["files"])
        self._nodes[request["name"]] = node
        self._network.prepare(request["name"])
        return {}, [os.pidfd_open(node.holder_pid)]

    def _on_apply(self, request: Message, _: list[int]) -> tuple[Message, list[int]]:
        for operation in request["operations"]:
            self._network.apply(operation)
        return {}, []

    def _on_spawn(self, request: Message, descriptors: list[int]) -> tuple[Message, list[int]]:
        start = Start(
            node=request["node"],
            argv=request["argv"],
            env=request["env"],
            cwd=request["cwd"],
            terminal=request["terminal"],
            descriptors=descriptors,
        )
        pid = self._fork_program(start)
        token = self._next_token
        self._next_token += 1
        self._tokens_by_pid[pid] = token
        return {"token": token}, [os.pidfd_open(pid)]

    def _on_status(self, request: Message, _: list[int]) -> tuple[Message, list[int]]:
        self._reap()
        return {"status": self._statuses_by_token.pop(request["token"], None)}, []

    def _on_socket(self, request: Message, _: list[int]) -> tuple[Message, list[int]]:
        with namespaces.inside_network(self._node(request["node"]).net):
            made = socket.socket(request["family"], request["kind"], request["protocol"])
        return {}, [made.detach()]

    def _on_open(self, request: Message, _: list[int]) -> tuple[Message, list[int]]:
        path, flags, mode = request["path"], request["flags"] | os.O_CLOEXEC, request["mode"]
        return {}, [self._node(request["node"]).open_file(path, flags, mode)]

    def _on_counters(self, request: Message, _: list[int]) -> tuple[Message, list[int]]:
        return {"counters": self._network.delays.counters((request["node"], request["interface"]))}, []

    def _node(self, name: str) -> NamespaceFds:
        try:
            return self._nodes[name]
        except KeyError:
            raise ValueError(f"there is no node {name!r}") from None

    def _fork_program(self, start: Start) -> int:
        node = self._node(start.node)
        failed_read, failed_write = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            _become_program(node, start, failed_write)
        os.close(failed_write)
        with os.fdopen(failed_read, "rb") as failure:
            text = failure.read().decode()
        if text:
            os.waitpid(pid, 0)
            raise OSError(text)
        return pid

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            token = self._tokens_by_pid.pop(pid, None)
            if token is not None:
                self._statuses_by_token[token] = os.waitstatus_to_exitcode(status)
                if len(self._statuses_by_token) > MAX_STATUSES:
                    del self._statuses_by_token[next(iter(self._statuses_by_token))]

    def _stop_everything(self) -> None:
        """Asks, waits, and leaves the rest to the kernel, which kills a namespace whose process 1 ends."""
        for pid in self._tokens_by_pid:
            _signal_group(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_GRACE_S
        while self._tokens_by_pid and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.005)
        self._network.close()


def _become_program(node: NamespaceFds, start: Start, failed_write: int) -> None:
    """Runs in the new process; never returns."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        node.enter()
        os.chdir(start.cwd)
        for target, descriptor in enumerate(start.descriptors):
            os.dup2(descriptor, target)
        if start.terminal:
            _take_terminal()
        os.execvpe(start.argv[0], list(start.argv), start.env)
    except BaseException as error:
        os.write(failed_write, f"{start.argv[0]} on {start.node}: {error}".encode())
    finally:
        os._exit(127)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _isolate() -> None:
    """Leaves the machine's namespaces, through a user namespace where that is the only way."""
    wanted = Clone.MOUNT | Clone.PID | Clone.IPC | Clone.NET | Clone.UTS
    try:
        namespaces.unshare(wanted)
        return
    except PermissionError:
        pass
    uid, gid = os.geteuid(), os.getegid()
    namespaces.unshare(Clone.USER | wanted)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _run_as_first_process(control: socket.socket) -> None:
    namespaces.die_with_parent(signal.SIGKILL)
    namespaces.mount("none", "/", flags=Mount.RECURSIVE | Mount.PRIVATE)
    with suppress(PermissionError):
        # A container whose own /proc is partly hidden may not. The old one works; it shows other process ids.
        namespaces.mount("proc", "/proc", "proc", Mount.NOSUID | Mount.NODEV | Mount.NOEXEC)
    messages.send(control, {"ready": os.geteuid()})
    Supervisor(control).serve()


def _guard(child: int, lifeline: int) -> int:
    """Waits for the supervisor; once the caller is gone, only for so long."""
    child_fd = os.pidfd_open(child)
    readable, _, _ = select.select([child_fd, lifeline], [], [])
    if child_fd not in readable:
        readable, _, _ = select.select([child_fd], [], [], GUARD_GRACE_S)
    if child_fd not in readable:
        signal.pidfd_send_signal(child_fd, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def main(arguments: Sequence[str]) -> int:
    """Runs guard and supervisor; the arguments are two inherited descriptors, control socket and lifeline."""
    control_fd, lifeline = (int(text) for text in arguments)
    os.set_inheritable(control_fd, False)
    os.set_inheritable(lifeline, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=control_fd)
    try:
        _isolate()
    except OSError as error:
        messages.send(control, {"refused": str(error)})
        return 1
    child = os.fork()
    if child == 0:
        os.close(lifeline)
        status: Any = 1
        try:
            _run_as_first_process(control)
            status = 0
        except OSError as error:
            messages.send(control, {"refused": str(error)})
        finally:
            os._exit(status)
    control.close()
    return _guard(child, lifeline)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
