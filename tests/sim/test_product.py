"""A client reaches what its policies allow, and nothing else: the whole data plane in virtual time."""

import json
from ipaddress import ip_address, ip_network

from tests.sim.product import CLIENT_V4, SITE, Product, product, resource_id
from wardgate.wire import ip, portal
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import ACK, RST, SYN, IpAddress, Packet

CIDR, NAME = resource_id(0xC1), resource_id(0xD1)
APP = ip_address("10.9.0.2")
HTTP = (portal.Filter(protocol="tcp", port_range_start=80, port_range_end=80),)


def network(address: str = "10.9.0.2/32", filters: tuple[portal.Filter, ...] = ()) -> portal.CidrResource:
    return portal.CidrResource(id=CIDR, address=ip_network(address), name="lab", filters=filters, sites=(SITE,))


def name(address: str = "app.corp.example", filters: tuple[portal.Filter, ...] = ()) -> portal.DnsResource:
    return portal.DnsResource(id=NAME, address=address, name="app", filters=filters, sites=(SITE,))


def ping(destination: IpAddress, number: int = 1, identifier: int = 77) -> bytes:
    source = CLIENT_V4 if destination.version == 4 else ip_address("fd00:2021:1111::7:21")
    return ip.icmp_echo(source, destination, identifier, number, b"ping")


def segment(
    destination: IpAddress, port: int, flags: int = SYN, source_port: int = 40000, **options: int | bytes
) -> bytes:
    source = SocketAddr(str(CLIENT_V4), source_port)
    return ip.tcp_packet(source, SocketAddr(str(destination), port), flags, **options)  # type: ignore[arg-type]


def udp_from(source_port: int) -> bytes:
    """The first packet of a flow of its own, to the same port of the app each time."""
    return ip.udp_packet(SocketAddr(str(CLIENT_V4), source_port), SocketAddr(str(APP), 53), b"x")


def replies(lab: Product, since: float = 0.0) -> list[Packet]:
    return [packet for packet in lab.client.packets(since) if not packet.is_icmp_error]


def errors(lab: Product, since: float = 0.0) -> list[tuple[str, int | None, int | None]]:
    return [
        (str(packet.source), packet.icmp_type, packet.icmp_code)
        for packet in lab.client.packets(since)
        if packet.is_icmp_error
    ]


def test_a_network_is_reached_directly_and_the_first_packet_is_not_lost() -> None:
    lab = product()
    lab.portal.allow(network())
    lab.run(0.1)

    lab.client.send(ping(APP))
    lab.run(3.0)

    assert [packet.source for packet in replies(lab)] == [APP]
    (shown,) = lab.client.state.snapshot()["resources"]
    assert shown["status"] == "online"
    assert shown["authorized"]
    assert shown["path"]["kind"] == "direct"
    assert shown["path"]["local_public"].startswith("203.0.113.21:")
    assert shown["path"]["remote"].startswith("203.0.113.31:")
    assert shown["path"]["rtt_ms"] > 0
    assert shown["received_bytes"] > 0


def test_symmetric_nats_end_up_relayed_and_it_works() -> None:
    lab = product(symmetric=True)
    lab.portal.allow(network())
    lab.run(0.1)

    lab.client.send(ping(APP))
    lab.run(5.0)

    assert len(replies(lab)) == 1
    assert lab.client.state.snapshot()["resources"][0]["path"]["kind"] == "relayed"


def test_without_a_policy_nothing_is_asked_and_nothing_arrives() -> None:
    lab = product()

    lab.client.send(ping(APP))
    lab.run(3.0)

    assert lab.portal.asks == []
    assert lab.lan.received == []


def test_established_flows_bypass_python() -> None:
    lab = product()
    lab.portal.allow(network())
    lab.run(0.1)
    lab.client.send(segment(APP, 80))
    lab.run(3.0)
    installed = lab.client.state.counters["flows_installed"]

    for number in range(20):
        lab.client.send(segment(APP, 80, ACK, sequence=number, payload=b"data"))
        lab.run(0.1)

    assert lab.client.state.counters["flows_installed"] == installed
    assert len([packet for packet in replies(lab) if packet.payload == b"echo:data"]) == 20


