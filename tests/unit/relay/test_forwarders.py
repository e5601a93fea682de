"""The native forwarder on loopback sockets; and the one in Python, as far as it has the same duties."""

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from wardgate._fastpath import RelayIo
from wardgate.io.relay_sockets import RelaySockets
from wardgate.wire import channel_data

HOST = "127.0.0.1"
STUN = bytes.fromhex("000100002112a442000000000000000000000000")


@contextmanager
def udp_socket(host: str = HOST) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind((host, 0))
        own.settimeout(2.0)
        yield own


def free_port() -> int:
    with udp_socket() as probe:
        return address_of(probe)[1]


def address_of(own: socket.socket) -> tuple[str, int]:
    host, port = own.getsockname()
    return str(host), int(port)


class Native:
    """A running native forwarder with one client, one peer and a channel between them."""

    def __init__(
        self, client: socket.socket, peer: socket.socket, *, segmentation: bool = True, xdp: str | None = None
    ) -> None:
        self.listen_port = free_port()
        self.io = RelayIo(
            listen_port=self.listen_port,
            bind4=HOST,
            bind6=None,
            public4=HOST,
            public6=None,
            upcall_capacity=8,
            gso=segmentation,
            gro=segmentation,
            xdp=xdp,
            xdp_mode="generic",
        )
        self.io.start()
        self.port = free_port()
        self.io.open_allocation(self.port, ipv4=True, ipv6=False)
        self.io.add_channel(address_of(client), 0x4000, self.port, address_of(peer))


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with udp_socket() as own:
        yield own


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with udp_socket() as own:
        yield own


@pytest.fixture(params=[True, False], ids=["segmentation", "plain"])
def native(client: socket.socket, peer: socket.socket, request: pytest.FixtureRequest) -> Iterator[Native]:
    native = Native(client, peer, segmentation=request.param)
    yield native
    assert native.io.failure() is None
    assert native.io.stop()


def test_data_goes_both_ways_and_is_counted(native: Native, client: socket.socket, peer: socket.socket) -> None:
    client.sendto(channel_data.encode(0x4000, b"ping") + b"padding", (HOST, native.listen_port))
    assert peer.recvfrom(2000) == (b"ping", (HOST, native.port))

    peer.sendto(b"pong!", (HOST, native.port))
    assert client.recvfrom(2000) == (channel_data.encode(0x4000, b"pong!"), (HOST, native.listen_port))

    assert native.io.channels() == [(address_of(client), 0x4000, 1, 4, 1, 5)]
    assert native.io.counters()["forwarded_to_peer"] == 1


@pytest.mark.parametrize("size", [0, 1, 1312, 1448, 1449, 8000, 60000])
def test_bursts_of_any_size_arrive_whole_and_in_order(
    native: Native, client: socket.socket, peer: socket.socket, size: int
) -> None:
    numbers = range(20 if size < 2000 else 2)  # what the buffers of our own sockets hold
    for number in numbers:
        payload = bytes([number]) * size
        client.sendto(channel_data.encode(0x4000, payload), (HOST, native.listen_port))
        peer.sendto(payload, (HOST, native.port))

    assert [peer.recv(65535) for _ in numbers] == [bytes([number]) * size for number in numbers]
    assert [client.recv(65535) for _ in numbers] == [
        channel_data.encode(0x4000, bytes([number]) * size) for number in numbers
    ]


def test_a_segmented_send_is_taken_apart_and_put_together(
    native: Native, client: socket.socket, peer: socket.socket
) -> None:
    frames = [channel_data.encode(0x4000, bytes([number]) * (100 if number < 9 else 7)) for number in range(10)]
    client.setsockopt(socket.IPPROTO_UDP, 103, len(frames[0]))  # UDP_SEGMENT
    client.sendto(b"".join(frames), (HOST, native.listen_port))

    assert [peer.recv(2000) for _ in range(10)] == [frame[4:] for frame in frames]


