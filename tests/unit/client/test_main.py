"""A whole client process on a host of its own: it joins, routes, answers commands, and takes everything back."""

import asyncio
import signal
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from tests.unit.io.fake_portal import FakePortal, until
from tests.unit.io.namespace import addresses, bring_loopback_up, in_namespace, in_thread
from wardgate.client.config import ClientSettings
from wardgate.client.main import ClientProgram
from wardgate.errors import WardgateError
from wardgate.io.control_socket import ask
from wardgate.io.tun import TABLE_RESOURCES
from wardgate.io.udp import FWMARK

RESOURCE_ID = "00000000-0000-0000-0000-0000000000c1"
OTHER_ID = "00000000-0000-0000-0000-0000000000c2"
RESOURCE: dict[str, Any] = {
    "id": RESOURCE_ID,
    "type": "cidr",
    "name": "lab",
    "address": "10.9.0.0/24",
    "address_description": None,
    "filters": [],
    "sites": [{"id": "00000000-0000-0000-0000-000000000051", "name": "Lab"}],
}
INIT = {
    "interface": {
        "ipv4": "100.64.3.9",
        "ipv6": "fd00:2021:1111::7:21",
        "upstream_dns": [],
        "upstream_do53": [],
        "upstream_doh": [],
        "search_domain": None,
    },
    "resources": [RESOURCE],
    "relays": [],
    "authorizations": [],
    "flow_logs": {"api_url": "http://127.0.0.1:9/", "upload_interval_secs": 0, "upload_batch_size": 0},
}


@in_namespace
def test_client_routes_its_resources_and_takes_everything_back() -> None:
    async def body(directory: Path) -> None:
        async with FakePortal(("init", INIT)).listening() as portal:
            program = ClientProgram(settings(portal.url, directory))
            running = asyncio.create_task(program.run())
            await until(lambda: "10.9.0.0/24" in routes())
            assert addresses("tun-test") == {"100.64.3.9", "fd00:2021:1111::7:21"}

            status = await asyncio.to_thread(ask, directory / "sock", {"command": "status"})
            await asyncio.to_thread(ask, directory / "sock", {"command": "down"})

            assert await running is None
            assert status["portal"] == "up"
            assert status["link"] == {"up": True, "running": True, "mtu": 1280, "txqlen": 10_000}
            assert [resource["name"] for resource in status["resources"]] == ["lab"]
            assert addresses("tun-test") == set()
            assert routes() == set()
            assert not (directory / "sock").exists()

    run(body)


@in_namespace
def test_changed_resources_change_the_routes_while_it_runs() -> None:
    async def body(directory: Path) -> None:
        later = ("resource_created_or_updated", {**RESOURCE, "id": OTHER_ID, "address": "10.8.0.0/16"})
        gone = ("resource_deleted", RESOURCE_ID)
        async with FakePortal(("init", INIT), later, gone).listening() as portal:
            program = ClientProgram(settings(portal.url, directory))
            running = asyncio.create_task(program.run())
            await until(lambda: "10.8.0.0/16" in routes() and "10.9.0.0/24" not in routes())
            program.stop()

            assert await running is None

    run(body)


@in_namespace
def test_portal_that_goes_away_is_joined_again_while_the_tunnel_stays() -> None:
    async def body(directory: Path) -> None:
        async with FakePortal(("init", INIT)).listening() as portal:
            program = ClientProgram(settings(portal.url, directory))
            running = asyncio.create_task(program.run())
            await until(lambda: "10.9.0.0/24" in routes())

            await portal.connections[0].close(1012)
            during = routes()
            await until(lambda: portal.joins == 2)
            program.stop()

            assert await running is None
            assert "10.9.0.0/24" in during

    run(body)


@in_namespace
def test_changed_network_brings_a_new_connection_to_the_portal() -> None:
    async def body(directory: Path) -> None:
        async with FakePortal(("init", INIT)).listening() as portal:
            program = ClientProgram(settings(portal.url, directory))
            running = asyncio.create_task(program.run())
            await until(lambda: "10.9.0.0/24" in routes())

            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, program.reset, "asked by SIGHUP")
            signal.raise_signal(signal.SIGHUP)
            await until(lambda: portal.joins == 2)
            program.stop()

            assert await running is None
            assert "10.9.0.0/24" not in routes()

    run(body)


@in_namespace
def test_second_client_is_told_and_the_first_keeps_its_routes() -> None:
    async def body(directory: Path) -> None:
        async with FakePortal(("init", INIT)).listening() as portal:
            program = ClientProgram(settings(portal.url, directory))
            running = asyncio.create_task(program.run())
            await until(lambda: "10.9.0.0/24" in routes())

            problem = ""
            try:
                await ClientProgram(settings(portal.url, directory, interface="tun-other")).run()
            except WardgateError as error:
                problem = str(error)
            still = routes()
            program.stop()
            await running

            assert "running already" in problem
            assert "10.9.0.0/24" in still

    run(body)


@in_namespace
def test_connection_test_ends_by_itself() -> None:
    async def body(directory: Path) -> None:
        async with FakePortal(("init", INIT)).listening() as portal:
            assert await ClientProgram(settings(portal.url, directory, exit_when_ready=True)).run() is None

    run(body)


@in_namespace
def test_end_in_the_middle_of_setting_up_leaves_nothing() -> None:
    async def body(directory: Path) -> None:
        begun, go, done = threading.Event(), threading.Event(), threading.Event()
        async with FakePortal(("init", INIT)).listening() as portal:
            program = ClientProgram(settings(portal.url, directory))
            install = program._routing.install

            def slowly(families: Iterable[int]) -> None:
                begun.set()
                go.wait(30)
                install(families)
                done.set()

            program._routing.install = slowly  # type: ignore[method-assign]
            running = asyncio.create_task(program.run())
            await until(begun.is_set)
            program.stop()
            await until(lambda: addresses("tun-test") == set())
            await asyncio.sleep(0.2)
            go.set()
            await until(done.is_set)

            assert await running is None
            assert in_thread(count_rules) == 0

    run(body)


def count_rules() -> int:
    with IPRoute() as netlink:
        return sum(rule.get_attr("FRA_FWMARK") == FWMARK for rule in netlink.get_rules())


def run(body: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        bring_loopback_up()
        asyncio.run(body(Path(directory)))


def settings(
    url: str, directory: Path, *, interface: str = "tun-test", exit_when_ready: bool = False
) -> ClientSettings:
    return ClientSettings(
        api_url=url,
        token=".t",
        id="cl1",
        name="one",
        state_dir=directory,
        socket=directory / "sock",
        interface=interface,
        dns_method="disabled",
        exit_when_ready=exit_when_ready,
    )


def routes() -> set[str]:
    def work() -> set[str]:
        with IPRoute() as netlink:
            return {
                f"{each.get_attr('RTA_DST')}/{each['dst_len']}" for each in netlink.get_routes(table=TABLE_RESOURCES)
            }

    return in_thread(work)
