"""The relay that all clients share, as its users know it."""

import time
from dataclasses import dataclass
from pathlib import Path

from tests.interop.relay_process import RunningRelay
from wardgate.wire import turn


@dataclass(frozen=True)
class Ports:
    """Where the relay listens besides UDP, and the certificate that it shows there."""

    tcp: int
    tls: int
    certificate: Path


@dataclass(frozen=True)
class Service:
    """A running relay as its users know it."""

    relay: RunningRelay
    ports: Ports

    def port(self, way: str) -> int:
        """The port for `udp`, `tcp` or `tls`."""
        return {"udp": self.relay.port, "tcp": self.ports.tcp, "tls": self.ports.tls}[way]

    def user(self, kind: str) -> tuple[str, str]:
        """Name and password of a `static` user, or of one made from the `shared` secret."""
        if kind == "static":
            return "alice", "wonderland"
        name = f"{int(time.time()) + 600}:carol"
        return name, turn.shared_secret_password("north", name)
