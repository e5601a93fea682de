"""Wardgate itself: portal, relay, gateway and client, as their users start them."""

import json
from collections.abc import Mapping
from typing import Any

from wardgate.lab.demo.cast import Cast
from wardgate.lab.process import Process

from bench.place import IPERF_PORT, LOAD_PORT, Place, reaches, wait

APP = "10.9.0.2"
APP_NAME = "app.corp.example"
CIDR = "10.9.0.0/29"
FILTERS = (f"tcp:{IPERF_PORT},{LOAD_PORT}", f"udp:{IPERF_PORT},{LOAD_PORT}", "icmp")
ROLES = {"client": "client", "gateway": "gateway-1", "relay": "relay-1", "portal": "portal"}
JOIN_S = 20.0


class Product:
    """One running Wardgate, which several contenders may share."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.cast = Cast(place.lab, place.directory, place.directory / "portal.db", processes=place.processes)

    def start(self) -> None:
        """Sets up an account with two resources and a policy for each, and starts all four programs."""
        self._set_up()
        cast = self.cast
        cast.start_relay()
        gateway = cast.start_gateway()
        client = cast.start_client()
        cast.wait(lambda: cast.status().get("portal") == "up", JOIN_S, "the client joins", client)
        cast.wait(self._is_gateway_online, JOIN_S, "the gateway joins", gateway)

    def wait_path(self, resource: str, address: str, kind: str) -> None:
        """Waits until the app answers, by a path of that kind."""
        client = self.cast.processes["client"]
        wait(lambda: reaches(self.place, address), JOIN_S, f"{address} answers", client)
        path = f"the path of {resource} is {kind}"
        wait(lambda: (self.cast.resource(resource).get("path") or {}).get("kind") == kind, JOIN_S, path, client)

    def processes(self) -> Mapping[str, Process]:
        """All four programs, also those that carry nothing."""
        return {role: self.cast.processes[name] for role, name in ROLES.items()}

    def _set_up(self) -> None:
        cast = self.cast
        words = ["--account", "corp", "--email", "admin@corp.example"]
        cast.tokens["api"] = self._operator("setup", *words)["api_token"]
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
        cast.tokens["relay"] = self._operator("relay-token")["token"]
        words = ["--account", "corp", "--actor", "mia@corp.example"]
        cast.tokens["client"] = self._operator("client-token", *words)["token"]

    def _operator(self, *words: str) -> dict[str, Any]:
        database = ["--database", f"sqlite:///{self.cast.database}", "--json"]
        made: dict[str, Any] = json.loads(self.cast.wardgate("portal", "portal", *words, *database).check().stdout)
        return made

    def _is_gateway_online(self) -> bool:
        return any(row["online"] for row in self.cast.admin("gateways", "list", "--site", "office"))


class Wardgate:
    """A CIDR resource, by the direct path."""

    name = "wardgate"

    def __init__(self) -> None:
        self._product: Product | None = None

    def start(self, place: Place) -> None:
        """Starts the product, unless another contender has started it in this place."""
        self._product = Product(place)
        self._product.start()
        self._product.wait_path("cidr", APP, "direct")

    def target(self) -> str:
        """The app's own address."""
        return APP

    def processes(self) -> Mapping[str, Process]:
        """The product's programs."""
        assert self._product is not None, "started before it is measured"
        return self._product.processes()

    def facts(self) -> Mapping[str, str]:
        """Nothing yet."""
        return {}
