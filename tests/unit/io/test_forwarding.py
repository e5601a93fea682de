"""A gateway's demands on its host, in a network namespace."""

from pathlib import Path
from typing import Any

from tests.unit.io.namespace import in_namespace
from wardgate.io.forwarding import HostForwarding
from wardgate.io.nftables import Nftables

DROPPING: list[dict[str, Any]] = [
    {"add": {"table": {"family": "ip", "name": "filter"}}},
    {
        "add": {
            "chain": {
                "family": "ip",
                "table": "filter",
                "name": "FORWARD",
                "type": "filter",
                "hook": "forward",
                "prio": 0,
                "policy": "drop",
            }
        }
    },
]


@in_namespace
def test_masquerading_and_forwarding_come_and_go() -> None:
    before = sysctl("ipv4/ip_forward")
    forwarding = HostForwarding("tun-test")

    forwarding.install()
    forwarding.install()
    tables, forwards, masquerading = tables_now(), sysctl("ipv4/ip_forward"), count_rules("masquerade")
    forwarding.remove()

    assert before == "0"
    assert (tables, forwards, masquerading) == ([("inet", "wardgate")], "1", 2)
    assert sysctl("ipv6/conf/all/forwarding") == "0"
    assert (tables_now(), sysctl("ipv4/ip_forward")) == ([], "0")


@in_namespace
def test_dropping_firewall_lets_the_tunnel_through_and_is_as_before_afterwards() -> None:
    with Nftables() as firewall:
        firewall.run(DROPPING)
    forwarding = HostForwarding("tun-test")

    forwarding.install()
    forwarding.install()
    during = count_rules("accept")
    forwarding.remove()

    assert during == 2
    assert count_rules("accept") == 0
    assert tables_now() == [("ip", "filter")]


@in_namespace
def test_leftovers_of_a_killed_run_are_not_doubled() -> None:
    HostForwarding("tun-test").install()

    HostForwarding("tun-test").install()

    assert count_rules("masquerade") == 2


@in_namespace
def test_router_advertisements_stay_believed() -> None:
    path = Path("/proc/sys/net/ipv6/conf/lo/accept_ra")
    path.write_text("1")
    forwarding = HostForwarding("tun-test")

    forwarding.install()
    during = path.read_text().strip()
    forwarding.remove()

    assert during == "2"
    assert path.read_text().strip() == "1"


def sysctl(name: str) -> str:
    return Path("/proc/sys/net", name).read_text().strip()


def listed() -> list[dict[str, Any]]:
    with Nftables() as firewall:
        return firewall.run([{"list": {"ruleset": None}}])


def tables_now() -> list[tuple[str, str]]:
    return [(item["table"]["family"], item["table"]["name"]) for item in listed() if "table" in item]


def count_rules(statement: str) -> int:
    return sum(any(statement in part for part in item["rule"]["expr"]) for item in listed() if "rule" in item)
