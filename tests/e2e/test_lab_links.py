"""Wires with delay, rate, loss and MTU; changes while the lab runs; recordings of what crosses them."""

import re
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from wardgate.errors import LabError
from wardgate.lab import Lab, Link, Nat, NatKind, Node, capture, topologies

pytestmark = pytest.mark.netns

PORTAL = "203.0.113.10"
MARKER = b"a secret of thirty-two characters"


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    with Lab(topologies.demo()) as running:
        yield running


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    """The demo's internet, put back into its first state after the test."""
    built = topologies.demo()
    yield shared_lab
    for name in ("client-nat", "portal"):
        shared_lab.set_link(name, Link())
    client, _ = built.host("client")
    if shared_lab.topology.host("client") != built.host("client"):
        shared_lab.move_host("client", "client", client.ipv4, client.ipv6)
    site = built.site("client")
    if shared_lab.topology.site("client").public_ipv4 != site.public_ipv4:
        shared_lab.set_public_address("client", site.public_ipv4)
    if shared_lab.topology.site("client").nat != site.nat:
        shared_lab.set_nat("client", site.nat)


def test_delay_holds_in_both_directions_and_can_be_changed() -> None:
    pytest.importorskip("wardgate._fastpath", reason="delay needs the native module")
    with Lab(topologies.demo(client_link=Link(delay_ms=15))) as lab:
        assert 30 <= fastest_ping_ms(lab.node("client")) < 45
        assert fastest_ping_ms(lab.node("client"), "192.168.1.1") < 15

        lab.set_link("client-nat", Link(delay_ms=40))

        assert 80 <= fastest_ping_ms(lab.node("client")) < 100
        away, towards = lab.link_counters("client-nat")
        assert min(away.frames, towards.frames) >= 10
        assert (away.overflowed, towards.overflowed) == (0, 0)


def test_super_packets_cross_a_delayed_wire_whole() -> None:
    pytest.importorskip("wardgate._fastpath", reason="delay needs the native module")
    with Lab(topologies.demo(client_link=Link(delay_ms=1))) as lab:
        megabytes = 20
        assert send_and_count(lab, megabytes) == megabytes << 20

        away, _ = lab.link_counters("client-nat")
        assert away.bytes / away.frames > 3000


def test_delayed_wire_can_be_unplugged_and_plugged_in() -> None:
    pytest.importorskip("wardgate._fastpath", reason="delay needs the native module")
    topology = topologies.demo()
    client, _ = topology.host("client")
    slow = type(client)(client.name, client.ipv4, client.ipv6, Link(delay_ms=10))
    with Lab(topology.with_host(slow, "client")) as lab:
        lab.move_host("client", "gateway", IPv4Address("10.9.0.50"))
        assert 20 <= fastest_ping_ms(lab.node("client"), "10.9.0.2") < 35


def test_wire_without_delay_cannot_get_one(lab: Lab) -> None:
    with pytest.raises(LabError, match="without a delay"):
        lab.set_link("client-nat", Link(delay_ms=5))


def test_rate_limits_a_wire(lab: Lab) -> None:
    lab.set_link("client-nat", Link(rate_mbit=20))
    with lab.node("portal").socket() as receiver, lab.node("client").socket() as sender:
        receiver.bind((PORTAL, 9000))
        receiver.settimeout(0.5)
        for _ in range(500):
            sender.sendto(bytes(1200), (PORTAL, 9000))
        received = sum(len(datagram) for datagram in until_silent(receiver))

    # 600 kB at once: the bucket and 50 ms of queue take about 225 kB, the rest is lost.
    assert 125_000 < received < 400_000


def test_loss_of_one_cuts_a_wire_and_zero_mends_it(lab: Lab) -> None:
    client = lab.node("client")
    lab.set_link("client-nat", Link(loss=1))
    assert not pings(client)
    lab.set_link("client-nat", Link())
    assert pings(client)


def test_loss_loses_its_share_of_single_packets(lab: Lab) -> None:
    lab.set_link("portal", Link(loss=0.2))
    with lab.node("portal").socket() as receiver, lab.node("relay-1").socket() as sender:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        receiver.bind((PORTAL, 9000))
        receiver.settimeout(0.5)
        for _ in range(1000):
            sender.sendto(b"x", (PORTAL, 9000))
        received = len(until_silent(receiver))

    assert 700 < received < 900  # eight standard deviations


def test_packet_too_big_for_a_wire_is_answered() -> None:
    with Lab(topologies.demo(gateway_link=Link(mtu=1300))) as lab:
        done = lab.node("gateway-1").run(["ping", "-c1", "-W2", "-M", "do", "-s", "1400", PORTAL])
        assert "mtu = 1300" in done.stdout + done.stderr
        done = lab.node("client").run(["ping", "-c1", "-W2", "-M", "do", "-s", "1400", "203.0.113.31"])
        assert "mtu = 1300" in done.stdout + done.stderr
        done = lab.node("portal").run(["ping", "-6", "-c1", "-W2", "-M", "do", "-s", "1400", "2001:db8:113::31"])
        assert "mtu: 1300" in done.stdout + done.stderr or "mtu=1300" in done.stdout + done.stderr