def test_a_name_is_reached_through_its_proxy_ip() -> None:
    lab = product()
    lab.lan.names["app.corp.example"] = (APP,)
    lab.portal.allow(name())
    lab.run(0.1)

    proxy_ips = lab.ask_name("app.corp.example")
    lab.client.send(segment(proxy_ips[0], 80))
    lab.run(3.0)

    assert len(proxy_ips) == 4
    assert [packet.destination for packet in lab.lan.received] == [APP]
    (answer,) = [packet for packet in replies(lab) if packet.protocol == ip.TCP]
    assert (answer.source, answer.tcp_flags) == (proxy_ips[0], SYN | ACK)


def test_a_name_without_records_is_unreachable() -> None:
    lab = product()
    lab.lan.names["app.corp.example"] = (APP,)
    lab.portal.allow(name())
    lab.run(0.1)
    (proxy_v6, *_) = lab.ask_name("app.corp.example", kind=28)

    lab.client.send(ping(proxy_v6))
    lab.run(3.0)

    assert errors(lab) == [(str(proxy_v6), 1, 3)]


def test_two_proxy_ips_and_the_real_address_keep_their_replies_apart() -> None:
    lab = product()
    lab.lan.names["app.corp.example"] = (APP,)
    lab.portal.allow(name())
    lab.portal.allow(network())
    lab.run(0.1)
    first, second, *_ = lab.ask_name("app.corp.example")

    for destination in (first, second, APP):
        lab.client.send(ping(destination))
        lab.run(3.0)
    for destination in (first, second, APP):
        lab.client.send(ping(destination, number=2))
    lab.run(1.0)

    pings = [packet for packet in replies(lab) if packet.icmp_id is not None]
    assert sorted(str(packet.source) for packet in pings) == sorted(2 * [str(first), str(second), str(APP)])
    assert {packet.icmp_id for packet in pings} == {77}


def test_a_port_outside_the_filter_is_refused_by_the_client_itself() -> None:
    lab = product()
    lab.portal.allow(network(filters=HTTP))
    lab.run(0.1)

    lab.client.send(segment(APP, 22))
    lab.run(1.0)

    assert errors(lab) == [(str(APP), 3, 13)]
    assert lab.portal.asks == []
    assert lab.client.state.snapshot()["refusals"][0]["reason"] == "filter"


def test_a_port_outside_the_filter_is_refused_by_the_gateway_too() -> None:
    lab = product()
    lab.portal.gateway_filters[CIDR] = HTTP
    lab.portal.allow(network())
    lab.run(0.1)

    lab.client.send(segment(APP, 22))
    lab.run(3.0)

    assert errors(lab) == [(str(APP), 3, 13)]
    assert lab.lan.received == []
    assert lab.client.state.snapshot()["refusals"][0]["reason"] == "gateway_prohibited"


def test_a_neighbour_outside_the_resource_is_not_reached() -> None:
    lab = product()
    lab.portal.allow(network())
    lab.run(0.1)
    lab.client.send(ping(APP))
    lab.run(3.0)

    lab.client.send(ping(ip_address("10.9.0.3")))
    lab.run(3.0)

    assert {packet.destination for packet in lab.lan.received} == {APP}


def test_a_removed_policy_resets_the_running_connection_and_says_why() -> None:
    lab = product()
    lab.portal.allow(network())
    lab.run(0.1)
    lab.client.send(segment(APP, 80))
    lab.run(3.0)
    lab.client.send(segment(APP, 80, ACK, sequence=2, payload=b"GET"))
    lab.run(0.5)
    at = lab.world.now

    lab.portal.forbid(CIDR)
    lab.run(0.5)
    probes = [packet for packet in lab.client.packets(at) if packet.tcp_flags == SYN]
    lab.client.send(segment(APP, 80, ACK, sequence=5, acknowledgment=7008))
    lab.run(0.1)

    assert probes
    assert probes[0].key == probes[0].key.__class__(6, SocketAddr("10.9.0.2", 80), SocketAddr(str(CLIENT_V4), 40000))
    (reset,) = [packet for packet in lab.client.packets(at) if packet.tcp_flags == RST]
    assert int.from_bytes(reset.raw[24:28], "big") == 7008
    denial = lab.client.state.snapshot()["denials"][-1]
    assert (denial["resource"], denial["reason"], denial["flows_cut"]) == ("lab", "access_removed", 1)
    assert lab.gateways[0].state.snapshot()["flows"] == 0


