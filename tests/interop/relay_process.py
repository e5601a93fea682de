"""A relay process on loopback, and a portal that it can join."""

import base64
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from wardgate.wire import portal, turn
from wardgate.wire.portal import decode_relay_join
from wardgate.wire.turn import Username

TOKEN = "interop-token"
START_TIMEOUT_S = 20.0


class Portal:
    """Answers joins and heartbeats as the portal does, and remembers what relays said."""

    def __init__(self) -> None:
        self.secrets: queue.Queue[str] = queue.Queue()
        self.paths: list[str] = []
        self._server: Server = serve(self._talk, "127.0.0.1", 0, process_request=self._check)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()

    def _check(self, _connection: ServerConnection, request: Request) -> Response | None:
        self.paths.append(request.path)
        if request.headers.get("x-authorization") == f"Bearer {TOKEN}":
            return None
        body = b'{"type":"about:blank","title":"Unauthorized","status":401,"detail":"no","code":"invalid_token"}'
        headers = Headers({"Content-Type": "application/problem+json", "Content-Length": str(len(body))})
        return Response(401, "Unauthorized", headers, body)

    def _talk(self, connection: ServerConnection) -> None:
        for text in connection:
            frame = portal.decode_frame(text)
            if frame.event == "phx_join":
                self.secrets.put(decode_relay_join(frame.payload).stamp_secret)
            ok: portal.Json = {"status": "ok", "response": {}}
            connection.send(portal.encode_frame(portal.Frame(frame.topic, "phx_reply", ok, frame.ref)))
            if frame.event == "phx_join":
                connection.send(portal.encode_frame(portal.Frame("relay", "init", {}, None)))


@dataclass
class RunningRelay:
    """One relay process and how to use it."""

    process: "subprocess.Popen[str]"
    port: int
    health_port: int
    stamp_secret: str = ""
    arguments: list[str] = field(default_factory=list)

    def credentials(self) -> tuple[str, str]:
        """A username that was never used before, and its password."""
        salt = base64.b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        username = Username(int(time.time()) + 3600, salt)
        return str(username), turn.password_of(username, self.stamp_secret)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=10)


@contextmanager
def running_relay(portal_: Portal, *arguments: str, by: Sequence[str] = ()) -> Iterator[RunningRelay]:
    """Starts a relay, by way of another program if one is given, and waits until it has joined."""
    relay = start_relay(portal_.url, TOKEN, *arguments, by=by)
    try:
        wait_ready(relay)
        relay.stamp_secret = portal_.secrets.get_nowait()
        yield relay
    finally:
        if relay.process.poll() is None:
            relay.process.kill()
            relay.process.wait()
        if relay.process.stderr is not None:
            relay.process.stderr.close()


@contextmanager
def lonely_relay(directory: Path, *arguments: str) -> Iterator[RunningRelay]:
    """Starts a relay without a portal, for the user alice with the password wonderland and the secret "north"."""
    for name, text in (("users", "# all of them\nalice:wonderland\n"), ("secret", "north\n")):
        (directory / name).write_text(text)
        (directory / name).chmod(0o600)
    files = ["--users-file", str(directory / "users"), "--auth-secret-file", str(directory / "secret")]
    relay = start_relay("", "", *files, *arguments)
    try:
        wait_ready(relay)
        yield relay
    finally:
        if relay.process.poll() is None:
            relay.process.kill()
            relay.process.wait()
        if relay.process.stderr is not None:
            relay.process.stderr.close()


def start_relay(url: str, token: str, *arguments: str, by: Sequence[str] = ()) -> RunningRelay:
    port, health_port = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
    command = [*by, sys.executable, "-m", "wardgate.relay.main", "--public-ip4-addr", "127.0.0.1", "--api-url", url]
    command += ["--listen-port", str(port), "--health-check-addr", f"127.0.0.1:{health_port}"]
    command += ["--drain-time", "0s", *arguments]
    environment = os.environ | {"WARDGATE_TOKEN": token, "WARDGATE_LOG": "warning"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    return RunningRelay(process, port, health_port)


def wait_ready(relay: RunningRelay) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while relay.get("/readyz")[0] != 200:
        assert relay.process.poll() is None, relay.process.communicate()[1]
        assert time.monotonic() < deadline, "the relay did not join"
        time.sleep(0.02)


def new_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and relay.example that vouches for itself, and its key: PEM files."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=relay.example", "-addext", "subjectAltName=IP:127.0.0.1,DNS:relay.example"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
