"""A host with one or two Ethernet interfaces in a network namespace of its own, and a relay there."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.xdp.program import Program
from wardgate._fastpath import RelayIo
from wardgate.lab import namespaces
from wardgate.lab.namespaces import Clone

OWN4, OWN6 = "203.0.113.1", "2001:db8::1"
OWN_MAC, NEXT_MAC, ROUTER_MAC = (bytes.fromhex(f"0200000000{last}") for last in ("01", "02", "fe"))
NEIGHBOURS = ("203.0.113.2", "2001:db8::2")
LISTEN = 3478
SETUP = f"""
link set lo up
link add outside type veth peer name far
link set outside address {OWN_MAC.hex(":")}
link set outside up
link set far up
address add {OWN4}/24 dev outside
address add {OWN6}/64 dev outside nodad
neighbour add 203.0.113.2 lladdr {NEXT_MAC.hex(":")} dev outside nud permanent
neighbour add 2001:db8::2 lladdr {NEXT_MAC.hex(":")} dev outside nud permanent
neighbour add 203.0.113.254 lladdr {ROUTER_MAC.hex(":")} dev outside nud permanent
neighbour add 2001:db8::fe lladdr {ROUTER_MAC.hex(":")} dev outside nud permanent
route add default via 203.0.113.254
route add default via 2001:db8::fe
"""


@contextmanager
def network_namespace(extra: str = "") -> Iterator[int]:
    """A namespace in which `SETUP` and more commands of `ip` were done, for as long as its descriptor is open."""
    home = namespaces.open_own("net")
    try:
        try:
            namespaces.unshare(Clone.NET)
        except OSError as error:
            pytest.skip(f"no network namespace: {error}")
        own = namespaces.open_own("net")
        done = subprocess.run(["ip", "-batch", "-"], input=SETUP + extra, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    finally:
        namespaces.enter(home)
        os.close(home)
    try:
        yield own
    finally:
        os.close(own)


def skip_without_xdp(io: RelayIo) -> None:
    """Skips the test where the program is not built in or the kernel takes none; any other reason is a failure."""
    reason = io.offload_error()
    if reason is not None and any(text in reason for text in ("clang was not found", "CAP_BPF")):
        pytest.skip(f"no XDP here: {reason}")
    assert reason is None, reason


@dataclass
class Host:
    """A relay whose channels the kernel forwards, at `outside`; and the program there, which frames can be given to."""

    io: RelayIo
    program: Program

    def counted(self) -> dict[str, int]:
        """What the program counted, without zeros."""
        return {name: value for name, value in self.io.counters().items() if name.startswith("xdp_") and value}


@contextmanager
def host(
    public4: str | None = OWN4, public6: str | None = OWN6, mode: str = "generic", listen_port: int = LISTEN
) -> Iterator[Host]:
    """Makes one in this namespace; skips the test where the kernel takes no programs."""
    io = RelayIo(
        listen_port=listen_port,
        bind4="0.0.0.0" if public4 else None,
        bind6="::" if public6 else None,
        public4=public4,
        public6=public6,
        xdp="outside",
        xdp_mode=mode,
    )
    try:
        skip_without_xdp(io)
        program = Program("outside")
        yield Host(io, program)
        program.close()
    finally:
        assert io.stop()