def test_after_the_reset_the_network_leaves_the_tunnel() -> None:
    lab = product()
    lab.portal.allow(network())
    lab.run(0.1)
    lab.client.send(segment(APP, 80))
    lab.run(3.0)

    lab.portal.forbid(CIDR)
    lab.run(1.0)
    assert lab.client.tun is not None
    assert ip_network("10.9.0.2/32") in lab.client.tun.routes
    lab.run(10.0)

    assert ip_network("10.9.0.2/32") not in lab.client.tun.routes


def test_data_from_the_app_stops_when_access_ends() -> None:
    lab = product()
    lab.portal.allow(network())
    lab.portal.allow(name())
    lab.run(0.1)
    lab.client.send(segment(APP, 80))
    lab.run(3.0)
    lab.portal.forbid(CIDR)
    lab.run(0.2)
    at = lab.world.now

    source, destination = SocketAddr(str(APP), 80), SocketAddr(str(CLIENT_V4), 40000)
    lab.lan.send(ip.tcp_packet(source, destination, ACK, payload=b"secret"))
    lab.run(1.0)

    assert not [packet for packet in lab.client.packets(at) if packet.payload == b"secret"]


def test_delete_and_create_in_one_breath_asks_anew_and_keeps_the_connection() -> None:
    lab = product()
    lab.portal.allow(network())
    lab.run(0.1)
    lab.client.send(segment(APP, 80))
    lab.run(3.0)
    at = lab.world.now

    lab.portal.forbid(CIDR)
    lab.portal.allow(network())
    lab.run(0.05)
    lab.client.send(segment(APP, 80, ACK, sequence=2, payload=b"GET"))
    lab.run(3.0)

    assert [packet.payload for packet in lab.client.packets(at)] == [b"echo:GET"]
    assert len(lab.portal.asks) == 2


def test_other_resources_of_the_gateway_survive_a_removal() -> None:
    lab = product()
    lab.lan.names["app.corp.example"] = (APP,)
    lab.portal.allow(network())
    lab.portal.allow(name())
    lab.run(0.1)
    lab.client.send(ping(APP))
    (proxy_ip, *_) = lab.ask_name("app.corp.example")
    lab.client.send(ping(proxy_ip))
    lab.run(3.0)

    lab.portal.forbid(CIDR)
    lab.run(1.0)
    at = lab.world.now
    lab.client.send(ping(proxy_ip, number=2))
    lab.run(1.0)

    assert [packet.source for packet in replies(lab, at)] == [proxy_ip]
    assert len(lab.portal.asks) == 2


def test_changed_filters_reset_what_they_no_longer_allow() -> None:
    lab = product()
    lab.portal.allow(network())
    lab.run(0.1)
    lab.client.send(segment(APP, 22))
    lab.client.send(segment(APP, 80, source_port=40001))
    lab.run(3.0)
    at = lab.world.now

    lab.portal.allow(network(filters=HTTP))
    lab.run(0.5)
    lab.client.send(segment(APP, 80, ACK, source_port=40001, sequence=2, payload=b"GET"))
    lab.run(3.0)

    probed = {packet.source_port for packet in lab.client.packets(at) if packet.tcp_flags == SYN}
    assert probed == {22}
    assert b"echo:GET" in [packet.payload for packet in lab.client.packets(at)]


def test_another_gateway_takes_over_when_one_is_killed() -> None:
    lab = product(gateways=2)
    lab.portal.allow(network())
    lab.run(0.1)
    lab.client.send(ping(APP))
    lab.run(3.0)
    assert len(lab.lan.received) == 1
    assert lab.gateways[1].lan.received == []

    lab.gateways[0].kill()
    for number in range(2, 302):
        lab.client.send(ping(APP, number))
        lab.run(0.1)

    assert lab.gateways[1].lan.received
    assert len(replies(lab)) > 20


def test_new_flows_to_a_target_in_use_ask_anew_when_its_gateway_is_gone() -> None:
    lab = product(gateways=2)
    lab.portal.allow(network())
    lab.run(0.1)
    for number in range(3):
        lab.client.send(udp_from(41000 + number))
        lab.run(1.0)
    before = len(lab.gateways[0].lan.received)

    lab.gateways[0].kill()
    for number in range(100):
        lab.client.send(udp_from(42000 + number))
        lab.run(0.1)

    assert before == 3
    assert len(lab.gateways[1].lan.received) > 20


