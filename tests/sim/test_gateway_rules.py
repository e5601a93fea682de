"""What a gateway lets through and answers, whatever its client does: packets enter it as if they had been decrypted."""

from ipaddress import ip_address, ip_network

from tests.sim.product import CLIENT_V4, SITE, Product, product, resource_id
from wardgate.wire import ip, portal
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.control import AssignedIps, Goodbye, encode_control
from wardgate.wire.icmp_errors import Unreachable, quoted, unreachable
from wardgate.wire.ip import ACK, SYN, Packet

CIDR, NAME, OTHER = resource_id(0xC1), resource_id(0xD1), resource_id(0xD2)
APP = ip_address("10.9.0.2")
GATEWAY = ip_address("100.64.0.1")
CLIENT_PORT = SocketAddr(str(CLIENT_V4), 40000)


def connected(*resources: portal.ClientResource) -> Product:
    """A product whose client uses every resource already."""
    lab = product()
    lab.lan.names["app.example"] = (APP,)
    for resource in resources:
        lab.portal.allow(resource)
    lab.run(0.1)
    for resource in resources:
        address = APP if isinstance(resource, portal.CidrResource) else lab.ask_name("app.example")[0]
        lab.client.send(ip.icmp_echo(CLIENT_V4, address, 1, 1))
        lab.run(3.0)
    lab.lan.received.clear()
    lab.client.received.clear()
    return lab


def network(address: str = "10.9.0.0/24") -> portal.CidrResource:
    return portal.CidrResource(id=CIDR, address=ip_network(address), name="lab", sites=(SITE,))


def name() -> portal.DnsResource:
    return portal.DnsResource(id=NAME, address="app.example", name="app", sites=(SITE,))


def enter(lab: Product, raw: bytes) -> None:
    """A packet comes out of the tunnel at the gateway."""
    gateway = lab.gateways[0]
    peer = 0
    for packet in gateway.program.engine.handle_inner(peer, raw, lab.world.now):
        lab.lan.receive(ip.parse(packet))
    gateway.program.settle()
    lab.run(1.0)


def udp(destination: str, port: int = 53, source: str = str(CLIENT_V4), payload: bytes = b"x") -> bytes:
    return ip.udp_packet(SocketAddr(source, 40000), SocketAddr(destination, port), payload)


def at_client(lab: Product) -> list[Packet]:
    return lab.client.packets()


def prohibited(lab: Product) -> list[str]:
    return [str(packet.source) for packet in at_client(lab) if (packet.icmp_type, packet.icmp_code) == (3, 13)]


def counters(lab: Product) -> dict[str, int]:
    return dict(lab.gateways[0].state.counters)


def test_what_no_resource_covers_is_answered_and_not_forwarded() -> None:
    lab = connected(network("10.9.0.2/32"))

    enter(lab, udp("10.9.0.3"))

    assert lab.lan.received == []
    assert counters(lab)["refused_no_resource"] == 1


def test_foreign_sources_do_not_pass() -> None:
    lab = connected(network())

    enter(lab, udp("10.9.0.2", source="100.64.3.10"))
    enter(lab, udp("10.9.0.2", source="10.9.0.3"))

    assert lab.lan.received == []
    assert counters(lab)["refused_foreign_source"] == 2


def test_other_clients_cannot_be_reached_through_the_gateway() -> None:
    lab = connected(network())

    enter(lab, udp("100.64.3.10"))

    assert lab.lan.received == []
    assert counters(lab)["refused_tunnel_range"] == 1


def test_proxy_ips_outside_their_ranges_open_nothing() -> None:
    lab = connected(name())
    proxy_ips = (ip_address("10.9.0.3"), ip_address("100.96.0.1"))

    enter(lab, encode_control(AssignedIps(NAME, "app.example", proxy_ips)))
    enter(lab, udp("10.9.0.3"))

    assert lab.lan.received == []


def test_multicast_fragments_and_junk_are_dropped_silently() -> None:
    lab = connected(network())
    fragment = bytearray(udp("10.9.0.2"))
    fragment[6] = 0x20

    enter(lab, udp("224.0.0.251"))
    enter(lab, bytes(fragment))
    enter(lab, b"\x45junk")

    assert lab.lan.received == []
    assert at_client(lab) == []


def test_multicast_is_dropped_even_where_a_resource_has_it() -> None:
    lab = connected(network("0.0.0.0/0"))

    enter(lab, udp("224.0.0.251", 5353))

    assert lab.lan.received == []
    assert at_client(lab) == []
    assert counters(lab)["dropped_multicast"] == 1


def test_the_gateway_itself_answers_its_clients() -> None:
    lab = connected(network())
    lab.lan.hosts.add(GATEWAY)

    lab.client.send(udp("100.64.0.1", 53535, payload=b"query"))
    lab.run(1.0)

    assert [packet.payload for packet in at_client(lab)] == [b"echo:query"]


