"""One relay for all clients, and the Python that has theirs."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.clients.service import Ports, Service
from tests.interop.relay_process import free_port, lonely_relay, new_certificate

INTEROP_PYTHON = Path(__file__).parents[3] / ".venv-interop" / "bin" / "python"


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
