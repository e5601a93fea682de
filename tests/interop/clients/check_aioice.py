"""aioice, the library under aiortc: two agents that meet by our relay only."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.interop.clients.service import Service

pytestmark = pytest.mark.interop

DATAGRAMS = 200


@pytest.mark.parametrize("user", ["static", "shared"])
@pytest.mark.parametrize("way", ["udp", "tcp", "tls"])
def test_two_agents_talk_through_the_relay(service: Service, interop_python: str, way: str, user: str) -> None:
    name, password = service.user(user)
    settings = {
        "server": ["127.0.0.1", service.port(way)],
        "username": name,
        "password": password,
        "transport": "udp" if way == "udp" else "tcp",
        "tls": way == "tls",
        "datagrams": DATAGRAMS,
    }

    said = run_pair(interop_python, settings, trusted=service.ports.certificate)

    assert said == {"echoed": DATAGRAMS, "kinds": ["relay", "relay"]}


def run_pair(python: str, settings: dict[str, object], trusted: Path) -> dict[str, object]:
    result = subprocess.run(
        [python, str(Path(__file__).with_name("aioice_pair.py"))],
        input=json.dumps(settings),
        env=os.environ | {"SSL_CERT_FILE": str(trusted)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    said: dict[str, object] = json.loads(result.stdout)
    return said
