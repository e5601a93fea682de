"""What a lab is going to do, without doing it."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from wardgate.errors import LabError
from wardgate.lab import Host, Link, Nat, NatKind, Site, Topology, topologies
from wardgate.lab.messages import Message
from wardgate.lab.plan import plan, wire_ends

HOME = Site(
    "home",
    IPv4Network("192.168.7.0/24"),
    IPv4Address("203.0.113.50"),
    hosts=(Host("laptop", IPv4Address("192.168.7.10")),),
)


def test_nodes_are_named_for_their_part() -> None:
    assert list(topologies.demo(gateway_nat=NatKind.CARRIER_GRADE).nodes()) == [
        *("wan", "portal", "relay-1", "relay-2", "client-nat", "client"),
        *("gateway-cgn", "gateway-nat", "gateway-1", "gateway-2", "app", "neighbour"),
    ]


@pytest.mark.parametrize("kind", NatKind)
def test_every_operation_concerns_nodes_that_exist(kind: NatKind) -> None:
    topology = topologies.demo(kind, kind)
    names = set(topology.nodes())
    for operation in plan(topology):
        assert operation["node"] in names
        assert operation.get("peer_node", "wan") in names


def test_machine_without_ipv6_is_asked_for_none() -> None:
    def has_ipv6(operation: Message) -> bool:
        return any(":" in str(operation.get(key, "")) for key in ("address", "destination", "gateway"))

    assert any(has_ipv6(operation) for operation in plan(topologies.demo()))
    assert not any(has_ipv6(operation) for operation in plan(topologies.demo(), ipv6=False))


def test_translated_network_is_unknown_on_the_wan_and_open_one_is_routed() -> None:
    def routed(kind: NatKind) -> bool:
        site = replace(HOME, nat=Nat(kind))
        return any(
            operation["op"] == "route" and operation["node"] == "wan" and operation["destination"] == str(HOME.ipv4)
            for operation in plan(Topology(sites=(site,)))
        )

    assert routed(NatKind.NONE)
    assert not any(routed(kind) for kind in NatKind if kind is not NatKind.NONE)


def test_only_a_wire_with_delay_gets_a_delay_line() -> None:
    topology = topologies.demo(client_link=Link(delay_ms=20))
    delayed = [operation for operation in plan(topology) if operation["op"] == "delayed_wire"]
    assert [(wire["node"], wire["delay_ms"]) for wire in delayed] == [("client-nat", 20)]


def test_wires_are_named_for_the_node_at_their_near_end() -> None:
    topology = topologies.demo(client_nat=NatKind.CARRIER_GRADE)
    assert wire_ends(topology, "portal") == (("portal", "eth0"), ("wan", "portal"))
    assert wire_ends(topology, "client") == (("client", "eth0"), ("client-nat", "client"))
    assert wire_ends(topology, "client-cgn") == (("client-cgn", "wan0"), ("wan", "client-cgn"))
    with pytest.raises(LabError, match="moon"):
        wire_ends(topology, "moon")


def test_moving_a_host_leaves_it_in_one_place() -> None:
    topology = topologies.demo()
    client, _ = topology.host("client")

    moved = topology.with_host(replace(client, ipv4=IPv4Address("10.9.0.50"), ipv6=None), "gateway")

    assert moved.site("client").hosts == ()
    host, site = moved.host("client")
    assert (host.ipv4, site) == (IPv4Address("10.9.0.50"), moved.site("gateway"))
    assert moved.with_host(client, None).host("client") == (client, None)


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: Host("Upper", IPv4Address("10.0.0.1")), "not a name"),
        (lambda: Host("a-name-of-16-char", IPv4Address("10.0.0.1")), "at most 15"),
        (lambda: replace(HOME, name="twelve-chars"), "at most 11"),
        (lambda: replace(HOME, hosts=(Host("a", IPv4Address("10.0.0.1")),)), "outside its site's 192.168.7.0/24"),
        (lambda: replace(HOME, ipv6=IPv6Network("2001:db8:7::/64")), "needs both"),
        (
            lambda: replace(HOME, hosts=(Host("a", IPv4Address("192.168.7.2"), IPv6Address("2001:db8::1")),)),
            "outside its site's None",
        ),
        (lambda: Topology(hosts=(Host("home-nat", IPv4Address("203.0.113.2")),), sites=(HOME,)), "two nodes"),
        (lambda: Link(delay_ms=-1), "delay"),
        (lambda: Link(rate_mbit=0), "rate"),
        (lambda: Link(loss=1.1), "loss"),
        (lambda: Link(mtu=60), "MTU"),
        (lambda: Nat(carrier=NatKind.CARRIER_GRADE), "carrier"),
        (lambda: Nat(timeout_s=0), "one second"),
    ],
)
def test_values_that_make_no_sense_are_refused(build: object, complaint: str) -> None:
    assert callable(build)
    with pytest.raises(LabError, match=complaint):
        build()


def test_rate_and_loss_are_set_at_both_ends_of_a_wire() -> None:
    lossy = Host("laptop", IPv4Address("192.168.7.10"), link=Link(loss=0.5, rate_mbit=3, mtu=1400))
    made = plan(Topology(sites=(replace(HOME, hosts=(lossy,)),)))
    for node, interface in (("laptop", "eth0"), ("home-nat", "laptop")):
        ops = {operation["op"] for operation in made if operation.get("interface") == interface}
        assert {"rate", "whole_packets"} <= ops
        assert any("numgen random mod 1000000 < 500000" in o.get("text", "") for o in made if o["node"] == node)
