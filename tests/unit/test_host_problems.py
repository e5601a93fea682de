"""What a host may lack or have too much of: each is named with what helps, and ends the program with status 1."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.client.test_main import INIT, routes
from tests.unit.gateway.test_main import INIT as GATEWAY_INIT
from tests.unit.io.fake_portal import FakePortal, until
from tests.unit.io.namespace import addresses, bring_loopback_up, in_namespace, mount_over
from wardgate.io.control_socket import ask
from wardgate.io.nftables import FirewallError, Nftables

PORTAL = "ws://127.0.0.1:9"  # nobody is there: whatever ends the program does so before it asks
CLIENT = ("client", "up", "--interface", "tun-test")
GATEWAY = ("gateway", "--interface", "tun-test", "--health-check-addr", "none")
RELAY = ("relay", "--public-ip4-addr", "127.0.0.1", "--health-check-addr", "none")
WITHOUT_NET_ADMIN = ("setpriv", "--bounding-set=-net_admin")


@in_namespace
def test_host_without_the_device_is_told_how_to_give_it() -> None:
    with tempfile.TemporaryDirectory() as empty:
        mount_over(Path(empty), Path("/dev/net"))
        for words in (CLIENT, GATEWAY):
            problem = ended(words)

            assert "/dev/net/tun cannot be opened" in problem
            assert "--device=/dev/net/tun" in problem
            assert "modprobe tun" in problem


@in_namespace
def test_program_without_the_capability_is_told_how_to_grant_it() -> None:
    for words in (CLIENT, GATEWAY):
        problem = ended(words, before=WITHOUT_NET_ADMIN)

        assert "CAP_NET_ADMIN is missing" in problem
        assert "--cap-add=NET_ADMIN" in problem


@in_namespace
def test_interface_name_that_is_taken_is_named() -> None:
    run_ip("link", "add", "tun-test", "type", "veth", "peer", "name", "wire")

    for words in (CLIENT, GATEWAY):
        assert "tun-test cannot be opened: there is an interface of that name that is none of TUN" in ended(words)


@in_namespace
def test_second_program_on_the_same_interface_is_told() -> None:
    async def body(directory: Path) -> None:
        async with FakePortal(("init", INIT)).listening() as portal:
            process = await started(portal.url, directory)
            await until(lambda: addresses("tun-test"))
            problem = await asyncio.to_thread(ended, CLIENT)
            process.terminate()
            await process.wait()

        assert "tun-test cannot be opened: another program has it" in problem
        assert "--interface" in problem

    play(body)


@in_namespace
def test_ports_that_are_taken_are_named() -> None:
    bring_loopback_up()
    with taken(socket.SOCK_STREAM) as tcp, taken(socket.SOCK_DGRAM) as udp:
        place = f"127.0.0.1:{tcp}"
        for words in (CLIENT, GATEWAY, RELAY):
            problem = ended((*words, "--health-check-addr", place))
            assert f"--health-check-addr: {place} cannot be listened on (Address already in use)" in problem
        for native in ("--native", "--no-native"):
            problem = ended((*RELAY, "--listen-port", str(udp), native))
            assert f"UDP port {udp} (--listen-port) at 0.0.0.0" in problem
            assert "Address already in use" in problem


@in_namespace
def test_host_without_the_firewalls_library_is_told_what_to_install() -> None:
    Nftables().close()
    maps = Path("/proc/self/maps").read_text().splitlines()
    for library in {line.split()[-1] for line in maps if "libnftables.so" in line}:
        mount_over(Path("/dev/null"), Path(library))

    problem = ended(GATEWAY)

    assert "Install the package nftables" in problem
    assert "--no-masquerade" in problem


def test_library_that_is_none_is_named() -> None:
    with pytest.raises(FirewallError, match="libnftables is not there"):
        Nftables("libnone.so.1")


@in_namespace
def test_gateway_on_a_host_that_cannot_forward_says_how_to_let_it() -> None:
    mount_over(Path("/proc/sys"), Path("/proc/sys"), read_only=True)

    problem = ended(GATEWAY)

    assert "sysctl -w net.ipv4.ip_forward=1" in problem
    assert "--sysctl net.ipv4.ip_forward=1" in problem
    assert "--no-masquerade" in problem


@in_namespace
def test_resolv_conf_that_cannot_be_written_ends_the_client_with_its_name() -> None:
    async def body(directory: Path) -> None:
        copy = directory / "resolv.conf"
        copy.write_text("nameserver 192.0.2.53\n")
        mount_over(copy, Path("/etc/resolv.conf"), read_only=True)
        async with FakePortal(("init", INIT)).listening() as portal:
            process = await started(portal.url, directory, dns_control="etc-resolv-conf", stderr=subprocess.PIPE)
            _, problem = await process.communicate()

        assert process.returncode == 1
        assert (
            "--dns-control etc-resolv-conf: /etc/resolv.conf could not be written: Read-only file" in problem.decode()
        )

    play(body)


@in_namespace
def test_host_with_ipv6_turned_off_gets_a_tunnel_of_ipv4() -> None:
    async def body(directory: Path) -> None:
        turn_ipv6_off()
        async with FakePortal(("init", INIT)).listening() as portal:
            process = await started(portal.url, directory)
            await until(lambda: "10.9.0.0/24" in routes())
            status = await asyncio.to_thread(ask, directory / "sock", {"command": "status"})
            process.terminate()

            assert await process.wait() == 0
        assert status["portal"] == "up"

    play(body)


@in_namespace
def test_gateway_on_a_host_with_ipv6_turned_off_serves_ipv4() -> None:
    async def body(_: Path) -> None:
        async with FakePortal(("init", GATEWAY_INIT)).listening() as portal:
            turn_ipv6_off()
            mount_over(Path("/proc/sys/net/ipv6"), Path("/proc/sys/net/ipv6"), read_only=True)
            process = await wardgate(*GATEWAY, "--api-url", portal.url, "--id", "gw1")
            await until(lambda: addresses("tun-test") == {"100.64.0.2"})
            process.terminate()

            assert await process.wait() == 0

    play(body)


def ended(words: Sequence[str], *, before: Sequence[str] = ()) -> str:
    """What a program says that ends by itself with status 1."""
    with tempfile.TemporaryDirectory() as directory:
        own = ["--socket", str(Path(directory, "sock"))] if words[0] == "client" else []
        state = {"WARDGATE_STATE_DIR": directory, "WARDGATE_TOKEN": ".t", "WARDGATE_ID": "one"}
        done = subprocess.run(
            [*before, sys.executable, "-m", "wardgate.cli", *words, "--api-url", PORTAL, *own],
            env={**os.environ, **state},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1, done.stderr
    return done.stderr.splitlines()[-1]


def play(body: Callable[[Path], Coroutine[Any, Any, None]]) -> None:
    bring_loopback_up()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        asyncio.run(body(Path(directory)))


async def started(
    url: str, directory: Path, dns_control: str = "disabled", stderr: int | None = None
) -> asyncio.subprocess.Process:
    words = [*CLIENT, "--api-url", url, "--id", "cl1", "--dns-control", dns_control, "--state-dir", str(directory)]
    return await wardgate(*words, "--socket", str(directory / "sock"), stderr=stderr)


async def wardgate(*words: str, stderr: int | None = None) -> asyncio.subprocess.Process:
    environment: dict[str, Any] = {**os.environ, "WARDGATE_TOKEN": ".t"}
    argv = (sys.executable, "-m", "wardgate.cli", *words)
    return await asyncio.create_subprocess_exec(*argv, env=environment, stderr=stderr)


@contextmanager
def taken(kind: socket.SocketKind) -> Iterator[int]:
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("0.0.0.0", 0))
        if kind is socket.SOCK_STREAM:
            one.listen()
        yield one.getsockname()[1]


def turn_ipv6_off() -> None:
    for scope in ("all", "default"):
        Path("/proc/sys/net/ipv6/conf", scope, "disable_ipv6").write_text("1")


def run_ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)
