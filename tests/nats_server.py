"""A throw-away NATS server on loopback."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

START_S: Final = 10.0


class NatsServer:
    """One server; `start` and `stop` may be called again and again, the port stays."""

    def __init__(self, directory: Path, *words: str) -> None:
        program = shutil.which("nats-server")
        assert program is not None
        self._words = [program, "-a", "127.0.0.1", *words]
        self._log = directory / "nats.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    @property
    def url(self) -> str:
        """What portals are told."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Runs the server, and waits until it takes connections."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._words, "-p", str(self.port)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_S
        while True:
            assert self._process.poll() is None, self._log.read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self, signal_number: int = signal.SIGKILL) -> None:
        """Ends the server; harmless when it does not run."""
        if self._process is not None:
            self._process.send_signal(signal_number)
            self._process.wait(timeout=10)
            self._process = None


def nats_or_skip(directory: Path, *words: str) -> NatsServer:
    """A server that does not run yet."""
    if shutil.which("nats-server") is None:
        pytest.skip("nats-server is not installed")
    return NatsServer(directory, *words)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
