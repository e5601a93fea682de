"""Our TURN client with coturn as the relay, on loopback. coturn's clock is real, the client's can be ahead of it."""

import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.interop.relay_process import free_port
from wardgate.ids import RelayId
from wardgate.proto.allocation import Allocation
from wardgate.proto.allocation_events import CandidateFound, ChannelBound, Event
from wardgate.proto.channels import REFRESH_AFTER_S
from wardgate.wire import channel_data, stun, turn
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.candidates import Kind

pytestmark = pytest.mark.interop

PATIENCE_S = 10.0
NONCE_LIFETIME_S = 1
STATIC = ["-u", "alice:wonderland"]
SHARED = ["--use-auth-secret", "--static-auth-secret", "north"]


@pytest.fixture(scope="module")
def relay() -> Iterator[SocketAddr]:
    with coturn(*STATIC, f"--stale-nonce={NONCE_LIFETIME_S}") as address:
        yield address


@contextmanager
def device(relay: SocketAddr, user: str = "alice", password: str = "wonderland") -> Iterator["Device"]:
    with bound_socket() as own:
        yield Device(own, relay, user, password)


def test_data_passes_both_ways_by_a_channel(relay: SocketAddr) -> None:
    with device(relay) as client, bound_socket() as peer:
        client.reach(address_of(peer))

        for size in (1, 2, 3, 4, 100, 1000, 1400):
            client.send(address_of(peer), b"o" * size)
            payload, source = peer.recvfrom(2000)
            assert (payload, SocketAddr(*source)) == (b"o" * size, client.relayed)
            peer.sendto(b"i" * size, source)
            assert client.receive() == (address_of(peer), b"i" * size)


def test_two_clients_meet_at_their_relayed_addresses(relay: SocketAddr) -> None:
    with device(relay) as left, device(relay) as right:
        left.wait_for(lambda: left.allocation.is_usable)
        right.wait_for(lambda: right.allocation.is_usable)
        left.reach(right.relayed)
        right.reach(left.relayed)

        left.send(right.relayed, b"there")
        assert right.receive() == (left.relayed, b"there")
        right.send(left.relayed, b"back")
        assert left.receive() == (right.relayed, b"back")


def test_a_stale_nonce_is_replaced_when_allocation_and_channel_are_refreshed(relay: SocketAddr) -> None:
    with device(relay) as client, bound_socket() as peer:
        client.reach(address_of(peer))
        client.send(address_of(peer), b"before")
        peer.sendto(b"so that it is worth refreshing", peer.recvfrom(2000)[1])
        client.receive()
        before = client.relayed
        client.let_pass(2 * NONCE_LIFETIME_S + 0.1)

        client.ahead_s = max(turn.DEFAULT_LIFETIME_S / 2, REFRESH_AFTER_S) + 1
        client.wait_for(lambda: client.succeeded[stun.Method.REFRESH] > 0)
        client.wait_for(lambda: client.succeeded[stun.Method.CHANNEL_BIND] > 1)

        assert client.allocation.counts["errors 438"] > 0
        assert client.relayed == before
        client.send(address_of(peer), b"after")
        assert peer.recv(2000) == b"after"


def test_an_allocation_left_behind_at_the_same_socket_is_replaced(relay: SocketAddr) -> None:
    with bound_socket() as own:
        first = Device(own, relay, "alice", "wonderland")
        first.wait_for(lambda: first.allocation.is_usable)

        second = Device(own, relay, "alice", "wonderland")
        second.wait_for(lambda: second.allocation.is_usable)

        assert second.allocation.counts["errors 437"] == 1
        assert second.relayed != first.relayed


def test_an_allocation_is_given_back(relay: SocketAddr) -> None:
    with device(relay) as client, bound_socket() as peer:
        client.wait_for(lambda: client.allocation.is_usable)
        peer.connect((client.relayed.host, client.relayed.port))

        client.allocation.close(client.now)

        client.wait_for(lambda: is_refused(peer))


def test_a_wrong_password_gets_nothing(relay: SocketAddr) -> None:
    with device(relay, password="looking-glass") as client:
        client.wait_for(lambda: client.allocation.counts["unauthentic answers"] > 0)

        assert not client.allocation.is_usable


def test_credentials_of_a_shared_secret() -> None:
    user = f"{int(time.time()) + 600}:carol"
    with coturn(*SHARED) as relay, device(relay, user, turn.shared_secret_password("north", user)) as client:
        client.wait_for(lambda: client.allocation.is_usable)


