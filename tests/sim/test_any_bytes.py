"""Whatever comes from the host, a peer or the wire: both ends go on as if it had not come."""

from functools import cache
from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.product import CLIENT_V4, SITE, Product, product, resource_id
from wardgate.wire import ip, portal
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.control import AssignedIps, DomainStatus, NatStatus, encode_control

APP = ip_address("10.9.0.2")
CLIENT = SocketAddr(str(CLIENT_V4), 40000)
NAME = resource_id(0xD1)


@cache
def running() -> Product:
    lab = product()
    lab.portal.allow(
        portal.CidrResource(id=resource_id(0xC1), address=ip_network("10.9.0.0/24"), name="lab", sites=(SITE,))
    )
    lab.portal.allow(portal.DnsResource(id=NAME, address="app.example", name="app", sites=(SITE,)))
    lab.lan.names["app.example"] = (APP,)
    lab.run(0.1)
    lab.client.send(ip.icmp_echo(CLIENT_V4, APP, 1, 1))
    lab.client.send(ip.icmp_echo(CLIENT_V4, lab.ask_name("app.example")[0], 1, 1))
    lab.run(3.0)
    return lab


def seeds() -> list[bytes]:
    proxy_ips = (ip_address("100.96.0.1"), ip_address("fd00:2021:1111:8000::"))
    return [
        ip.udp_packet(CLIENT, SocketAddr("10.9.0.2", 53), b"payload"),
        ip.udp_packet(CLIENT, SocketAddr("100.96.0.1", 53), b"payload"),
        ip.udp_packet(CLIENT, SocketAddr("100.100.111.1", 53), b"\0\7\1\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1"),
        ip.tcp_packet(CLIENT, SocketAddr("10.9.0.2", 80), ip.SYN),
        ip.icmp_echo(CLIENT_V4, APP, 1, 1, b"ping"),
        ip.icmp_message(APP, CLIENT_V4, 3, 3, bytes(4), ip.udp_packet(CLIENT, SocketAddr("10.9.0.2", 53), b"p")),
        encode_control(AssignedIps(NAME, "app.example", proxy_ips)),
        encode_control(DomainStatus(NatStatus.INACTIVE, NAME, "app.example")),
    ]


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(st.sampled_from(seeds()) | st.binary(max_size=200)))
    for _ in range(draw(st.integers(0, 4))):
        if raw:
            raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw[: draw(st.integers(0, len(raw)))] if draw(st.booleans()) else raw)


@settings(max_examples=300, deadline=None)
@given(packets(), st.sampled_from(["host", "from gateway", "lan", "from client", "wire"]))
def test_nothing_that_arrives_breaks_either_end(raw: bytes, entrance: str) -> None:
    lab = running()
    client, gateway = lab.client.program, lab.gateways[0].program
    match entrance:
        case "host":
            client.send_tun(raw)
        case "lan":
            gateway.send_tun(raw)
        case "from gateway":
            client.engine.handle_inner(0, raw, lab.world.now)
            client.settle()
        case "from client":
            gateway.engine.handle_inner(0, raw, lab.world.now)
            gateway.settle()
        case "wire":
            client.handle_datagram(SocketAddr("203.0.113.99", 1000), client.address, raw, lab.world.now)
            gateway.handle_datagram(SocketAddr("203.0.113.99", 1000), gateway.address, raw, lab.world.now)
    lab.run(0.01)


def test_after_all_that_it_still_works() -> None:
    lab = running()
    lab.run(10.0)
    start = len(lab.client.received)

    lab.client.send(ip.icmp_echo(CLIENT_V4, APP, 9, 1))
    lab.run(5.0)

    assert [packet.source for _, packet in lab.client.received[start:] if packet.icmp_id == 9] == [APP]
