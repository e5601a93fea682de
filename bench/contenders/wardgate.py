"""Wardgate itself: portal, relay, gateway and client, as their users start them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.contenders.base import tun_of
from bench.place import IPERF_PORT, LOAD_PORT, Place, reaches, wait
from wardgate.errors import LabError
from wardgate.lab.demo.cast import Cast
from wardgate.lab.demo.steps import copy_database
from wardgate.lab.process import Process

APP = "10.9.0.2"
APP_NAME = "app.corp.example"
CIDR = "10.9.0.0/29"
FILTERS = (f"tcp:{IPERF_PORT},{LOAD_PORT}", f"udp:{IPERF_PORT},{LOAD_PORT}", "icmp")
NODES = {"client": "client", "gateway": "gateway-1", "relay": "relay-1", "portal": "portal"}
INTERFACE = "tun-wardgate"
JOIN_S = 20.0


@dataclass
class Account:
    """What an admin made once: a portal's database, and the tokens to join with."""

    database: Path
    tokens: dict[str, str]


@dataclass
class Products:
    """One running Wardgate in each place, which the contenders there share; all with one account."""

    _account: Account | None = None
    _cast_by_place: dict[str, Cast] = field(default_factory=dict)

    def cast_in(self, place: Place) -> Cast:
        """The programs of a place; started if they are not yet."""
        if place.name not in self._cast_by_place:
            cast = Cast(place.lab, place.directory, place.directory / "portal.db", processes=place.processes)
            if self._account is None:
                self._account = _set_up(cast)
            else:
                copy_database(self._account.database, cast.database)
                cast.tokens |= self._account.tokens
                cast.start_portal()
            _start_members(cast)
            self._cast_by_place[place.name] = cast
        return self._cast_by_place[place.name]


@dataclass
class Wardgate:
    """One resource, by one kind of path.

    Attributes:
        products: Where to find the programs.
        resource: `cidr` or `dns`.
        path: `direct` or `relayed`.
    """

    products: Products
    resource: str = "cidr"
    path: str = "direct"
    _cast: Cast | None = None
    _facts: dict[str, str] = field(default_factory=dict)

    def start(self, place: Place) -> None:
        """Starts the product, unless another contender has, and waits for the path."""
        cast = self._cast = self.products.cast_in(place)
        client = cast.processes["client"]
        wait(lambda: reaches(place, APP_NAME if self.resource == "dns" else APP), JOIN_S, "the app answers", client)
        wait(lambda: self._path().get("kind") == self.path, JOIN_S, f"the path is {self.path}", client)
        if self.path == "direct":
            wait(lambda: self._path().get("rtt_ms") is not None, JOIN_S, "the path has a round trip time", client)
        self._facts = {
            "path": f"{self._path()['kind']}, {self._path()['mode']}",
            "tun at the client": tun_of(place.client, INTERFACE),
            "tun at the gateway": tun_of(place.gateway, INTERFACE),
        }

    def target(self) -> str:
        """The app's own address, or the proxy address that its name has for the client.

        Raises:
            LabError: The name has none, or the path is not the one to be measured any more.
        """
        if self._path().get("kind") != self.path:
            raise LabError(f"the path is {self._path().get('kind')}, not {self.path}")
        if self.resource == "cidr":
            return APP
        node = self._running().lab.node("client")
        return node.run(["getent", "ahostsv4", APP_NAME]).check().stdout.split()[0]

    def processes(self) -> Mapping[str, Process]:
        """All four programs, also those that carry nothing."""
        return {role: self._running().processes[name] for role, name in NODES.items()}

    def facts(self) -> Mapping[str, str]:
        """The path, and whether the TUN devices take super-packets."""
        return self._facts

    def status(self) -> dict[str, Any]:
        """What the client says of itself."""
        return self._running().status()

    def _path(self) -> dict[str, Any]:
        return self._running().resource(self.resource).get("path") or {}

    def _running(self) -> Cast:
        if self._cast is None:
            raise LabError("Wardgate has not been started")
        return self._cast


def _set_up(cast: Cast) -> Account:
    """Makes an account with two resources, a policy for each, and tokens; its portal runs afterwards."""
    words = ["--account", "corp", "--email", "admin@corp.example"]
    cast.tokens["api"] = _operator(cast, "setup", *words)["api_token"]
    cast.start_portal()
    cast.admin("sites", "create", "office")
    cast.admin("groups", "create", "engineering")
    cast.admin("actors", "create", "Mia Berg", "--type", "account_user", "--email", "mia@corp.example")
    cast.admin("groups", "add", "engineering", "Mia Berg")
    filters = [word for allowed in FILTERS for word in ("--filter", allowed)]
    for kind, address in (("cidr", CIDR), ("dns", APP_NAME)):
        words = ["--type", kind, "--address", address, "--site", "office", *filters]
        cast.admin("resources", "create", kind, *words)
        cast.admin("policies", "create", "--group", "engineering", "--resource", kind)
    cast.tokens["gateway"] = cast.admin("gateway-tokens", "create", "--site", "office")["token"]
    cast.tokens["relay"] = _operator(cast, "relay-token")["token"]
    made = _operator(cast, "client-token", "--account", "corp", "--actor", "mia@corp.example")
    cast.tokens["client"] = made["token"]
    return Account(cast.database, dict(cast.tokens))


def _start_members(cast: Cast) -> None:
    cast.start_relay()
    gateway = cast.start_gateway()
    client = cast.start_client()

    def is_gateway_online() -> bool:
        return any(row["online"] for row in cast.admin("gateways", "list", "--site", "office"))

    cast.wait(is_gateway_online, JOIN_S, "the gateway joins", gateway)
    cast.wait(lambda: cast.status().get("portal") == "up", JOIN_S, "the client joins", client)


def _operator(cast: Cast, *words: str) -> dict[str, Any]:
    database = ["--database", f"sqlite:///{cast.database}", "--json"]
    made: dict[str, Any] = json.loads(cast.wardgate("portal", "portal", *words, *database).check().stdout)
    return made
