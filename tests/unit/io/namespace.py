"""Runs a test's body in network, mount and user namespaces of its own, so that it may change the network."""

import ctypes
import functools
import os
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import pytest
from pyroute2 import IPRoute

from wardgate.lab import namespaces

ResultT = TypeVar("ResultT")

CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
CLONE_NEWNS: Final = 0x00020000


def _unshare() -> None:
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    namespaces.mount("none", "/", flags=namespaces.Mount.RECURSIVE | namespaces.Mount.PRIVATE)


def mount_over(source: Path, target: Path, *, read_only: bool = False) -> None:
    """Makes a file or directory appear at another place, in this namespace alone."""
    namespaces.bind(str(source), str(target), read_only=read_only)


def _in_child(body: Callable[[], None]) -> tuple[int, str]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status, report = 1, ""
        try:
            _unshare()
            body()
            status = 0
        except BaseException:
            report = traceback.format_exc()
        os.write(writer, report.encode()[:60000])
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        report = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), report


@functools.cache
def _is_possible() -> bool:
    return _in_child(lambda: None)[0] == 0


def unmount(target: Path) -> None:
    """Takes the topmost mount there away."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(str(target).encode(), 0) != 0:
        raise OSError(ctypes.get_errno(), f"umount {target}")


def in_namespace(body: Callable[[], None]) -> Callable[[], None]:
    """The test, run in a child process; skipped where namespaces are not allowed."""

    @pytest.mark.netns
    @functools.wraps(body)
    def wrapper() -> None:
        if not _is_possible():
            pytest.skip("namespaces are not allowed here")
        status, report = _in_child(body)
        if status != 0:
            pytest.fail(report, pytrace=False)

    return wrapper


def in_thread(work: Callable[[], ResultT]) -> ResultT:
    """Netlink calls have an event loop of their own, which cannot run inside a running one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def bring_loopback_up() -> None:
    """Turns the namespace's loopback interface on."""

    def work() -> None:
        with IPRoute() as netlink:
            netlink.link("set", index=1, state="up")

    in_thread(work)


def addresses(interface: str) -> set[str]:
    """The addresses of an interface; none if there is no such interface."""

    def work() -> set[str]:
        with IPRoute() as netlink:
            found = netlink.link_lookup(ifname=interface)
            return {str(each.get_attr("IFA_ADDRESS")) for each in netlink.get_addr(index=found[0])} if found else set()

    return in_thread(work)
