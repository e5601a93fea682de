"""Gateway, relay and portal as a service manager runs them; the client is in `client/test_service.py`."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.unit.gateway.test_main import INIT
from tests.unit.io.fake_portal import FakePortal, until
from tests.unit.io.namespace import bring_loopback_up, in_namespace
from tests.unit.io.service_manager import FakeManager, manager

Process = asyncio.subprocess.Process


@in_namespace
def test_gateway_tells_of_its_start_a_reload_and_its_end() -> None:
    async def body(portal: FakePortal, systemd: FakeManager) -> None:
        words = ("gateway", "--api-url", portal.url, "--id", "gw1", "--health-check-addr", "none")
        process = await started(systemd, *words)
        await systemd.until("READY=1")
        await systemd.until("WATCHDOG=1")
        process.send_signal(signal.SIGHUP)
        await until(lambda: portal.joins == 2)
        process.terminate()

        assert await process.wait() == 0
        assert states(systemd) == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]

    play(body)


@in_namespace
def test_relay_is_ready_before_the_portal_is_there_and_says_when_it_joined() -> None:
    async def body(portal: FakePortal, systemd: FakeManager) -> None:
        words = ("relay", "--api-url", portal.url, "--public-ip4-addr", "127.0.0.1", "--health-check-addr", "none")
        portal.refusal = (503, b"")
        process = await started(systemd, *words)
        await systemd.until("READY=1")
        await until(lambda: any("STATUS=relaying; the portal is away: " in line for line in systemd.listen()))
        portal.refusal = None
        await systemd.until("STATUS=relaying, joined the portal")
        await systemd.until("WATCHDOG=1")
        process.terminate()

        assert await process.wait() == 0
        assert states(systemd) == ["READY=1", "STOPPING=1"]

    play(body)


@in_namespace
def test_portal_is_ready_once_it_listens() -> None:
    async def body(_: FakePortal, systemd: FakeManager) -> None:
        with tempfile.TemporaryDirectory() as directory:
            database = f"sqlite:///{Path(directory, 'portal.db')}"
            process = await started(systemd, "portal", "serve", "--listen", "127.0.0.1:8080", "--database", database)
            await systemd.until("READY=1")
            writer = (await asyncio.open_connection("127.0.0.1", 8080))[1]
            writer.close()
            await systemd.until("WATCHDOG=1")
            process.terminate()

            assert await process.wait() == 0
        assert states(systemd) == ["READY=1", "STOPPING=1"]

    play(body)


def play(body: Callable[[FakePortal, FakeManager], Awaitable[None]]) -> None:
    async def run() -> None:
        with manager() as systemd:
            async with FakePortal(("init", INIT)).listening() as portal:
                await body(portal, systemd)

    bring_loopback_up()
    asyncio.run(run())


async def started(systemd: FakeManager, *words: str) -> Process:
    environment = {**os.environ, **systemd.environment, "WATCHDOG_USEC": "200000", "WARDGATE_TOKEN": ".t"}
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "wardgate.cli", *words, env=environment)


def states(systemd: FakeManager) -> list[str]:
    return [line for line in systemd.listen() if line.endswith("=1") and "WATCHDOG" not in line]
