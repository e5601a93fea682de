"""Our relay without a portal, in the place of coturn's: the clients of coturn over UDP, TCP and TLS."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.interop.relay_process import RunningRelay, free_port, lonely_relay, new_certificate
from tests.interop.test_relay_coturn import echo_peer
from wardgate.wire import stun, turn
from wardgate.wire.stun import Builder, MessageClass, Method

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {name: free_port(socket.SOCK_STREAM) for name in ("tcp", "tls")}


@pytest.fixture(scope="module", params=["--native", "--no-native"])
def relay(
    tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int], request: pytest.FixtureRequest
) -> Iterator[RunningRelay]:
    if shutil.which("turnutils_uclient") is None:
        pytest.fail("not installed: coturn (apt-get install coturn)", pytrace=False)
    directory = tmp_path_factory.mktemp("relay")
    certificate, key = new_certificate(directory)
    arguments = ["--tcp-port", str(ports["tcp"]), "--tls-port", str(ports["tls"])]
    arguments += ["--tls-cert", str(certificate), "--tls-key", str(key), request.param]
    with lonely_relay(directory, *arguments) as running:
        yield running


MODES = {
    "udp channels": ["-c", "-m", "1"],
    "udp indications": ["-c", "-m", "1", "-s"],
    "many clients": ["-c", "-m", "20"],
    "rtcp pairs, even ports": ["-m", "2"],
    "tcp": ["-t", "-c", "-m", "4"],
    "tcp indications": ["-t", "-s", "-c", "-m", "1"],
    "tls": ["-t", "-S", "-c", "-m", "4"],
    "do not fragment": ["-g", "-c", "-m", "1"],
    "shared secret": ["-c", "-m", "1"],
    "client to client": ["-y", "-c", "-m", "2"],
}


def test_uclient_loses_nothing(relay: RunningRelay, ports: dict[str, int]) -> None:
    username = f"{int(time.time()) + 60}:carol"
    by_secret = (username, turn.shared_secret_password("north", username))
    with echo_peer() as peer_port, ThreadPoolExecutor(len(MODES)) as together:  # each spends most of its time asleep

        def run(mode: str, extra: list[str]) -> str:
            port = relay.port if "-t" not in extra else ports["tls" if "-S" in extra else "tcp"]
            user = by_secret if mode == "shared secret" else ("alice", "wonderland")
            return uclient(port, peer_port, *user, *extra)

        outputs = dict(zip(MODES, together.map(run, MODES, MODES.values()), strict=True))

    for mode, output in outputs.items():
        assert "Total lost packets 0 (0.000000%)" in output, (mode, output)
        assert re.search(r"tot_send_msgs=([1-9]\d*), tot_recv_msgs=\1\b", output), mode


def test_strangers_are_refused(relay: RunningRelay) -> None:
    output = uclient(relay.port, 9, "alice", "looking-glass", "-c", "-m", "1")

    assert "tot_recv_msgs" not in output
    assert relay.get("/readyz")[0] == 200


def test_sigterm_lets_allocations_end_first(tmp_path: Path) -> None:
    with lonely_relay(tmp_path, "--drain-time", "30s") as relay:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            user = User(own, relay.port)
            user.ask("allocate")
            relay.process.terminate()
            deadline = time.monotonic() + 10
            while relay.get("/readyz")[0] != 503:
                assert time.monotonic() < deadline
            assert relay.get("/readyz")[1] == "not ready: it ends, 1 allocations are still served\n"
            assert relay.process.poll() is None
            user.ask("free")

        assert relay.process.wait(timeout=10) == 0


class User:
    """alice, at one socket."""

    def __init__(self, own: socket.socket, port: int) -> None:
        self._own = own
        own.settimeout(5.0)
        own.connect(("127.0.0.1", port))
        self._nonce = b""
        self.ask("allocate", is_refused=True)

    def ask(self, what: str, *, is_refused: bool = False) -> None:

        transaction = time.monotonic_ns().to_bytes(12, "big")
        if what == "allocate":
            builder = Builder(Method.ALLOCATE, MessageClass.REQUEST, transaction).requested_transport(17)
        else:
            builder = Builder(Method.REFRESH, MessageClass.REQUEST, transaction).lifetime(0)
        if self._nonce:
            builder.username("alice").realm("wardgate").nonce(self._nonce)
        key = turn.long_term_key("alice", "wonderland", "wardgate") if self._nonce else None
        self._own.send(builder.build(key))
        answer = stun.decode(self._own.recv(2000))
        assert (answer.error is not None) == is_refused
        self._nonce = answer.nonce or self._nonce


def uclient(port: int, peer_port: int, username: str, password: str, *extra: str) -> str:
    command = ["turnutils_uclient", "-u", username, "-w", password, "-p", str(port), "-n", "10"]
    command += ["-e", "127.0.0.1", "-r", str(peer_port), "-l", "172", *extra, "127.0.0.1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return result.stdout + result.stderr