class Device:
    """An allocation at a real socket."""

    def __init__(self, own: socket.socket, relay: SocketAddr, user: str, password: str) -> None:
        self.ahead_s = 0.0
        self.succeeded = dict.fromkeys(stun.Method, 0)
        self.allocation = Allocation(RelayId("coturn"), relay, None, user, password, secrets.token_bytes, self.now)
        self._own = own
        self._events: list[Event] = []
        self._received: list[tuple[SocketAddr, bytes]] = []

    @property
    def now(self) -> float:
        return time.monotonic() + self.ahead_s

    @property
    def relayed(self) -> SocketAddr:
        found = [event.candidate for event in self._events if isinstance(event, CandidateFound)]
        return next(candidate.address for candidate in found if candidate.kind is Kind.RELAY)

    def reach(self, peer: SocketAddr) -> None:
        """Has a channel bound."""
        self.allocation.bind_channel(peer, self.now)
        self.wait_for(lambda: any(isinstance(event, ChannelBound) and event.peer == peer for event in self._events))

    def send(self, peer: SocketAddr, payload: bytes) -> None:
        assert self.allocation.send(peer, payload, self.now)
        self.let_pass(0.0)

    def receive(self) -> tuple[SocketAddr, bytes]:
        self.wait_for(lambda: bool(self._received))
        return self._received.pop(0)

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < deadline, (self._events, self.allocation.counts)
            self.let_pass(0.02)

    def let_pass(self, time_s: float) -> None:
        """Carries datagrams for this long."""
        deadline = time.monotonic() + time_s
        while True:
            self.allocation.handle_timeout(self.now)
            while (transmit := self.allocation.poll_transmit()) is not None:
                self._own.sendto(transmit.payload, (transmit.remote.host, transmit.remote.port))
            while (event := self.allocation.poll_event()) is not None:
                self._events.append(event)
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            self._own.settimeout(min(left_s, 0.02))
            try:
                self._take(*self._own.recvfrom(2000))
            except TimeoutError:
                continue

    def _take(self, datagram: bytes, source: tuple[str, int]) -> None:
        if channel_data.is_channel_data(datagram):
            number, payload = channel_data.decode(datagram)
            known = self.allocation.peer_of(number, self.now)
            assert known is not None
            self._received.append((known[1], payload))
            return
        message = stun.decode(datagram)
        accepted = self.allocation.handle_input(address_of(self._own), SocketAddr(*source), message, self.now)
        if accepted and message.error is None:
            self.succeeded[stun.Method(message.method)] += 1


@contextmanager
def coturn(*arguments: str) -> Iterator[SocketAddr]:
    if shutil.which("turnserver") is None:
        pytest.fail("not installed: coturn (apt-get install coturn)", pytrace=False)
    port = free_port(socket.SOCK_DGRAM)
    command = ["turnserver", "-n", "-a", "-r", "firezone", "-L", "127.0.0.1", "-E", "127.0.0.1", "-p", str(port)]
    command += ["--allow-loopback-peers", "--no-tcp", "--no-tls", "--no-dtls", "--no-cli"]
    command += ["--pidfile", "", "--log-file", "stdout", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_listening(process, port)
        yield SocketAddr("127.0.0.1", port)
    finally:
        process.kill()
        process.wait()


def wait_listening(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    request = stun.Builder(stun.Method.BINDING, stun.MessageClass.REQUEST, bytes(stun.TRANSACTION_ID_SIZE)).build()
    with bound_socket() as own:
        own.settimeout(0.05)
        while True:
            assert process.poll() is None, "coturn ended"
            assert time.monotonic() < deadline, "coturn does not answer"
            own.sendto(request, ("127.0.0.1", port))
            try:
                own.recv(2000)
            except (TimeoutError, ConnectionRefusedError):
                continue
            return


@contextmanager
def bound_socket() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", 0))
        own.settimeout(5.0)
        yield own


def is_refused(connected: socket.socket) -> bool:
    """Whether nobody is at the other end."""
    connected.settimeout(0.02)
    try:
        connected.send(b"anybody?")
        connected.recv(1)
    except ConnectionRefusedError:
        return True
    except TimeoutError:
        pass
    return False


def address_of(own: socket.socket) -> SocketAddr:
    return SocketAddr(*own.getsockname())
