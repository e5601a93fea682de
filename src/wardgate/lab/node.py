"""One machine of a running lab, in the caller's hands: programs, sockets and files there."""

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from wardgate.errors import LabError
from wardgate.lab.messages import Message
from wardgate.lab.process import Completed, Process

SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")

Request = Callable[[Message, Sequence[int]], tuple[Message, list[int]]]
"""Asks the supervisor, with descriptors, and gives its reply and the descriptors that came with it."""


class Node:
    """One machine in the lab: a host, a router, or the wan.

    Attributes:
        name: Its name in the topology; also its host name.
        holder_pid: A process on this machine that is in the node's namespaces, for `nsenter -t`.
    """

    def __init__(self, request: Request, name: str, holder_pid: int) -> None:
        self._request = request
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
            "env": environment(env),
            "cwd": str(cwd or Path.cwd()),
            "terminal": terminal,
        }
        reply, (pidfd,) = self._request(request, [stream.fileno() for stream in streams])
        return Process(self.name, words, log_path, pidfd, reply["token"], self._status_of)

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
        _, (descriptor,) = self._request(request, ())
        return socket.socket(fileno=descriptor)

    @contextmanager
    def open_file(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> Iterator[BinaryIO]:
        """A file as this node sees it, in the caller's hands.

        Raises:
            LabError: It could not be opened.
        """
        _, (descriptor,) = self._request(
            {"request": "open", "node": self.name, "path": path, "flags": flags, "mode": mode}, ()
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

    def _status_of(self, token: int) -> int | None:
        try:
            reply, _ = self._request({"request": "status", "token": token}, ())
        except LabError:
            return None
        status: int | None = reply["status"]
        return status


def environment(added: Mapping[str, str] | None) -> dict[str, str]:
    """The caller's environment and these variables; `PATH` has the directories of system programs for non-root too."""
    merged = {**os.environ, **(added or {})}
    present = merged.get("PATH", "/usr/bin:/bin").split(":")
    merged["PATH"] = ":".join([*present, *(path for path in SYSTEM_DIRECTORIES if path not in present)])
    return merged


def _read_back(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode("utf-8", errors="backslashreplace")