def test_both_ends_may_use_the_same_relay(native: Native, client: socket.socket) -> None:
    with udp_socket() as other:
        other_port = free_port()
        native.io.open_allocation(other_port, ipv4=True, ipv6=False)
        native.io.add_channel(address_of(client), 0x4001, native.port, (HOST, other_port))
        native.io.add_channel(address_of(other), 0x4002, other_port, (HOST, native.port))

        client.sendto(channel_data.encode(0x4001, b"hello"), (HOST, native.listen_port))

        assert other.recv(2000) == channel_data.encode(0x4002, b"hello")


def test_stun_is_an_upcall_and_the_newest_is_dropped_when_too_many_wait(
    native: Native, client: socket.socket, peer: socket.socket
) -> None:
    for number in range(10):
        client.sendto(STUN[:-1] + bytes([number]), (HOST, native.listen_port))
    client.sendto(channel_data.encode(0x4000, b"behind"), (HOST, native.listen_port))
    assert peer.recv(2000) == b"behind"

    assert select.select([native.io.upcall_fd()], [], [], 2.0)[0]
    first = native.io.poll_upcalls(1)
    assert first == [(native.listen_port, address_of(client), STUN)]
    assert select.select([native.io.upcall_fd()], [], [], 0.0)[0]
    assert len(native.io.poll_upcalls()) == 3
    assert not select.select([native.io.upcall_fd()], [], [], 0.0)[0]
    assert native.io.counters()["upcalls_dropped_share"] == 6


def test_one_host_leaves_room_in_the_ring_for_others(
    native: Native, client: socket.socket, peer: socket.socket
) -> None:
    with udp_socket("127.0.0.2") as other, udp_socket("127.0.0.3") as third:
        for sender in (client, client, other, third):
            for _ in range(4):
                sender.sendto(STUN, (HOST, native.listen_port))
        client.sendto(channel_data.encode(0x4000, b"behind"), (HOST, native.listen_port))
        assert peer.recv(2000) == b"behind"

        waiting = [source[0] for _, source, _ in native.io.poll_upcalls()]

    assert waiting == [HOST] * 4 + ["127.0.0.2"] * 4
    counters = native.io.counters()
    assert (counters["upcalls_dropped_share"], counters["upcalls_dropped_full"]) == (4, 4)


def test_a_removed_channel_and_a_closed_port_carry_nothing(
    native: Native, client: socket.socket, peer: socket.socket
) -> None:
    assert native.io.remove_channel(address_of(client), 0x4000)
    assert not native.io.remove_channel(address_of(client), 0x4000)
    assert native.io.close_allocation(native.port)
    assert not native.io.close_allocation(native.port)

    client.sendto(channel_data.encode(0x4000, b"x"), (HOST, native.listen_port))
    client.sendto(STUN, (HOST, native.listen_port))
    assert select.select([native.io.upcall_fd()], [], [], 2.0)[0]

    assert native.io.counters()["dropped_channel"] == 1
    peer.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        peer.recv(2000)


def test_contradictions_are_refused(native: Native, client: socket.socket, peer: socket.socket) -> None:
    native.io.add_channel(address_of(client), 0x4000, native.port, address_of(peer))
    with pytest.raises(KeyError):
        native.io.add_channel(address_of(client), 0x4000, native.port, (HOST, 9))
    with pytest.raises(KeyError):
        native.io.add_channel(address_of(client), 0x4001, free_port(), (HOST, 9))
    with pytest.raises(ValueError):
        native.io.add_channel(("nowhere", 1), 0x4001, native.port, (HOST, 9))


def test_python_sends_from_any_of_the_ports(native: Native, client: socket.socket) -> None:
    datagrams = [(native.listen_port, address_of(client), b"a"), (native.port, address_of(client), b"b")]

    assert native.io.send([*datagrams, (1, address_of(client), b"c"), (native.port, ("::1", 9), b"d")]) == 2

    assert client.recvfrom(9) == (b"a", (HOST, native.listen_port))
    assert client.recvfrom(9) == (b"b", (HOST, native.port))
    assert native.io.counters()["send_errors"] == 2


