"""Random operations on the whole product, and a small model of what must and what must not get through.

The model knows rules, names and who is there; it knows neither sessions, flows, candidates nor timers. A run is made of
a seed alone, and the same seed makes the same run, datagram for datagram.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Literal

from tests.sim.network import Nat, RelayNode
from tests.sim.product import CLIENT_V4, CLIENT_V6, SITE, Product, product, resource_id
from wardgate.ids import ResourceId
from wardgate.wire import ip, portal
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import IpAddress, Packet

Outcome = Literal["reply", "prohibited", "nothing"]
APP, NEIGHBOUR, APP_V6 = ip_address("10.9.0.2"), ip_address("10.9.0.3"), ip_address("fd00:9::2")
HOSTS = (APP, NEIGHBOUR, APP_V6)
NAMES = ("app.example", "db.example")
FILTERS: dict[str, tuple[portal.Filter, ...]] = {
    "all": (),
    "web": (portal.Filter(protocol="tcp", port_range_start=80, port_range_end=81),),
    "ping": (portal.Filter(protocol="icmp"),),
    "dns": (portal.Filter(protocol="udp", port_range_start=53, port_range_end=53),),
}
NETWORKS: dict[ResourceId, str] = {
    resource_id(1): "10.9.0.0/24",
    resource_id(2): "10.9.0.2/32",
    resource_id(3): "fd00:9::/64",
}
PATTERNS: dict[ResourceId, str] = {resource_id(4): "app.example", resource_id(5): "*.example"}
RESOURCES = (*NETWORKS, *PATTERNS)
REVOKED_WITHIN_S = 1.0
HEALS_WITHIN_S = 30.0
HEALING_S = 10.0
"""So long paths may still change after something broke, and single packets be lost with them."""
SETTLES_S = 6.0
"""How long a client keeps flows in mind that were cut, to reset them."""


@dataclass(frozen=True)
class Probe:
    """One packet of an application.

    Attributes:
        is_running: It belongs to a flow that is used again and again, not to one of its own.
    """

    target: str
    kind: Literal["ping", "tcp", "udp"]
    port: int
    is_running: bool = False

    def permitted_by(self, filters: str) -> bool:
        match filters:
            case "all":
                return True
            case "web":
                return self.kind == "tcp" and self.port in (80, 81)
            case "ping":
                return self.kind == "ping"
            case _:
                return self.kind == "udp" and self.port == 53


@dataclass
class Model:
    """The rules that are in force.

    Attributes:
        filters: What each allowed resource permits, by name.
        records: What names stand for behind the gateways.
    """

    filters: dict[ResourceId, str] = field(default_factory=dict)
    records: dict[str, tuple[IpAddress, ...]] = field(default_factory=dict)

    def covering(self, probe: Probe) -> list[ResourceId]:
        """The resources that a packet may belong to."""
        if probe.target in NAMES:
            return [one for one in PATTERNS if one in self.filters and PATTERNS[one] in (probe.target, "*.example")]
        address = ip_address(probe.target)
        return [one for one in NETWORKS if one in self.filters and address in ip_network(NETWORKS[one])]

    def expect(self, probe: Probe) -> Outcome:
        """What comes back when everything is there."""
        covering = self.covering(probe)
        if not covering:
            return "prohibited" if probe.target in NAMES else "nothing"
        return "reply" if any(probe.permitted_by(self.filters[one]) for one in covering) else "prohibited"

    def permits(self, packet: Packet) -> bool:
        """Whether a packet may be behind a gateway at all."""
        kind: Any = {ip.TCP: "tcp", ip.UDP: "udp"}.get(packet.protocol, "ping")
        port = packet.destination_port
        probe = Probe(str(packet.destination), kind, port)
        covering = [one for one in NETWORKS if packet.destination in ip_network(NETWORKS[one])]
        for one, pattern in PATTERNS.items():
            names = [name for name in NAMES if pattern in (name, "*.example")]
            if any(packet.destination in self.records.get(name, ()) for name in names):
                covering.append(one)
        return any(one in self.filters and probe.permitted_by(self.filters[one]) for one in covering)

    def copy(self) -> "Model":
        return Model(dict(self.filters), dict(self.records))


class Run:
    """One run of a seed; `log` says what was done, for whoever has to find out what went wrong.

    In some runs the client is naive: it is told of no filters, and not of what it may not reach any more, so that all
    depends on the gateways.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.model = Model()
        self.log: list[str] = []
        self.lab = self._lab()
        self.addresses: dict[str, tuple[IpAddress, ...]] = {}
        self.is_troubled = False
        self._troubled_at = 0.0
        self._told_last: Model | None = None
        self._worked: Probe | None = None
        self._ports = 20_000
        self._history: list[tuple[float, Model]] = [(0.0, self.model.copy())]
        self._checked = [0 for _ in self.lab.gateways]
        self._hosts = 100

    def _lab(self) -> Product:
        draw = self.random
        self.iceless, self.is_naive = draw.random() < 0.5, draw.random() < 0.4
        gateways, relays = draw.choice((1, 2)), draw.choice((1, 1, 2))
        lab = product(gateways=gateways, relays=relays, seed=draw.randrange(1 << 30), symmetric=draw.random() < 0.3)
        lab.portal.iceless = self.iceless
        self.log.append(f"iceless={self.iceless} naive={self.is_naive} gateways={gateways} relays={relays}")
        for name, address in zip(NAMES, (APP, NEIGHBOUR), strict=True):
            self._set_record(lab, name, (address, APP_V6) if draw.random() < 0.5 else (address,))
        for attachment in (lab.world.attachment(lab.client.program.address.host),):
            attachment.jitter_s = draw.choice((0.0, 0.0, 0.01))
            attachment.duplicates = draw.choice((0.0, 0.0, 0.1))
        return lab

    def _set_record(self, lab: Product, name: str, addresses: tuple[IpAddress, ...]) -> None:
        self.model.records[name] = (*addresses, *self.model.records.get(name, ()))
        for gateway in lab.gateways:
            gateway.lan.names[name] = addresses

    # --- the run --------------------------------------------------------------------------------------------------

    def play(self, steps: int = 8) -> "Run":
        """Does random things and looks at what comes of them.

        Raises:
            AssertionError: Something got through that must not, or did not that must.
        """
        for _ in range(2):
            self._allow()
        for _ in range(steps):
            self.random.choices(*zip(*self._choices(), strict=True))[0]()
            self._check_lan()
        if self.lab.portal.is_down:
            self._portal_comes_back()
        if not any(gateway.is_up for gateway in self.lab.gateways):
            self._revive()
        self._probe()
        self._check_lan()
        return self

    def _choices(self) -> list[tuple[Callable[[], None], float]]:
        is_away = self.lab.portal.is_down
        return [
            (self._probe, 8.0),
            (self._allow, 2.0),
            (self._forbid, 3.0 if is_away else 1.0),
            (self._client_moves, 0.5),
            (self._gateway_moves, 0.3),
            (self._ports_change, 0.7),
            (self._gateway_dies, 0.5),
            (self._gateway_restarts, 0.5),
            (self._relay_restarts, 0.4),
            (self._portal_goes, 3.0 if is_away else 1.0),
            (self._records_change, 0.7),
            (self._loss, 0.4),
            (self._idle, 0.8),
        ]

    def digest(self) -> str:
        """Every datagram of the run, in a few letters."""
        state = hashlib.sha256()
        for at, source, destination, payload in self.lab.world.delivered:
            state.update(f"{at:.6f}{source}{destination}".encode() + payload)
        return state.hexdigest()

    # --- what an admin does ---------------------------------------------------------------------------------------

    def _allow(self) -> None:
        resource, filters = self.random.choice(RESOURCES), self.random.choice(sorted(FILTERS))
        self.log.append(f"allow {resource[-2:]} {filters}")
        narrows = resource in self.model.filters
        self.model.filters[resource] = filters
        told = () if self.is_naive else FILTERS[filters]
        self.lab.portal.gateway_filters[resource] = FILTERS[filters]
        fields: dict[str, Any] = {"id": resource, "name": "n", "sites": (SITE,), "filters": told}
        if resource in NETWORKS:
            self.lab.portal.allow(portal.CidrResource(address=ip_network(NETWORKS[resource]), **fields))
        else:
            self.lab.portal.allow(portal.DnsResource(address=PATTERNS[resource], **fields))
        self._tell_gateways(resource)
        self._changed(SETTLES_S if narrows else 0.1)

    def _tell_gateways(self, resource: ResourceId) -> None:
        """As the portal does: who has a grant for a resource hears of its filters."""
        gateway_id = self.lab.portal.grants.get(resource)
        if gateway_id is not None:
            view = self.lab.portal._gateway_view(self.lab.portal.resources[resource])
            self.lab.portal.to_gateway(gateway_id, portal.ResourceUpdated(resource=view))

    def _forbid(self) -> None:
        if self.model.filters:
            resource = self.random.choice(sorted(self.model.filters))
            self.log.append(f"forbid {resource[-2:]}")
            del self.model.filters[resource]
            self.lab.portal.forbid(resource, is_client_told=not self.is_naive)
            self._changed(SETTLES_S)

    def _changed(self, settles_s: float) -> None:
        self._history.append((self.lab.world.now, self.model.copy()))
        if not self.lab.portal.is_down:
            self.lab.run(settles_s)

    def _records_change(self) -> None:
        name = self.random.choice(NAMES)
        addresses = self.random.choice(((APP,), (NEIGHBOUR,), (APP, APP_V6)))
        self.log.append(f"{name} is {addresses}")
        self._set_record(self.lab, name, addresses)
        self._history.append((self.lab.world.now, self.model.copy()))

    def _trouble(self) -> None:
        self.is_troubled, self._troubled_at = True, self.lab.world.now

    # --- misfortunes ----------------------------------------------------------------------------------------------

    def _client_moves(self) -> None:
        self._hosts += 1
        self.log.append("client moves")
        self.lab.client.move(f"192.168.1.{self._hosts}")
        self._trouble()

    def _gateway_moves(self) -> None:
        gateway = self.random.choice(self.lab.gateways)
        if gateway.is_up:
            self._hosts += 1
            self.log.append("gateway moves")
            gateway.move(f"192.168.10.{self._hosts}")
            self._trouble()

    def _ports_change(self) -> None:
        programs = [self.lab.client.program, *(gateway.program for gateway in self.lab.gateways)]
        nat = self.lab.world.attachment(self.random.choice(programs).address.host).nat
        assert isinstance(nat, Nat)
        self.log.append("a NAT's ports change")
        nat.change_ports()
        self._trouble()

    def _gateway_dies(self) -> None:
        gateway = self.random.choice(self.lab.gateways)
        self.log.append("gateway dies")
        gateway.kill()
        self._trouble()

    def _gateway_restarts(self) -> None:
        gateway = self.random.choice(self.lab.gateways)
        self.log.append("gateway restarts")
        gateway.restart()
        self._trouble()

    def _revive(self) -> None:
        self.log.append("gateway comes back")
        self.lab.gateways[0].restart()
        self.lab.run(1.0)

    def _relay_restarts(self) -> None:
        relay = self.random.choice(self.lab.portal.relays)
        if self.lab.portal.is_down:
            return
        self.log.append("relay restarts")
        self.lab.world.detach(relay.host)
        again = RelayNode(self.lab.world, relay.host, f"{self._hosts:064x}", number=200 + self._hosts)
        self._hosts += 1
        self.lab.portal.announce(again)
        self.lab.world.at(self.lab.world.now + 1.0, lambda: self.lab.portal.announce(gone=[relay]))
        self._trouble()

    def _portal_goes(self) -> None:
        if self.lab.portal.is_down:
            self._portal_comes_back()
        else:
            self.log.append("portal goes")
            self._told_last = self.model.copy()
            self.lab.portal.go_down()

    def _portal_comes_back(self) -> None:
        self.log.append("portal comes back")
        self._told_last = None
        self.lab.portal.come_back()
        self._history.append((self.lab.world.now, self.model.copy()))
        self._trouble()
        self.lab.run(SETTLES_S)

    def _loss(self) -> None:
        self.log.append("a fifth is lost for two seconds")
        attachment = self.lab.world.attachment(self.lab.client.program.address.host)
        attachment.loss = 0.2
        self.lab.run(2.0)
        attachment.loss = 0.0
        self._trouble()

    def _idle(self) -> None:
        seconds = self.random.choice((0.5, 30.0, 200.0))
        self.log.append(f"idle {seconds}")
        self.lab.run(seconds)

    # --- what comes back ------------------------------------------------------------------------------------------

    def _probe(self) -> None:
        probe = self._draw_probe()
        target = probe.target
        if target in NAMES and not self._resolve(target):
            return
        expected = (self._told_last or self.model).expect(probe)
        patience_s = HEALS_WITHIN_S if self.is_troubled else 3.0
        self.log.append(f"{probe} -> {expected}{' (troubled)' if self.is_troubled else ''}")
        outcome = self._try(probe, expected, patience_s)
        self._worked = probe if outcome == "reply" else self._worked
        if self.is_naive and (expected != "reply" or outcome == "prohibited"):
            # It may ask for a resource that does not permit the packet, although another one does.
            assert outcome != "reply", self._told(probe, expected, outcome)
            return
        if self._may_fail(expected):
            assert outcome in (expected, "nothing", "prohibited"), self._told(probe, expected, outcome)
            return
        assert outcome == expected, self._told(probe, expected, outcome)
        is_healing = expected != "reply" or self.lab.world.now < self._troubled_at + HEALING_S
        self.is_troubled = self.is_troubled and is_healing

    def _draw_probe(self) -> Probe:
        """Often what worked a moment ago."""
        if self._worked is not None and self.random.random() < 0.5:
            return self._worked
        kind: Any = self.random.choice(("ping", "tcp", "udp"))
        target = self.random.choice((*map(str, HOSTS), *NAMES))
        return Probe(target, kind, self.random.choice((53, 80, 82)), self.random.random() < 0.5)

    def _may_fail(self, expected: Outcome) -> bool:
        """Without portal or gateway nothing new comes to be; what was there may go on."""
        is_alone = not any(gateway.is_up for gateway in self.lab.gateways)
        return expected == "reply" and (self.lab.portal.is_down or is_alone)

    def _told(self, probe: Probe, expected: Outcome, outcome: Outcome) -> str:
        return f"seed {self.seed}: {probe} gave {outcome}, not {expected}\n  " + "\n  ".join(self.log)

    def _resolve(self, name: str) -> bool:
        """Applications look a name up before they use it; whether it is a resource's."""
        if not any(one in self.model.filters and PATTERNS[one] in (name, "*.example") for one in PATTERNS):
            return False
        if self.lab.portal.is_down:
            return name in self.addresses and False
        found = tuple(self.lab.ask_name(name))
        assert self.addresses.setdefault(name, found) == found, f"seed {self.seed}: {name} has other proxy addresses"
        self.lab.run(0.5)
        return True

    def _try(self, probe: Probe, expected: Outcome, patience_s: float) -> Outcome:
        """Sends the probe, again and again while it is not answered as expected; gives the last answer."""
        until, outcome = self.lab.world.now + patience_s, "nothing"
        while self.lab.world.now < until:
            outcome = self._once(probe, 0.5 if patience_s > 3.0 else 3.0)
            if (outcome == expected and expected != "nothing") or (self.is_naive and outcome == "prohibited"):
                break
            if expected == "nothing" and self.lab.world.now > until - patience_s + 1.0:
                break
        return outcome  # type: ignore[return-value]

    def _once(self, probe: Probe, wait_s: float) -> Outcome:
        destination = self.addresses[probe.target][0] if probe.target in NAMES else ip_address(probe.target)
        start = len(self.lab.client.received)
        self._ports += 1
        port = 7000 + (*map(str, HOSTS), *NAMES).index(probe.target) if probe.is_running else 0
        self.lab.client.send(self._packet(probe, destination, port or self._ports))
        self.lab.run(wait_s)
        received = [one for _, one in self.lab.client.received[start:] if one.tcp_flags != ip.SYN]
        packets = [one for one in received if self._is_about(one, probe, port or self._ports)]
        if not packets:
            return "nothing"
        if packets[-1].is_icmp_error:
            is_prohibited = (packets[-1].icmp_type, packets[-1].icmp_code) in ((3, 13), (1, 1))
            return "prohibited" if is_prohibited else "nothing"
        return "reply"

    def _is_about(self, packet: Packet, probe: Probe, port: int) -> bool:
        if packet.is_icmp_error:
            return port.to_bytes(2, "big") in packet.payload or port.to_bytes(2, "big") in packet.raw
        if packet.icmp_id is not None:
            return packet.icmp_id == port
        return packet.destination_port == port

    def _packet(self, probe: Probe, destination: IpAddress, port: int) -> bytes:
        own: IpAddress = CLIENT_V4 if destination.version == 4 else CLIENT_V6
        source, remote = SocketAddr(str(own), port), SocketAddr(str(destination), probe.port)
        match probe.kind:
            case "ping":
                return ip.icmp_echo(own, destination, port, 1)
            case "tcp":
                return ip.tcp_packet(source, remote, ip.SYN)
            case "udp":
                return ip.udp_packet(source, remote, b"probe")

    def _check_lan(self) -> None:
        """Nothing is behind a gateway that no rule of the last second allowed, as far as the gateway could know."""
        for number, gateway in enumerate(self.lab.gateways):
            lan, start = gateway.lan, self._checked[number]
            self._checked[number] = len(lan.received)
            for at, packet in zip(lan.received_at[start:], lan.received[start:], strict=True):
                assert self._was_permitted(at, packet), (
                    f"seed {self.seed}: {packet.key} got through at {at}\n  " + "\n  ".join(self.log)
                )

    def _was_permitted(self, at: float, packet: Packet) -> bool:
        if self.lab.portal.is_down:
            return True  # nobody can be told of changes now; what was allowed before goes on
        for number, (since, rules) in enumerate(self._history):
            until = self._history[number + 1][0] if number + 1 < len(self._history) else float("inf")
            if since <= at and at - REVOKED_WITHIN_S <= until and rules.permits(packet):
                return True
        return False
