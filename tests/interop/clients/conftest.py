"""One relay for all clients, and a line for each check with the time that it took."""

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.relay_process import RunningRelay, free_port, lonely_relay, new_certificate
from wardgate.wire import turn

ROOT = Path(__file__).parents[3]
INTEROP_PYTHON = Path(os.environ.get("INTEROP_VENV", ROOT / ".venv-interop")) / "bin" / "python"


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


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("relay")
    certificate, key = new_certificate(directory)
    ports = Ports(free_port(socket.SOCK_STREAM), free_port(socket.SOCK_STREAM), certificate)
    arguments = ["--tcp-port", str(ports.tcp), "--tls-port", str(ports.tls)]
    arguments += ["--tls-cert", str(certificate), "--tls-key", str(key)]
    with lonely_relay(directory, *arguments) as relay:
        yield Service(relay, ports)
        assert relay.process.poll() is None, "the relay ended"


@pytest.fixture(scope="session")
def interop_python() -> str:
    if not INTEROP_PYTHON.exists():
        pytest.fail(f"not there: {INTEROP_PYTHON} (`make interop` makes it)", pytrace=False)
    return str(INTEROP_PYTHON)
