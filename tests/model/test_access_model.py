"""Random changes of policies and random packets: what comes back is what a small model of the rules says.

The model knows resources and filters, but neither gateways, sessions, flows nor time.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.product import CLIENT_V4, SITE, Product, product, resource_id
from wardgate.ids import ResourceId
from wardgate.wire import ip, portal
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import IpAddress

Outcome = Literal["reply", "prohibited", "nothing"]
APP, NEIGHBOUR = ip_address("10.9.0.2"), ip_address("10.9.0.3")
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
    resource_id(3): "10.9.0.2/32",
}
PATTERNS: dict[ResourceId, str] = {resource_id(4): "app.example", resource_id(5): "*.example"}


@dataclass(frozen=True)
class Allow:
    resource_id: ResourceId
    filters: str


@dataclass(frozen=True)
class Forbid:
    resource_id: ResourceId


@dataclass(frozen=True)
class Probe:
    target: str
    kind: Literal["ping", "tcp", "udp"]
    port: int


@dataclass(frozen=True)
class Idle:
    seconds: float


Step = Allow | Forbid | Probe | Idle


@dataclass
class Model:
    """The rules: which resource a packet belongs to, and whether it passes."""

    filters: dict[ResourceId, str] = field(default_factory=dict)

    def expect(self, probe: Probe) -> Outcome:
        if probe.target in NAMES:
            covering = [one for one in PATTERNS if one in self.filters and self._covers(one, probe.target)]
            if not covering:
                return "prohibited"
        else:
            address = ip_address(probe.target)
            covering = [one for one in NETWORKS if one in self.filters and address in IPv4Network(NETWORKS[one])]
            if not covering:
                return "nothing"
        return "reply" if any(self._permits(one, probe) for one in covering) else "prohibited"

    def _covers(self, resource: ResourceId, name: str) -> bool:
        return PATTERNS[resource] in (name, "*.example")

    def _permits(self, resource: ResourceId, probe: Probe) -> bool:
        match self.filters[resource]:
            case "all":
                return True
            case "web":
                return probe.kind == "tcp" and probe.port in (80, 81)
            case "ping":
                return probe.kind == "ping"
            case _:
                return probe.kind == "udp" and probe.port == 53


def steps() -> st.SearchStrategy[list[Step]]:
    ids = st.sampled_from([*NETWORKS, *PATTERNS])
    kinds: st.SearchStrategy[Literal["ping", "tcp", "udp"]] = st.sampled_from(["ping", "tcp", "udp"])
    probe = st.builds(Probe, st.sampled_from([str(APP), str(NEIGHBOUR), *NAMES]), kinds, st.sampled_from([53, 80, 82]))
    allow = st.builds(Allow, ids, st.sampled_from(sorted(FILTERS)))
    idle = st.builds(Idle, st.sampled_from([0.0, 30.0, 200.0]))
    first = st.lists(allow, min_size=2, max_size=5)
    more = st.lists(st.one_of(allow, probe, probe, probe, st.builds(Forbid, ids), idle), min_size=6, max_size=14)
    return st.builds(lambda start, rest: [*start, *rest], first, more)


class System:
    """The real thing, with the applications' side of it."""

    def __init__(self) -> None:
        self.lab: Product = product(gateways=2)
        for gateway in self.lab.gateways:
            gateway.lan.names.update({NAMES[0]: (APP,), NAMES[1]: (NEIGHBOUR,)})
        self.addresses: dict[str, IpAddress] = {}
        self.port = 20_000

    def allow(self, step: Allow) -> None:
        filters = FILTERS[step.filters]
        if step.resource_id in NETWORKS:
            address = ip_network(NETWORKS[step.resource_id])
            self.lab.portal.allow(
                portal.CidrResource(id=step.resource_id, address=address, name="n", sites=(SITE,), filters=filters)
            )
        else:
            pattern = PATTERNS[step.resource_id]
            self.lab.portal.allow(
                portal.DnsResource(id=step.resource_id, address=pattern, name="d", sites=(SITE,), filters=filters)
            )
        self.lab.run(0.1)

    def forbid(self, step: Forbid) -> None:
        self.lab.portal.forbid(step.resource_id)
        self.lab.run(6.0)

    def probe(self, probe: Probe) -> Outcome:
        destination = self.addresses.get(probe.target) or ip_address(probe.target)
        start = len(self.lab.client.received)
        self.port += 1
        self.lab.client.send(self._packet(probe, destination))
        self.lab.run(3.0)
        # A bare SYN comes from the client itself, to reset a connection that a change has cut.
        packets = [one for _, one in self.lab.client.received[start:] if one.tcp_flags != ip.SYN]
        if not packets:
            return "nothing"
        (packet,) = packets
        assert packet.source == destination
        if packet.is_icmp_error:
            assert (packet.icmp_type, packet.icmp_code) == (3, 13)
            return "prohibited"
        return "reply"

    def _packet(self, probe: Probe, destination: IpAddress) -> bytes:
        source, remote = SocketAddr(str(CLIENT_V4), self.port), SocketAddr(str(destination), probe.port)
        match probe.kind:
            case "ping":
                return ip.icmp_echo(CLIENT_V4, destination, self.port, 1)
            case "tcp":
                return ip.tcp_packet(source, remote, ip.SYN)
            case "udp":
                return ip.udp_packet(source, remote, b"probe")

    def resolve(self, name: str) -> None:
        """Applications look a name up before they use it, if it is a resource's."""
        self.addresses[name] = self.lab.ask_name(name)[0]


@settings(max_examples=20, deadline=None)
@given(steps())
def test_what_comes_back_is_what_the_rules_say(taken: list[Step]) -> None:
    system, model = System(), Model()
    for step in taken:
        match step:
            case Allow():
                model.filters[step.resource_id] = step.filters
                system.allow(step)
            case Forbid(resource):
                if model.filters.pop(resource, None) is not None:
                    system.forbid(step)
            case Idle(seconds):
                system.lab.run(seconds)
            case Probe(target):
                if target in NAMES:
                    if any(one in model.filters and model._covers(one, target) for one in PATTERNS):
                        system.resolve(target)
                    elif target not in system.addresses:
                        continue
                assert system.probe(step) == model.expect(step), step
