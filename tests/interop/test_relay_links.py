"""The native forwarder between real links: segmentation that a link refuses, and datagrams longer than a link takes."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from pyroute2 import netns

from wardgate._fastpath import RelayIo
from wardgate.wire import channel_data

pytestmark = pytest.mark.netns

PREFIX = f"wgrelay{os.getpid()}"
SO_RCVBUFFORCE, UDP_SEGMENT = 33, 103
BURST = 30


@pytest.mark.parametrize("mtu", [1500, 1280])
@pytest.mark.parametrize("size", [1200, 1312, 1452, 4000])
def test_bursts_pass_links_of_any_mtu_in_order(mtu: int, size: int) -> None:
    with links(mtu) as (relay, client, peer):
        payloads = [bytes([number]) * size for number in range(BURST)]

        for payload in payloads:
            client.sendto(channel_data.encode(0x4000, payload), ("10.77.1.1", 3478))
        assert [peer.recv(65535) for _ in payloads] == payloads
        for payload in payloads:
            peer.sendto(payload, ("10.77.2.1", 50000))
        assert [client.recv(65535) for _ in payloads] == [channel_data.encode(0x4000, payload) for payload in payloads]

        assert relay.failure() is None


def test_batches_stay_batches() -> None:
    with links(1500) as (relay, client, peer):
        frame = channel_data.encode(0x4000, bytes(1312))
        client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(frame))

        for _ in range(5):
            client.sendto(frame * 40, ("10.77.1.1", 3478))
        assert [len(peer.recv(65535)) for _ in range(200)] == [1312] * 200

        assert relay.counters()["send_calls"] < 50


@contextmanager
def links(mtu: int) -> Iterator[tuple[RelayIo, socket.socket, socket.socket]]:
    """A relay with a client on one link and a peer on the other, and channel 0x4000 between them."""
    with ExitStack() as stack:
        for name in "crp":
            run("ip", "netns", "add", PREFIX + name)
            stack.callback(run, "ip", "netns", "del", PREFIX + name)
        for name, subnet in (("c", "10.77.1"), ("p", "10.77.2")):
            far = ["peer", "name", "e0", "mtu", str(mtu), "netns", PREFIX + name]
            run("ip", "-n", PREFIX + "r", "link", "add", f"v{name}", "mtu", str(mtu), "type", "veth", *far)
            for space, device, host in ((PREFIX + "r", f"v{name}", 1), (PREFIX + name, "e0", 2)):
                run("ip", "-n", space, "addr", "add", f"{subnet}.{host}/24", "dev", device)
                run("ip", "-n", space, "link", "set", device, "up")
        with inside(PREFIX + "r"):
            relay = RelayIo(listen_port=3478, bind4="0.0.0.0", bind6=None, public4="10.77.1.1", public6=None)
            stack.callback(relay.stop)
            relay.open_allocation(50000, ipv4=True, ipv6=False)
        relay.start()
        client = stack.enter_context(udp_socket(PREFIX + "c", "10.77.1.2"))
        peer = stack.enter_context(udp_socket(PREFIX + "p", "10.77.2.2"))
        relay.add_channel(client.getsockname(), 0x4000, 50000, peer.getsockname())
        yield relay, client, peer


@contextmanager
def inside(name: str) -> Iterator[None]:
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        netns.setns(name)
        yield
    finally:
        netns.setns(home)
        os.close(home)


@contextmanager
def udp_socket(name: str, host: str) -> Iterator[socket.socket]:
    with inside(name):
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with own:
        own.bind((host, 0))
        own.settimeout(3.0)
        own.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        yield own


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