def test_a_target_in_use_is_the_tunnel_s_no_more_when_its_resource_is_gone() -> None:
    lab = product()
    lab.portal.allow(network())
    lab.run(0.1)
    for number in range(3):
        lab.client.send(udp_from(41000 + number))
        lab.run(1.0)
    passed = len(lab.lan.received)
    lab.portal.forbid(CIDR)
    lab.run(70.0)
    sealed = lab.client.program.engine.counters()["packets_sealed"]

    lab.client.send(udp_from(43000))
    lab.run(1.0)

    assert passed == 3
    assert lab.client.program.engine.counters()["packets_sealed"] == sealed
    assert len(lab.lan.received) == passed


def test_a_polite_end_moves_the_client_at_once() -> None:
    lab = product(gateways=2)
    lab.portal.allow(network())
    lab.run(0.1)
    lab.client.send(ping(APP))
    lab.run(3.0)
    lab.gateways[0].state.handle_goodbye(lab.world.now)
    lab.gateways[0].program.settle()
    lab.gateways[0].is_up = False
    lab.run(0.1)
    at = lab.world.now

    lab.client.send(ping(APP, 2))
    lab.run(1.0)

    assert len(replies(lab, at)) == 1
    assert lab.gateways[1].lan.received


def test_an_expired_grant_is_asked_for_anew() -> None:
    lab = product()
    lab.portal.expires_at = lab.world.now + 1_800_000_000.0 + 10.0
    lab.portal.allow(network())
    lab.run(0.1)
    lab.client.send(ping(APP))
    lab.run(15.0)
    lab.portal.expires_at = None
    at = lab.world.now

    lab.client.send(ping(APP, 2))
    lab.run(2.0)

    assert len(lab.portal.asks) == 2
    assert len(replies(lab, at)) == 1


def test_a_forbidden_resource_fails_at_once_and_says_why() -> None:
    lab = product()
    lab.portal.refuse_with = "forbidden"
    lab.portal.allow(network())
    lab.run(0.1)

    lab.client.send(segment(APP, 80))
    lab.run(0.1)

    assert errors(lab) == [(str(APP), 3, 13)]
    assert lab.client.state.snapshot()["denials"][-1]["reason"] == "forbidden"


def test_an_offline_site_is_asked_for_every_two_seconds_only() -> None:
    lab = product()
    lab.gateways[0].is_up = False
    lab.portal.allow(network())
    lab.run(0.1)

    for number in range(50):
        lab.client.send(ping(APP, number))
        lab.run(0.1)

    assert [round(at - lab.portal.asks[0][0], 1) for at, _ in lab.portal.asks] == [0.0, 2.0, 4.0]
    assert lab.client.state.snapshot()["resources"][0]["status"] == "offline"


def test_the_same_run_twice_gives_the_same_result() -> None:
    def run() -> object:
        lab = product(seed=5)
        lab.lan.names["app.corp.example"] = (APP,)
        lab.portal.allow(network())
        lab.portal.allow(name())
        lab.run(0.1)
        (proxy_ip, *_) = lab.ask_name("app.corp.example")
        lab.client.send(ping(APP))
        lab.client.send(ping(proxy_ip))
        lab.run(5.0)
        return lab.client.received, lab.client.state.snapshot()

    assert run() == run()


def test_a_gateway_that_forgot_a_grant_is_reminded() -> None:
    lab = product()
    lab.lan.names["app.corp.example"] = (APP,)
    lab.portal.allow(network())
    lab.portal.allow(name())
    lab.run(0.1)
    (proxy_ip, *_) = lab.ask_name("app.corp.example")
    for destination in (APP, proxy_ip):
        lab.client.send(ping(destination))
        lab.run(3.0)
    reject = portal.RejectAccess(client_id=lab.client.id, resource_id=CIDR)
    lab.portal.to_gateway(lab.gateways[0].id, reject)
    lab.run(0.1)
    at = lab.world.now

    lab.client.send(ping(APP, 2))
    lab.run(0.5)
    lab.client.send(ping(APP, 3))
    lab.run(0.5)

    assert errors(lab, at) == [(str(APP), 3, 13)]
    assert [packet.source for packet in replies(lab, at)] == [APP]


