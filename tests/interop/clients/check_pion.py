"""pion, in Go: its TURN client, and its WebRTC with relay candidates only."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.interop.clients.service import Service

pytestmark = pytest.mark.interop

SOURCE = Path(__file__).parents[1] / "pion"
ECHOES, MESSAGES = 200, 100


@pytest.fixture(scope="module")
def pion(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, built."""
    if shutil.which("go") is None:
        pytest.skip("Go is missing: go 1.24 or newer must be on the PATH")
    program = tmp_path_factory.mktemp("pion") / "pion"
    command = ["go", "build", "-mod=readonly", "-buildvcs=false", "-o", str(program), "."]
    result = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return str(program)


@pytest.mark.parametrize("user", ["static", "shared"])
@pytest.mark.parametrize("way", ["udp", "tcp", "tls"])
def test_data_passes_by_indications_and_channels(service: Service, pion: str, way: str, user: str) -> None:
    said = run(pion, service, way, user, "turn")

    assert said["mapped"]
    assert (said["between"], said["outside"]) == (ECHOES, ECHOES)
    for side, passed in (("left", 2 * ECHOES), ("right", ECHOES)):
        seen = said[side]
        assert seen["sent send indication"] > 0
        assert seen["sent channel data"] > passed // 2
        assert seen["sent send indication"] + seen["sent channel data"] == passed
        assert seen.get("received data indication", 0) + seen["received channel data"] == passed
    assert said["right"]["received data indication"] > 0


@pytest.mark.parametrize("way", ["udp", "tcp"])
def test_refusals_are_understood(service: Service, pion: str, way: str) -> None:
    said = run(pion, service, way, "static", "refused")

    assert "401" in said["stranger"]
    assert "442" in said["tcp allocation"]


@pytest.mark.parametrize("way", ["udp", "tcp", "tls"])
def test_webrtc_connects_by_the_relay_alone(service: Service, pion: str, way: str) -> None:
    said = run(pion, service, way, "shared", "webrtc")

    assert said == {"echoed": MESSAGES, "kinds": ["relay", "relay"]}


def run(program: str, service: Service, way: str, user: str, task: str) -> dict[str, Any]:
    name, password = service.user(user)
    command = [program, "-server", f"127.0.0.1:{service.port(way)}", "-way", way, "-user", name, "-password", password]
    result = subprocess.run(
        [*command, task],
        env=os.environ | {"SSL_CERT_FILE": str(service.ports.certificate)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    said: dict[str, Any] = json.loads(result.stdout)
    return said
