"""Programs that speak WireGuard and are configured with `wg`: wireguard-go, gotatun."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from wardgate.lab.node import Node
from wardgate.lab.process import Process

from bench.place import GATEWAY_PUBLIC, TUNNEL_MTU, Place, reaches, wait


@dataclass
class UserSpaceWireGuard:
    """One such program at both ends.

    Attributes:
        name: What it is called.
        argv: How to start it in the foreground, before the interface's name.
        interface: The interface's name at both ends.
        app: Where the app answers to it.
        port: The gateway's UDP port.
        version: What is known of its build.
    """

    name: str
    argv: Sequence[str]
    interface: str
    app: IPv4Address
    port: int
    version: str
    _processes: dict[str, Process] = field(default_factory=dict)
    _facts: dict[str, str] = field(default_factory=dict)

    def start(self, place: Place) -> None:
        """Starts both ends, and configures keys, addresses and routes as `wg-quick` would."""
        place.app_answers_at(self.app)
        place.forward_port(self.name, self.port)
        place.masquerade(self.name, f"iifname {self.interface}")
        keys = {role: _new_key(node) for role, node in self._ends(place).items()}
        for role, node in self._ends(place).items():
            process = place.start(f"{self.name}-{role}", node.name, [*self.argv, self.interface], {"WG_SUDO": "1"})
            self._processes[role] = process
            socket = f"/var/run/wireguard/{self.interface}.sock"
            wait(lambda node=node, socket=socket: node.path_exists(socket), 10.0, f"{self.name} starts", process)
        private, public = zip(*(keys[role] for role in ("client", "gateway")), strict=True)
        self._configure(place.gateway, private[1], "10.77.0.1", ["listen-port", str(self.port)])
        self._add_peer(place.gateway, public[0], "10.77.0.2/32", [])
        self._configure(place.client, private[0], "10.77.0.2", [])
        endpoint = ["endpoint", f"{GATEWAY_PUBLIC}:{self.port}", "persistent-keepalive", "25"]
        self._add_peer(place.client, public[1], f"10.77.0.1/32,{self.app}/32", endpoint)
        place.client.run(["ip", "route", "replace", str(self.app), "dev", self.interface]).check()
        wait(lambda: reaches(place, self.target()), 10.0, f"{self.name} connects", *self._processes.values())
        self._facts = {f"tun at the {role}": _tun_of(node, self.interface) for role, node in self._ends(place).items()}

    def target(self) -> str:
        """The app's address behind the tunnel."""
        return str(self.app)

    def processes(self) -> Mapping[str, Process]:
        """Both ends."""
        return self._processes

    def facts(self) -> Mapping[str, str]:
        """Version, and whether the TUN devices take super-packets."""
        return {"version": self.version, **self._facts}

    def _ends(self, place: Place) -> dict[str, Node]:
        return {"client": place.client, "gateway": place.gateway}

    def _configure(self, node: Node, private_key: str, address: str, words: Sequence[str]) -> None:
        key = ["wg", "set", self.interface, "private-key", "/dev/stdin", *words]
        node.run(key, stdin=private_key.encode()).check()
        node.run(["ip", "address", "add", f"{address}/24", "dev", self.interface]).check()
        node.run(["ip", "link", "set", self.interface, "mtu", str(TUNNEL_MTU), "up"]).check()

    def _add_peer(self, node: Node, public_key: str, allowed: str, words: Sequence[str]) -> None:
        node.run(["wg", "set", self.interface, "peer", public_key, "allowed-ips", allowed, *words]).check()


def _new_key(node: Node) -> tuple[str, str]:
    private = node.run(["wg", "genkey"]).check().stdout
    return private, node.run(["wg", "pubkey"], stdin=private.encode()).check().stdout.strip()


def _tun_of(node: Node, interface: str) -> str:
    shown = node.run(["ip", "-d", "link", "show", interface]).check().stdout
    return "vnet_hdr on" if "vnet_hdr on" in shown else "vnet_hdr off"
