"""A relay process whose channels the kernel forwards, between real network namespaces."""

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.relay_process import Portal, RunningRelay, running_relay
from tests.xdp import network
from tests.xdp.host import skip_without_xdp
from tests.xdp.network import ADDRESSES, CLIENT, INTERFACE, PEER, RELAY, RELAY4, RELAY6, Capture, inside, udp_socket
from tests.xdp.program import program_ids
from tests.xdp.turn_client import TurnClient
from wardgate._fastpath import RelayIo
from wardgate.wire import channel_data, stun
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.stun import Builder, MessageClass, Method

pytestmark = pytest.mark.netns

XDP = ("--xdp", INTERFACE, "--xdp-mode", "generic")
COUNT = 50
PAYLOADS = [bytes([number]) * (40 + 20 * number) for number in range(COUNT)]


@pytest.fixture(scope="module", autouse=True)
def _network() -> Iterator[None]:
    with network.network():
        yield


@pytest.fixture(scope="module")
def portal() -> Iterator[Portal]:
    with inside(RELAY):
        portal = Portal()
    yield portal
    portal.close()


@contextmanager
def relay(portal: Portal, *arguments: str, by: tuple[str, ...] = ()) -> Iterator[RunningRelay]:
    """A relay process with both of its addresses; meanwhile this thread is in its namespace."""
    public = ("--public-ip4-addr", RELAY4, "--public-ip6-addr", RELAY6, "--lowest-port", "64000")
    with inside(RELAY), running_relay(portal, *public, *arguments, by=by) as running:
        yield running


@pytest.fixture
def running(portal: Portal) -> Iterator[RunningRelay]:
    """A relay whose channels the kernel forwards."""
    with relay(portal, *XDP) as running:
        require_active(running)
        yield running


def require_active(running: RunningRelay) -> None:
    if figure(running, "xdp_active") != 1:
        running.stop()
        _, errors = running.process.communicate()
        if "CAP_BPF" in errors or "clang was not found" in errors:
            pytest.skip(f"no XDP here: {errors}")
        pytest.fail(errors)


@dataclass
class Ends:
    """A client and a peer, each with its socket, and a channel between them."""

    client: socket.socket
    peer: socket.socket
    turn: TurnClient
    relay_of_peer: tuple[str, int]

    def exchange(self, payloads: list[bytes]) -> None:
        """Sends them both ways, one after the other, and checks that they arrive."""
        for payload in payloads:
            self.client.send(channel_data.encode(0x4000, payload))
            assert self.peer.recvfrom(65535)[0] == payload
            self.peer.sendto(payload, self.relay_of_peer)
            assert self.client.recv(65535) == channel_data.encode(0x4000, payload)


@contextmanager
def ends(running: RunningRelay, client: int = 0, peer: int = 0) -> Iterator[Ends]:
    """Of these families: 0 for IPv4, 1 for IPv6."""
    with ExitStack() as stack:
        client_socket = stack.enter_context(udp_socket(CLIENT, ADDRESSES[CLIENT][client]))
        peer_socket = stack.enter_context(udp_socket(PEER, ADDRESSES[PEER][peer]))
        turn = TurnClient(client_socket, (ADDRESSES[RELAY][client], running.port), running.credentials())
        turn.bind(0x4000, SocketAddr(*peer_socket.getsockname()[:2]))
        yield Ends(client_socket, peer_socket, turn, (ADDRESSES[RELAY][peer], turn.port))


