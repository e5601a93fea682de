"""A portal under measurement: its process, its memory and processor time, and its REST API."""

import asyncio
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.cost import number_of

START_S: Final = 60.0
SPARE_FILES: Final = 2_000


class PortalError(Exception):
    """The portal did not start, or answered something unforeseen."""


def allow_open_files(count: int) -> None:
    """Raises the limit of open files for this process and those that it starts.

    Raises:
        PortalError: The system does not allow as many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_FILES
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, OSError) as error:
        raise PortalError(f"{wanted} open files are needed, {hard} are allowed: {error}") from None


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a process: resident, and its share of what it has in common with others."""

    rss: int
    pss: int


@dataclass
class Portal:
    """One `wardgate portal serve`, which may be killed and started again."""

    database: str
    directory: Path
    port: int = field(default_factory=free_port)
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process; `wait_ready` tells when it listens."""
        words = [sys.executable, "-m", "wardgate.cli", "portal", "serve", "--listen", f"127.0.0.1:{self.port}"]
        words += ["--database", self.database, "--log-level", "warning"]
        with (self.directory / "portal.log").open("ab") as log:
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)

    async def wait_ready(self) -> None:
        """Returns when it says that it is ready.

        Raises:
            PortalError: It ended, or takes too long.
        """
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if self.process is None or self.process.poll() is not None:
                raise PortalError(f"the portal ended: {self.log()}")
            try:
                status, _ = await self.request("GET", "/readyz")
            except OSError:
                status = 0
            if status == 200:
                return
            await asyncio.sleep(0.05)
        raise PortalError("the portal did not become ready")

    def kill(self) -> None:
        """Ends it without a farewell."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it in good order, or else by force."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def log(self) -> str:
        """The end of what it printed."""
        return (self.directory / "portal.log").read_text(errors="replace")[-2000:]

    # --- what it uses -------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self.process is not None
        return self.process.pid

    def memory(self) -> Memory:
        """What it has now."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return Memory(number_of(text, "Rss") * 1024, number_of(text, "Pss") * 1024)

    def cpu_s(self) -> float:
        """Processor time of all its threads so far, to the microsecond."""
        nanoseconds = 0
        for path in Path(f"/proc/{self.pid}/task").glob("*/schedstat"):
            try:
                nanoseconds += int(path.read_text().split()[0])
            except (OSError, IndexError):
                continue
        return nanoseconds / 1e9

    # --- its API ------------------------------------------------------------------------------------------------------

    async def request(self, method: str, path: str, token: str | None = None, body: Any = None) -> tuple[int, bytes]:
        """One HTTP request on a connection of its own: status and body.

        Raises:
            OSError: There is nobody, or the connection broke.
        """
        data = json.dumps(body).encode() if body is not None else b""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            authorization = f"Authorization: Bearer {token}\r\n" if token else ""
            head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{authorization}"
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
            writer.write(head.encode() + data)
            answer = await reader.read()
        finally:
            writer.close()
        match = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
        if match is None:
            raise ConnectionResetError("no answer")
        return int(match[1]), answer.partition(b"\r\n\r\n")[2]

    async def change(self, method: str, path: str, token: str, body: Any) -> None:
        """A request that has to succeed.

        Raises:
            PortalError: It does not.
        """
        status, answer = await self.request(method, path, token, body)
        if status not in (200, 201):
            raise PortalError(f"{method} {path}: {status} {answer[:300]!r}")
