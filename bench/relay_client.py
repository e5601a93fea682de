"""Clients of a relay under test, and the load that goes through their channels."""

import json
import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bench.peers import LOAD
from bench.relay_place import PASSWORD, PEER, PORT, REALM, RELAY, USER, Place
from wardgate.errors import LabError
from wardgate.wire import stun, turn
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.stun import Builder, Message, MessageClass, Method

KEY = turn.long_term_key(USER, PASSWORD, REALM)
CHANNEL = 0x4000
UDP_GRO, SO_RCVBUFFORCE = 104, 33
FILES = 16384
ATTEMPTS, ANSWER_S = 8, 0.5
QUIET_S, QUIET_TURNS, MOST_QUEUED_S = 0.02, 3, 10.0


class User:
    """One client socket, and what it asks of the relay."""

    def __init__(self, place: Place) -> None:
        self.socket = place.client.socket()
        self.socket.connect((str(RELAY), PORT))
        self._nonce: bytes | None = None

    def allocate(self) -> SocketAddr:
        """Gives the relayed address.

        Raises:
            LabError: It was refused.
        """
        if self._nonce is None:
            builder = Builder(Method.ALLOCATE, MessageClass.REQUEST, os.urandom(12))
            self._nonce = self._exchange(builder.requested_transport(turn.UDP_TRANSPORT).build()).nonce
        answer = self._ask(self._request(Method.ALLOCATE).requested_transport(turn.UDP_TRANSPORT))
        return answer.relayed_addresses[0]

    def bind(self, peer: SocketAddr) -> None:
        """Binds `CHANNEL`."""
        self._ask(self._request(Method.CHANNEL_BIND).channel_number(CHANNEL).peer_address(peer))

    def refresh(self, lifetime_s: int = 600) -> None:
        """Extends the allocation; 0 frees it."""
        self._ask(self._request(Method.REFRESH).lifetime(lifetime_s))

    def _request(self, method: Method) -> Builder:
        return Builder(method, MessageClass.REQUEST, os.urandom(12))

    def _ask(self, builder: Builder) -> Message:
        signed = builder.username(USER).realm(REALM).nonce(self._nonce or b"")
        answer = self._exchange(signed.build(KEY))
        if answer.error is not None:
            raise LabError(f"the relay refused: {answer.error}")
        return answer

    def _exchange(self, datagram: bytes) -> Message:
        self.socket.settimeout(ANSWER_S)
        for _ in range(ATTEMPTS):
            self.socket.send(datagram)
            with suppress(TimeoutError):
                while True:
                    answer = self.socket.recv(2000)
                    if stun.is_stun(answer) and answer[8:20] == datagram[8:20]:
                        return stun.decode(answer)
        raise LabError(f"the relay did not answer {ATTEMPTS} times")


@dataclass(frozen=True, slots=True)
class Pair:
    """A client and a peer with a channel between them."""

    user: User
    peer: socket.socket


@contextmanager
def pairs(place: Place, count: int) -> Iterator[list[Pair]]:
    """Allocations, each with a channel to a peer's socket of its own."""
    raise_file_limit()
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            user = User(place)
            stack.callback(user.socket.close)
            peer = place.peer.socket()
            stack.callback(peer.close)
            peer.bind((str(PEER), 0))
            peer.connect(user.allocate())
            user.bind(SocketAddr(*peer.getsockname()))
            made.append(Pair(user, peer))
        yield made


def raise_file_limit() -> None:
    """Allows as many sockets as the allocations need, here and in the programs of the load."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


class Sink:
    """Counts what arrives at some sockets, in a process of its own."""

    def __init__(self, sockets: Sequence[socket.socket], size: int, header: int, *, is_timed: bool = False) -> None:
        descriptors = [own.fileno() for own in sockets]
        for own in sockets:
            own.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
            with suppress(OSError):
                own.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, (64 << 20) // max(1, min(64, len(sockets))))
        words = [str(LOAD), "sink", str(size), str(header), "times" if is_timed else "counts", *map(str, descriptors)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(words, pass_fds=descriptors, stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> "Sink":
        self.wait_quiet()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def ask(self) -> dict[str, int]:
        """What came since it was asked before: `datagrams`, `bytes`, `p50_ns`, `p99_ns`, `most_ns`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        answer: dict[str, int] = json.loads(self._process.stdout.readline())
        return answer

    def wait_quiet(self) -> None:
        """Returns once nothing comes any more, so that no datagram is counted for a later load.

        Raises:
            LabError: Something still comes.
        """
        quiet, until = 0, time.monotonic() + MOST_QUEUED_S
        while quiet < QUIET_TURNS:
            time.sleep(QUIET_S)
            quiet = 0 if self.ask()["datagrams"] else quiet + 1
            if time.monotonic() > until:
                raise LabError("datagrams still arrive though none are sent")


class Blast:
    """Sends through some sockets by turns, in a process of its own."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        size: int,
        *,
        is_channel: bool,
        is_batched: bool,
        seconds: float,
        rate: float = 0.0,
    ) -> None:
        for own in sockets:
            own.settimeout(None)  # or the sender would not wait where the kernel makes it wait
        descriptors = [own.fileno() for own in sockets]
        words = [str(LOAD), "blast", "batched" if is_batched else "single", "channel" if is_channel else "plain"]
        words += [str(size), f"{rate:.0f}", str(seconds), *map(str, descriptors)]
        self._process = subprocess.Popen(words, pass_fds=descriptors, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Blast":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def stop(self) -> None:
        """Ends it early."""
        self._process.kill()

    def finish(self) -> dict[str, Any]:
        """Waits for its end; gives what it `sent` and what the kernel `refused`."""
        assert self._process.stdout is not None
        result: dict[str, Any] = json.loads(self._process.stdout.read())
        return result
