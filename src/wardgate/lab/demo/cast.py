"""Who plays in the demo: the programs, as their users would start them, and what is asked of them."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wardgate.errors import LabError
from wardgate.lab.demo.app import BLOCK
from wardgate.lab.lab import Lab
from wardgate.lab.process import Completed, Process
from wardgate.lab.recording import can_use_tcpdump

WARDGATE = Path(sys.executable).with_name("wardgate")
PORTAL_URL = "http://203.0.113.10:8080"
API_URL = "ws://203.0.113.10:8080"
POLL_S = 0.05
NOTHING: Mapping[str, str] = {}

FETCH = """
import hashlib, sys
state, count = hashlib.sha256(), 0
while chunk := sys.stdin.buffer.read1(1 << 20):
    state.update(chunk)
    count += len(chunk)
print(state.hexdigest(), count)
"""


@dataclass(frozen=True, slots=True)
class Download:
    """What became of one download.

    Attributes:
        digest: SHA-256 of what arrived.
        received: Bytes.
        elapsed_s: From curl's start to its end.
    """

    digest: str
    received: int
    elapsed_s: float

    @property
    def gbit_per_s(self) -> float:
        """Payload bits each nanosecond."""
        return self.received * 8 / self.elapsed_s / 1e9


@dataclass
class Cast:
    """The programs in one lab.

    Attributes:
        lab: Where they run.
        directory: Where their logs, tokens and database are.
        database: The portal's database file.
        tokens: Tokens by who uses them.
        processes: Running programs by name.
    """

    lab: Lab
    directory: Path
    database: Path
    tokens: dict[str, str] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)

    # --- programs ---

    def wardgate(self, node: str, *words: str, env: dict[str, str] | None = None, timeout_s: float = 20.0) -> Completed:
        """Runs a `wardgate` command to its end."""
        return self.lab.node(node).run([str(WARDGATE), *words], env=env, timeout_s=timeout_s)

    def start(self, name: str, node: str, argv: Sequence[str], env: dict[str, str] | None = None) -> Process:
        """Starts a program under a name; its log is `<name>.log`."""
        process = self.lab.node(node).spawn(argv, env=env, log_path=self.directory / f"{name}.log")
        self.processes[name] = process
        return process

    def start_portal(self) -> Process:
        """Starts the portal and waits until it answers."""
        words = ["portal", "serve", "--listen", "203.0.113.10:8080", "--database", f"sqlite:///{self.database}"]
        process = self.start("portal", "portal", [str(WARDGATE), *words])
        self.wait(lambda: self.http("portal", f"{PORTAL_URL}/readyz"), 15.0, "the portal answers", process)
        return process

    def start_member(self, kind: str, node: str, *words: str, env: dict[str, str] | None = None) -> Process:
        """Starts a relay, gateway or client that joins the portal with its token."""
        token = {"WARDGATE_TOKEN": self.tokens[kind]} if kind in self.tokens else {}
        state = {"WARDGATE_STATE_DIR": str(self.directory / f"{node}.state")}  # the machine's own is not ours to fill
        return self.start(node, node, [str(WARDGATE), *words, "--api-url", API_URL], {**token, **state, **(env or {})})

    def start_relay(self, node: str = "relay-1", address: str = "203.0.113.3") -> Process:
        """Starts a relay."""
        return self.start_member("relay", node, "relay", "--public-ip4-addr", address, "--drain-time", "0s")

    def start_gateway(self, node: str = "gateway-1", env: Mapping[str, str] = NOTHING) -> Process:
        """Starts a gateway."""
        identity = {"WARDGATE_NAME": node, "WARDGATE_ID": node, **env}
        return self.start_member("gateway", node, "gateway", env=identity)

    def start_client(self, env: Mapping[str, str] = NOTHING) -> Process:
        """Starts the client, which also answers for the host's name resolution."""
        identity = {
            "WARDGATE_NAME": "laptop",
            "WARDGATE_ID": "laptop",
            "WARDGATE_DNS_CONTROL": "etc-resolv-conf",
            **env,
        }
        return self.start_member("client", "client", "client", "up", env=identity)

    def can_use_tcpdump(self) -> bool:
        """Whether tcpdump starts in the lab."""
        return can_use_tcpdump(self.lab.wan)

    # --- questions ---

    def admin(self, *words: str) -> Any:
        """Gives what `wardgate admin --json …` printed."""
        env = {"WARDGATE_API_TOKEN": self.tokens["api"], "WARDGATE_ADMIN_URL": PORTAL_URL}
        return json.loads(self.wardgate("portal", "admin", "--json", *words, env=env).check().stdout)

    def status(self) -> dict[str, Any]:
        """Gives what `wardgate client status --json` printed; nothing if the client does not answer yet."""
        done = self.wardgate("client", "client", "status", "--json")
        answer: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        return answer

    def resource(self, name: str) -> dict[str, Any]:
        """Gives what the client says of a resource; nothing if it does not know it."""
        rows = self.status().get("resources", [])
        return next((row for row in rows if row["name"] == name), {})

    def curl(self, url: str, *, node: str = "client", timeout_s: float = 3.0) -> Completed:
        """Runs curl once."""
        words = ["curl", "--silent", "--show-error", "--max-time", str(timeout_s), url]
        return self.lab.node(node).run(words, timeout_s=timeout_s + 5)

    def http(self, node: str, url: str) -> bool:
        """Whether a URL answers with success."""
        words = ["curl", "--silent", "--fail", "--output", "/dev/null", "--max-time", "1", url]
        return self.lab.node(node).run(words, timeout_s=6).returncode == 0

    def download(self, url: str, *, timeout_s: float = 60.0) -> Download:
        """Fetches a URL with curl on the client and digests what comes.

        Raises:
            LabError: curl failed.
        """
        command = f"set -o pipefail; curl --silent --show-error --fail '{url}' | '{sys.executable}' -c '{FETCH}'"
        began = time.monotonic()
        done = self.lab.node("client").run(["bash", "-c", command], timeout_s=timeout_s).check()
        digest, received = done.stdout.split()
        return Download(digest, int(received), time.monotonic() - began)

    def wait(self, condition: Callable[[], Any], timeout_s: float, what: str, *alive: Process) -> float:
        """Waits for a condition; gives how many seconds that took.

        Raises:
            LabError: It did not come true in time, or a program that it depends on ended.
        """
        began = time.monotonic()
        while not condition():
            for process in alive:
                if not process.running:
                    raise LabError(f"{what}: {process.node} ended with {process.returncode} before that")
            if time.monotonic() - began > timeout_s:
                raise LabError(f"{what}: not within {timeout_s:g} s")
            time.sleep(POLL_S)
        return time.monotonic() - began


def whole_blocks(count: int) -> int:
    """The nearest lower number of bytes that the app sends without a cut."""
    return count - count % BLOCK
