"""Addresses, routes and policy rules, set in a network namespace and read back from the kernel."""

import contextlib
import socket
from ipaddress import ip_network
from pathlib import Path

from pyroute2 import IPRoute
from structlog.testing import capture_logs

from tests.unit.io.namespace import in_namespace
from wardgate.io.tun import TABLE_INTERNET, TABLE_LINK, TABLE_RESOURCES, ClientRouting, TunInterface
from wardgate.io.udp import mark

NAME = "tun-test"


@in_namespace
def test_interface_gets_exactly_its_addresses() -> None:
    interface = made_interface()

    accepted = interface.configure("100.64.0.7", "fd00:2021:1111::7")
    interface.configure("100.64.0.8", "fd00:2021:1111::8")

    with IPRoute() as netlink:
        (link,) = netlink.get_links(ifname=NAME)
        addresses = {f"{a.get_attr('IFA_ADDRESS')}/{a['prefixlen']}" for a in netlink.get_addr(index=link["index"])}
        assert addresses == {"100.64.0.8/32", "fd00:2021:1111::8/128"}
        assert link.get_attr("IFLA_MTU") == 1280
        assert link.get_attr("IFLA_TXQLEN") == 10_000
        assert link["flags"] & 1
    assert accepted == {socket.AF_INET, socket.AF_INET6}


@in_namespace
def test_routes_follow_the_wanted_set() -> None:
    interface = made_interface()
    interface.configure("100.64.0.7", "fd00:2021:1111::7")

    interface.set_routes([ip_network("100.64.0.0/11"), ip_network("fd00:2021:1111::/107")])
    first = routes(254)
    interface.set_routes([ip_network("10.9.0.0/16")])
    interface.set_routes([ip_network("10.9.0.0/16")])

    assert {"100.64.0.0/11", "fd00:2021:1111::/107"} <= first
    assert "10.9.0.0/16" in routes(254)
    assert "100.64.0.0/11" not in routes(254)


@in_namespace
def test_default_route_of_a_client_goes_to_the_internet_table() -> None:
    interface = made_interface()
    interface.configure("100.64.0.7", "fd00:2021:1111::7")

    interface.set_routes([ip_network("0.0.0.0/0"), ip_network("::/0"), ip_network("10.9.0.2/32")], TABLE_RESOURCES)

    assert routes(TABLE_INTERNET) == {"0.0.0.0/0", "::/0"}
    assert routes(TABLE_RESOURCES) == {"10.9.0.2/32"}


@in_namespace
def test_client_rules_are_there_once_and_gone_afterwards() -> None:
    routing = ClientRouting()

    routing.install([socket.AF_INET, socket.AF_INET6])
    routing.install([socket.AF_INET, socket.AF_INET6])
    installed = [rules(family) for family in (socket.AF_INET, socket.AF_INET6)]
    routing.remove()

    expected = [(100, TABLE_RESOURCES, 0xFD002021), (200, TABLE_LINK, 0xFD002021), (300, TABLE_INTERNET, 0xFD002021)]
    assert installed == [expected, expected]
    assert rules(socket.AF_INET) == []


@in_namespace
def test_routes_of_a_killed_run_are_taken_away() -> None:
    interface = made_interface()
    interface.configure("100.64.0.7", "fd00:2021:1111::7")
    interface.set_routes([ip_network("10.9.0.0/16"), ip_network("0.0.0.0/0")], TABLE_RESOURCES)

    ClientRouting().install([socket.AF_INET])

    assert routes(TABLE_RESOURCES) == set()
    assert routes(TABLE_INTERNET) == set()


@in_namespace
def test_local_networks_are_mirrored_and_stale_ones_vanish() -> None:
    with IPRoute() as netlink:
        index = add_lan(netlink)
    routing = ClientRouting()

    routing.install([socket.AF_INET])
    first = routes(TABLE_LINK)
    with IPRoute() as netlink:
        netlink.addr("del", index=index, address="192.168.5.2", prefixlen=24)
    routing.mirror_links()

    assert "192.168.5.0/24" in first
    assert "192.168.5.0/24" not in routes(TABLE_LINK)


@in_namespace
def test_of_two_ways_into_one_network_the_hosts_choice_stays() -> None:
    with IPRoute() as netlink:
        add_pair(netlink, "lan", "wire")
        add_pair(netlink, "wlan", "air")
        for name, address, metric in (("lan", "192.168.5.2", 600), ("wlan", "192.168.5.3", 100)):
            (index,) = netlink.link_lookup(ifname=name)
            netlink.addr("add", index=index, address=address, prefixlen=24)
            netlink.route("del", dst="192.168.5.0/24", oif=index, scope=255)
            netlink.route("add", dst="192.168.5.0/24", oif=index, prefsrc=address, priority=metric, scope=253)
    interface = made_interface()
    routing = ClientRouting()
    routing.install(interface.configure("100.64.0.7", "fd00:2021:1111::7"))
    interface.set_routes([ip_network("0.0.0.0/0")], TABLE_RESOURCES)

    first = source_for("192.168.5.77", marked=False)
    with IPRoute() as netlink:
        (index,) = netlink.link_lookup(ifname="wlan")
        netlink.link("set", index=index, state="down")
    routing.mirror_links()

    assert first == "192.168.5.3"
    assert source_for("192.168.5.77", marked=False) == "192.168.5.2"


