"""Names in the whole: local answers, the site's records, resolvers inside and outside the tunnel."""

from ipaddress import ip_address, ip_network

from tests.sim.product import CLIENT_V4, CLIENT_V6, SITE, Product, product, resource_id
from wardgate.proto.tcp_query import TcpQuery
from wardgate.wire import ip, portal
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.icmp_errors import Unreachable, unreachable
from wardgate.wire.ip import IpAddress

CIDR, NAME, OTHER = resource_id(0xC1), resource_id(0xD1), resource_id(0xD2)
APP, DB = ip_address("10.9.0.2"), ip_address("10.9.0.3")
TXT, SRV, MX, PTR = 16, 33, 15, 12
GATEWAY = ip_address("100.64.0.1")


def name(address: str = "app.example", number: str = NAME, **options: object) -> portal.DnsResource:
    fields = {"id": number, "address": address, "name": "app", "sites": (SITE,), **options}
    return portal.DnsResource.model_validate(fields)


def ping(lab: Product, destination: IpAddress, number: int = 1) -> list[IpAddress]:
    """Sends a ping and returns who answered it."""
    start = len(lab.client.received)
    source = CLIENT_V4 if destination.version == 4 else CLIENT_V6
    lab.client.send(ip.icmp_echo(source, destination, 7, number))
    lab.run(3.0)
    return [packet.source for _, packet in lab.client.received[start:] if packet.icmp_id is not None]


def respond(query: bytes) -> bytes:
    """A response without records."""
    return query[:2] + b"\x81\x80" + query[4:]


def test_both_families_of_a_name_work() -> None:
    lab = product()
    lab.lan.names["app.example"] = (APP, ip_address("fd00:9::2"))
    lab.portal.allow(name())
    lab.run(0.1)
    (v4, *_), (v6, *_) = lab.ask_name("app.example"), lab.ask_name("app.example", kind=28)

    assert ping(lab, v4) == [v4]
    assert ping(lab, v6) == [v6]


def test_a_name_that_moves_is_followed_after_the_next_query() -> None:
    lab = product()
    lab.lan.names["app.example"] = (APP,)
    lab.portal.allow(name())
    lab.run(0.1)
    (proxy_ip, *_) = lab.ask_name("app.example")
    ping(lab, proxy_ip)
    lab.lan.names["app.example"] = (DB,)

    lab.ask_name("app.example")
    lab.run(1.0)
    lab.client.send(ip.udp_packet(SocketAddr(str(CLIENT_V4), 40000), SocketAddr(str(proxy_ip), 53), b"new"))
    lab.run(1.0)
    ping(lab, proxy_ip, 2)

    assert [str(packet.destination) for packet in lab.lan.received] == ["10.9.0.2", "10.9.0.3", "10.9.0.2"]


def test_a_name_that_did_not_exist_works_after_the_next_query() -> None:
    lab = product()
    lab.portal.allow(name())
    lab.run(0.1)
    (proxy_ip, *_) = lab.ask_name("app.example")
    assert ping(lab, proxy_ip) == []
    lab.lan.names["app.example"] = (APP,)

    lab.ask_name("app.example")
    lab.run(0.5)

    assert ping(lab, proxy_ip, 2) == [proxy_ip]


def test_an_ip_stack_is_kept_to() -> None:
    lab = product()
    lab.lan.names["app.example"] = (APP, ip_address("fd00:9::2"))
    lab.portal.allow(name(ip_stack="ipv4_only"))
    lab.run(0.1)

    assert len(lab.ask_name("app.example")) == 4
    assert lab.ask_name("app.example", kind=28) == []


def test_two_resources_share_a_name_each_with_its_filter() -> None:
    lab = product()
    lab.lan.names["app.example"] = (APP,)
    lab.portal.allow(name(filters=(portal.Filter(protocol="tcp", port_range_start=80, port_range_end=80),)))
    lab.portal.allow(name("*.example", OTHER, filters=(portal.Filter(protocol="icmp"),)))
    lab.run(0.1)
    (proxy_ip, *_) = lab.ask_name("app.example")

    lab.client.send(ip.tcp_packet(SocketAddr(str(CLIENT_V4), 40000), SocketAddr(str(proxy_ip), 80), ip.SYN))
    lab.run(3.0)

    assert ping(lab, proxy_ip) == [proxy_ip]
    assert {ask.resource_id for _, ask in lab.portal.asks} == {NAME, OTHER}
    assert len([packet for packet in lab.client.packets() if packet.protocol == ip.TCP]) == 1