@pytest.mark.parametrize(("client", "peer"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_kernel_forwards_both_ways_with_right_checksums(running: RunningRelay, client: int, peer: int) -> None:
    with ends(running, client, peer) as both:
        both.exchange([b"x" * 100])  # now each is a neighbour of the relay's
        before = forwarder(running)
        captures = [Capture(CLIENT), Capture(PEER)]

        both.exchange(PAYLOADS)

        to_client, to_peer = ([one.payload for one in capture.datagrams()] for capture in captures)
        assert to_peer == PAYLOADS
        assert to_client == [channel_data.encode(0x4000, payload) for payload in PAYLOADS]
        after = forwarder(running)
        names = ("xdp_forwarded_to_peer", "xdp_forwarded_to_client", "forwarded_to_peer", "forwarded_to_client")
        assert [after[name] - before[name] for name in names] == [COUNT, COUNT, 0, 0]
        assert after["receive_calls"] == before["receive_calls"]
        for capture in captures:
            capture.close()


@pytest.mark.parametrize(("client", "peer"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_drivers_forward_as_well(client: int, peer: int) -> None:
    with ExitStack() as stack:
        stack.enter_context(network.far_end_with_a_program())
        client_socket = stack.enter_context(udp_socket(CLIENT, ADDRESSES[CLIENT][client]))
        peer_socket = stack.enter_context(udp_socket(PEER, ADDRESSES[PEER][peer]))
        with inside(RELAY):
            io = RelayIo(
                listen_port=3478,
                bind4="0.0.0.0",
                bind6="::",
                public4=RELAY4,
                public6=RELAY6,
                xdp=INTERFACE,
                xdp_mode="driver",
            )
            stack.callback(io.stop)
            skip_without_xdp(io)
            io.open_allocation(50000, ipv4=True, ipv6=True)
        io.start()
        io.add_channel(client_socket.getsockname()[:2], 0x4000, 50000, peer_socket.getsockname()[:2])
        client_socket.connect((ADDRESSES[RELAY][client], 3478))

        for payload in [b"x" * 100, *PAYLOADS]:
            client_socket.send(channel_data.encode(0x4000, payload))
            assert peer_socket.recv(65535) == payload
            peer_socket.sendto(payload, (ADDRESSES[RELAY][peer], 50000))
            assert client_socket.recv(65535) == channel_data.encode(0x4000, payload)

        counters = io.counters()
        assert counters["xdp_forwarded_to_peer"] >= COUNT
        assert counters["xdp_forwarded_to_client"] >= COUNT
        (row,) = io.channels()
        size = 100 + sum(map(len, PAYLOADS))
        assert row[2:] == (COUNT + 1, size, COUNT + 1, size)


def test_both_ends_may_use_this_relay(running: RunningRelay) -> None:
    with ends(running) as one, udp_socket(PEER, ADDRESSES[PEER][1]) as other:
        turn = TurnClient(other, (RELAY6, running.port), running.credentials())
        turn.bind(0x4002, SocketAddr(RELAY4, one.turn.port))
        one.turn.bind(0x4001, SocketAddr(RELAY4, turn.port))
        before = forwarder(running)

        for payload in PAYLOADS:
            one.client.send(channel_data.encode(0x4001, payload))
            assert other.recv(65535) == channel_data.encode(0x4002, payload)
            other.send(channel_data.encode(0x4002, payload))
            assert one.client.recv(65535) == channel_data.encode(0x4001, payload)

        after = forwarder(running)
        assert after["xdp_forwarded_to_client"] - before["xdp_forwarded_to_client"] == 2 * COUNT
        assert after["forwarded_to_client"] == before["forwarded_to_client"]


def test_what_the_kernel_does_not_take_is_forwarded_or_counted_in_user_space(running: RunningRelay) -> None:
    with ends(running) as both:
        both.exchange([b"x" * 100])
        before = forwarder(running)

        both.client.send(channel_data.encode(0x4000, b"padded") + b"\0\0")
        assert both.peer.recv(100) == b"padded"
        both.client.send(channel_data.encode(0x4000, b""))
        assert both.peer.recv(100) == b""
        long = bytes(4000)  # fragments
        both.client.send(channel_data.encode(0x4000, long))
        assert both.peer.recv(65535) == long
        full = bytes(1500 - 28)  # fits a frame until it is wrapped
        both.peer.sendto(full, both.relay_of_peer)
        assert both.client.recv(65535) == channel_data.encode(0x4000, full)
        both.client.send(channel_data.encode(0x4009, b"y" * 100))
        both.peer.sendto(b"z" * 100, (RELAY4, both.relay_of_peer[1] ^ 1))
        both.client.send(Builder(Method.BINDING, MessageClass.REQUEST, os.urandom(12)).build())
        assert stun.decode(both.client.recv(2000)).message_class == MessageClass.SUCCESS

        after = forwarder(running)
        grown = {name: value - before[name] for name, value in after.items() if value != before[name]}
        assert (grown["forwarded_to_peer"], grown["forwarded_to_client"], grown["dropped_channel"]) == (3, 1, 1)
        assert (grown["xdp_passed_too_big"], grown["xdp_passed_unknown"], grown["xdp_passed_control"]) == (1, 2, 1)
        assert "xdp_forwarded_to_peer" not in grown


def test_segmented_sends_of_a_local_sender_are_forwarded_whole(running: RunningRelay) -> None:
    with ends(running) as both:
        both.exchange([b"x" * 100])
        frames = [channel_data.encode(0x4000, bytes([number]) * 96) for number in range(10)]
        both.client.setsockopt(socket.IPPROTO_UDP, 103, 100)  # UDP_SEGMENT

        both.client.send(b"".join(frames))

        assert [both.peer.recv(2000) for _ in range(10)] == [frame[4:] for frame in frames]


def test_a_neighbour_that_is_not_known_yet_is_found_by_user_space(running: RunningRelay) -> None:
    with ends(running) as both:
        network.run("ip", "-n", RELAY, "neighbour", "flush", "dev", INTERFACE)
        before = forwarder(running)

        both.exchange([b"x" * 100] * 3)

        after = forwarder(running)
        assert after["xdp_passed_route"] > before["xdp_passed_route"]
        assert after["xdp_forwarded_to_peer"] > before["xdp_forwarded_to_peer"]
        assert after["forwarded_to_peer"] > before["forwarded_to_peer"]


def test_a_deleted_allocation_is_gone_in_the_kernel_too(running: RunningRelay) -> None:
    with ends(running) as both:
        both.exchange([b"x" * 100])
        both.turn.free()
        before = forwarder(running)

        both.client.send(channel_data.encode(0x4000, b"x" * 100))
        both.peer.sendto(b"x" * 100, both.relay_of_peer)

        wait_until(lambda: forwarder(running)["xdp_passed_unknown"] == before["xdp_passed_unknown"] + 2)
        wait_until(lambda: forwarder(running)["dropped_channel"] == before["dropped_channel"] + 1)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_stays_attached(portal: Portal, how: signal.Signals) -> None:
    setting = Path("/proc/sys/net/ipv4/conf/lo/forwarding")
    with inside(RELAY):
        setting.write_text("0")
    with relay(portal, *XDP) as running:
        require_active(running)
        assert len(program_ids(INTERFACE)) == 1
        assert setting.read_text() == "1\n"

        running.process.send_signal(how)
        status = running.process.wait(timeout=10)

        assert status == (0 if how != signal.SIGKILL else -signal.SIGKILL)
        wait_until(lambda: program_ids(INTERFACE) == [])
        assert setting.read_text() == ("0\n" if how != signal.SIGKILL else "1\n")


def test_three_capabilities_are_enough(portal: Portal, running: RunningRelay) -> None:
    running.stop()
    few = ("setpriv", "--inh-caps=-all", "--bounding-set=-all,+bpf,+perfmon,+net_admin")

    with relay(portal, *XDP, by=few) as other, ends(other) as both:
        both.exchange(PAYLOADS)
        assert figure(other, "xdp_active") == 1
        assert forwarder(other)["xdp_forwarded_to_peer"] >= COUNT - 1
        assert other.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "by", "reason"),
    [
        (("--xdp", "nowhere"), (), "nowhere"),
        (("--xdp", "lo"), (), "generic mode"),
        (("--xdp", INTERFACE), (), "veth.*generic mode"),
        (XDP, ("setpriv", "--inh-caps=-all", "--bounding-set=-all"), "forwarding|CAP_BPF"),
        (XDP, ("setpriv", "--inh-caps=-all", "--bounding-set=-all,+net_admin"), "CAP_BPF"),
        (XDP, ("setpriv", "--inh-caps=-all", "--bounding-set=-all,+bpf,+net_admin"), "CAP_PERFMON"),
        ((*XDP, "--no-native"), (), "--native"),
    ],
)
def test_without_xdp_one_warning_says_why_and_relaying_goes_on(
    portal: Portal, arguments: tuple[str, ...], by: tuple[str, ...], reason: str
) -> None:
    with relay(portal, *arguments, by=by) as running, ends(running) as both:
        both.exchange(PAYLOADS)

        assert figure(running, "xdp_active") == 0
        assert program_ids(INTERFACE) == []
        assert running.stop() == 0
        _, errors = running.process.communicate()
        warnings = [line for line in errors.splitlines() if "warning" in line]
        assert len(warnings) == 1
        assert "XDP" in warnings[0]
        assert re.search(reason, warnings[0])


def forwarder(running: RunningRelay) -> dict[str, int]:
    """What the forwarder counted so far, as `/metrics` has it."""
    found = re.findall(r'wardgate_relay_forwarder_total{event="(\w+)"} (\S+)', running.get("/metrics")[1])
    return {name: int(float(value)) for name, value in found}


def figure(running: RunningRelay, name: str) -> float:
    found = re.search(rf"^wardgate_relay_{name} (\S+)$", running.get("/metrics")[1], re.MULTILINE)
    assert found is not None
    return float(found[1])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
