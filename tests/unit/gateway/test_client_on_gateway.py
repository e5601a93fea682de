from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from tests.unit.tunnel.packets import CLIENT_V4, CLIENT_V6, ping, tcp, udp
from wardgate._fastpath import PacketUpcall
from wardgate.gateway.client_on_gateway import ClientOnGateway, Pass
from wardgate.ids import ClientId, ResourceId
from wardgate.tunnel.flows import Drop, Forward, Refuse, Verdict
from wardgate.tunnel.nat import Side, side
from wardgate.wire.control import AssignedIps
from wardgate.wire.icmp_errors import Unreachable, unreachable
from wardgate.wire.ip import ICMP, TCP, IpAddress, Packet, parse
from wardgate.wire.portal import Filter, GatewayCidrResource, GatewayDnsResource, GatewayInternetResource

CIDR, NAME, OTHER, INTERNET = (ResourceId(f"00000000-0000-4000-8000-00000000000{number}") for number in range(1, 5))
OWN: tuple[IpAddress, ...] = (ip_address("100.64.0.2"), ip_address("fd00:2021:1111::2"))
HTTP = (Filter(protocol="tcp", port_range_start=80, port_range_end=80),)
PING = (Filter(protocol="icmp"),)
PROXY = ("100.96.0.1", "100.96.0.2", "fd00:2021:1111:8000::", "fd00:2021:1111:8000::1")
PROXY_IPS = tuple(ip_address(one) for one in PROXY)


def client() -> ClientOnGateway:
    return ClientOnGateway(ClientId("c"), IPv4Address(CLIENT_V4), IPv6Address(CLIENT_V6))


def network(filters: tuple[Filter, ...] = (), address: str = "10.9.0.0/24") -> GatewayCidrResource:
    return GatewayCidrResource(id=CIDR, address=ip_network(address), name="lab", filters=filters)


def name(
    filters: tuple[Filter, ...] = (), address: str = "app.example", resource_id: ResourceId = NAME
) -> GatewayDnsResource:
    return GatewayDnsResource(id=resource_id, address=address, name="app", filters=filters)


def announced(domain: str = "app.example", proxy_ips: tuple[IpAddress, ...] = PROXY_IPS) -> AssignedIps:
    return AssignedIps(NAME, domain, proxy_ips)


def decide(client: ClientOnGateway, packet: Packet, now: float = 0.0) -> Verdict:
    return client.decide(packet, OWN, now)


def test_a_packet_of_an_admitted_network_passes_as_it_is() -> None:
    here = client()
    here.admit(network(), 7)

    packet = tcp("10.9.0.2", 80)

    assert decide(here, packet) == Forward(7, CIDR)


def test_everything_else_is_prohibited() -> None:
    here = client()
    here.admit(network(), 7)

    assert decide(here, tcp("10.9.1.2", 80)) == Refuse(Unreachable.PROHIBITED, "no_resource")
    assert decide(here, tcp("100.96.0.1", 80)) == Refuse(Unreachable.PROHIBITED, "no_resource")


def test_a_revoked_network_is_prohibited() -> None:
    here = client()
    here.admit(network(), 7)

    here.revoke(CIDR)

    assert decide(here, tcp("10.9.0.2", 80)) == Refuse(Unreachable.PROHIBITED, "no_resource")
    assert here.admitted == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda here: here.revoke(CIDR),
        lambda here: here.admit(network(HTTP), 7),
        lambda here: here.admit(name(), 8),
        lambda here: here.move(IPv4Address("100.64.3.10"), IPv6Address(CLIENT_V6)),
        lambda here: here.forget_names(),
        lambda here: here.assign(announced("app.example"), (ip_address("10.9.0.3"),)),
    ],
    ids=["revoke", "admit anew", "admit another", "move", "forget names", "assign"],
)
def test_every_change_voids_what_was_decided(change: Callable[[ClientOnGateway], object]) -> None:
    here = client()
    here.admit(network(), 7)
    here.admit(name(PING), 9)
    upcall = PacketUpcall.of(1, udp("10.9.0.2", 53).raw)
    assert upcall.target is not None
    assert upcall.inside is not None
    assert here.admit_target(upcall.target, Side(upcall.inside), OWN) == Pass(7, CIDR, None)
    assert list(here.passes) == [upcall.target]

    change(here)

    assert here.passes == {}


def test_foreign_sources_are_prohibited() -> None:
    here = client()
    here.admit(network(), 7)

    assert decide(here, tcp("10.9.0.2", 80, source="100.64.3.10")) == Refuse(Unreachable.PROHIBITED, "foreign_source")


