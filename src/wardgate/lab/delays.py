"""Wires with delay: two TAP devices and the native delay line between them.

The lines run in a process of their own, which the supervisor forks when the first one is made: they are threads, and
only a process with one thread can step into a node's mount namespace.
"""

import fcntl
import os
import signal
import socket
import struct
from collections.abc import Mapping
from typing import Any

from wardgate.lab import messages
from wardgate.lab.messages import Message

TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
OFFLOADS = 0x0F  # checksums, TSO for IPv4, IPv6 and with ECN
OFFLOADS_WITH_UDP = OFFLOADS | 0x60  # and UDP segmentation, since Linux 6.2
LIMIT_BYTES = 256 << 20
"""How much one direction of a wire may hold: 200 ms at 10 Gbit/s."""

End = tuple[str, str]
"""A node and an interface there."""


class Delays:
    """The supervisor's side: which wires have a delay line, by either end."""

    def __init__(self) -> None:
        self._connection: socket.socket | None = None
        self._line_by_end: dict[End, int] = {}
        self._next_line = 1

    def __contains__(self, end: End) -> bool:
        return end in self._line_by_end

    def start(self) -> None:
        """Starts the process; before the first TAP device is open, or the process would keep that open as well."""
        if self._connection is None:
            self._connection = _start_process()

    def add(self, first: End, second: End, descriptors: tuple[int, int], delay_s: float) -> None:
        """Starts a line between two open TAP devices; the descriptors stay the caller's."""
        line = self._next_line
        self._next_line += 1
        self._ask({"line": line, "do": "add", "delay_s": delay_s}, descriptors)
        self._line_by_end |= {first: line, second: line}

    def set_delay(self, end: End, delay_s: float) -> None:
        """Another delay for what enters the wire from now on."""
        self._ask({"line": self._line_by_end[end], "do": "set", "delay_s": delay_s})

    def remove(self, end: End) -> None:
        """Ends a wire: both interfaces vanish."""
        line = self._line_by_end[end]
        self._ask({"line": line, "do": "remove"})
        self._line_by_end = {other: number for other, number in self._line_by_end.items() if number != line}

    def counters(self, end: End) -> list[list[float]]:
        """What both directions have carried, the first end's sending first."""
        found: list[list[float]] = self._ask({"line": self._line_by_end[end], "do": "counters"})["counters"]
        return found

    def close(self) -> None:
        """Ends every wire."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, request: Message, descriptors: tuple[int, ...] = ()) -> Message:
        if self._connection is None:
            raise OSError("no wire has a delay")
        messages.send(self._connection, request, descriptors)
        received = messages.receive(self._connection)
        if received is None:
            raise OSError("the process of the delay lines has ended")
        if "error" in received[0]:
            raise OSError(received[0]["error"])
        return received[0]


def open_tap(interface: str) -> int:
    """Makes a TAP device, in the network namespace that this thread is in, which lives until its descriptor is closed.

    Raises:
        OSError: The kernel refused it.
    """
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        request = struct.pack("16sH22x", interface.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        fcntl.ioctl(descriptor, TUNSETIFF, request)
        try:
            fcntl.ioctl(descriptor, TUNSETOFFLOAD, OFFLOADS_WITH_UDP)
        except OSError:
            fcntl.ioctl(descriptor, TUNSETOFFLOAD, OFFLOADS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _start_process() -> socket.socket:
    ours, theirs = messages.pair()
    pid = os.fork()
    if pid != 0:
        theirs.close()
        return ours
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        ours.close()
        _serve(theirs)
    finally:
        os._exit(0)


def _serve(connection: socket.socket) -> None:
    lines: dict[int, Any] = {}
    while (received := messages.receive(connection)) is not None:
        request, descriptors = received
        try:
            reply = _answer(lines, request, descriptors)
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        messages.send(connection, reply)


def _answer(lines: dict[int, Any], request: Mapping[str, Any], descriptors: list[int]) -> Message:
    line = request["line"]
    match request["do"]:
        case "add":
            from wardgate._fastpath import DelayLine

            first, second = descriptors
            lines[line] = DelayLine(first, second, request["delay_s"], LIMIT_BYTES)
        case "set":
            lines[line].set_delay(request["delay_s"])
        case "remove":
            lines.pop(line).stop()
        case "counters":
            return {"counters": lines[line].counters()}
    return {}
