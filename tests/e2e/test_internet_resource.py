"""Everything through the tunnel, with the real programs in the lab: what must stay outside does, whatever the host."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

import pytest

from wardgate.lab import topologies
from wardgate.lab.demo import steps
from wardgate.lab.demo.__main__ import playing
from wardgate.lab.demo.cast import Cast
from wardgate.lab.demo.story import Story
from wardgate.lab.topology import Host, Topology

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]

PUBLIC: Final = "203.0.113.4"
PRINTER: Final = "192.168.1.20"
HOME: Final = "203.0.113.21"
AWAY: Final = "203.0.113.31"
PUBLIC_V6: Final = "2001:db8:113::4"
HOME_V6: Final = "2001:db8:1::10"
AWAY_V6: Final = "2001:db8:9::10"
SERVER: Final = [sys.executable, "-u", "-m", "http.server", "80", "--directory", "/proc/sys/net/ipv4"]
STRICT: Final = "net.ipv4.conf.all.rp_filter=1"


def test_internet_goes_through_the_tunnel_and_portal_gateway_and_local_network_do_not(tmp_path: Path) -> None:
    with joined(tmp_path) as cast:
        reach(cast, PUBLIC, AWAY)
        reach(cast, PUBLIC_V6, AWAY_V6)
        joins = cast.status()["portal_connections"]
        reach(cast, PRINTER, "192.168.1.10")
        cast.lab.node("client").run(["ping", "-c", "1", "-W", "3", "192.168.1.1"]).check()  # the router itself
        turn(cast, on=False)
        reach(cast, PUBLIC, HOME)
        reach(cast, PUBLIC_V6, HOME_V6)
        turn(cast, on=True)
        reach(cast, PUBLIC, AWAY)

        assert cast.status()["portal"] == "up"
        assert cast.status()["portal_connections"] == joins


def test_host_that_checks_the_way_back_strictly_is_reached_and_as_strict_afterwards(tmp_path: Path) -> None:
    with joined(tmp_path, strict=True) as cast:
        reach(cast, PUBLIC, AWAY)
        reach(cast, PRINTER, "192.168.1.10")
        joins = cast.status()["portal_connections"]
        cast.wardgate("client", "client", "reset").check()
        cast.wait(lambda: cast.status().get("portal_connections") == joins + 1, 20.0, "the client joins anew")
        reach(cast, PUBLIC, AWAY)
        turn(cast, on=False)
        cast.wait(lambda: rp_filter(cast) == "1", 10.0, "the check is strict again")
        turn(cast, on=True)
        reach(cast, PUBLIC, AWAY)
        cast.processes["client"].terminate()
        cast.processes["client"].wait(10.0)

        assert rp_filter(cast) == "1"


def test_killed_client_takes_nothing_with_it_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with joined(tmp_path) as cast:
        reach(cast, PUBLIC, AWAY)
        cast.processes["client"].kill()
        cast.processes["client"].wait(10.0)
        reach(cast, PUBLIC, HOME)

        cast.start_client(env={"WARDGATE_INTERNET_RESOURCE": "true"})
        reach(cast, PUBLIC, AWAY)
        cast.processes["client"].terminate()
        cast.processes["client"].wait(10.0)

        reach(cast, PUBLIC, HOME)
        rules = cast.lab.node("client").run(["ip", "rule"]).check().stdout
        assert "0xfd002021" not in rules


@contextmanager
def joined(directory: Path, *, strict: bool = False) -> Iterator[Cast]:
    """A client whose internet is the site of gateway-2."""
    story = Story()
    with playing(story, directory, topology()) as cast:
        steps.portal_starts(story, cast)
        cast.admin("policies", "create", "--group", "engineering", "--resource", "Internet")
        cast.tokens["gateway"] = cast.admin("gateway-tokens", "create", "--site", "Internet")["token"]
        cast.start("public", "relay-2", SERVER)
        cast.start("public6", "relay-2", [*SERVER, "--bind", PUBLIC_V6])
        cast.start("printer", "printer", SERVER)
        if strict:
            cast.lab.node("client").run(["sysctl", "-w", STRICT]).check()
        cast.start_relay()
        cast.start_gateway()
        reach(cast, PUBLIC, HOME)
        cast.start_client(env={"WARDGATE_INTERNET_RESOURCE": "true"})
        cast.wait(lambda: cast.status().get("portal") == "up", 15.0, "the client joins", cast.processes["client"])
        yield cast


def topology() -> Topology:
    """The demo's, with a neighbour of the client's."""
    base = topologies.demo()
    printer = Host("printer", IPv4Address(PRINTER), IPv6Address("2001:db8:1::20"))
    client, gateway = base.sites
    return replace(base, sites=(replace(client, hosts=(*client.hosts, printer)), gateway))


def reach(cast: Cast, server: str, seen_as: str) -> None:
    """Waits until the server answers the client and sees it as that address."""
    name = {PUBLIC: "public", PUBLIC_V6: "public6", PRINTER: "printer"}[server]
    url = f"http://[{server}]/ip_forward" if ":" in server else f"http://{server}/ip_forward"

    def answered() -> bool:
        before = len(cast.processes[name].log())
        if cast.curl(url, timeout_s=2).returncode != 0:
            return False
        return cast.processes[name].log()[before:].startswith(f"{seen_as} ")

    cast.wait(answered, 20.0, f"{server} is reached as {seen_as}")


def turn(cast: Cast, *, on: bool) -> None:
    cast.wardgate("client", "client", "internet-resource", "true" if on else "false").check()


def rp_filter(cast: Cast) -> str:
    return cast.lab.node("client").run(["sysctl", "-n", "net.ipv4.conf.all.rp_filter"]).check().stdout.strip()