def test_the_gateway_itself_is_reached_without_a_resource() -> None:
    packet = udp("100.64.0.2", 53535)

    assert decide(client(), packet) == Forward(0, None)


def test_other_tunnel_addresses_are_prohibited_even_with_the_internet_resource() -> None:
    here = client()
    here.admit(GatewayInternetResource(id=INTERNET), 7)

    assert decide(here, tcp("100.64.7.7", 80)) == Refuse(Unreachable.PROHIBITED, "tunnel_range")


def test_icmp_errors_of_clients_are_not_forwarded() -> None:
    here = client()
    here.admit(network(), 7)
    raw = unreachable(udp(CLIENT_V4, 5000, source="10.9.0.2", source_port=53), Unreachable.PORT)
    assert raw is not None

    assert decide(here, parse(raw)) == Drop("outbound_icmp_error")


@pytest.mark.parametrize(
    "address",
    ["10.1.1.1", "172.16.0.1", "192.168.1.1", "127.0.0.1", "169.254.1.1", "100.64.200.1", "100.127.0.1", "240.0.0.1"],
)
def test_the_internet_resource_does_not_open_what_is_not_public(address: str) -> None:
    here = client()
    here.admit(GatewayInternetResource(id=INTERNET), 7)

    verdict = decide(here, tcp(address, 80))

    assert isinstance(verdict, Refuse)
    assert isinstance(decide(here, tcp("192.0.2.1", 80)), Forward)


def test_the_internet_resource_answers_private_addresses_with_network_unreachable() -> None:
    here = client()
    here.admit(GatewayInternetResource(id=INTERNET), 7)

    assert decide(here, tcp("10.1.1.1", 80)) == Refuse(Unreachable.NETWORK, "not_public")


def test_filters_refuse_protocols_and_ports() -> None:
    here = client()
    here.admit(network(HTTP), 7)

    assert isinstance(decide(here, tcp("10.9.0.2", 80)), Forward)
    assert decide(here, tcp("10.9.0.2", 81)) == Refuse(Unreachable.PROHIBITED, "filter")
    assert decide(here, ping("10.9.0.2")) == Refuse(Unreachable.PROHIBITED, "filter")


def test_changed_filters_act_at_once_and_say_that_flows_are_to_be_decided_anew() -> None:
    here = client()
    assert not here.admit(network(), 7)
    assert not here.admit(network(), 7)

    assert here.admit(network(HTTP), 7)
    assert decide(here, ping("10.9.0.2")) == Refuse(Unreachable.PROHIBITED, "filter")


def test_filters_of_names_and_networks_do_not_mix() -> None:
    here = client()
    here.admit(network(PING, "10.9.0.2/32"), 7)
    here.admit(name(HTTP), 8)
    here.assign(announced(), (ip_address("10.9.0.2"),))

    assert isinstance(decide(here, tcp(PROXY[0], 80)), Forward)
    assert decide(here, ping(PROXY[0])) == Refuse(Unreachable.PROHIBITED, "filter")
    assert isinstance(decide(here, ping("10.9.0.2")), Forward)
    assert decide(here, tcp("10.9.0.2", 80)) == Refuse(Unreachable.PROHIBITED, "filter")


def test_a_proxy_ip_is_translated_to_the_real_one() -> None:
    here = client()
    here.admit(name(), 8)
    here.assign(announced(), (ip_address("10.9.0.2"),))
    packet = tcp(PROXY[0], 80)

    verdict = decide(here, packet)

    assert verdict == Forward(8, NAME, side(TCP, packet.source_port, ip_address("10.9.0.2")))


def test_a_translated_ping_has_its_identifier_in_both_ports() -> None:
    here = client()
    here.admit(name(), 8)
    here.assign(announced(), (ip_address("10.9.0.2"),))
    decide(here, ping(PROXY[0], 7))

    verdict = decide(here, ping(PROXY[1], 7))

    assert isinstance(verdict, Forward)
    assert verdict.outside == side(ICMP, 8, ip_address("10.9.0.2"))


def test_a_family_without_records_is_unreachable() -> None:
    here = client()
    here.admit(name(), 8)
    here.assign(announced(), (ip_address("10.9.0.2"),))

    assert decide(here, tcp(PROXY[2], 80, source=CLIENT_V6)) == Refuse(Unreachable.NETWORK, "no_record")