def test_capture_shows_what_crosses_the_wan_and_nothing_else(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "wan.pcap"
    with capture(lab.wan, "client-nat", "udp port 9000", path=path) as recording:
        tell(lab.node("client"), PORTAL, 9000, MARKER)
        tell(lab.node("client"), PORTAL, 9001, b"another port")
        tell(lab.node("gateway-1"), "10.9.0.2", 9000, b"another network")

    assert recording.contains(MARKER)
    assert not recording.contains(b"another")
    assert len(recording) == 1


def test_capture_works_without_tcpdump(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wardgate.lab.recording.SYSTEM_DIRECTORIES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with capture(lab.wan, "client-nat", path=tmp_path / "wan.pcap") as recording:
        tell(lab.node("client"), PORTAL, 9000, MARKER)
    assert recording.contains(MARKER)
    assert not recording.contains(b"never said")

    with pytest.raises(LabError, match="needs tcpdump"):
        with capture(lab.wan, "client-nat", "udp"):
            pass


@pytest.mark.parametrize("expression", [None, "no such filter"])
def test_capture_that_cannot_start_says_why(lab: Lab, expression: str | None) -> None:
    with pytest.raises(LabError, match=r"tcpdump on wan: .*(No such device|syntax error|can't parse)"):
        with capture(lab.wan, "client-nat" if expression else "moon", expression):
            pass


def test_host_roams_between_networks_and_keeps_its_programs(lab: Lab) -> None:
    client = lab.node("client")
    program = client.spawn(["sleep", "1000"])

    lab.move_host("client", "gateway", IPv4Address("10.9.0.50"))
    assert pings(client, "10.9.0.2")
    assert pings(client)
    lab.move_host("client", None, IPv4Address("203.0.113.50"), IPv6Address("2001:db8:113::50"))
    assert pings(client)
    assert pings(client, "2001:db8:113::10")
    assert not pings(client, "10.9.0.2")
    lab.move_host("client", "client", IPv4Address("192.168.1.20"))
    assert pings(client)

    assert program.running


def test_public_address_of_a_site_can_change(lab: Lab) -> None:
    with lab.node("portal").socket() as receiver:
        receiver.bind((PORTAL, 9000))
        receiver.settimeout(5)
        sender = lab.node("client").socket()
        sources = []
        for address in ("203.0.113.21", "203.0.113.77"):
            if address != "203.0.113.21":
                lab.set_public_address("client", IPv4Address(address))
            sender.sendto(b"x", (PORTAL, 9000))
            sources.append(receiver.recvfrom(10)[1][0])
        sender.close()

    assert sources == ["203.0.113.21", "203.0.113.77"]


def test_nat_of_a_site_can_change_and_forgets_its_mappings(lab: Lab) -> None:
    with lab.node("portal").socket() as receiver, lab.node("client").socket() as sender:
        receiver.bind((PORTAL, 9000))
        receiver.settimeout(5)
        sender.bind(("192.168.1.10", 4000))
        sender.sendto(b"x", (PORTAL, 9000))
        before = receiver.recvfrom(10)[1]
        lab.set_nat("client", Nat(NatKind.SYMMETRIC))
        sender.sendto(b"x", (PORTAL, 9000))
        after = receiver.recvfrom(10)[1]

    assert before == ("203.0.113.21", 4000)
    assert after != before
    with pytest.raises(LabError, match="cannot change"):
        lab.set_nat("client", Nat(NatKind.CARRIER_GRADE))


def pings(node: Node, target: str = PORTAL) -> bool:
    return node.run(["ping", "-c1", "-W1", target]).returncode == 0


def fastest_ping_ms(node: Node, target: str = PORTAL) -> float:
    done = node.run(["ping", "-i0.02", "-c10", "-W2", target]).check()
    found = re.search(r"min/avg/max/mdev = ([0-9.]+)/", done.stdout)
    assert found is not None
    return float(found[1])


def tell(node: Node, host: str, port: int, text: bytes) -> None:
    with node.socket() as sender:
        sender.sendto(text, (host, port))


def send_and_count(lab: Lab, megabytes: int) -> int:
    chunk = bytes(1 << 20)
    with lab.node("portal").socket(kind=socket.SOCK_STREAM) as server:
        server.bind((PORTAL, 9000))
        server.listen()
        with lab.node("client").socket(kind=socket.SOCK_STREAM) as caller:
            caller.settimeout(20)
            caller.connect((PORTAL, 9000))
            accepted, _ = server.accept()
            counted = 0
            with accepted:
                accepted.setblocking(False)
                for _ in range(megabytes):
                    remaining = memoryview(chunk)
                    while remaining:
                        caller.settimeout(0)
                        try:
                            remaining = remaining[caller.send(remaining) :]
                        except BlockingIOError:
                            counted += take(accepted)
                caller.shutdown(socket.SHUT_WR)
                accepted.settimeout(20)
                while data := accepted.recv(1 << 20):
                    counted += len(data)
    return counted


def until_silent(receiver: socket.socket) -> list[bytes]:
    datagrams = []
    while True:
        try:
            datagrams.append(receiver.recv(2000))
        except TimeoutError:
            return datagrams


def take(accepted: socket.socket) -> int:
    try:
        return len(accepted.recv(1 << 20))
    except BlockingIOError:
        return 0
