"""Programs that speak WireGuard and are configured with `wg`: wireguard-go, gotatun."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from bench.contenders.base import tun_of
from bench.place import GATEWAY_PUBLIC, TUNNEL_MTU, Place, reaches, wait
from wardgate.lab.node import Node
from wardgate.lab.process import Process


@dataclass
class UserSpaceWireGuard:
    """One such program at both ends.

    Attributes:
        name: What it is called; also the interface at both ends.
        argv: How to start it in the foreground, before the interface's name.
        app: Where the app answers to it.
        port: The gateway's UDP port.
        network: The first three numbers of the tunnel's addresses, nobody else's.
    """

    name: str
    argv: Sequence[str]
    app: IPv4Address
    port: int
    network: str
    _processes: dict[str, Process] = field(default_factory=dict)
    _facts: dict[str, str] = field(default_factory=dict)

    def start(self, place: Place) -> None:
        """Starts both ends, and configures keys, addresses and routes as `wg-quick` would."""
        place.app_answers_at(self.app)
        place.forward_port(self.name, self.port)
        place.masquerade(self.name, f"iifname {self.name}")
        client, gateway = place.client, place.gateway
        self._start_program(place, "client", client)
        self._start_program(place, "gateway", gateway)
        client_private, client_public = _new_key(client)
        gateway_private, gateway_public = _new_key(gateway)
        self._configure(gateway, gateway_private, 1, ["listen-port", str(self.port)])
        self._configure(client, client_private, 2, [])
        self._add_peer(gateway, client_public, f"{self.network}.2/32", [])
        endpoint = ["endpoint", f"{GATEWAY_PUBLIC}:{self.port}", "persistent-keepalive", "25"]
        self._add_peer(client, gateway_public, f"{self.network}.1/32,{self.app}/32", endpoint)
        client.run(["ip", "route", "replace", str(self.app), "dev", self.name]).check()
        wait(lambda: reaches(place, self.target()), 10.0, f"{self.name} connects", *self._processes.values())
        self._facts = {"tun at the client": tun_of(client, self.name), "tun at the gateway": tun_of(gateway, self.name)}

    def target(self) -> str:
        """The app's address behind the tunnel."""
        return str(self.app)

    def processes(self) -> Mapping[str, Process]:
        """Both ends."""
        return self._processes

    def facts(self) -> Mapping[str, str]:
        """Whether the TUN devices take super-packets."""
        return self._facts

    def _start_program(self, place: Place, role: str, node: Node) -> None:
        process = place.start(f"{self.name}-{role}", node.name, [*self.argv, self.name], {"WG_SUDO": "1"})
        self._processes[role] = process
        socket = f"/var/run/wireguard/{self.name}.sock"
        wait(lambda: node.path_exists(socket), 10.0, f"{self.name} starts", process)

    def _configure(self, node: Node, private_key: str, host: int, words: Sequence[str]) -> None:
        key = ["wg", "set", self.name, "private-key", "/dev/stdin", *words]
        node.run(key, stdin=private_key.encode()).check()
        node.run(["ip", "address", "add", f"{self.network}.{host}/24", "dev", self.name]).check()
        node.run(["ip", "link", "set", self.name, "mtu", str(TUNNEL_MTU), "up"]).check()

    def _add_peer(self, node: Node, public_key: str, allowed: str, words: Sequence[str]) -> None:
        node.run(["wg", "set", self.name, "peer", public_key, "allowed-ips", allowed, *words]).check()


def _new_key(node: Node) -> tuple[str, str]:
    private = node.run(["wg", "genkey"]).check().stdout
    return private, node.run(["wg", "pubkey"], stdin=private.encode()).check().stdout.strip()
