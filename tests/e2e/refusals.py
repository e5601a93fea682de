"""System calls that a kernel refuses: a seccomp filter on one thread, and on every thread that it starts.

So the threads of the packet path meet the kernel of another host, or of another day, without one.
"""

import ctypes
import errno
import os
import select
import struct
import threading
from dataclasses import dataclass
from typing import Final

_NUMBERS: Final = {
    "x86_64": {"ioctl": 16, "writev": 20, "setsockopt": 54, "sendmmsg": 307, "seccomp": 317},
    "aarch64": {"ioctl": 29, "writev": 66, "setsockopt": 208, "sendmmsg": 269, "seccomp": 277},
}[os.uname().machine]

TUNSETOFFLOAD: Final = 0x400454D0
TUN_F_USO: Final = 0x60
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104

_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER, _NEW_LISTENER = 38, 1, 8
_ALLOW, _ERRNO, _NOTIFY = 0x7FFF0000, 0x00050000, 0x7FC00000
_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER_AT, _ARGUMENTS_AT = 0, 16


@dataclass(frozen=True)
class Refusal:
    """A system call that fails if every condition holds.

    Attributes:
        call: Its name.
        conditions: Of its arguments: which one, one of `==`, `>` and `&`, and with what. Only the lower 32 bits count.
        error: What it fails with.
    """

    call: str
    conditions: tuple[tuple[int, str, int], ...]
    error: int


NO_TUN_OFFLOADS: Final = Refusal("ioctl", ((1, "==", TUNSETOFFLOAD), (2, ">", 0)), errno.EINVAL)
NO_UDP_TUN_OFFLOADS: Final = Refusal("ioctl", ((1, "==", TUNSETOFFLOAD), (2, "&", TUN_F_USO)), errno.EINVAL)
"""As Linux before 6.2 does."""
NO_SUPER_WRITES: Final = Refusal("writev", ((2, ">", 2),), errno.EINVAL)
NO_GSO_OPTION: Final = Refusal("setsockopt", ((1, "==", SOL_UDP), (2, "==", UDP_SEGMENT)), errno.ENOPROTOOPT)
NO_GRO_OPTION: Final = Refusal("setsockopt", ((1, "==", SOL_UDP), (2, "==", UDP_GRO)), errno.ENOPROTOOPT)


def refuse(*refusals: Refusal) -> None:
    """Makes these calls fail from now on in this thread and in those that it starts."""
    program = b""
    for one in refusals:
        program += _checks(one, _ERRNO | one.error)
    _install(program, 0)


def _checks(one: Refusal, verdict: int) -> bytes:
    tests = [(_NUMBER_AT, _EQUAL, _NUMBERS[one.call])]
    kinds = {"==": _EQUAL, ">": _GREATER, "&": _ANY_BIT}
    tests += [(_ARGUMENTS_AT + 8 * which, kinds[how], value) for which, how, value in one.conditions]
    code = b""
    for at, (offset, kind, value) in enumerate(tests):
        to_next_refusal = 2 * (len(tests) - at - 1) + 1
        code += _instruction(_LOAD, 0, 0, offset) + _instruction(kind, 0, to_next_refusal, value)
    return code + _instruction(_RETURN, 0, 0, verdict)


def _instruction(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _install(program: bytes, flags: int) -> int:
    program += _instruction(_RETURN, 0, 0, _ALLOW)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    result: int = libc.syscall(_NUMBERS["seccomp"], _SET_MODE_FILTER, flags, header)
    if result < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return result


_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_REQUEST: Final = struct.Struct("=QIIiIQ6Q")
_ANSWER: Final = struct.Struct("=QqiI")
_CONTINUE: Final = 1
_MSGHDR: Final = struct.Struct("@PI4xPNPNi4x")


def refuse_segmented_sends(error: int) -> None:
    """As `refuse`, for sends whose first message asks for UDP segmentation; another thread looks into each.

    So a kernel answers that lost the checksum offload of its device, or got an IPsec policy.
    """
    listener = _install(_checks(Refusal("sendmmsg", (), 0), _NOTIFY), _NEW_LISTENER)
    threading.Thread(target=_answer_sends, args=(listener, error), daemon=True).start()


def _answer_sends(listener: int, error: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    request = ctypes.create_string_buffer(_REQUEST.size)
    events = select.poll()
    events.register(listener, select.POLLIN)
    # It hangs up once every thread of the filter is gone.
    while not events.poll()[0][1] & select.POLLHUP:
        ctypes.memset(request, 0, _REQUEST.size)
        if libc.ioctl(listener, ctypes.c_ulong(_RECEIVE), request) != 0:
            continue  # the call was interrupted
        identifier, *_, messages = _REQUEST.unpack(request.raw)[:8]
        refused = _asks_for_segments(messages)
        answer = _ANSWER.pack(identifier, 0, -error if refused else 0, 0 if refused else _CONTINUE)
        libc.ioctl(listener, ctypes.c_ulong(_SEND), ctypes.create_string_buffer(answer, len(answer)))
    os.close(listener)


def _asks_for_segments(messages: int) -> bool:
    """Reads the first message of a `sendmmsg` of this process: whether UDP_SEGMENT is its first control message."""
    *_, control, length, _ = _MSGHDR.unpack(ctypes.string_at(messages, _MSGHDR.size))
    if not control or length < 16:
        return False
    _, level, kind = struct.unpack("@Nii", ctypes.string_at(control, 16))
    return (level, kind) == (SOL_UDP, UDP_SEGMENT)
