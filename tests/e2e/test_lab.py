"""The lab on this machine: real namespaces, real programs, and nothing left afterwards."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wardgate.errors import LabError
from wardgate.lab import Lab, topologies, wait_until

pytestmark = pytest.mark.netns

CALLER = """
import sys, time
from wardgate.lab import Lab, topologies
lab = Lab(topologies.demo())
lab.start()
stubborn = lab.node("client").spawn(["sh", "-c", "trap '' TERM; sleep 1000 & wait; sleep 1000"])
polite = lab.node("app").spawn(["sleep", "1000"])
print(stubborn.pid, polite.pid, *(node.holder_pid for node in lab.nodes.values()), flush=True)
time.sleep(1000)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(topologies.demo()) as running:
        yield running


def test_demo_topology_stands_within_its_budget(lab: Lab) -> None:
    assert lab.setup_s < 5.0


def test_hosts_know_each_other_by_name_over_both_families(lab: Lab) -> None:
    for family in ("-4", "-6"):
        done = lab.node("client").run(["ping", family, "-c1", "-W2", "portal"]).check()
        assert "1 received" in done.stdout


def test_app_is_reachable_from_its_own_network_alone(lab: Lab) -> None:
    server = lab.node("app").socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind(("10.9.0.2", 80))
    server.listen()

    with lab.node("gateway-1").socket(kind=socket.SOCK_STREAM) as near:
        near.settimeout(5)
        near.connect(("10.9.0.2", 80))
    with lab.node("portal").socket(kind=socket.SOCK_STREAM) as far:
        far.settimeout(5)
        with pytest.raises(OSError, match="unreachable"):
            far.connect(("10.9.0.2", 80))
    server.close()


def test_program_gets_environment_directory_and_input_and_gives_its_output(lab: Lab, tmp_path: Path) -> None:
    done = lab.node("client").run(
        ["sh", "-c", 'cat; echo "$COLOUR $PWD"; hostname >&2; exit 3'],
        env={"COLOUR": "green"},
        cwd=tmp_path,
        stdin=b"given\n",
    )

    assert (done.returncode, done.stdout, done.stderr) == (3, f"given\ngreen {tmp_path}\n", "client\n")
    with pytest.raises(LabError, match="ended with 3: client"):
        done.check()


def test_program_that_does_not_exist_is_reported(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"no-such-program on client: .*No such file"):
        lab.node("client").spawn(["no-such-program"])


def test_program_that_takes_too_long_is_killed(lab: Lab) -> None:
    with pytest.raises(TimeoutError):
        lab.node("client").run(["sleep", "1000"], timeout_s=0.1)


def test_spawned_program_writes_its_log_and_can_be_stopped(lab: Lab, tmp_path: Path) -> None:
    log_path = tmp_path / "program.log"
    process = lab.node("app").spawn(["sh", "-c", "echo one; echo two >&2; sleep 1000"], log_path=log_path)

    wait_until(lambda: "two" in process.log(), 5.0, "both lines in the log")
    assert process.running
    assert process.log(lines=1) == "two"
    assert process.stop() == -signal.SIGTERM
    assert not process.running


def test_each_node_has_its_own_etc_and_run(lab: Lab) -> None:
    client, app = lab.node("client"), lab.node("app")
    machine = Path("/etc/resolv.conf").read_bytes() if Path("/etc/resolv.conf").exists() else b""

    script = "echo nameserver 100.100.111.1 > /etc/new && mv /etc/new /etc/resolv.conf && touch /run/seen"
    client.run(["sh", "-c", script]).check()

    assert client.read_text("/etc/resolv.conf") == "nameserver 100.100.111.1\n"
    assert client.path_exists("/run/seen")
    assert app.read_text("/etc/resolv.conf") == ""
    assert not app.path_exists("/run/seen")
    assert (Path("/etc/resolv.conf").read_bytes() if Path("/etc/resolv.conf").exists() else b"") == machine


def test_programs_may_make_tun_devices_and_policy_routes(lab: Lab) -> None:
    script = (
        "ip tuntap add dev tun-test mode tun && ip link set tun-test up && ip addr add 100.64.0.1/32 dev tun-test"
        " && ip route add 100.96.0.0/11 dev tun-test table 7000 && ip rule add not fwmark 7 lookup 7000"
        " && ip route get 100.96.0.1; status=$?; ip rule del lookup 7000; ip link del tun-test; exit $status"
    )
    assert "dev tun-test" in lab.node("client").run(["sh", "-c", script]).check().stdout


def test_calls_from_other_threads_do_not_wait_for_each_other(lab: Lab) -> None:
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(lab.node("client").run, ["sh", "-c", "read line; echo $line"], stdin=b"")
        waiting = lab.node("app").spawn(["sleep", "1000"])
        quick = [pool.submit(lab.node(name).run, ["hostname"]) for name in ("portal", "app", "client") * 3]
        names = [future.result(20).stdout.strip() for future in quick]
        assert waiting.running
        assert slow.result(20).stdout == "\n"
        waiting.kill()

    assert names == ["portal", "app", "client"] * 3


def test_orphans_end_with_the_lab() -> None:
    with Lab(topologies.demo()) as lab:
        done = lab.node("client").run(["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo started"])
        assert done.stdout == "started\n"
        namespace = f"/proc/{lab.node('client').holder_pid}/ns/pid"
        inside = [pid for pid in _pids() if _same_namespace(pid, namespace)]
        assert len(inside) > 11

    assert not any(_exists(pid) for pid in inside)


def test_unknown_node_is_named(lab: Lab) -> None:
    with pytest.raises(LabError, match="no node 'moon'; there are wan, portal"):
        lab.node("moon")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_caller_is_killed(number: signal.Signals) -> None:
    caller = subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert caller.stdout is not None
    pids = [int(text) for text in caller.stdout.readline().split()]
    assert len(pids) > 10
    assert all(_exists(pid) for pid in pids)

    caller.send_signal(number)
    caller.wait(10)

    wait_until(lambda: not any(_exists(pid) for pid in pids), 10.0, "every process of the lab is gone")


def test_nothing_is_left_when_the_body_raises() -> None:
    pids: list[int] = []

    with pytest.raises(ZeroDivisionError):
        _fail_inside_a_lab(pids)

    assert len(pids) > 10
    assert not any(_exists(pid) for pid in pids)


def test_killed_supervisor_takes_everything_with_it_and_the_caller_is_told() -> None:
    with Lab(topologies.demo()) as lab:
        process = lab.node("client").spawn(["sleep", "1000"])
        pids = [process.pid, *(node.holder_pid for node in lab.nodes.values())]
        os.kill(_parent(process.pid), signal.SIGKILL)

        assert process.wait(10) == -signal.SIGKILL
        with pytest.raises(LabError, match="supervisor"):
            lab.node("client").run(["true"])

    assert not any(_exists(pid) for pid in pids)


def test_closed_lab_says_so() -> None:
    lab = Lab(topologies.demo())
    lab.start()
    client = lab.node("client")
    lab.close()

    began = time.monotonic()
    with pytest.raises(LabError, match="not running"):
        client.run(["true"])
    assert time.monotonic() - began < 1.0


def _fail_inside_a_lab(pids: list[int]) -> None:
    with Lab(topologies.demo()) as lab:
        pids.append(lab.node("client").spawn(["sleep", "1000"]).pid)
        pids += [node.holder_pid for node in lab.nodes.values()]
        raise ZeroDivisionError


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _same_namespace(pid: int, namespace: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(namespace)
    except OSError:
        return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
