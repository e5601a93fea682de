"""What the lab and its supervisor say to each other: JSON objects with file descriptors beside them.

One message is one datagram of a `SOCK_SEQPACKET` pair, so there is no framing to get wrong.
"""

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

MAX_MESSAGE = 1 << 20
MAX_DESCRIPTORS = 16

Message = dict[str, Any]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends that carry messages of up to `MAX_MESSAGE` bytes."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_MESSAGE)
    return ends


def send(connection: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Sends one message; the descriptors stay open here."""
    socket.send_fds(connection, [json.dumps(message).encode()], list(descriptors))


def receive(connection: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors, which now belong to the caller; `None` at the end."""
    data, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE, MAX_DESCRIPTORS)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    if not data:
        return None
    message: Message = json.loads(data)
    return message, descriptors
