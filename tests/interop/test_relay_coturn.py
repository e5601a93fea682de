"""Our relay process and the programs of coturn, on loopback."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.relay_process import TOKEN, Portal, RunningRelay, free_port, running_relay, start_relay

pytestmark = pytest.mark.interop

FORWARDERS = ["--native", "--no-native"]


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    if shutil.which("turnutils_uclient") is None:
        pytest.fail("not installed: coturn (apt-get install coturn)", pytrace=False)


@pytest.fixture(scope="module")
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


@pytest.fixture(scope="module", params=FORWARDERS)
def relay(portal: Portal, request: pytest.FixtureRequest) -> Iterator[RunningRelay]:
    with running_relay(portal, request.param) as running:
        yield running


def test_stunclient_sees_its_own_address(relay: RunningRelay) -> None:
    output = subprocess.run(
        ["turnutils_stunclient", "-p", str(relay.port), "127.0.0.1"], capture_output=True, text=True, timeout=10
    ).stdout

    assert re.search(r"UDP reflexive addr: 127\.0\.0\.1:\d+", output)


@pytest.mark.parametrize(("count", "extra"), [(100, []), (5, ["-X"]), (5, ["-g"])], ids=["plain", "family", "df"])
def test_uclient_loses_nothing_over_channels(relay: RunningRelay, count: int, extra: list[str]) -> None:
    with echo_peer() as peer_port:
        output = uclient(relay, peer_port, "-n", str(count), *extra)

    assert "Total lost packets 0 (0.000000%)" in output
    assert f"tot_send_msgs={count}, tot_recv_msgs={count}" in output


def test_uclient_is_refused_with_a_wrong_password(relay: RunningRelay) -> None:
    username, _ = relay.credentials()
    command = ["turnutils_uclient", "-u", username, "-w", "wrong", "-p", str(relay.port), "-c", "-m", "1"]

    result = subprocess.run([*command, "-e", "127.0.0.1", "127.0.0.1"], capture_output=True, text=True, timeout=20)

    assert result.returncode != 0


def test_what_happened_can_be_read(relay: RunningRelay) -> None:
    with echo_peer() as peer_port:
        uclient(relay, peer_port, "-n", "1")

    status, metrics = relay.get("/metrics")

    assert status == 200
    labels = 'error_code="",message_type="channelbind",response_class="success"'
    assert re.search(rf"wardgate_relay_responses_total{{{labels}}} [1-9]", metrics)
    assert "wardgate_relay_joined 1.0" in metrics
    assert relay.get("/healthz") == (200, "")
    assert relay.get("/else")[0] == 404


def test_it_may_open_as_many_sockets_as_the_system_allows(relay: RunningRelay) -> None:
    limits = Path(f"/proc/{relay.process.pid}/limits").read_text()

    found = re.search(r"Max open files +(\w+) +(\w+)", limits)

    assert found is not None
    assert found[1] == found[2]


def test_the_relay_tells_the_portal_where_it_is(portal: Portal, relay: RunningRelay) -> None:
    assert f"/relay/websocket?ipv4=127.0.0.1&port={relay.port}" in portal.paths


def test_a_refused_token_ends_the_relay_and_says_so(portal: Portal) -> None:
    relay = start_relay(portal.url, "no-such-token")

    _, errors = relay.process.communicate(timeout=20)

    assert relay.process.returncode == 1
    assert "token" in errors


def test_sigterm_ends_it_in_order(portal: Portal) -> None:
    with running_relay(portal) as relay:
        assert relay.stop() == 0


def test_without_a_portal_it_relays_and_waits_for_it(portal: Portal) -> None:
    lonely = Portal()
    with running_relay(lonely) as relay:
        lonely.close()
        while relay.get("/readyz")[0] != 503:
            assert relay.process.poll() is None

        with echo_peer() as peer_port:
            output = uclient(relay, peer_port, "-n", "5")

        assert "Total lost packets 0 (0.000000%)" in output
        assert relay.process.poll() is None


def test_a_port_in_use_is_named(portal: Portal) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        port = str(taken.getsockname()[1])
        relay = start_relay(portal.url, TOKEN, "--listen-port", port)
        _, errors = relay.process.communicate(timeout=20)

    assert relay.process.returncode == 1
    assert "cannot listen" in errors


@contextmanager
def echo_peer() -> Iterator[int]:
    port = free_port(socket.SOCK_DGRAM)
    process = subprocess.Popen(["turnutils_peer", "-p", str(port), "-L", "127.0.0.1"], stdout=subprocess.DEVNULL)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.05)
            for _ in range(200):
                probe.sendto(b"up?", ("127.0.0.1", port))
                try:
                    probe.recv(16)
                except (TimeoutError, ConnectionRefusedError):
                    continue
                break
        yield port
    finally:
        process.kill()
        process.wait()


def uclient(relay: RunningRelay, peer_port: int, *extra: str) -> str:
    username, password = relay.credentials()
    command = ["turnutils_uclient", "-u", username, "-w", password, "-p", str(relay.port), "-c", "-m", "1"]
    command += ["-e", "127.0.0.1", "-r", str(peer_port), "-l", "172", *extra, "127.0.0.1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return result.stdout + result.stderr