def test_a_resource_that_comes_back_finds_its_names() -> None:
    lab = product()
    lab.lan.names["app.example"] = (APP,)
    lab.portal.allow(name())
    lab.run(0.1)
    (proxy_ip, *_) = lab.ask_name("app.example")
    ping(lab, proxy_ip)
    lab.portal.forbid(NAME)
    lab.run(1.0)
    assert ping(lab, proxy_ip, 2) == []

    lab.portal.allow(name())
    lab.run(0.1)

    assert ping(lab, proxy_ip, 3) == [proxy_ip]
    assert lab.ask_name("app.example")[0] == proxy_ip


def test_text_records_come_from_the_site_also_if_access_is_still_to_be_asked_for() -> None:
    lab = product()
    lab.lan.hosts.add(GATEWAY)
    lab.lan.services[53535] = respond
    lab.portal.allow(name())
    lab.run(0.1)

    lab.query("app.example", TXT)
    lab.run(3.0)
    lab.query("app.example", TXT, number=8)
    lab.run(1.0)

    assert [answer[:2] for answer in lab.dns_answers()] == [b"\0\7", b"\0\10"]
    assert len(lab.portal.asks) == 1


def test_answers_of_the_site_come_without_waiting() -> None:
    """A round trip to the gateway is 20 ms here, and access was granted before."""
    lab = site_with_records()
    lab.query("app.example", TXT)
    lab.run(3.0)
    start = len(lab.client.received)

    for number, kind in enumerate((TXT, SRV, MX, PTR)):
        lab.query("2.0.9.10.in-addr.arpa" if kind == PTR else "app.example", kind, number)
        asked_at = lab.world.now
        lab.run(0.5)
        assert lab.client.received[start + number][0] - asked_at < 0.05


def test_an_answer_too_long_for_a_packet_comes_over_tcp() -> None:
    lab = site_with_records()
    lab.lan.services[53535] = truncate
    lab.lan.streams[53535] = respond_at_length
    lab.query("app.example", TXT)
    lab.run(3.0)
    (short,) = lab.dns_answers()
    assert short[2] & 2, "marked as truncated"
    asked_at = lab.world.now

    answer = ask_over_tcp(lab, "app.example", TXT)

    assert len(answer) > 2600
    assert lab.client.received[-1][0] - asked_at < 0.2
    assert lab.client.forwarded == []


def test_a_gateway_that_fails_on_long_answers_is_asked_over_tcp() -> None:
    lab = site_with_records()
    lab.lan.services[53535] = lambda query: query[:2] + b"\x81\x82" + query[4:]
    lab.lan.streams[53535] = respond_at_length

    lab.query("app.example", TXT)
    lab.run(3.0)

    (answer,) = lab.dns_answers()
    assert answer[2] & 2, "marked as truncated"
    assert answer[3] & 15 == 0
    assert len(ask_over_tcp(lab, "app.example", TXT)) > 2600


def test_a_query_about_a_site_that_is_offline_fails_at_once() -> None:
    lab = site_with_records()
    lab.gateways[0].kill()

    lab.query("app.example", TXT)
    lab.run(0.5)

    assert [answer[3] & 15 for answer in lab.dns_answers()] == [2]


def test_a_query_that_a_gateway_refuses_fails_at_once() -> None:
    lab = site_with_records()
    lab.lan.services.clear()
    lab.lan.hosts.discard(GATEWAY)
    lab.query("app.example", TXT)
    lab.run(3.0)
    (question,) = [packet for packet in lab.lan.received if packet.destination == GATEWAY]
    error = unreachable(question, Unreachable.PORT)
    assert error is not None

    lab.lan.send(error)
    lab.run(0.1)

    assert [answer[3] & 15 for answer in lab.dns_answers()] == [2]


def site_with_records() -> Product:
    lab = product()
    lab.lan.hosts.add(GATEWAY)
    lab.lan.services[53535] = respond
    lab.lan.names["app.example"] = (APP,)
    lab.portal.allow(name())
    lab.portal.allow(portal.CidrResource(id=CIDR, address=ip_network("10.9.0.0/24"), name="lab", sites=(SITE,)))
    lab.run(0.1)
    return lab


