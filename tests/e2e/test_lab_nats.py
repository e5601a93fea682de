"""Each kind of NAT shows its mapping and its filtering with real sockets; RFC 4787, sections 4 to 6, has the terms."""

import itertools
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from wardgate.lab import Host, Lab, Nat, NatKind, Site, Topology, wait_until

pytestmark = pytest.mark.netns

FAR = "203.0.113.10"
OTHER = "203.0.113.11"
TIMEOUT_S = 5
SILENCE_S = 0.15
"""How long nothing must arrive; what does arrive takes less than a millisecond here."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a kind of NAT promises: whose packets come in, and whether insiders meet on their public addresses."""

    nat: Nat
    one_mapping: bool = True
    one_for_an_address: bool = True
    from_other_port: bool = False
    from_other_host: bool = False
    hairpins: bool = False


def symmetric(kind: NatKind, **admits: bool) -> Behaviour:
    return Behaviour(Nat(kind), one_mapping=False, one_for_an_address=False, **admits)


BEHAVIOURS = {
    "full": Behaviour(Nat(NatKind.FULL_CONE), from_other_port=True, from_other_host=True, hairpins=True),
    "address": Behaviour(Nat(NatKind.ADDRESS_RESTRICTED), from_other_port=True, hairpins=True),
    "port": Behaviour(Nat(NatKind.PORT_RESTRICTED)),
    "adm-eif": Behaviour(Nat(NatKind.ADM_EIF), one_mapping=False, from_other_port=True, from_other_host=True),
    "adm-adf": Behaviour(Nat(NatKind.ADM_ADF), one_mapping=False, from_other_port=True),
    "adm-apdf": Behaviour(Nat(NatKind.ADM_APDF), one_mapping=False),
    "apdm-eif": symmetric(NatKind.APDM_EIF, from_other_port=True, from_other_host=True),
    "apdm-adf": symmetric(NatKind.APDM_ADF, from_other_port=True),
    "sym": symmetric(NatKind.SYMMETRIC),
    "cgnat": Behaviour(Nat(NatKind.CARRIER_GRADE)),
    "cgn-sym": Behaviour(
        Nat(NatKind.CARRIER_GRADE, carrier=NatKind.SYMMETRIC), one_mapping=False, one_for_an_address=False
    ),
}
TRANSLATING = list(BEHAVIOURS)
ALL_KINDS = [*TRANSLATING, "blocked", "open"]

_ports = itertools.count(20_000)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    nats = {name: behaviour.nat for name, behaviour in BEHAVIOURS.items()}
    nats |= {"blocked": Nat(NatKind.UDP_BLOCKED), "open": Nat(NatKind.NONE)}
    nats["brief"] = Nat(NatKind.FULL_CONE, timeout_s=1)
    sites = tuple(site(index, name, nat) for index, (name, nat) in enumerate(nats.items()))
    far = (Host("far", IPv4Address(FAR), IPv6Address("2001:db8:113::10")), Host("other", IPv4Address(OTHER)))
    with Lab(Topology(hosts=far, sites=sites)) as running:
        yield running


@pytest.mark.parametrize("kind", TRANSLATING)
def test_mapping_towards_two_destinations(lab: Lab, kind: str) -> None:
    local, far, other = bound(lab, f"{kind}-a"), bound(lab, "far"), bound(lab, "other")
    far_again = bound(lab, "far")

    seen = [public_address(local, remote) for remote in (far, far_again, other)]

    assert {host for host, _ in seen} == {str(site_of(lab, kind).public_ipv4)}
    assert (len(set(seen)) == 1) == BEHAVIOURS[kind].one_mapping
    assert (seen[0] == seen[1]) == BEHAVIOURS[kind].one_for_an_address
    assert public_address(local, far) == seen[0]


@pytest.mark.parametrize("kind", TRANSLATING)
def test_filtering_lets_in_what_the_kind_promises(lab: Lab, kind: str) -> None:
    local, far, other = bound(lab, f"{kind}-a"), bound(lab, "far"), bound(lab, "other")
    far_again = bound(lab, "far")
    public = public_address(local, far)

    assert passes(far, public, local)
    assert passes(far_again, public, local) == BEHAVIOURS[kind].from_other_port
    assert passes(other, public, local) == BEHAVIOURS[kind].from_other_host


@pytest.mark.parametrize("kind", TRANSLATING)
def test_answer_to_a_stranger_that_came_in_keeps_the_mapping(lab: Lab, kind: str) -> None:
    local, far, other = bound(lab, f"{kind}-a"), bound(lab, "far"), bound(lab, "other")
    public = public_address(local, far)
    came_in = passes(other, public, local)

    kept = came_in or BEHAVIOURS[kind].one_mapping
    assert (public_address(local, other) == public) == kept


