"""Runs a program that is attached to an interface over single frames, as `BPF_PROG_TEST_RUN` does."""

import ctypes
import json
import os
import platform
import struct
import subprocess
from enum import IntEnum
from typing import Any, NamedTuple

SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
TEST_RUN, FD_BY_ID = 10, 13
ROOM = 4096
"""For what a frame becomes."""

_libc = ctypes.CDLL(None, use_errno=True)


class Action(IntEnum):
    """What becomes of a frame."""

    ABORTED = 0
    DROP = 1
    PASS = 2
    TRANSMIT = 3
    REDIRECT = 4


class Outcome(NamedTuple):
    """An action, the frame after it, and how long it took at most, in nanoseconds."""

    action: Action
    frame: bytes
    duration_ns: int


class Program:
    """The XDP program of an interface in this network namespace."""

    def __init__(self, interface: str) -> None:
        self._interface_index = int(ip_json("link", "show", interface)[0]["ifindex"])
        self._fd = bpf(FD_BY_ID, struct.pack("=III", program_ids(interface)[0], 0, 0))[0]

    def run(self, frame: bytes, repeat: int = 1) -> Outcome:
        """Gives the program a frame that the interface received; `repeat` has the kernel do so several times."""
        given, room = ctypes.create_string_buffer(frame, len(frame)), ctypes.create_string_buffer(ROOM)
        context = struct.pack("=IIIIII", 0, len(frame), 0, self._interface_index, 0, 0)
        given_context = ctypes.create_string_buffer(context, len(context))
        attributes = struct.pack(
            "=IIIIQQIIIIQQIII",
            *(self._fd, 0, len(frame), ROOM, ctypes.addressof(given), ctypes.addressof(room), repeat, 0),
            *(len(context), 0, ctypes.addressof(given_context), 0, 0, 0, 0),
        )
        _, after = bpf(TEST_RUN, attributes)
        action, _, size = struct.unpack_from("=III", after, 4)
        return Outcome(Action(action), room.raw[:size], struct.unpack_from("=I", after, 36)[0])

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


def program_ids(interface: str) -> list[int]:
    """The programs that are attached to an interface."""
    return [int(one["prog"]["id"]) for one in ip_json("link", "show", interface)[0].get("xdp", {}).get("attached", [])]


def ip_json(*arguments: str) -> Any:
    """What `ip` lists in this network namespace."""
    return json.loads(subprocess.run(["ip", "-j", *arguments], check=True, capture_output=True, text=True).stdout)


def bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """`bpf(2)`: its result, and the attributes after it."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    number = ctypes.c_long(SYSCALL[platform.machine()])
    result = _libc.syscall(number, ctypes.c_int(command), buffer, ctypes.c_uint(len(attributes)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf {command}: {os.strerror(code)}")
    return result, buffer.raw