def test_what_nobody_asked_for_is_dropped() -> None:
    lab = connected(network())

    lab.lan.send(ip.udp_packet(SocketAddr("10.9.0.2", 999), CLIENT_PORT, b"hello"))
    lab.lan.send(ip.tcp_packet(SocketAddr("10.9.0.2", 80), CLIENT_PORT, SYN))
    lab.lan.send(ip.udp_packet(SocketAddr("10.9.0.2", 999), SocketAddr("100.64.9.9", 1), b"hello"))
    lab.run(1.0)

    assert at_client(lab) == []
    assert counters(lab)["dropped_unsolicited"] == 2
    assert counters(lab)["dropped_unknown_destination"] == 1


def test_an_error_about_a_network_passes_unchanged() -> None:
    lab = connected(network())
    lab.client.send(udp("10.9.0.77", 53))
    lab.run(1.0)
    (sent,) = lab.lan.received
    error = unreachable(sent, Unreachable.PORT)
    assert error is not None

    lab.lan.send(error)
    lab.run(1.0)

    (packet,) = at_client(lab)
    assert packet.raw == error


def test_an_error_about_a_name_speaks_of_the_proxy_ip() -> None:
    lab = connected(name())
    lab.lan.hosts.clear()
    first, second, *_ = lab.ask_name("app.example")
    for proxy_ip in (first, second):
        lab.client.send(udp(str(proxy_ip), 53))
        lab.run(1.0)
    lab.client.received.clear()
    sent = lab.lan.received[-1]
    assert (str(sent.destination), sent.source_port) == ("10.9.0.2", 40001)
    error = unreachable(sent, Unreachable.PORT)
    assert error is not None

    lab.lan.send(error)
    lab.run(1.0)

    (packet,) = at_client(lab)
    assert packet.source == second
    quote = quoted(packet)
    assert (quote.key.source, quote.key.destination) == (CLIENT_PORT, SocketAddr(str(second), 53))


def test_an_error_about_nothing_is_dropped() -> None:
    lab = connected(network())
    made_up = ip.parse(udp("10.9.0.2", 9))
    error = unreachable(made_up, Unreachable.PORT)
    assert error is not None

    lab.lan.send(error)
    lab.run(1.0)

    assert at_client(lab) == []
    assert counters(lab)["dropped_error_of_no_flow"] == 1


def test_filters_that_the_portal_narrows_act_on_running_flows() -> None:
    lab = connected(network())
    lab.client.send(udp("10.9.0.2", 53))
    lab.run(1.0)
    lab.client.received.clear()
    filters = (portal.Filter(protocol="icmp"),)
    narrowed = portal.GatewayCidrResource(id=CIDR, address=ip_network("10.9.0.0/24"), name="lab", filters=filters)

    lab.portal.to_gateway(lab.gateways[0].id, portal.ResourceUpdated(resource=narrowed))
    lab.run(0.1)
    lab.client.send(udp("10.9.0.2", 53))
    lab.run(1.0)

    assert prohibited(lab) == ["10.9.0.2"]


def test_access_that_was_used_a_moment_ago_ends_at_once_for_new_flows() -> None:
    lab = connected(network(), name())  # the name keeps the client connected
    enter(lab, udp("10.9.0.2", 53))
    passed = list(lab.lan.received)
    lab.lan.received.clear()

    lab.portal.to_gateway(lab.gateways[0].id, portal.RejectAccess(client_id=lab.client.id, resource_id=CIDR))
    lab.run(0.1)
    enter(lab, udp("10.9.0.2", 53))

    assert len(passed) == 1
    assert lab.lan.received == []
    assert counters(lab)["refused_no_resource"] == 1


def test_new_flows_to_a_name_follow_its_address() -> None:
    lab = connected(name())
    proxy_ips = tuple(lab.ask_name("app.example"))
    enter(lab, udp(str(proxy_ips[0]), 53))
    before = [str(packet.destination) for packet in lab.lan.received]
    lab.lan.received.clear()
    lab.lan.names["app.example"] = (ip_address("10.9.0.7"),)

    enter(lab, encode_control(AssignedIps(NAME, "app.example", proxy_ips)))
    raw = ip.udp_packet(SocketAddr(str(CLIENT_V4), 40001), SocketAddr(str(proxy_ips[0]), 53), b"x")
    enter(lab, raw)

    assert before == ["10.9.0.2"]
    assert [str(packet.destination) for packet in lab.lan.received] == ["10.9.0.7"]


def test_what_a_new_init_does_not_list_is_revoked() -> None:
    lab = connected(network(), name())
    gateway = lab.gateways[0]
    grant = portal.AuthorizationRef(client_id=lab.client.id, resource_id=NAME, expires_at=2_000_000_000)

    lab.portal.to_gateway(
        gateway.id,
        portal.GatewayInit(
            interface=portal.GatewayInterface(ipv4=gateway.ipv4, ipv6=gateway.ipv6),
            config=portal.GatewayConfig(),
            authorizations=(grant,),
            flow_logs=portal.FlowLogsConfig(api_url="http://x/", upload_interval_secs=0, upload_batch_size=0),
        ),
    )
    lab.run(0.1)

    (client,) = gateway.state.snapshot()["clients"]
    assert [one["id"] for one in client["resources"]] == [NAME]
    assert client["resources"][0]["expires_at"] == 2_000_000_000
    lab.client.send(udp("10.9.0.2", 53))
    lab.run(1.0)
    assert prohibited(lab) == ["10.9.0.2"]