def test_reminders_are_few() -> None:
    lab = product()
    lab.portal.gateway_filters[CIDR] = HTTP
    lab.portal.allow(network())
    lab.run(0.1)

    for number in range(100):
        lab.client.send(ping(APP, number))
        lab.run(0.1)

    assert len(lab.portal.asks) <= 4


def test_a_connection_that_idles_still_works() -> None:
    lab = product()
    lab.portal.allow(network())
    lab.run(0.1)
    lab.client.send(segment(APP, 80))
    lab.run(900.0)
    at = lab.world.now

    lab.client.send(segment(APP, 80, ACK, sequence=2, payload=b"late"))
    lab.run(5.0)

    assert b"echo:late" in [packet.payload for packet in lab.client.packets(at)]


def test_a_thousand_resources_that_come_one_by_one_are_configured_at_once() -> None:
    lab = product()
    before = len([event for event in lab.client.program.events if event.__class__.__name__ == "ConfigureTun"])

    for number in range(1000):
        address = ip_network(f"10.{100 + number // 250}.{number % 250}.0/24")
        one = network().model_copy(update={"id": f"00000000-0000-4000-8000-{number:012}", "address": address})
        lab.portal.allow(one)
    lab.run(1.0)

    events = [event for event in lab.client.program.events if event.__class__.__name__ == "ConfigureTun"]
    assert lab.client.tun is not None
    assert len(lab.client.tun.routes) == 1006
    assert len(events) - before <= 2


def test_snapshots_are_json() -> None:
    lab = product()
    lab.lan.names["app.corp.example"] = (APP,)
    lab.portal.allow(network(filters=HTTP))
    lab.portal.allow(name())
    lab.run(0.1)
    (proxy_ip, *_) = lab.ask_name("app.corp.example")
    lab.client.send(ping(proxy_ip))
    lab.client.send(segment(APP, 22))
    lab.run(3.0)
    lab.portal.forbid(NAME)
    lab.run(1.0)

    for state in (lab.client.state, lab.gateways[0].state):
        assert json.loads(json.dumps(state.snapshot())) == state.snapshot()


def test_a_restarted_gateway_is_asked_for_everything_again() -> None:
    lab = product()
    lab.lan.names["app.corp.example"] = (APP,)
    other = network("10.9.0.3/32").model_copy(update={"id": resource_id(0xC2)})
    for resource in (network(), other, name()):
        lab.portal.allow(resource)
    lab.run(0.1)
    lab.client.send(ping(APP))
    lab.client.send(ping(ip_address("10.9.0.3")))
    lab.run(3.0)
    (proxy_ip, *_) = lab.ask_name("app.corp.example")
    lab.gateways[0].restart()
    lab.run(0.5)
    at = lab.world.now

    lab.client.send(ping(proxy_ip))
    lab.run(1.0)
    for address in (APP, ip_address("10.9.0.3")):
        lab.client.send(ping(address, 2))
    lab.run(1.0)

    assert {str(packet.source) for packet in replies(lab, at)} == {str(proxy_ip), "10.9.0.2", "10.9.0.3"}
    assert errors(lab, at) == []


def test_a_new_tunnel_address_is_used_with_every_gateway() -> None:
    lab = product()
    lab.portal.allow(network())
    lab.run(0.1)
    lab.client.send(ping(APP))
    lab.run(3.0)
    address = ip_address("100.64.3.10")
    interface = lab.portal.interface.model_copy(update={"ipv4": address})
    lab.portal.interface = interface
    lab.portal.to_client(portal.ConfigChanged(interface=interface))
    lab.run(0.5)

    lab.client.send(ip.icmp_echo(address, APP, 77, 2, b"ping"))
    lab.run(3.0)

    assert [str(packet.destination) for packet in replies(lab)] == ["100.64.3.9", "100.64.3.10"]


def test_new_connections_to_a_network_that_was_just_taken_away_fail_at_once() -> None:
    lab = product()
    lab.portal.allow(network())
    lab.run(0.1)
    lab.client.send(segment(APP, 80))
    lab.run(3.0)
    lab.portal.forbid(CIDR)
    lab.run(1.0)
    at = lab.world.now

    lab.client.send(segment(APP, 80, source_port=40001))

    assert errors(lab, at) == [(str(APP), 3, 13)]
