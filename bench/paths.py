"""The product in a lab whose NATs, links and programs change, and pings that show what the user feels of it."""

import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wardgate.client.config import DEFAULT_SOCKET
from wardgate.errors import LabError
from wardgate.lab.demo import steps
from wardgate.lab.demo.__main__ import playing
from wardgate.lab.demo.cast import Cast
from wardgate.lab.demo.story import NOBODY, Story
from wardgate.lab.process import Process
from wardgate.lab.topology import Topology

TARGET = "10.9.0.2"
PROBER = Path(__file__).with_name("prober.py")
JOIN_S = 20.0
_NUMBERS = itertools.count(1)
RELAYS = {"relay-1": "203.0.113.3", "relay-2": "203.0.113.4"}


class Quiet(Story):
    """A story that nobody hears, but for its failures."""

    @contextmanager
    def step(self, number: str, text: str, concerned: Mapping[str, Process] = NOBODY) -> Iterator[None]:
        """Tells nothing."""
        yield

    def say(self, text: str) -> None:
        """Tells nothing."""


class Seen(NamedTuple):
    """What the pings saw; monotonic seconds.

    Attributes:
        began: When the first ping was sent.
        answers: When each answered ping was sent and answered.
        paths: When the path became another one, and of which kind.
    """

    began: float
    answers: list[tuple[float, float]]
    paths: list[tuple[float, str]]

    @property
    def first_answer_s(self) -> float | None:
        """From the first ping to the first answer of any."""
        first = min((answered for _, answered in self.answers), default=None)
        return None if first is None else first - self.began

    @property
    def direct_s(self) -> float | None:
        """From the first ping to the direct path; `None` if there was none at the end."""
        if not self.paths or self.paths[-1][1] != "direct":
            return None
        return max(0.0, self.paths[-1][0] - self.began)

    @property
    def last_kind(self) -> str:
        """The kind of path at the end, `none` if there was none that carried anything."""
        return self.paths[-1][1] if self.paths and self.answers else "none"

    def gap_s(self, since: float) -> float:
        """The longest time without an answer around and after that moment."""
        ends = sorted(answered for _, answered in self.answers)
        before = [at for at in ends if at < since][-1:] or [since]
        after = [at for at in ends if at >= since]
        moments = [*before, *after]
        return max((later - earlier for earlier, later in itertools.pairwise(moments)), default=99.0)


@dataclass
class Product:
    """One running Wardgate with a resource for one address."""

    cast: Cast
    client_env: dict[str, str]

    def start_client(self) -> None:
        """Starts the client and waits until it is in and has its relays."""
        process = self.cast.start_client(env=self.client_env)
        self.cast.wait(lambda: self.cast.status().get("resources"), JOIN_S, "the client joins", process)

    def restart_client(self) -> None:
        """A client that knows nothing."""
        self.cast.processes.pop("client").stop()
        self.start_client()

    def start_gateway(self, name: str = "gateway-1") -> Process:
        """Starts a gateway and waits until it is online."""
        process = self.cast.start_gateway(name)
        self.cast.wait(lambda: name in steps.online_gateways(self.cast), JOIN_S, f"{name} joins", process)
        return process

    def start_relay(self, name: str = "relay-1") -> Process:
        """Starts a relay."""
        return self.cast.start_relay(name, RELAYS[name])

    def pinging(self, seconds: float, every_s: float, *words: str) -> "Pinging":
        """Starts to ping; see `Pinging.seen`."""
        argv = [sys.executable, str(PROBER), TARGET, str(DEFAULT_SOCKET), str(seconds), str(every_s), *words]
        process = self.cast.start(f"prober-{next(_NUMBERS)}", "client", argv)
        self.cast.wait(lambda: "began" in process.log(), 5.0, "the pings begin", process)
        return Pinging(process, seconds)


@dataclass
class Pinging:
    """Pings under way."""

    process: Process
    seconds: float

    def seen(self) -> Seen:
        """Waits for the end and gives what was seen.

        Raises:
            LabError: The pings failed.
        """
        if self.process.wait(self.seconds + 10.0) != 0:
            raise LabError(f"the pings failed: {self.process.log(10)}")
        first, last = (json.loads(line) for line in self.process.log().splitlines()[-2:])
        answers = [(float(sent), float(answered)) for sent, answered in last["answers"]]
        return Seen(float(first["began"]), answers, [(float(at), str(kind)) for at, kind in last["paths"]])


@contextmanager
def product(directory: Path, topology: Topology, *, iceless: bool, relays: int = 1) -> Iterator[Product]:
    """A portal with an account, relays and one gateway that have joined; no client yet."""
    story = Quiet()
    directory.mkdir(parents=True, exist_ok=True)
    with playing(story, directory, topology) as cast:
        steps.portal_starts(story, cast)
        steps.operator(cast, "features", "--account", "corp", "--enable" if iceless else "--disable", "iceless")
        cast.admin("policies", "create", "--group", "engineering", "--resource", "wiki by address")
        made = Product(cast, {})
        for name in list(RELAYS)[:relays]:
            made.start_relay(name)
        made.start_gateway()
        yield made
        for process in cast.processes.values():
            process.terminate()
        time.sleep(0.1)