def test_an_address_that_is_the_gateways_own_no_more_is_any_tunnel_address() -> None:
    lab = connected(network())
    gateway = lab.gateways[0]
    enter(lab, udp(str(GATEWAY)))
    before = counters(lab).get("refused_tunnel_range", 0)
    grant = portal.AuthorizationRef(client_id=lab.client.id, resource_id=CIDR, expires_at=2_000_000_000)

    lab.portal.to_gateway(
        gateway.id,
        portal.GatewayInit(
            interface=portal.GatewayInterface(ipv4=ip_address("100.64.0.99"), ipv6=gateway.ipv6),
            config=portal.GatewayConfig(),
            authorizations=(grant,),
            flow_logs=portal.FlowLogsConfig(api_url="http://x/", upload_interval_secs=0, upload_batch_size=0),
        ),
    )
    lab.run(0.1)
    enter(lab, ip.udp_packet(SocketAddr(str(CLIENT_V4), 40001), SocketAddr(str(GATEWAY), 53), b"x"))

    assert before == 0
    assert counters(lab)["refused_tunnel_range"] == 1


def test_renumbered_names_cut_the_flows_of_the_old_ones() -> None:
    lab = connected(name())
    (proxy_ip, *_) = lab.ask_name("app.example")
    lab.client.send(udp(str(proxy_ip), 53))
    lab.run(1.0)
    gateway = lab.gateways[0]
    flows = gateway.state.snapshot()["flows"]
    wildcard = portal.GatewayDnsResource(id=NAME, address="*.example", name="app", filters=())
    lab.portal.to_gateway(gateway.id, portal.ResourceUpdated(resource=wildcard))
    lab.run(0.1)

    enter(lab, encode_control(AssignedIps(NAME, "db.example", (proxy_ip,))))

    assert flows > 0
    assert gateway.state.snapshot()["flows"] == 0


def test_a_tcp_connection_that_idles_keeps_its_port() -> None:
    lab = connected(name())
    (proxy_ip, *_) = lab.ask_name("app.example")
    lab.client.send(ip.tcp_packet(CLIENT_PORT, SocketAddr(str(proxy_ip), 80), SYN))
    lab.run(600.0)
    lab.client.received.clear()

    lab.client.send(ip.tcp_packet(CLIENT_PORT, SocketAddr(str(proxy_ip), 80), ACK, sequence=1, payload=b"late"))
    lab.run(5.0)

    assert b"echo:late" in [packet.payload for packet in at_client(lab)]


def test_a_ping_of_an_odd_code_does_not_go_round_for_ever() -> None:
    lab = connected(network())

    enter(lab, ip.icmp_message(CLIENT_V4, APP, 8, 1, b"\0\7\0\1"))

    assert [packet.icmp_code for packet in lab.lan.received] == [1]


def test_protocols_without_ports_pass_both_ways() -> None:
    lab = connected(network())
    there = ip.ip_packet(CLIENT_V4, APP, 47, b"\0\0\x08\0there")
    back = ip.ip_packet(APP, CLIENT_V4, 47, b"\0\0\x08\0back")

    lab.client.send(there)
    lab.run(1.0)
    lab.lan.send(back)
    lab.run(1.0)

    assert [packet.raw for packet in lab.lan.received] == [there]
    assert [packet.raw for packet in at_client(lab)] == [back]


def test_questions_sent_in_one_breath_from_one_port_are_all_answered() -> None:
    lab = connected(network(), name())
    (proxy_ip, *_) = lab.ask_name("app.example")
    lab.client.received.clear()
    payloads = [b"A", b"AAAA", b"MX"]

    for address in ("10.9.0.2", str(proxy_ip)):
        for payload in payloads:
            lab.client.program.engine.handle_tun(udp(address, payload=payload), lab.world.now)
        lab.client.program.settle()
        lab.run(1.0)

    assert [packet.payload for packet in lab.lan.received] == payloads * 2
    assert [packet.payload for packet in at_client(lab)] == [b"echo:" + payload for payload in payloads] * 2


def test_access_that_ends_in_the_batch_of_a_first_packet_leaves_no_flow() -> None:
    lab = connected(network())
    engine = lab.gateways[0].program.engine
    flows = engine.flow_count()

    for raw in (udp("10.9.0.2"), encode_control(Goodbye()), udp("10.9.0.2", 54)):
        engine.handle_inner(0, raw, lab.world.now)
    lab.gateways[0].program.settle()

    assert flows > 0
    assert engine.flow_count() == 0
