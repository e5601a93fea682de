"""A service manager in a few lines: it hears what a program tells it."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.unit.io.fake_portal import until


class FakeManager:
    """Listens on a socket of its own; `environment` makes a program talk to it."""

    def __init__(self, listening: socket.socket, address: str) -> None:
        self._socket = listening
        self.environment = {"NOTIFY_SOCKET": address}
        self.heard: list[str] = []

    async def until(self, line: str) -> None:
        """Waits until the line was heard."""
        await until(lambda: line in self.listen())

    def listen(self) -> list[str]:
        """Every line so far."""
        while True:
            try:
                self.heard += self._socket.recv(65536).decode().split("\n")
            except BlockingIOError:
                return self.heard


@contextmanager
def manager(*, abstract: bool = False) -> Iterator[FakeManager]:
    """A service manager for the time of the block."""
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening,
    ):
        path = Path(directory, "notify")
        name = str(path)
        listening.bind("\0" + name if abstract else name)
        listening.setblocking(False)
        yield FakeManager(listening, "@" + name if abstract else name)