@pytest.mark.parametrize("kind", [kind for kind in TRANSLATING if BEHAVIOURS[kind].one_mapping])
def test_unsolicited_packet_does_not_cost_the_later_flow_its_port(lab: Lab, kind: str) -> None:
    local, far, other = bound(lab, f"{kind}-a"), bound(lab, "far"), bound(lab, "other")
    public = public_address(local, far)
    expected = (public[0], local.getsockname()[1])

    for _ in range(3):
        other.sendto(b"too early", public)
    drain(local)

    assert public == expected
    assert public_address(local, other) == expected
    assert passes(other, public, local)


@pytest.mark.parametrize("kind", [kind for kind in TRANSLATING if BEHAVIOURS[kind].one_mapping])
def test_unsolicited_packet_before_any_mapping_is_forgotten(lab: Lab, kind: str) -> None:
    local, far = bound(lab, f"{kind}-a"), bound(lab, "far")
    expected = (str(site_of(lab, kind).public_ipv4), local.getsockname()[1])

    for _ in range(3):
        far.sendto(b"far too early", expected)

    assert silent(local)
    assert public_address(local, far) == expected


def test_unused_mapping_is_forgotten(lab: Lab) -> None:
    local, far = bound(lab, "brief-a"), bound(lab, "far")
    public = public_address(local, far)
    assert passes(bound(lab, "other"), public, local)

    wait_until(lambda: not passes(bound(lab, "other"), public, local), 10, "strangers are kept out")


@pytest.mark.parametrize("kind", TRANSLATING)
def test_hairpinning(lab: Lab, kind: str) -> None:
    first, second, far = bound(lab, f"{kind}-a"), bound(lab, f"{kind}-b"), bound(lab, "far")
    first_public, second_public = public_address(first, far), public_address(second, far)
    second.sendto(b"opens the way back", first_public)
    drain(first)

    first.sendto(b"hello", second_public)

    if BEHAVIOURS[kind].hairpins:
        assert second.recvfrom(100) == (b"hello", first_public)
        second.sendto(b"welcome", first_public)
        assert first.recvfrom(100) == (b"welcome", second_public)
    else:
        assert silent(second)


def test_address_restricted_hairpin_needs_a_packet_the_other_way(lab: Lab) -> None:
    first, second, far = bound(lab, "address-a"), bound(lab, "address-b"), bound(lab, "far")
    public_address(first, far)
    second_public = public_address(second, far)

    first.sendto(b"unasked", second_public)

    assert silent(second)


@pytest.mark.parametrize("kind", TRANSLATING)
def test_two_hosts_with_the_same_port_have_different_mappings(lab: Lab, kind: str) -> None:
    port = next(_ports)
    first, second, far, other = (bound(lab, node, port) for node in (f"{kind}-a", f"{kind}-b", "far", "other"))

    first_seen, second_seen = public_address(first, far), public_address(second, far)

    assert first_seen != second_seen
    assert passes(far, first_seen, first)
    assert passes(far, second_seen, second)
    if BEHAVIOURS[kind].one_mapping:
        assert public_address(second, other) == second_seen
        assert public_address(first, other) == first_seen


@pytest.mark.parametrize("kinds", list(itertools.combinations_with_replacement(TRANSLATING, 2)))
def test_hole_punching_works_where_it_can(lab: Lab, kinds: tuple[str, str]) -> None:
    left, right = bound(lab, f"{kinds[0]}-a"), bound(lab, f"{kinds[1]}-b")
    far = bound(lab, "far")
    left_public, right_public = public_address(left, far), public_address(right, far)

    for _ in range(3):
        left.sendto(b"punch", right_public)
        right.sendto(b"punch", left_public)

    same_site = kinds[0] == kinds[1]
    expected = punchable(*kinds) if not same_site else BEHAVIOURS[kinds[0]].hairpins
    assert (not silent(left) or not silent(right)) == expected


@pytest.mark.parametrize("kind", ["blocked"])
def test_blocked_udp_passes_in_neither_direction_but_tcp_does(lab: Lab, kind: str) -> None:
    local, far = bound(lab, f"{kind}-a"), bound(lab, "far")
    local.sendto(b"hello", far.getsockname())
    assert silent(far)

    assert tcp_source(lab, f"{kind}-a") == str(site_of(lab, kind).public_ipv4)


@pytest.mark.parametrize("kind", TRANSLATING)
def test_tcp_is_translated(lab: Lab, kind: str) -> None:
    assert tcp_source(lab, f"{kind}-a") == str(site_of(lab, kind).public_ipv4)


