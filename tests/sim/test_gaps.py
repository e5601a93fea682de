"""How long a running ping, ten a second, gets no answer when something breaks under it; virtual time."""

from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest

from tests.sim.network import RelayNode
from tests.sim.product import CLIENT_V4, SITE, Product, product, resource_id
from wardgate.wire import ip, portal

CIDR = resource_id(0xC1)
APP = ip_address("10.9.0.2")
PING_EVERY_S = 0.1
BEFORE_S, AFTER_S = 10.0, 30.0

Breaks = Callable[[Product], None]


def gateway_killed(lab: Product) -> None:
    lab.gateways[0].kill()


def gateway_restarted(lab: Product) -> None:
    lab.gateways[0].restart()


def clients_nat_changes_its_ports(lab: Product) -> None:
    nat = lab.world.attachment(lab.client.program.address.host).nat
    assert nat is not None
    nat.change_ports()


def gateways_nat_changes_its_ports(lab: Product) -> None:
    nat = lab.world.attachment(lab.gateways[0].program.address.host).nat
    assert nat is not None
    nat.change_ports()


def client_moves(lab: Product) -> None:
    lab.client.move("192.168.1.77")


def gateway_moves(lab: Product) -> None:
    lab.gateways[0].move("192.168.10.77")


def clients_way_out_moves_unnoticed(lab: Product) -> None:
    lab.client.lose_route("192.168.1.78")


def gateway_stops_politely(lab: Product) -> None:
    """The program ends in good order, and another one is up half a second later."""
    gateway = lab.gateways[0]
    gateway.stop()
    lab.world.at(lab.world.now + 0.5, gateway.restart)


def relay_restarted(lab: Product) -> None:
    """The relay in use comes back at the same address and knows nobody; the portal tells of its end a second late."""
    relay = relay_in_use(lab)
    lab.world.detach(relay.host)
    again = RelayNode(lab.world, relay.host, "cd" * 32, number=77)
    lab.world.at(lab.world.now + 0.1, lambda: lab.portal.announce(again))
    lab.world.at(lab.world.now + 1.0, lambda: lab.portal.announce(gone=[relay]))


def relay_replaced(lab: Product) -> None:
    """The relay in use dies; another one was known all the time."""
    relay = relay_in_use(lab)
    lab.world.detach(relay.host)
    lab.world.at(lab.world.now + 1.0, lambda: lab.portal.announce(gone=[relay]))


def relay_in_use(lab: Product) -> RelayNode:
    (gateway,) = lab.client.state.snapshot()["gateways"]
    host, _, _ = gateway["path"]["relay"].rpartition(":")
    return next(relay for relay in lab.portal.relays if relay.host == host)


def link_is_down_for_5_s(lab: Product) -> None:
    link_is_down(lab, 5.0)


def link_is_down_for_20_s(lab: Product) -> None:
    link_is_down(lab, 20.0)


def link_is_down(lab: Product, for_s: float) -> None:
    attachment = lab.world.attachment(lab.client.program.address.host)
    attachment.is_up = False
    lab.world.at(lab.world.now + for_s, lambda: setattr(attachment, "is_up", True))


def gap(lab: Product, breaks: Breaks, after_s: float = AFTER_S) -> float:
    """Seconds without an answer around what breaks; the whole rest of the run if none came any more."""
    lab.portal.allow(portal.CidrResource(id=CIDR, address=ip_network("10.9.0.0/24"), name="lab", sites=(SITE,)))
    lab.run(0.1)
    number = 0
    until = lab.world.now + BEFORE_S
    broken_at = None
    while lab.world.now < until:
        number += 1
        lab.client.send(ip.icmp_echo(CLIENT_V4, APP, 1, number))
        lab.run(PING_EVERY_S)
        if broken_at is None and lab.world.now >= until:
            broken_at, until = lab.world.now, until + after_s
            breaks(lab)
    assert broken_at is not None
    answers = [at for at, packet in lab.client.received if packet.icmp_type == 0 and at >= broken_at - 1.0]
    assert answers, "it worked before"
    return max(later - earlier for earlier, later in zip(answers, [*answers[1:], lab.world.now], strict=True))


@pytest.mark.parametrize("iceless", [True, False])
@pytest.mark.parametrize(
    ("breaks", "gateways", "limit_s"),
    [
        (gateway_killed, 2, 3.0),
        (gateway_restarted, 1, 3.0),
        (gateway_restarted, 2, 3.0),
        (clients_nat_changes_its_ports, 1, 3.0),
        (gateways_nat_changes_its_ports, 1, 3.0),
        (client_moves, 1, 0.4),
        (gateway_moves, 1, 3.0),
        (clients_way_out_moves_unnoticed, 1, 3.0),
        (gateway_stops_politely, 1, 1.0),
        (gateway_stops_politely, 2, 1.0),
        (link_is_down_for_5_s, 1, 5.2),
        (link_is_down_for_20_s, 1, 22.0),
    ],
)
def test_gap(breaks: Breaks, gateways: int, limit_s: float, *, iceless: bool) -> None:
    lab = product(gateways=gateways)
    lab.portal.iceless = iceless
    found = gap(lab, breaks)
    assert found < limit_s


@pytest.mark.parametrize("iceless", [True, False])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("breaks", "relays"), [(relay_restarted, 1), (relay_restarted, 2), (relay_replaced, 2)])
def test_gap_of_a_relayed_path(breaks: Breaks, relays: int, seed: int, *, iceless: bool) -> None:
    lab = product(symmetric=True, relays=relays, seed=seed)
    lab.portal.iceless = iceless
    found = gap(lab, breaks)
    assert found < 1.0


@pytest.mark.parametrize("iceless", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_loss_alone_makes_nobody_leave_a_gateway(seed: int, *, iceless: bool) -> None:
    lab = product(gateways=2, seed=seed)
    lab.portal.iceless = iceless
    for host in (lab.client.program.address.host, lab.gateways[0].program.address.host):
        lab.world.attachment(host).loss = 0.05

    gap(lab, lambda lab: None, after_s=180.0)

    assert len(lab.portal.asks) == 1
    assert lab.portal.grants[CIDR] == lab.gateways[0].id
    assert lab.gateways[1].lan.received == []


@pytest.mark.parametrize("iceless", [True, False])
def test_a_gateway_that_stops_for_a_second_is_not_left(*, iceless: bool) -> None:
    lab = product(gateways=2)
    lab.portal.iceless = iceless
    attachment = lab.world.attachment(lab.gateways[0].program.address.host)

    def stops(lab: Product) -> None:
        attachment.is_up = False
        lab.world.at(lab.world.now + 1.0, lambda: setattr(attachment, "is_up", True))

    found = gap(lab, stops)

    assert found < 1.5
    assert lab.gateways[1].lan.received == []
    assert len(lab.portal.asks) == 1
