"""Clients that allocate and free again and again: `python -m bench.relay_churn SECONDS CLIENTS` on their machine.

Each cycle has a socket of its own and three requests: an Allocate without credentials (401), one with, a Refresh with
lifetime 0. So many cycles are under way at once as there are clients. Messages are put together by hand, so that the
load takes as little as possible of the processor that the relay needs. The sources are spread over a /16, since our
relay answers a /24 with a hundred errors a second at most, and the first answer of each cycle is one.
"""

import hashlib
import hmac
import json
import os
import random
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass

from bench.relay_client import KEY
from bench.relay_place import PORT, REALM, RELAY, USER
from wardgate.wire.stun import Attribute

RESEND_S = 0.5
ALLOCATE, REFRESH, SUCCESS, REFUSED = 0x0003, 0x0004, 0x0100, 0x0110
TRANSPORT = struct.pack("!HHI", Attribute.REQUESTED_TRANSPORT, 4, 17 << 24)
NO_LIFETIME = struct.pack("!HHI", Attribute.LIFETIME, 4, 0)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


WHO = _attribute(Attribute.USERNAME, USER.encode()) + _attribute(Attribute.REALM, REALM.encode())


def message(kind: int, body: bytes) -> bytes:
    """A request without credentials."""
    return struct.pack("!HHI", kind, len(body), 0x2112A442) + os.urandom(12) + body


def signed(kind: int, body: bytes, nonce: bytes) -> bytes:
    """A request with credentials."""
    body += WHO + _attribute(Attribute.NONCE, nonce)
    covered = struct.pack("!HHI", kind, len(body) + 24, 0x2112A442) + os.urandom(12) + body
    return covered + struct.pack("!HH", Attribute.MESSAGE_INTEGRITY, 20) + hmac.digest(KEY, covered, hashlib.sha1)


def nonce_of(answer: bytes) -> bytes:
    """The nonce of a 401."""
    at = 20
    while at + 4 <= len(answer):
        kind, length = struct.unpack_from("!HH", answer, at)
        if kind == Attribute.NONCE:
            return answer[at + 4 : at + 4 + length]
        at += 4 + length + (-length) % 4
    return b""


@dataclass(slots=True)
class Cycle:
    """One client socket from its first request to its last."""

    own: socket.socket
    asked: bytes
    sent_at: float
    nonce: bytes = b""

    @classmethod
    def begin(cls, now: float) -> "Cycle":
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        own.bind((f"10.80.{random.randrange(256)}.{random.randrange(1, 255)}", 0))
        own.connect((str(RELAY), PORT))
        cycle = cls(own, b"", now)
        cycle.ask(message(ALLOCATE, TRANSPORT), now)
        return cycle

    def ask(self, datagram: bytes, now: float) -> None:
        """Sends a request."""
        self.asked, self.sent_at = datagram, now
        self.own.send(datagram)

    def handle(self, answer: bytes, now: float) -> bool:
        """Goes on with the next request; whether that was the last answer.

        Raises:
            SystemExit: The relay refused.
        """
        if answer[8:20] != self.asked[8:20]:
            return False
        (kind,) = struct.unpack_from("!H", answer)
        if kind == ALLOCATE | REFUSED and not self.nonce:
            self.nonce = nonce_of(answer)
            self.ask(signed(ALLOCATE, TRANSPORT, self.nonce), now)
        elif kind == ALLOCATE | SUCCESS:
            self.ask(signed(REFRESH, NO_LIFETIME, self.nonce), now)
        elif kind == REFRESH | SUCCESS:
            return True
        else:
            raise SystemExit(f"refused: {answer.hex()}")
        return False


def run(seconds: float, clients: int) -> dict[str, float]:
    """Goes on for so long; gives how many `cycles` were completed, and requests `resent`."""
    waiting = select.epoll()
    cycles: dict[int, Cycle] = {}

    def begin(now: float) -> None:
        cycle = Cycle.begin(now)
        cycles[cycle.own.fileno()] = cycle
        waiting.register(cycle.own, select.EPOLLIN)

    began = now = time.monotonic()
    done = resent = 0
    for _ in range(clients):
        begin(now)
    while now < began + seconds:
        for fd, _ in waiting.poll(0.1):
            cycle = cycles[fd]
            if cycle.handle(cycle.own.recv(2000), now):
                done += 1
                del cycles[fd]
                cycle.own.close()
                begin(now)
        now = time.monotonic()
        for cycle in cycles.values():
            if now > cycle.sent_at + RESEND_S:
                resent += 1
                cycle.ask(cycle.asked, now)
    for cycle in cycles.values():
        if cycle.nonce:
            cycle.own.send(signed(REFRESH, NO_LIFETIME, cycle.nonce))
    return {"cycles": done, "resent": resent, "seconds": now - began}


if __name__ == "__main__":
    print(json.dumps(run(float(sys.argv[1]), int(sys.argv[2]))))