def test_open_router_neither_translates_nor_filters(lab: Lab) -> None:
    local, far, other = bound(lab, "open-a"), bound(lab, "far"), bound(lab, "other")

    assert public_address(local, far) == local.getsockname()
    assert passes(other, local.getsockname(), local)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_ping_from_inside_works_and_from_outside_does_not_unless_open(lab: Lab, kind: str) -> None:
    assert lab.node(f"{kind}-a").run(["ping", "-c1", "-W2", FAR]).returncode == 0
    answered = lab.node("far").run(["ping", "-c1", "-W0.2", str(site_of(lab, kind).public_ipv4)]).returncode == 0
    assert answered == (kind == "open")


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_ipv6_is_not_translated_and_filtered_by_state(lab: Lab, kind: str) -> None:
    local = bound(lab, f"{kind}-a", family=socket.AF_INET6)
    far, far_again = (bound(lab, "far", family=socket.AF_INET6) for _ in range(2))
    assert passes(far, local.getsockname()[:2], local) == (kind == "open")

    if kind == "blocked":
        local.sendto(b"hello", far.getsockname()[:2])
        assert silent(far)
        return
    assert public_address(local, far) == local.getsockname()[:2]
    assert passes(far, local.getsockname()[:2], local)
    assert passes(far_again, local.getsockname()[:2], local) == (kind == "open")


def site(index: int, name: str, nat: Nat) -> Site:
    public = nat.kind is NatKind.NONE
    network = IPv4Network(f"198.51.100.{16 * index}/28") if public else IPv4Network(f"192.168.{index}.0/24")
    ipv6 = IPv6Network(f"2001:db8:{index + 1}::/64")
    hosts = tuple(Host(f"{name}-{letter}", network[at], ipv6[at]) for letter, at in (("a", 10), ("b", 11)))
    address = IPv4Address(f"203.0.113.{100 + index}")
    return Site(name, network, address, hosts, nat, ipv6, IPv6Address(f"2001:db8:113::{100 + index}"))


def site_of(lab: Lab, name: str) -> Site:
    return next(site for site in lab.topology.sites if site.name == name)


def bound(lab: Lab, node: str, port: int | None = None, family: int = socket.AF_INET) -> socket.socket:
    made = lab.node(node).socket(family)
    topology = lab.topology
    host = next(h for h in (*topology.hosts, *(h for s in topology.sites for h in s.hosts)) if h.name == node)
    address = host.ipv4 if family == socket.AF_INET else host.ipv6
    made.bind((str(address), next(_ports) if port is None else port))
    made.settimeout(TIMEOUT_S)
    return made


def public_address(local: socket.socket, remote: socket.socket) -> tuple[str, int]:
    """The address that `remote` sees `local` at."""
    drain(remote)
    local.sendto(b"who am I", remote.getsockname()[:2])
    host, port = remote.recvfrom(100)[1][:2]
    return host, port


def passes(sender: socket.socket, to: tuple[str, int], receiver: socket.socket) -> bool:
    drain(receiver)
    sender.sendto(b"in", to)
    return not silent(receiver)


def silent(receiver: socket.socket) -> bool:
    receiver.settimeout(SILENCE_S)
    try:
        receiver.recv(100)
    except TimeoutError:
        return True
    finally:
        receiver.settimeout(TIMEOUT_S)
    return False


def drain(receiver: socket.socket) -> None:
    while not silent_now(receiver):
        continue


def silent_now(receiver: socket.socket) -> bool:
    receiver.settimeout(0.0)
    try:
        receiver.recv(100)
    except BlockingIOError:
        return True
    finally:
        receiver.settimeout(TIMEOUT_S)
    return False


def punchable(left: str, right: str) -> bool:
    """Whether one end admits whoever sends from the other's address, or both keep the ports that were signalled."""
    ends = (BEHAVIOURS[left], BEHAVIOURS[right])
    return any(end.from_other_port for end in ends) or all(end.one_mapping for end in ends)


def tcp_source(lab: Lab, node: str) -> str:
    port = next(_ports)
    with (
        lab.node("far").socket(kind=socket.SOCK_STREAM) as server,
        lab.node(node).socket(kind=socket.SOCK_STREAM) as caller,
    ):
        server.bind((FAR, port))
        server.listen()
        caller.settimeout(TIMEOUT_S)
        caller.connect((FAR, port))
        server.settimeout(TIMEOUT_S)
        accepted, address = server.accept()
        accepted.close()
        host: str = address[0]
        return host