@in_namespace
def test_marked_packets_stay_out_of_the_tunnel() -> None:
    with IPRoute() as netlink:
        add_lan(netlink)
        netlink.route("add", dst="default", gateway="192.168.5.1")
    interface = made_interface()
    routing = ClientRouting()
    routing.install(interface.configure("100.64.0.7", "fd00:2021:1111::7"))
    interface.set_routes([ip_network("10.9.0.0/16"), ip_network("0.0.0.0/0")], TABLE_RESOURCES)

    assert source_for("10.9.0.2", marked=False) == "100.64.0.7"
    assert source_for("198.51.100.1", marked=False) == "100.64.0.7"
    assert source_for("192.168.5.77", marked=False) == "192.168.5.2"
    assert source_for("10.9.0.2", marked=True) == "192.168.5.2"


@in_namespace
def test_other_vpns_keep_what_is_theirs_and_resources_win_over_them() -> None:
    with IPRoute() as netlink:
        add_lan(netlink)
        netlink.route("add", dst="default", gateway="192.168.5.1")
        add_other_vpn(netlink, table=51820, priority=32765)
    interface = made_interface()
    routing = ClientRouting()
    routing.install(interface.configure("100.64.0.7", "fd00:2021:1111::7"))

    interface.set_routes([ip_network("10.9.0.0/16")], TABLE_RESOURCES)
    assert source_for("10.9.0.2", marked=False) == "100.64.0.7"
    assert source_for("198.51.100.1", marked=False) == "10.66.0.2"
    assert source_for("10.66.0.9", marked=False) == "10.66.0.2"
    assert source_for("198.51.100.1", marked=True) == "10.66.0.2"  # our own packets go by its way, as all of the host's

    interface.set_routes([ip_network("10.9.0.0/16"), ip_network("0.0.0.0/0")], TABLE_RESOURCES)
    routing.mirror_links()
    assert source_for("198.51.100.1", marked=False) == "100.64.0.7"
    assert source_for("10.66.0.9", marked=False) == "10.66.0.2"
    assert source_for("198.51.100.1", marked=True) == "10.66.0.2"

    routing.remove()
    assert source_for("198.51.100.1", marked=False) == "10.66.0.2"


@in_namespace
def test_rules_that_go_before_ours_are_named() -> None:
    with IPRoute() as netlink:
        netlink.rule("add", table=77, priority=50)

    with capture_logs() as logs:
        ClientRouting().install([socket.AF_INET])

    assert [entry["priorities"] for entry in logs] == [[50]]


@in_namespace
def test_families_that_the_host_refuses_get_no_routes() -> None:
    interface = made_interface()
    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")

    with capture_logs() as logs:
        accepted = interface.configure("100.64.0.7", "fd00:2021:1111::7")
        interface.set_routes([ip_network("10.9.0.0/16"), ip_network("fd00:2021:1111::/107")], TABLE_RESOURCES)

    assert accepted == {socket.AF_INET}
    assert routes(TABLE_RESOURCES) == {"10.9.0.0/16"}
    assert [entry["version"] for entry in logs if entry["log_level"] == "warning"] == [6]


def add_other_vpn(netlink: IPRoute, table: int, priority: int) -> None:
    """As wg-quick sets one up that takes everything."""
    index = add_pair(netlink, "wg9", "wg9-end")
    netlink.addr("add", index=index, address="10.66.0.2", prefixlen=16)
    netlink.route("add", family=socket.AF_INET, dst="0.0.0.0/0", oif=index, table=table, scope=253)
    netlink.rule("add", family=socket.AF_INET, table=table, priority=priority, fwmark=51820, flags=2, action=1)


def made_interface() -> TunInterface:
    with IPRoute() as netlink:
        netlink.link("add", ifname=NAME, kind="tuntap", mode="tun")
    return TunInterface(NAME)


def add_pair(netlink: IPRoute, near: str, far: str) -> int:
    netlink.link("add", ifname=near, kind="veth", peer=far)
    for name in (far, near):
        (index,) = netlink.link_lookup(ifname=name)
        netlink.link("set", index=index, state="up")
    return int(index)


def add_lan(netlink: IPRoute) -> int:
    index = add_pair(netlink, "lan", "wire")
    netlink.addr("add", index=index, address="192.168.5.2", prefixlen=24)
    return int(index)


def routes(table: int) -> set[str]:
    found = set()
    with IPRoute() as netlink:
        for family, unspecified in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            for route in netlink.get_routes(family=family, table=table):
                found.add(f"{route.get_attr('RTA_DST') or unspecified}/{route['dst_len']}")
    return found


def rules(family: int) -> list[tuple[int, int, int]]:
    with IPRoute() as netlink:
        found = [
            (rule.get_attr("FRA_PRIORITY"), rule.get_attr("FRA_TABLE"), rule.get_attr("FRA_FWMARK"))
            for rule in netlink.get_rules(family=family)
            if rule.get_attr("FRA_FWMARK") and rule["flags"] & 2
        ]
    return sorted(found)


def source_for(destination: str, *, marked: bool) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        if marked:
            mark(probe, must=True)
        with contextlib.suppress(BlockingIOError):
            probe.connect((destination, 9))
        return str(probe.getsockname()[0])
