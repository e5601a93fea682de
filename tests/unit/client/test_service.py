"""The client as a program of its own, as a service manager runs it: what it says, how it ends, what a kill leaves."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from pyroute2 import IPRoute

from tests.unit.client.test_main import INIT, routes
from tests.unit.io.fake_portal import FakePortal, until
from tests.unit.io.namespace import addresses, bring_loopback_up, in_namespace, in_thread, mount_over
from tests.unit.io.service_manager import FakeManager, manager
from wardgate.io.udp import FWMARK

Process = asyncio.subprocess.Process
RESOLV_CONF = Path("/etc/resolv.conf")
ORIGINAL = "nameserver 192.0.2.53\nsearch lan\n"


@in_namespace
def test_service_manager_is_told_of_the_start_a_reload_its_watchdog_and_the_end() -> None:
    async def body(directory: Path, portal: FakePortal, systemd: FakeManager) -> None:
        process = await started(portal, directory, **systemd.environment, WATCHDOG_USEC="200000")
        await systemd.until("READY=1")
        await systemd.until("WATCHDOG=1")
        process.send_signal(signal.SIGHUP)
        await systemd.until("RELOADING=1")
        await until(lambda: portal.joins == 2)
        process.terminate()

        assert await process.wait() == 0
        heard = [line for line in systemd.listen() if line.endswith("=1") and "WATCHDOG" not in line]
        assert heard == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
        assert "STATUS=joined the portal" in systemd.heard

    play(body)


@in_namespace
def test_process_that_hangs_misses_its_watchdog() -> None:
    async def body(directory: Path, portal: FakePortal, systemd: FakeManager) -> None:
        process = await started(portal, directory, **systemd.environment, WATCHDOG_USEC="100000")
        await systemd.until("WATCHDOG=1")
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.3)
        before = systemd.listen().count("WATCHDOG=1")
        await asyncio.sleep(0.5)
        hanging = systemd.listen().count("WATCHDOG=1")
        process.send_signal(signal.SIGCONT)
        await until(lambda: systemd.listen().count("WATCHDOG=1") > before)
        process.terminate()

        assert await process.wait() == 0
        assert hanging == before

    play(body)


@in_namespace
def test_killed_client_leaves_nothing_that_the_next_one_does_not_take_over_and_take_back() -> None:
    async def body(directory: Path, portal: FakePortal, systemd: FakeManager) -> None:
        killed = await started(portal, directory)
        await until(lambda: is_set_up())
        killed.kill()
        await killed.wait()
        left = (is_ours(), rules())

        process = await started(portal, directory, **systemd.environment)
        await systemd.until("READY=1")
        during = (is_ours(), rules(), routes())
        process.terminate()

        assert await process.wait() == 0
        assert left == (True, 6)
        assert during == (True, 6, {*during[2], "10.9.0.0/24"})
        assert untouched()

    play(body)


@in_namespace
def test_what_a_killed_client_left_is_taken_back_by_command_and_not_under_a_running_one() -> None:
    async def body(directory: Path, portal: FakePortal, _: FakeManager) -> None:
        process = await started(portal, directory)
        await until(lambda: is_set_up())
        refusal = await clean_up(directory)
        still = is_set_up()
        process.kill()
        await process.wait()

        assert await clean_up(directory) == (0, "")
        assert untouched()
        assert still
        assert refusal[0] == 1
        assert "running already" in refusal[1]

    play(body)


@in_namespace
def test_check_takes_back_what_was_left_and_nothing_of_a_running_client() -> None:
    async def body(directory: Path, portal: FakePortal, _: FakeManager) -> None:
        process = await started(portal, directory)
        await until(lambda: is_set_up())
        beside = await (await started(portal, directory, "--check")).wait()
        still = is_set_up()
        process.kill()
        await process.wait()
        afterwards = await (await started(portal, directory, "--check")).wait()

        assert (beside, still, afterwards) == (0, True, 0)
        assert untouched()

    play(body)


@in_namespace
def test_file_that_another_program_wrote_is_taken_up_and_stays_after_the_end() -> None:
    async def body(directory: Path, portal: FakePortal, _: FakeManager) -> None:
        process = await started(portal, directory)
        await until(lambda: is_set_up())
        write("nameserver 198.51.100.1\n")
        await until(is_ours)
        process.terminate()

        assert await process.wait() == 0
        assert written() == "nameserver 198.51.100.1\n"

    play(body)


@in_namespace
def test_second_signal_ends_at_once_and_still_gives_the_hosts_names_back() -> None:
    async def body(directory: Path, portal: FakePortal, _: FakeManager) -> None:
        process = await started(portal, directory)
        await until(lambda: is_set_up())
        process.send_signal(signal.SIGSTOP)  # both signals are there before the first is looked at
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)

        assert await process.wait() in (-signal.SIGTERM, -signal.SIGINT)
        assert written() == ORIGINAL
        assert addresses("tun-test") == set()

    play(body)


def play(body: Callable[[Path, FakePortal, FakeManager], Awaitable[None]]) -> None:
    async def run(directory: Path) -> None:
        with manager() as systemd:
            async with FakePortal(("init", INIT)).listening() as portal:
                await body(directory, portal, systemd)

    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryDirectory() as state:
        copy = Path(directory, "resolv.conf")
        copy.write_text(ORIGINAL)
        mount_over(copy, RESOLV_CONF)
        bring_loopback_up()
        asyncio.run(run(Path(state)))


async def started(portal: FakePortal, directory: Path, *options: str, **environment: str) -> Process:
    words = ["up", "--api-url", portal.url, "--id", "cl1", "--interface", "tun-test", "--dns-control", "auto"]
    words += ["--state-dir", str(directory), "--socket", str(directory / "sock"), *options]
    return await wardgate(*words, environment={"WARDGATE_TOKEN": ".t", **environment})


async def clean_up(directory: Path) -> tuple[int | None, str]:
    words = ("clean-up", "--state-dir", str(directory), "--socket", str(directory / "sock"))
    process = await wardgate(*words, stderr=asyncio.subprocess.PIPE)
    _, problem = await process.communicate()
    return process.returncode, problem.decode()


async def wardgate(*words: str, stderr: int | None = None, environment: dict[str, str] | None = None) -> Process:
    argv = (sys.executable, "-m", "wardgate.cli", "client", *words)
    return await asyncio.create_subprocess_exec(*argv, env={**os.environ, **(environment or {})}, stderr=stderr)


def written() -> str:
    return RESOLV_CONF.read_text()


def write(text: str) -> None:
    RESOLV_CONF.write_text(text)


def is_ours() -> bool:
    return "nameserver 100.100.111." in written()


def is_set_up() -> bool:
    return is_ours() and rules() == 6 and "10.9.0.0/24" in routes()


def untouched() -> bool:
    is_gone = addresses("tun-test") == set() and routes() == set()
    return is_gone and rules() == 0 and written() == ORIGINAL


def rules() -> int:
    def work() -> int:
        with IPRoute() as netlink:
            return sum(rule.get_attr("FRA_FWMARK") == FWMARK for rule in netlink.get_rules(family=0))

    return in_thread(work)
