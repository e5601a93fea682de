"""The forwarder's own tests again, with the program at the interface that all their datagrams pass: it must not harm.

Loopback leaves checksums unfinished and has no neighbours, so the program looks at every frame and leaves it alone.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.unit.relay import test_forwarders as same
from tests.xdp.host import network_namespace, skip_without_xdp
from tests.xdp.network import SO_RCVBUFFORCE
from wardgate.lab import namespaces

pytestmark = pytest.mark.netns

test_data_goes_both_ways_and_is_counted = same.test_data_goes_both_ways_and_is_counted
test_bursts_of_any_size_arrive_whole_and_in_order = same.test_bursts_of_any_size_arrive_whole_and_in_order
test_a_segmented_send_is_taken_apart_and_put_together = same.test_a_segmented_send_is_taken_apart_and_put_together
test_both_ends_may_use_the_same_relay = same.test_both_ends_may_use_the_same_relay
test_stun_is_an_upcall = same.test_stun_is_an_upcall_and_the_newest_is_dropped_when_too_many_wait
test_one_host_leaves_room_in_the_ring_for_others = same.test_one_host_leaves_room_in_the_ring_for_others
test_a_removed_channel_and_a_closed_port_carry_nothing = same.test_a_removed_channel_and_a_closed_port_carry_nothing
test_contradictions_are_refused = same.test_contradictions_are_refused
test_python_sends_from_any_of_the_ports = same.test_python_sends_from_any_of_the_ports


@pytest.fixture(autouse=True)
def _loopback() -> Iterator[None]:
    with network_namespace() as own, namespaces.inside_network(own):
        yield


@pytest.fixture
def client(_loopback: None) -> Iterator[socket.socket]:
    with udp_socket() as own:
        yield own


@pytest.fixture
def peer(_loopback: None) -> Iterator[socket.socket]:
    with udp_socket() as own:
        yield own


@contextmanager
def udp_socket() -> Iterator[socket.socket]:
    """With a larger buffer: the kernel copies each frame for a program, into more memory than it needs."""
    with same.udp_socket() as own:
        own.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        yield own


@pytest.fixture
def native(client: socket.socket, peer: socket.socket) -> Iterator[same.Native]:
    native = same.Native(client, peer, xdp="lo")
    skip_without_xdp(native.io)
    yield native
    counters = native.io.counters()
    assert counters["xdp_forwarded_to_peer"] == counters["xdp_forwarded_to_client"] == counters["xdp_errors"] == 0
    assert native.io.failure() is None
    assert native.io.stop()
