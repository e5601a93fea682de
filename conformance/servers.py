"""The two servers that are compared when none is named: coturn and our own relay, both on loopback."""

import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.interop.relay_process import free_port, start_relay, wait_ready

from conformance import wire
from conformance.credentials import User, Users, static_users
from conformance.lab import Target
from conformance.links import UdpLink, Unreachable
from conformance.wire import Address, Draft

HOST, HOST6 = "127.0.0.1", "::1"
REALM = "conformance.example"
START_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Running:
    """A server that was started, and what to write about it."""

    name: str
    target: Target


@contextmanager
def start_ours() -> Iterator[Running]:
    """Our relay without a portal, with two users and the whole of loopback as peers."""
    user, other = User("conformance", secrets.token_hex(16)), User("other", secrets.token_hex(16))
    with tempfile.TemporaryDirectory() as directory:
        users = Path(directory, "users")
        users.write_text("".join(f"{one.name}:{one.password}\n" for one in (user, other)))
        users.chmod(0o600)
        port = free_port(socket.SOCK_DGRAM)
        arguments = ["--users-file", str(users), "--realm", REALM, "--listen-port", str(port), "--tcp-port", str(port)]
        arguments += ["--bind-ip4-addr", HOST, "--public-ip6-addr", HOST6, "--bind-ip6-addr", HOST6]
        relay = start_relay("", "", *arguments)
        try:
            wait_ready(relay)
            yield Running("Wardgate relay", _target(port, static_users(user, other)))
            relay.stop()
        finally:
            if relay.process.poll() is None:
                relay.process.kill()
                relay.process.wait()


@contextmanager
def start_coturn() -> Iterator[Running]:
    """coturn with two users and loopback peers, else as it comes."""
    port = free_port(socket.SOCK_DGRAM)
    user, other = User("conformance", secrets.token_hex(16)), User("other", secrets.token_hex(16))
    with tempfile.TemporaryDirectory() as directory:
        command = [coturn_program(), "-n", "-p", str(port), "--no-tls", "--no-dtls", "--no-cli", "-r", REALM, "-m", "1"]
        for host in (HOST, HOST6):
            command += ["-L", host, "-E", host]
        command += ["-a", "-u", f"{user.name}:{user.password}", "-u", f"{other.name}:{other.password}"]
        command += ["--allow-loopback-peers", "--userdb", f"{directory}/users", "--pidfile", f"{directory}/pid"]
        command += ["--log-file", f"{directory}/log", "--simple-log"]
        process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            target = _target(port, static_users(user, other))
            _wait_for_answer(target.server, process, Path(directory, "log"))
            yield Running(f"coturn {_coturn_version()}", target)
        finally:
            process.terminate()
            process.wait()


def coturn_program() -> str:
    """Where coturn's server is.

    Raises:
        Unreachable: It is not installed.
    """
    found = shutil.which("turnserver", path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin") or shutil.which(
        "turnserver"
    )
    if found is None:
        raise Unreachable("coturn's turnserver is not installed: apt-get install coturn, or name a --server")
    return found


def _target(port: int, users: Users) -> Target:
    return Target(Address(HOST, port), users, HOST, server6=Address(HOST6, port))


def _wait_for_answer(server: Address, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    link = UdpLink(server)
    try:
        while process.poll() is None and time.monotonic() < deadline:
            link.send(Draft(wire.BINDING).encode())
            if link.receive(0.1) is not None:
                return
            time.sleep(0.05)
    finally:
        link.close()
    raise Unreachable(f"coturn does not start: {log.read_text()[-500:] if log.exists() else 'it wrote nothing'}")


def _coturn_version() -> str:
    output = subprocess.run([coturn_program(), "--version"], capture_output=True, text=True, check=False).stdout
    found = re.findall(r"\d+\.\d+\.\d+", output)
    return found[-1] if found else "(unknown version)"