def truncate(query: bytes) -> bytes:
    return query[:2] + b"\x83\x80" + query[4:]


def respond_at_length(query: bytes) -> bytes:
    text = b"\xfa" + bytes(250)
    record = b"\xc0\x0c\0\x10\0\1\0\0\0\x3c" + (11 * len(text)).to_bytes(2, "big") + 11 * text
    return query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + query[12:] + record


def ask_over_tcp(lab: Product, domain: str, kind: int) -> bytes:
    """Asks a sentinel over TCP, as a host does whose answer was truncated."""
    assert lab.client.tun is not None
    host, sentinel = SocketAddr(str(CLIENT_V4), 41000), SocketAddr(str(lab.client.tun.dns_servers[0]), 53)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in domain.split("."))
    question = b"\0\7\1\0\0\1" + bytes(6) + labels + b"\0" + kind.to_bytes(2, "big") + b"\0\1"
    connection = TcpQuery(host, sentinel, question, 10, lab.world.now)
    taken = len(lab.client.received)
    for _ in range(40):
        while (raw := connection.poll_packet()) is not None:
            lab.client.send(raw)
        for packet in (packet for _, packet in lab.client.received[taken:] if packet.destination_port == host.port):
            connection.handle_packet(packet, lab.world.now)
        taken = len(lab.client.received)
        if answered := connection.poll_answer():
            assert answered[0] is not None
            return answered[0]
        lab.run(0.01)
    raise AssertionError("no answer over TCP")


def test_other_names_go_to_the_hosts_resolver() -> None:
    lab = product()
    lab.portal.allow(name())
    lab.client.state.set_system_resolvers([ip_address("192.0.2.53")], lab.world.now)
    lab.run(0.1)

    lab.query("elsewhere.example")
    (query,) = lab.client.forwarded
    lab.client.state.handle_query_response(query.query_id, respond(query.payload), lab.world.now)
    lab.client.program.settle()

    assert query.server == SocketAddr("192.0.2.53", 53)
    assert [answer[:2] for answer in lab.dns_answers()] == [b"\0\7"]


def test_a_resolver_that_the_portal_names_is_asked_through_the_tunnel_if_it_is_behind_a_resource() -> None:
    lab = product()
    lab.lan.services[53] = respond
    lab.portal.allow(portal.CidrResource(id=CIDR, address=ip_network("10.9.0.0/24"), name="lab", sites=(SITE,)))
    server = portal.Do53Server(ip=APP)
    interface = lab.portal.interface.model_copy(update={"upstream_do53": (server,)})
    lab.portal.to_client(portal.ConfigChanged(interface=interface))
    lab.run(0.1)

    lab.query("elsewhere.example")
    lab.run(3.0)

    assert [answer[:2] for answer in lab.dns_answers()] == [b"\0\7"]
    assert lab.client.forwarded == []
    assert [packet.destination_port for packet in lab.lan.received] == [53]


def test_a_tcp_query_is_answered_without_waiting() -> None:
    lab = product()
    lab.lan.names["app.example"] = (APP,)
    lab.portal.allow(name())
    lab.run(0.1)
    assert lab.client.tun is not None
    host = SocketAddr(str(CLIENT_V4), 40000)
    sentinel = SocketAddr(str(lab.client.tun.dns_servers[0]), 53)
    question = bytes.fromhex("00070100000100000000000003617070076578616d706c650000010001")

    lab.client.send(ip.tcp_packet(host, sentinel, ip.SYN, sequence=10))
    (greeting,) = lab.client.packets()
    theirs = ip.tcp_header(greeting).sequence + 1
    for payload in (b"", b"\0" + bytes((len(question),)) + question):
        lab.client.send(ip.tcp_packet(host, sentinel, ip.ACK, sequence=11, acknowledgment=theirs, payload=payload))

    answer = b"".join(packet.payload for packet in lab.client.packets()[1:])
    assert len(answer) == 2 + int.from_bytes(answer[:2], "big")
    assert answer[2:4] == b"\0\7"
    assert answer.count(bytes((100, 96, 0))) == 4
