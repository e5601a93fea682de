"""Changes of a host's network, made in a namespace, are noticed."""

import asyncio
from collections.abc import Awaitable, Callable

from pyroute2 import IPRoute

from tests.unit.io.fake_portal import until
from tests.unit.io.namespace import in_namespace, in_thread
from wardgate.io.network_monitor import NetworkMonitor, way_out


@in_namespace
def test_another_way_out_is_a_move() -> None:
    async def body(moves: list[str], _: list[None]) -> None:
        in_thread(lambda: change_default("192.168.5.1", "192.168.5.254"))
        await until(lambda: moves == ["the way out changed"])

    watched(body)


@in_namespace
def test_another_address_on_the_way_out_is_a_move() -> None:
    async def body(moves: list[str], _: list[None]) -> None:
        in_thread(lambda: add_address("lan", "192.168.5.77", 24))
        await until(lambda: moves == ["the way out changed"])

    watched(body)


@in_namespace
def test_changes_elsewhere_are_events_and_no_move() -> None:
    async def body(moves: list[str], events: list[None]) -> None:
        in_thread(lambda: add_address("wire", "10.77.0.1", 24))
        await until(lambda: len(events) == 1)
        assert moves == []

    watched(body)


@in_namespace
def test_our_own_interface_is_no_way_out() -> None:
    in_thread(add_uplink)

    assert [gateway for _, gateway, *_ in way_out("none")] == ["192.168.5.1"]
    assert way_out("lan") == frozenset()


def watched(body: Callable[[list[str], list[None]], Awaitable[None]]) -> None:
    async def run() -> None:
        moves: list[str] = []
        events: list[None] = []

        async def on_event() -> None:
            events.append(None)

        in_thread(add_uplink)
        monitor = asyncio.create_task(NetworkMonitor("tun-none", on_event, moves.append).run())
        await asyncio.sleep(0.2)  # the kernel does not say when a subscription is in place
        await body(moves, events)
        monitor.cancel()
        await asyncio.gather(monitor, return_exceptions=True)

    asyncio.run(run())


def add_uplink() -> None:
    with IPRoute() as netlink:
        netlink.link("add", ifname="lan", kind="veth", peer="wire")
        for name in ("lan", "wire"):
            (index,) = netlink.link_lookup(ifname=name)
            netlink.link("set", index=index, state="up")
    add_address("lan", "192.168.5.2", 24)
    with IPRoute() as netlink:
        netlink.route("add", dst="default", gateway="192.168.5.1")


def add_address(interface: str, address: str, prefix_length: int) -> None:
    with IPRoute() as netlink:
        (index,) = netlink.link_lookup(ifname=interface)
        netlink.addr("add", index=index, address=address, prefixlen=prefix_length)


def change_default(before: str, after: str) -> None:
    with IPRoute() as netlink:
        netlink.route("del", dst="default", gateway=before)
        netlink.route("add", dst="default", gateway=after)
