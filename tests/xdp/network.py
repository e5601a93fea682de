"""A switch and three hosts at it, each in a network namespace: a relay's, a client's, a peer's.

The hosts' interfaces are made to leave complete checksums in their frames, as all frames have that came over a wire.
"""

import fcntl
import os
import socket
import struct
import subprocess
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest
from pyroute2 import netns

from tests.xdp.frames import Datagram, parse
from wardgate._fastpath import RelayIo

PREFIX: Final = f"wgxdp{os.getpid()}"
RELAY, CLIENT, PEER, SWITCH = (PREFIX + name for name in "rcps")
RELAY4, RELAY6 = "10.77.1.1", "fd77::1"
ADDRESSES: Final = {RELAY: (RELAY4, RELAY6), CLIENT: ("10.77.1.2", "fd77::2"), PEER: ("10.77.1.3", "fd77::3")}
INTERFACE: Final = "e0"
ETH_P_ALL = 3
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
SO_RCVBUFFORCE = 33


@contextmanager
def network() -> Iterator[None]:
    """Makes them, and removes them."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces and XDP need root")
    with ExitStack() as stack:
        for name in (SWITCH, *ADDRESSES):
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "del", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", SWITCH, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", SWITCH, "link", "set", "switch", "up")
        for number, (name, addresses) in enumerate(ADDRESSES.items()):
            far = ["peer", "name", INTERFACE, "netns", name]
            run("ip", "-n", SWITCH, "link", "add", f"port{number}", "master", "switch", "type", "veth", *far)
            run("ip", "-n", SWITCH, "link", "set", f"port{number}", "up")
            for address, size in zip(addresses, ("24", "64"), strict=True):
                run("ip", "-n", name, "address", "add", f"{address}/{size}", "dev", INTERFACE, "nodad")
            run("ip", "-n", name, "link", "set", INTERFACE, "up")
            with inside(name):
                complete_checksums(INTERFACE)
        yield


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Runs its body there; sockets and processes made meanwhile stay."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        netns.setns(name)
        yield
    finally:
        netns.setns(home)
        os.close(home)


@contextmanager
def udp_socket(name: str, host: str) -> Iterator[socket.socket]:
    """A socket of that host, at one of its addresses."""
    with inside(name):
        own = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    with own:
        own.bind((host, 0))
        own.settimeout(3.0)
        own.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        yield own


class Capture:
    """Every frame that a host gets from the relay."""

    def __init__(self, name: str) -> None:
        with inside(name):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self._socket.bind((INTERFACE, ETH_P_ALL))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)

    def datagrams(self) -> Iterator[Datagram]:
        """The UDP datagrams among them so far; each with right checksums, or the test fails."""
        while True:
            try:
                frame, (_, _, kind, *_) = self._socket.recvfrom(65535)
            except BlockingIOError:
                return
            is_udp = (frame[12:14], frame[23]) == (b"\x08\0", 17) or (frame[12:14], frame[20]) == (b"\x86\xdd", 17)
            if is_udp and kind != socket.PACKET_OUTGOING:
                yield parse(frame)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def far_end_with_a_program() -> Iterator[None]:
    """Meanwhile the relay's interface can send from its driver.

    What a program sends through one end of a veth pair is noticed at the other only if a program is there as well. Any
    will do, such as this of a relay that nobody knows.
    """
    run("ip", "-n", SWITCH, "address", "replace", "192.0.2.1/32", "dev", "port0")
    with inside(SWITCH):
        io = RelayIo(
            listen_port=3478,
            bind4="192.0.2.1",
            bind6=None,
            public4=None,
            public6=None,
            xdp="port0",
            xdp_mode="driver",
        )
    try:
        assert io.offload_error() is None, io.offload_error()
        yield
    finally:
        io.stop()


def complete_checksums(interface: str) -> None:
    """Has the kernel compute checksums before frames leave by this interface, rather than leave them to it."""
    off = array("B", struct.pack("=II", ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP", interface.encode(), off.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