def test_several_threads_share_out_clients_and_allocations(peer: socket.socket) -> None:
    io = RelayIo(
        listen_port=(listen_port := free_port()), bind4=HOST, bind6=None, public4=HOST, public6=None, threads=3
    )
    io.start()
    with ExitStack() as stack:
        clients = [stack.enter_context(udp_socket()) for _ in range(12)]
        ports = [free_port() for _ in clients]
        for client, port in zip(clients, ports, strict=True):
            io.open_allocation(port, ipv4=True, ipv6=False)
            io.add_channel(address_of(client), 0x4000, port, address_of(peer))
        for number, (client, port) in enumerate(zip(clients, ports, strict=True)):
            for part in range(10):
                client.sendto(channel_data.encode(0x4000, bytes([number, part])), (HOST, listen_port))
            assert [peer.recvfrom(9) for _ in range(10)] == [
                (bytes([number, part]), (HOST, port)) for part in range(10)
            ]
            peer.sendto(b"back", (HOST, port))
            assert client.recvfrom(99) == (channel_data.encode(0x4000, b"back"), (HOST, listen_port))
        threads = [Path(task, "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
        assert {"relay-0", "relay-1", "relay-2"} <= set(threads)
        with pytest.raises(OSError):  # the port is shared among them, and with nobody else
            RelayIo(listen_port=listen_port, bind4=HOST, bind6=None, public4=HOST, public6=None, threads=2)

        assert io.stop()
        RelayIo(listen_port=listen_port, bind4=HOST, bind6=None, public4=HOST, public6=None).stop()


def new_native(port: int) -> RelayIo:
    return RelayIo(listen_port=port, bind4=HOST, bind6=None, public4=HOST, public6=None)


def new_python(port: int) -> RelaySockets:
    return RelaySockets(listen_port=port, bind4=HOST, bind6=None)


@pytest.mark.parametrize("new", [new_native, new_python])
def test_a_port_in_use_is_an_os_error_and_opens_again_later(new: Callable[[int], RelayIo | RelaySockets]) -> None:
    io = new(free_port())
    with udp_socket() as taken:
        port = address_of(taken)[1]
        with pytest.raises(OSError):
            io.open_allocation(port, ipv4=True, ipv6=False)
        with pytest.raises(OSError):
            new(port)
    io.open_allocation(port, ipv4=True, ipv6=False)
    with pytest.raises(OSError):
        io.open_allocation(port, ipv4=True, ipv6=False)
    assert io.close_allocation(port)
    io.open_allocation(port, ipv4=True, ipv6=False)
    io.stop()


def test_an_address_that_is_none_is_a_value_error() -> None:
    with pytest.raises(ValueError):
        RelayIo(listen_port=free_port(), bind4="somewhere", bind6=None, public4=HOST, public6=None)


def test_ipv6_clients_reach_ipv4_peers(peer: socket.socket) -> None:
    try:
        client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        client.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 loopback")
    with client:
        client.settimeout(2.0)
        own = client.getsockname()
        io = RelayIo(listen_port=(listen_port := free_port()), bind4=HOST, bind6="::1", public4=HOST, public6="::1")
        io.start()
        io.open_allocation(port := free_port(), ipv4=True, ipv6=True)
        io.add_channel((own[0], own[1]), 0x4000, port, address_of(peer))

        client.sendto(channel_data.encode(0x4000, b"six"), ("::1", listen_port))
        assert peer.recvfrom(9) == (b"six", (HOST, port))
        peer.sendto(b"four", (HOST, port))
        assert client.recv(9) == channel_data.encode(0x4000, b"four")
        assert io.stop()


def test_the_python_sockets_raise_everything(client: socket.socket, peer: socket.socket) -> None:
    listen_port, port = free_port(), free_port()
    io = RelaySockets(listen_port=listen_port, bind4=HOST, bind6=None)
    io.open_allocation(port, ipv4=True, ipv6=False)
    client.sendto(STUN, (HOST, listen_port))
    peer.sendto(b"x", (HOST, port))
    assert select.select([io.upcall_fd()], [], [], 2.0)[0]

    upcalls = []
    while select.select([io.upcall_fd()], [], [], 0.05)[0]:
        upcalls += io.poll_upcalls()

    assert sorted(upcalls) == sorted([(listen_port, address_of(client), STUN), (port, address_of(peer), b"x")])
    assert io.send([(port, address_of(peer), b"y"), (1, address_of(peer), b"z")]) == 1
    assert peer.recvfrom(9) == (b"y", (HOST, port))
    io.stop()
