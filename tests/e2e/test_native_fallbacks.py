"""Offloads that the kernel refuses, at the start or while packets flow: traffic goes on, and a counter says so."""

import errno
import hashlib
import socket
from collections.abc import Callable, Iterator
from subprocess import CalledProcessError

import pytest

from tests.e2e import refusals
from tests.e2e.native_tunnel import APP, APP6, End, Names, run, topology, tunnel
from tests.e2e.test_native_tunnel import DATA, checksum_errors, echoed, transferred

pytestmark = pytest.mark.netns
SO_NO_CHECK = 11


@pytest.fixture(scope="module")
def names() -> Iterator[Names]:
    with topology() as made:
        yield made


def test_a_kernel_without_tun_offloads(names: Names) -> None:
    with tunnel(names, kernel=refusing(refusals.NO_TUN_OFFLOADS)) as (client, gateway):
        assert not client.tun.offload
        assert_traffic_passes(names, client, gateway)
        assert total(client, gateway, "tun_super_packets") == total(client, gateway, "tun_writes_coalesced") == 0
        assert total(client, gateway, "tun_offload_fallbacks") == 0


def test_a_kernel_whose_tun_devices_segment_tcp_alone(names: Names) -> None:
    with tunnel(names, kernel=refusing(refusals.NO_UDP_TUN_OFFLOADS)) as (client, gateway):
        assert client.tun.offload
        assert_traffic_passes(names, client, gateway)
        assert total(client, gateway, "tun_super_packets") > 0
        assert total(client, gateway, "tun_writes_coalesced") > 0
        assert total(client, gateway, "tun_offload_fallbacks") == 0


def test_a_tun_device_that_refuses_super_packets(names: Names) -> None:
    with tunnel(names, kernel=refusing(refusals.NO_SUPER_WRITES)) as (client, gateway):
        assert_traffic_passes(names, client, gateway)
        assert total(client, gateway, "tun_writes_coalesced") == 0
        fallbacks = [end.io.step_counters()["tun_offload_fallbacks"] for end in (client, gateway)]
        assert all(fallbacks)

        assert_traffic_passes(names, client, gateway)
        assert fallbacks == [end.io.step_counters()["tun_offload_fallbacks"] for end in (client, gateway)], (
            "no more tried"
        )


def test_a_kernel_without_segmentation_of_datagrams(names: Names) -> None:
    with tunnel(names, kernel=refusing(refusals.NO_GSO_OPTION)) as (client, gateway):
        assert_traffic_passes(names, client, gateway)
        assert_sends_singly(client)
        assert_sends_singly(gateway)
        assert total(client, gateway, "udp_gso_fallbacks") == 0


def test_a_kernel_that_joins_no_datagrams(names: Names) -> None:
    with tunnel(names, kernel=refusing(refusals.NO_GRO_OPTION)) as (client, gateway):
        assert_traffic_passes(names, client, gateway)
        for end in (client, gateway):
            counted = end.io.step_counters()
            assert counted["udp_receives"] == counted["udp_received_datagrams"] > 0


def test_a_device_that_loses_its_checksum_offload(names: Names) -> None:
    with tunnel(names, kernel=lambda: refusals.refuse_segmented_sends(errno.EIO)) as (client, gateway):
        assert_traffic_passes(names, client, gateway)
        for end in (client, gateway):
            assert end.io.step_counters()["udp_gso_fallbacks"] == 1, "one refusal of this kind is enough"
        before = [sends_and_datagrams(end) for end in (client, gateway)]

        assert_traffic_passes(names, client, gateway)
        after = [sends_and_datagrams(end) for end in (client, gateway)]
        for (sends, datagrams), (more_sends, more_datagrams) in zip(before, after, strict=True):
            assert more_sends - sends == more_datagrams - datagrams > 0
        assert total(client, gateway, "udp_gso_fallbacks") == 2


def test_a_socket_that_may_not_segment(names: Names) -> None:
    with tunnel(names) as (client, gateway):
        client.sockets[0].setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)  # whereupon the kernel says EINVAL

        assert_traffic_passes(names, client, gateway)

        assert client.io.step_counters()["udp_gso_fallbacks"] > 0
        assert gateway.io.step_counters()["udp_gso_fallbacks"] == 0


@pytest.mark.parametrize("over_v6", [False, True])
def test_a_path_that_becomes_too_narrow(names: Names, over_v6: bool) -> None:
    narrow = 1300  # a whole packet needs 1340 bytes over IPv4 and 1360 over IPv6
    with tunnel(names, over_v6=over_v6) as (client, gateway):
        assert_traffic_passes(names, client, gateway)
        assert total(client, gateway, "udp_gso_fallbacks") == 0
        try:
            set_wan_mtu(names, narrow)
            # The first datagram that a router finds too long is lost, and teaches its sender the path's MTU.
            assert any(is_answered(names, 1252) for _ in range(4))
            assert_traffic_passes(names, client, gateway)
        finally:
            set_wan_mtu(names, 1500)
        assert client.io.step_counters()["udp_gso_fallbacks"] > 0


def test_an_interface_with_another_mtu(names: Names) -> None:
    with tunnel(names) as (client, gateway):
        for mtu, payload, does_pass in ((1280, 1252, True), (1400, 1253, False), (1400, 1252, True)):
            run(f"ip -n {names.client} link set tun0 mtu {mtu}")
            before = client.engine.counters()["packets_too_long"]
            assert is_answered(names, payload) == does_pass, f"{payload} bytes at {mtu}"
            assert client.engine.counters()["packets_too_long"] - before == (0 if does_pass else 1)
        run(f"ip -n {names.client} link set tun0 mtu 1280")
        assert_traffic_passes(names, client, gateway)


def refusing(*what: refusals.Refusal) -> Callable[[], None]:
    return lambda: refusals.refuse(*what)


def assert_traffic_passes(names: Names, client: End, gateway: End) -> None:
    for address in (APP, APP6):
        assert transferred(names, address) == hashlib.sha256(DATA).digest() * 2
        assert echoed(names, address)
    assert checksum_errors(names) == 0
    for end in (client, gateway):
        assert end.io.failure() is None
        counted = end.io.step_counters()
        assert counted["udp_send_errors"] == counted["tun_write_errors"] == counted["udp_truncated"] == 0
        assert end.engine.counters()["datagrams_not_authentic"] == 0


def assert_sends_singly(end: End) -> None:
    sends, datagrams = sends_and_datagrams(end)
    assert sends == datagrams > 0


def sends_and_datagrams(end: End) -> tuple[int, int]:
    counted = end.io.step_counters()
    return counted["udp_sends"], counted["udp_sent_datagrams"]


def total(client: End, gateway: End, name: str) -> int:
    return client.io.step_counters()[name] + gateway.io.step_counters()[name]


def set_wan_mtu(names: Names, mtu: int) -> None:
    """Changes the wire between client and wan at both ends, as when a link of the path is replaced."""
    run(f"ip -n {names.client} link set a0 mtu {mtu}")
    run(f"ip -n {names.wan} link set a1 mtu {mtu}")


def is_answered(names: Names, payload: int) -> bool:
    """Whether a ping of that size, not to be fragmented, comes back."""
    command = f"ip netns exec {names.client} ping -c 1 -W 1 -M do -s {payload} {APP}"
    try:
        return "1 received" in run(command)
    except CalledProcessError:
        return False
