"""Networks that let no UDP out: real programs reach each other by TCP and TLS to the relay, also through a proxy."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from wardgate.lab import topologies
from wardgate.lab.demo import steps
from wardgate.lab.demo.__main__ import playing
from wardgate.lab.demo.cast import Cast
from wardgate.lab.demo.story import Story
from wardgate.lab.topology import NatKind

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]

TARGET: Final = "10.9.0.2"
PROXY: Final = Path(__file__).parent / "connect_proxy.py"


def test_client_behind_such_a_network_reaches_its_resource(tmp_path: Path) -> None:
    with joined(tmp_path, relay="tcp") as cast:
        reach(cast)

        path = cast.resource("wiki by address")["path"]
        assert (path["kind"], path["relay_way"], path["relay"]) == ("relayed", "tcp", "203.0.113.3:3478")
        assert "relayed (tcp)" in cast.wardgate("client", "client", "status").check().stdout
        restart_relay(cast, "tcp")
        reach(cast)


def test_gateway_behind_such_a_network_is_reached(tmp_path: Path) -> None:
    with joined(tmp_path, relay="tls", client=NatKind.PORT_RESTRICTED, gateway=NatKind.UDP_BLOCKED) as cast:
        reach(cast)

        assert cast.resource("wiki by address")["path"]["kind"] == "relayed"


def test_everything_goes_through_a_proxy_that_is_set(tmp_path: Path) -> None:
    with joined(tmp_path, relay="tls", proxy="http://203.0.113.4:3128") as cast:
        reach(cast)

        assert cast.resource("wiki by address")["path"]["relay_way"] == "tls"
        asked = set(cast.processes["proxy"].log().splitlines())
        assert asked == {"CONNECT 203.0.113.10:8080", "CONNECT 203.0.113.3:443", "CONNECT 203.0.113.3:3478"}


@contextmanager
def joined(
    directory: Path,
    *,
    relay: str,
    client: NatKind = NatKind.UDP_BLOCKED,
    gateway: NatKind = NatKind.PORT_RESTRICTED,
    proxy: str | None = None,
) -> Iterator[Cast]:
    """A client that has joined, and a relay that serves that besides UDP."""
    story = Story()
    with playing(story, directory, topologies.demo(client, gateway)) as cast:
        steps.portal_starts(story, cast)
        cast.admin("policies", "create", "--group", "engineering", "--resource", "wiki by address")
        start_relay(cast, relay)
        if proxy is not None:
            cast.start("proxy", "relay-2", [sys.executable, str(PROXY), "3128"])
        cast.start_gateway()
        cast.start_client(env={} if proxy is None else {"WARDGATE_PROXY": proxy})
        cast.wait(lambda: cast.status().get("resources"), 20.0, "the client joins", cast.processes["client"])
        yield cast


def start_relay(cast: Cast, kind: str) -> None:
    certificate, key = cast.directory / "certificate.pem", cast.directory / "key.pem"
    if not key.exists():
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-days", "2", "-subj", "/CN=relay.example", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
    words = ["relay", "--public-ip4-addr", "203.0.113.3", "--drain-time", "0s"]
    if kind == "tcp":
        words += ["--tcp-port", "3478"]
    else:
        words += ["--tls-port", "443", "--tls-cert", str(certificate), "--tls-key", str(key)]
    cast.start_member("relay", "relay-1", *words)


def restart_relay(cast: Cast, kind: str) -> None:
    cast.processes.pop("relay-1").kill()
    start_relay(cast, kind)


def reach(cast: Cast) -> None:
    """Waits until a ping through the tunnel is answered."""
    ping = ["ping", "-c", "1", "-W", "1", TARGET]
    cast.wait(lambda: cast.lab.node("client").run(ping).returncode == 0, 30.0, "the resource answers")
