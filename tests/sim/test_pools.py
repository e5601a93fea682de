"""Device pools: clients that reach each other, what each end permits, and how that begins and ends."""

from ipaddress import ip_address

import pytest

from tests.sim.network import EPOCH
from tests.sim.pools import POOL, Device, PoolPortal, devices
from wardgate._fastpath import StaticKey
from wardgate.wire import ip, portal
from wardgate.wire.addresses import SocketAddr

BOTH_MODES = pytest.mark.parametrize("iceless", [True, False])
ECHO = 7
UDP_7 = portal.Filter(protocol="udp", port_range_start=7, port_range_end=7)


def connected(iceless: bool = True) -> tuple[PoolPortal, Device, Device]:
    stub, (one, two) = devices(iceless=iceless)
    stub.list_pool(one, two)
    stub.world.run(0.1)
    one.ping(two.ipv4)
    stub.world.run(2.0)
    assert len(one.pongs()) == 1
    return stub, one, two


def udp(sender: Device, to: Device, port: int = ECHO, payload: bytes = b"x") -> bytes:
    return ip.udp_packet(SocketAddr(str(sender.ipv4), 4000), SocketAddr(str(to.ipv4), port), payload)


@BOTH_MODES
def test_a_member_is_reached_and_asked_for_once_for_both_families(iceless: bool) -> None:
    stub, one, two = connected(iceless)
    for number in range(2, 6):
        one.ping(two.ipv6 if number % 2 else two.ipv4, number)
    stub.world.run(0.5)

    assert len(one.pongs()) == 5
    (asked,) = [ask for _, ask in stub.asks]
    assert (asked.resource_id, asked.connected_gateway_ids, asked.ipv4, asked.ipv6) == (POOL, (), str(two.ipv4), None)
    (device,) = one.state.snapshot()["devices"]
    assert device["connected"]
    assert device["path"]["kind"] == "direct"
    assert device["reached_through"] == [POOL]


@BOTH_MODES
def test_the_first_answer_comes_soon(iceless: bool) -> None:
    stub, (one, two) = devices(iceless=iceless)
    stub.list_pool(one, two)
    stub.world.run(0.1)
    began = stub.world.now

    one.ping(two.ipv4)
    stub.world.run(2.0)

    assert one.pongs()[0] - began < 0.3


def test_behind_symmetric_nats_the_relay_carries_it() -> None:
    stub, (one, two) = devices(symmetric=True)
    stub.list_pool(one, two)
    stub.world.run(0.1)

    one.ping(two.ipv4)
    stub.world.run(2.0)

    assert len(one.pongs()) == 1
    assert one.state.snapshot()["devices"][0]["path"]["kind"] == "relayed"


def test_known_flows_pass_both_ways_without_python() -> None:
    stub, one, two = connected()
    one.send(udp(one, two))
    stub.world.run(0.5)
    before = [device.program.engine.counters()["upcalls_packet"] for device in (one, two)]

    for number in range(20):
        one.send(udp(one, two, payload=bytes([number])))
    stub.world.run(0.2)

    assert len([packet for _, packet in one.received if packet.protocol == ip.UDP]) == 21
    after = [device.program.engine.counters()["upcalls_packet"] for device in (one, two)]
    assert [b - a for a, b in zip(before, after, strict=True)] <= [2, 2]


def test_a_grant_is_one_way() -> None:
    stub, one, two = connected()

    two.ping(one.ipv4)
    stub.world.run(1.0)

    assert two.pongs() == []
    assert one.heard == []
    assert len(stub.asks) == 1


def test_the_target_permits_what_its_grants_permit() -> None:
    stub, one, two = connected()
    stub.push(two, portal.ResourceFiltersUpdated(id=POOL, filters=(UDP_7,)))
    stub.world.run(0.1)

    one.ping(two.ipv4, 2)
    one.send(udp(one, two))
    one.send(udp(one, two, port=8))
    stub.world.run(0.5)

    assert len(one.pongs()) == 1
    assert one.errors() == [(3, 13), (3, 13)]
    assert [packet.destination_port for packet in two.heard if packet.protocol == ip.UDP] == [ECHO]


def test_filters_change_in_the_middle_of_a_flow_and_nothing_is_asked_anew() -> None:
    stub, one, two = connected()
    stub.list_pool(one, two, filters=(UDP_7,))
    stub.push(two, portal.ResourceFiltersUpdated(id=POOL, filters=(UDP_7,)))
    stub.world.run(0.5)

    one.ping(two.ipv4, 2)
    one.send(udp(one, two))
    stub.world.run(0.5)

    assert one.errors() == [(3, 13)]
    assert two.heard[-1].protocol == ip.UDP
    assert len([packet for packet in two.heard if packet.protocol == ip.UDP]) == 1
    assert len(stub.asks) == 1


@pytest.mark.parametrize("how", ["rejected", "expired", "not listed"])
def test_access_ends_in_the_middle_of_a_flow_and_is_asked_for_anew(how: str) -> None:
    stub, (one, two) = devices()
    if how == "expired":
        stub.expires_at = int(EPOCH + stub.world.now) + 5
    stub.list_pool(one, two)
    stub.world.run(0.1)
    one.send(udp(one, two))
    stub.world.run(2.0)
    assert len(two.heard) == 1
    stub.refuse_with = "forbidden"

    if how == "rejected":
        stub.push(two, portal.RejectAccess(client_id=one.id, resource_id=POOL))
    elif how == "not listed":
        stub.join(two)
    stub.world.run(1.0 if how != "expired" else 5.0)
    for number in range(20):
        one.send(udp(one, two, payload=bytes([number])))
        stub.world.run(0.05)

    assert len(two.heard) == 1
    assert len(stub.asks) >= 2
    assert (3, 13) in one.errors()
    assert one.state.snapshot()["denials"][-1]["reason"] == "forbidden"


