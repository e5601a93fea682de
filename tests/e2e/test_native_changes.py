"""What changes while the tunnel carries all it can: it costs the packets in flight, and no other.

The wires of the topology lose nothing, so that whatever was sealed and never opened was lost by us, or dropped by a
kernel that says so. Each test states its bound.
"""

import socket
from collections.abc import Iterator

import pytest

from tests.e2e.load import dropped_by_kernel, fall_silent, full_load, lost, opened, sealed, wait_for_progress
from tests.e2e.native_tunnel import (
    CLIENT_WAN,
    GATEWAY_WAN,
    PEER,
    PORT,
    End,
    Names,
    inside,
    new_session,
    topology,
    tunnel,
    udp_socket,
)

pytestmark = pytest.mark.netns
SEGMENTS = 64
"""So many packets at most are of one read of the TUN device (64 KB at an MTU of 1280)."""
GSO_DROP = 64
"""The kernel counts a drop once, however many datagrams shared it."""


@pytest.fixture(scope="module")
def names() -> Iterator[Names]:
    with topology() as made:
        yield made


def test_rekeying_loses_nothing(names: Names) -> None:
    with tunnel(names) as (client, gateway), full_load(names, 5000, 5001) as streams:
        before = dropped_by_kernel(names)
        for number in range(2, 22):
            new_session(client, gateway, number)
            wait_for_progress(streams, 1 << 18)

        fall_silent(client, gateway, streams)
        assert client.engine.activity(PEER).sending_index == 21 << 8
        assert gateway.engine.activity(PEER).sending_index == 21 << 8 | 1
        assert_only_the_kernel_lost(names, before, client, gateway)


def test_changing_the_path_loses_nothing(names: Names) -> None:
    with tunnel(names) as (client, gateway), full_load(names, 5000, 5001) as streams:
        before = dropped_by_kernel(names)
        # Each end takes the other for its relay, and knows both paths.
        for end, other in ((client, GATEWAY_WAN), (gateway, CLIENT_WAN)):
            end.engine.add_channel((other, PORT), 0x4001)
        for turn in range(20):
            channel = 0x4001 if turn % 2 == 0 else None
            client.engine.set_path(PEER, (CLIENT_WAN, PORT), (GATEWAY_WAN, PORT), channel)
            gateway.engine.set_path(PEER, (GATEWAY_WAN, PORT), (CLIENT_WAN, PORT), channel)
            wait_for_progress(streams, 1 << 18)

        fall_silent(client, gateway, streams)
        assert_only_the_kernel_lost(names, before, client, gateway)


def test_roaming_loses_what_was_on_its_way_to_the_old_socket(names: Names) -> None:
    with tunnel(names) as (client, gateway), full_load(names, 5000, 5001) as streams:
        before, in_flight = dropped_by_kernel(names), 0
        for turn in range(6):
            arrived = opened(client)
            fresh = inside(names.client, lambda: udp_socket(socket.AF_INET, PORT + 1 + turn))  # noqa: B023
            client.io.rebind(fresh.fileno(), client.sockets[1].fileno())
            client.sockets[0].close()
            client.sockets[0] = fresh
            gateway.engine.set_path(PEER, (GATEWAY_WAN, PORT), (CLIENT_WAN, PORT + 1 + turn))
            # What the gateway sealed up to now may be on its way to the old port, with what it is sealing just now.
            in_flight += sealed(gateway) - arrived + SEGMENTS
            wait_for_progress(streams, 1 << 20)

        fall_silent(client, gateway, streams)
        dropped = GSO_DROP * (dropped_by_kernel(names) - before)
        assert lost(client, gateway) <= dropped, "the gateway did not move"
        assert lost(gateway, client) <= in_flight + dropped


def test_a_revoked_flow_stops_at_once_and_others_lose_nothing(names: Names) -> None:
    with tunnel(names) as (client, gateway), full_load(names, 5010, 5011) as (revoked, other):
        before = dropped_by_kernel(names)
        gateway.stop_deciding()

        reports = gateway.engine.remove_flows(PEER, authorization=5010)
        wait_for_progress([other])
        [report] = reports
        stalled = revoked.down
        wait_for_progress([other])
        fall_silent(client, gateway, [revoked, other])

        assert report.outbound_bytes > 8 << 20
        assert revoked.down == stalled
        left = gateway.engine.flows()  # one, and perhaps the last words of an earlier test
        # At most the packet in the thread's hands passed behind the removal, and one read of the TUN device.
        figures = [report, *left]
        assert 0 <= opened(gateway) - sum(one.outbound_packets for one in figures) <= 1
        assert 0 <= sealed(gateway) - sum(one.inbound_packets for one in figures) <= SEGMENTS
        [ours], [theirs] = (
            [one for one in end.engine.flows() if one.authorization == 5011] for end in (client, gateway)
        )
        missing = ours.outbound_packets - theirs.outbound_packets, theirs.inbound_packets - ours.inbound_packets
        assert missing == (0, 0) or sum(missing) <= GSO_DROP * (dropped_by_kernel(names) - before)


def assert_only_the_kernel_lost(names: Names, before: int, client: End, gateway: End) -> None:
    missing = lost(client, gateway), lost(gateway, client)
    dropped = GSO_DROP * (dropped_by_kernel(names) - before)
    assert missing == (0, 0) or sum(missing) <= dropped, (missing, dropped)
    for end in (client, gateway):
        assert end.io.failure() is None
        assert end.io.step_counters()["udp_send_errors"] == 0
