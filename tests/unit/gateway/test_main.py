"""A whole gateway process on a host of its own: it joins, sets the host up, and takes all of it back."""

import asyncio
import os
import sys
from pathlib import Path

from tests.unit.io.fake_portal import FakePortal, until
from tests.unit.io.namespace import addresses, bring_loopback_up, in_namespace
from wardgate.errors import WardgateError
from wardgate.gateway.config import GatewaySettings
from wardgate.gateway.main import GatewayProgram
from wardgate.io.nftables import Nftables
from wardgate.wire.addresses import SocketAddr

INIT = {
    "interface": {"ipv4": "100.64.0.2", "ipv6": "fd00:2021:1111::2"},
    "config": {"ipv4_masquerade_enabled": True, "ipv6_masquerade_enabled": True},
    "relays": [],
    "account_slug": "lab",
    "authorizations": [],
    "flow_logs": {"api_url": "http://127.0.0.1:9/", "upload_interval_secs": 0, "upload_batch_size": 0},
}


@in_namespace
def test_gateway_joins_sets_its_host_up_and_takes_it_back() -> None:
    async def body() -> None:
        bring_loopback_up()
        async with FakePortal(("init", INIT)).listening() as portal:
            program = GatewayProgram(settings(portal.url))
            running = asyncio.create_task(program.run())
            await until(lambda: addresses("tun-test") == {"100.64.0.2", "fd00:2021:1111::2"})
            await until(lambda: ("set_snownet_capabilities", {"iceless": True}) in portal.heard)
            assert tables() == ["wardgate"]
            assert forwards() == "1"
            assert portal.requests[0].path.startswith("/gateway/v2/websocket?external_id=gw1&name=one&public_key=")
            assert portal.requests[0].headers["X-Authorization"] == "Bearer .t"

            program.stop()

            assert await running is None
            assert addresses("tun-test") == set()
            assert tables() == []
            assert forwards() == "0"

    asyncio.run(body())


@in_namespace
def test_figures_and_readiness_are_served() -> None:
    async def body() -> None:
        bring_loopback_up()
        async with FakePortal(("init", INIT)).listening() as portal:
            program = GatewayProgram(settings(portal.url, health_address=SocketAddr("127.0.0.1", 8080)))
            running = asyncio.create_task(program.run())
            await until(lambda: addresses("tun-test"))
            ready, figures = await fetch("/readyz"), await fetch("/metrics")
            program.stop()
            await running

        assert ready.startswith("HTTP/1.1 200")
        assert "\nwardgate_gateway_portal_up 1\n" in figures
        assert "\nwardgate_gateway_loop_forced_yields 0\n" in figures

    asyncio.run(body())


@in_namespace
def test_refused_token_ends_the_gateway_with_the_portals_words() -> None:
    async def body() -> None:
        bring_loopback_up()
        refusal = (401, b'{"code": "invalid_token", "detail": "This token was revoked."}')
        async with FakePortal(refusal=refusal).listening() as portal:
            reason = await GatewayProgram(settings(portal.url)).run()

        assert reason is not None
        assert "This token was revoked." in reason
        assert tables() == []

    asyncio.run(body())


@in_namespace
def test_malformed_push_is_dropped_and_the_gateway_lives_on() -> None:
    async def body() -> None:
        bring_loopback_up()
        pushes = (("create_authorization", {"ref": 5}), ("no such event", None), ("init", INIT))
        async with FakePortal(*pushes).listening() as portal:
            program = GatewayProgram(settings(portal.url))
            running = asyncio.create_task(program.run())
            await until(lambda: addresses("tun-test"))
            program.stop()

            assert await running is None

    asyncio.run(body())


@in_namespace
def test_second_gateway_on_the_same_interface_is_told_and_the_first_keeps_its_host() -> None:
    async def body() -> None:
        bring_loopback_up()
        async with FakePortal(("init", INIT)).listening() as portal:
            program = GatewayProgram(settings(portal.url))
            running = asyncio.create_task(program.run())
            await until(lambda: addresses("tun-test"))
            try:
                GatewayProgram(settings(portal.url))
            except WardgateError as error:
                problem = str(error)
            still = tables()
            program.stop()
            await running

        assert "tun-test" in problem
        assert still == ["wardgate"]

    asyncio.run(body())


@in_namespace
def test_killed_process_leaves_nothing_that_the_next_one_does_not_take_away() -> None:
    async def body() -> None:
        bring_loopback_up()
        async with FakePortal(("init", INIT)).listening() as portal:
            killed = await started(portal.url)
            await until(lambda: addresses("tun-test"))
            killed.kill()
            await killed.wait()
            left_behind = tables()

            process = await started(portal.url)
            await until(lambda: addresses("tun-test") and portal.joins == 2)
            during = tables()
            process.terminate()

            assert await process.wait() == 0
            assert (left_behind, during, tables()) == (["wardgate"], ["wardgate"], [])
            assert addresses("tun-test") == set()

    asyncio.run(body())


async def started(url: str) -> asyncio.subprocess.Process:
    words = ("gateway", "--api-url", url, "--id", "gw1", "--interface", "tun-test", "--health-check-addr", "none")
    environment = {**os.environ, "WARDGATE_TOKEN": ".t"}
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "wardgate.cli", *words, env=environment)


def settings(url: str, health_address: SocketAddr | None = None) -> GatewaySettings:
    return GatewaySettings(
        api_url=url, token=".t", id="gw1", name="one", interface="tun-test", health_address=health_address
    )


def forwards() -> str:
    return Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()


def tables() -> list[str]:
    with Nftables() as firewall:
        return [item["table"]["name"] for item in firewall.run([{"list": {"tables": None}}]) if "table" in item]


async def fetch(path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", 8080)
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.decode()
