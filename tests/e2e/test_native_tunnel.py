"""The threads between real TUN devices and sockets: what goes in comes out, with each offload on and off."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.native_tunnel import (
    APP,
    APP6,
    CLIENT_WAN,
    GATEWAY_WAN,
    PEER,
    PORT,
    End,
    Names,
    inside,
    run,
    topology,
    tunnel,
    udp_socket,
)
from wardgate._fastpath import TunDevice

pytestmark = pytest.mark.netns
DATA = os.urandom(4 << 20)


@pytest.fixture(scope="module")
def names() -> Iterator[Names]:
    with topology() as made:
        yield made


@pytest.mark.parametrize("over_v6", [False, True])
@pytest.mark.parametrize("udp_offload", [False, True])
@pytest.mark.parametrize("tun_offload", [False, True])
def test_packets_pass_with_and_without_offloads(
    names: Names, tun_offload: bool, udp_offload: bool, over_v6: bool
) -> None:
    options: dict[str, Any] = {
        "tun_offload": tun_offload,
        "udp_gso": udp_offload,
        "udp_gro": udp_offload,
        "over_v6": over_v6,
    }
    with tunnel(names, **options) as (client, gateway):
        ping(names)
        for address in (APP, APP6):
            assert transferred(names, address) == hashlib.sha256(DATA).digest() * 2
            assert echoed(names, address)

        assert checksum_errors(names) == 0
        assert client.io.failure() is None
        used = client.io.step_counters()
        assert (used["tun_super_packets"] > 0) == tun_offload
        assert (used["udp_sent_datagrams"] > used["udp_sends"]) == udp_offload
        assert (gateway.io.step_counters()["tun_writes_coalesced"] > 0) == tun_offload
        assert used["udp_gso_fallbacks"] == used["tun_offload_fallbacks"] == used["tun_write_errors"] == 0


def test_channel_data_passes_in_whole_batches(names: Names) -> None:
    with tunnel(names) as (client, gateway):
        # Each end takes the other for its relay.
        for end, wan, other in ((client, CLIENT_WAN, GATEWAY_WAN), (gateway, GATEWAY_WAN, CLIENT_WAN)):
            end.engine.add_channel((other, PORT), 0x4001)
            end.engine.set_path(PEER, (wan, PORT), (other, PORT), 0x4001)

        assert transferred(names, APP) == hashlib.sha256(DATA).digest() * 2

        used = client.io.step_counters()
        assert used["udp_sent_datagrams"] > 4 * used["udp_sends"]
        assert client.engine.counters()["datagrams_unknown_channel"] == 0


def test_a_revoked_flow_stops_while_it_runs(names: Names) -> None:
    with tunnel(names) as (client, gateway):
        stop = threading.Event()
        listener, received = inside(names.app, lambda: listening(APP)), [0]
        reader = threading.Thread(target=count_bytes, args=(listener, received))
        reader.start()
        sender = inside(names.client, lambda: socket.create_connection((APP, 5000), timeout=5))
        writer = threading.Thread(target=write_until, args=(sender, stop))
        writer.start()
        wait_for(lambda: received[0] > 1 << 20)

        gateway.stopping.set()
        client.stopping.set()
        reports = gateway.engine.remove_flows(PEER, authorization=5000)
        before = gateway.engine.counters()["packets_opened"]
        wait_for(lambda: gateway.engine.counters()["upcalls_packet"] > 1)

        assert gateway.engine.counters()["packets_opened"] - before <= 1
        assert sum(one.outbound_bytes for one in reports) > 1 << 20
        stop.set()
        sender.settimeout(0.2)
        sender.shutdown(socket.SHUT_RDWR)
        writer.join(5)
        listener.close()


def test_sockets_are_replaced_while_traffic_flows(names: Names) -> None:
    with tunnel(names) as (client, _):
        assert transferred(names, APP) == hashlib.sha256(DATA).digest() * 2
        fresh = inside(names.client, lambda: rebound(client))

        assert transferred(names, APP) == hashlib.sha256(DATA).digest() * 2
        assert client.io.send([(None, (GATEWAY_WAN, 9), b"x"), (None, ("::1", 9), b"x")]) == 1
        assert client.io.step_counters()["udp_no_socket"] == 1
        fresh.close()


def test_a_lost_device_is_told(names: Names) -> None:
    with tunnel(names) as (client, _):
        run(f"ip -n {names.client} link del tun0")
        wait_for(lambda: client.io.failure() is not None)
        assert "tun-to-net" in str(client.io.failure())


def test_a_name_that_cannot_be_is_refused() -> None:
    with pytest.raises(OSError, match="not an interface name"):
        TunDevice.open("a-name-that-is-too-long")


def rebound(end: End) -> socket.socket:
    end.sockets.pop(0).close()
    end.io.rebind(None, None)
    fresh = udp_socket(socket.AF_INET)
    end.io.rebind(fresh.fileno(), None)
    return fresh


def ping(names: Names) -> None:
    for address in (APP, APP6):
        printed = run(f"ip netns exec {names.client} ping -c 3 -i 0.05 -W 2 -s 1000 {address}")
        assert "3 received" in printed


def listening(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, 5000))
    listener.listen()
    listener.settimeout(10)
    return listener


def transferred(names: Names, address: str) -> bytes:
    """Sends the data there, lets the app send the same back, and returns both digests."""
    listener = inside(names.app, lambda: listening(address))
    digests = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(20)
            taken = read(connection, len(DATA))
            digests.append(hashlib.sha256(taken).digest())
            connection.sendall(taken)

    server = threading.Thread(target=serve)
    server.start()
    with inside(names.client, lambda: socket.create_connection((address, 5000), timeout=20)) as connection:
        connection.sendall(DATA)
        digests.append(hashlib.sha256(read(connection, len(DATA))).digest())
    server.join(20)
    listener.close()
    return b"".join(digests)


def read(connection: socket.socket, length: int) -> bytes:
    taken = bytearray()
    while len(taken) < length and (piece := connection.recv(1 << 20)):
        taken += piece
    return bytes(taken)


def echoed(names: Names, address: str) -> bool:
    """Whether UDP datagrams of many sizes reach the app and come back; lost ones are repeated."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    app = inside(names.app, lambda: socket.socket(family, socket.SOCK_DGRAM))
    client = inside(names.client, lambda: socket.socket(family, socket.SOCK_DGRAM))
    with app, client:
        app.bind((address, 5001))
        client.connect((address, 5001))
        for one in (app, client):
            one.settimeout(2)
        for size in (0, 1, 37, 100, 100, 100, 1000, 1232):
            payload = os.urandom(size)
            client.send(payload)
            taken, source = app.recvfrom(2000)
            app.sendto(taken, source)
            if taken != payload or client.recv(2000) != payload:
                return False
    return True


def checksum_errors(names: Names) -> int:
    kinds = "TcpInCsumErrors UdpInCsumErrors Udp6InCsumErrors IcmpInCsumErrors"
    total = 0
    for space in (names.app, names.client, names.gateway):
        printed = run(f"ip netns exec {space} nstat -az {kinds}")
        total += sum(int(line.split()[1]) for line in printed.splitlines() if not line.startswith("#"))
    return total


def count_bytes(listener: socket.socket, received: list[int]) -> None:
    connection, _ = listener.accept()
    connection.settimeout(1)
    try:
        while piece := connection.recv(1 << 16):
            received[0] += len(piece)
    except TimeoutError:
        connection.close()


def write_until(sender: socket.socket, stop: threading.Event) -> None:
    try:
        while not stop.is_set():
            sender.sendall(DATA[: 1 << 16])
    except OSError:
        sender.close()


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