def test_what_the_portal_lists_anew_goes_on() -> None:
    stub, one, two = connected()
    later = int(EPOCH + stub.world.now) + 3600
    stub.join(two, portal.AuthorizationRef(client_id=one.id, resource_id=POOL, expires_at=later))
    stub.world.run(0.5)

    one.ping(two.ipv4, 2)
    stub.world.run(0.5)

    assert len(one.pongs()) == 2
    assert len(stub.asks) == 1


def test_who_leaves_the_pool_is_not_reached_any_more_and_later_again() -> None:
    stub, one, two = connected()
    stub.list_pool(one)
    stub.world.run(0.1)
    one.ping(two.ipv4, 2)
    stub.world.run(0.5)
    assert len(one.pongs()) == 1

    stub.list_pool(one, two)
    stub.world.run(0.1)
    one.ping(two.ipv4, 3)
    stub.world.run(1.0)

    assert len(one.pongs()) == 2


def test_a_no_is_an_error_at_once_and_asked_again_every_two_seconds() -> None:
    stub, (one, two) = devices()
    stub.refuse_with = "forbidden"
    stub.list_pool(one, two)
    stub.world.run(0.1)

    for number in range(50):
        one.ping(two.ipv4, number)
        stub.world.run(0.1)

    assert one.errors()[0] == (3, 13)
    assert 2 <= len(stub.asks) <= 4


def test_the_portals_no_to_a_device_in_use_ends_its_tunnel() -> None:
    stub, one, two = connected()

    stub.push(one, portal.ClientDeviceAccessDenied(ipv4=two.ipv4, ipv6=two.ipv6, reason="forbidden"))
    stub.world.run(0.2)
    assert one.state.snapshot()["devices"] == []
    one.ping(two.ipv4, 2)
    stub.world.run(1.0)

    assert len(one.pongs()) == 2
    assert len(stub.asks) == 2


def test_a_device_that_comes_back_with_another_key_is_reached_at_once_when_the_portal_says_so() -> None:
    stub, one, two = connected()
    static = StaticKey.from_bytes(bytes(range(32)))
    two.public_key = static.public_key
    two.state.set_static(static, stub.world.now)
    two.program.settle()
    stub.join(two)

    stub.push(one, portal.ClientDeviceAccessDenied(ipv4=two.ipv4, ipv6=two.ipv6, reason="forbidden"))
    stub.world.run(0.1)
    began = stub.world.now
    one.ping(two.ipv4, 2)
    stub.world.run(1.0)

    assert one.pongs()[-1] - began < 0.3


@BOTH_MODES
def test_both_ends_may_ask(iceless: bool) -> None:
    stub, one, two = connected(iceless)
    stub.list_pool(two, one)
    stub.world.run(0.1)

    two.ping(one.ipv4)
    stub.world.run(2.0)
    one.ping(two.ipv4, 2)
    stub.world.run(3.0)

    assert len(two.pongs()) == 1
    assert len(one.pongs()) == 2


def test_errors_pass_only_about_what_was_sent() -> None:
    stub, one, two = connected()
    one.send(udp(one, two, port=9999))
    stub.world.run(0.5)
    refused = next(packet for at, packet in two.received if packet.destination_port == 9999)
    two.send(ip.icmp_message(two.ipv4, one.ipv4, 3, 3, bytes(4), refused.raw[: refused.payload_offset]))
    two.send(ip.icmp_message(two.ipv4, one.ipv4, 3, 3, bytes(4), udp(one, two, port=5)[:28]))
    stub.world.run(0.5)

    assert one.errors() == [(3, 3)]
    assert two.state.counters["dropped_outbound_icmp_error"] == 1


def test_a_name_of_a_dynamic_pool_is_asked_of_the_portal_once_and_leads_to_the_device() -> None:
    stub, (one, two) = devices()
    stub.hostnames["mia.laptops.example"] = two
    stub.list_names(one, "*.laptops.example")
    stub.world.run(0.1)

    for kind in (1, 28, 1, 16):
        query(one, "Mia.laptops.example", kind)
        stub.world.run(0.1)
    one.ping(two.ipv4)
    stub.world.run(2.0)

    answers = [packet.payload for _, packet in one.received if packet.source_port == 53]
    assert stub.questions == ["mia.laptops.example"]
    assert answers[0].endswith(two.ipv4.packed)
    assert answers[1].endswith(two.ipv6.packed)
    assert answers[2] == answers[0]
    assert answers[3][2:8] == b"\x81\0\0\1\0\0"
    assert len(one.pongs()) == 1


def test_unknown_names_of_a_dynamic_pool_do_not_exist_and_silence_is_a_failure() -> None:
    stub, (one, _) = devices()
    stub.list_names(one, "*.laptops.example")
    stub.world.run(0.1)
    query(one, "nobody.laptops.example", 1)
    stub.world.run(0.1)
    stub.answers_names = False
    query(one, "mia.laptops.example", 1)
    asked_at = stub.world.now
    stub.world.run(6.0)

    answers = [(at, packet.payload[3] & 15) for at, packet in one.received if packet.source_port == 53]
    assert [rcode for _, rcode in answers] == [3, 2]
    assert answers[1][0] - asked_at == pytest.approx(5.0, abs=0.1)


def query(device: Device, name: str, kind: int) -> None:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = b"\0\7\1\0\0\1" + bytes(6) + labels + b"\0" + kind.to_bytes(2, "big") + b"\0\1"
    assert device.tun is not None
    sentinel = SocketAddr(str(device.tun.dns_servers[0]), 53)
    device.send(ip.udp_packet(SocketAddr(str(device.ipv4), 33000), sentinel, question))
    assert ip_address(sentinel.host)