def test_resolving_again_keeps_running_flows_and_moves_new_ones() -> None:
    here = client()
    here.admit(name(), 8)
    here.assign(announced(), (ip_address("10.9.0.2"),))
    decide(here, tcp(PROXY[0], 80))

    here.assign(announced(), (ip_address("10.9.0.3"),))
    running, new = decide(here, tcp(PROXY[0], 81)), decide(here, tcp(PROXY[0], 80, source_port=40001))

    assert isinstance(running, Forward)
    assert isinstance(new, Forward)
    assert running.outside == side(TCP, 40000, ip_address("10.9.0.2"))
    assert new.outside == side(TCP, 40001, ip_address("10.9.0.3"))


def test_renumbered_proxy_ips_begin_anew() -> None:
    here = client()
    here.admit(name(address="*.example"), 8)
    here.assign(announced(), (ip_address("10.9.0.2"),))
    renumbered = announced("db.example", PROXY_IPS[:1])

    assert not here.assign(renumbered, (ip_address("10.9.0.3"),))
    assert here.begins_anew(renumbered)
    here.forget_names()

    assert here.assign(renumbered, (ip_address("10.9.0.3"),))
    assert decide(here, tcp(PROXY[1], 80)) == Refuse(Unreachable.PROHIBITED, "no_resource")


def test_resources_may_share_a_proxy_ip() -> None:
    here = client()
    here.admit(name(HTTP), 8)
    here.admit(name(PING, "*.example", OTHER), 9)
    for resource_id in (NAME, OTHER):
        here.assign(AssignedIps(resource_id, "app.example", PROXY_IPS), (ip_address("10.9.0.2"),))

    http, echo = decide(here, tcp(PROXY[0], 80)), decide(here, ping(PROXY[0]))

    assert isinstance(http, Forward)
    assert isinstance(echo, Forward)
    assert (http.authorization, echo.authorization) == (8, 9)
    assert decide(here, tcp(PROXY[0], 22)) == Refuse(Unreachable.PROHIBITED, "filter")


def test_new_filters_reach_names_that_were_announced_before() -> None:
    here = client()
    here.admit(name(), 8)
    here.assign(announced(), (ip_address("10.9.0.2"),))

    here.admit(name(HTTP), 8)

    assert decide(here, tcp(PROXY[0], 22)) == Refuse(Unreachable.PROHIBITED, "filter")


@pytest.mark.parametrize(
    "message",
    [
        announced("db.example"),
        AssignedIps(CIDR, "app.example", PROXY_IPS),
        AssignedIps(OTHER, "app.example", PROXY_IPS),
        announced(proxy_ips=(*PROXY_IPS, ip_address("10.9.0.3"))),
        announced(proxy_ips=(ip_address("100.64.0.7"),)),
        announced(proxy_ips=(ip_address("100.100.111.1"),)),
    ],
)
def test_announcements_that_are_refused(message: AssignedIps) -> None:
    here = client()
    here.admit(network(), 7)
    here.admit(name(), 8)

    assert not here.accepts(message)
    assert not here.assign(message, (ip_address("10.9.0.2"),))
    assert decide(here, tcp("10.9.0.3", 80)) != Forward(8, NAME)


def test_a_name_that_points_into_the_tunnel_has_no_address() -> None:
    here = client()
    here.admit(name(), 8)
    here.assign(announced(), (ip_address("100.64.9.9"), ip_address("127.0.0.1"), ip_address("100.96.0.9")))

    assert decide(here, tcp(PROXY[0], 80)) == Refuse(Unreachable.NETWORK, "no_record")


def test_what_opens_no_flow_passes_to_networks_but_not_to_proxy_ips() -> None:
    here = client()
    here.admit(network(), 7)
    here.admit(name(), 8)
    here.assign(announced(), (ip_address("10.9.0.2"),))

    assert isinstance(decide(here, ping("10.9.0.2", reply=True)), Forward)
    assert decide(here, ping(PROXY[0], reply=True)) == Drop("untranslatable")


def test_a_released_flow_gives_its_port_back() -> None:
    here = client()
    here.admit(name(), 8)
    here.assign(announced(), (ip_address("10.9.0.2"),))
    packet = tcp(PROXY[0], 80)
    decide(here, packet)

    here.release(side(TCP, packet.source_port, packet.destination), 1.0)

    verdict = decide(here, tcp(PROXY[1], 80))
    assert isinstance(verdict, Forward)
    assert verdict.outside == side(TCP, packet.source_port, ip_address("10.9.0.2"))
