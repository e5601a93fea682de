"""The relay's sockets in Python, with the face of the native `RelayIo` but without its forwarding.

Every datagram is an upcall, so that the state machine forwards channel data as well: slow, for hosts where the native
forwarder is turned off, and for looking for faults.
"""

import contextlib
import select
import socket
from collections import Counter
from collections.abc import Iterable

Addr = tuple[str, int]
RECEIVE_BUFFER = 4 * 1024 * 1024
PER_SOCKET = 32  # datagrams taken from one socket before the next has its turn
MAX_DATAGRAM = 65535
_DISCOVER_WANT, _DISCOVER_DO = 1, 2  # linux/in.h: IP_PMTUDISC_WANT and _DO, of IP_MTU_DISCOVER and its like
_DISCOVERY = {socket.AF_INET: (socket.IPPROTO_IP, 10), socket.AF_INET6: (socket.IPPROTO_IPV6, 23)}


class RelaySockets:
    """The listening port and the ports of allocations, in one epoll set."""

    def __init__(self, *, listen_port: int, bind4: str | None, bind6: str | None) -> None:
        """Opens the listening port in each family that has an address to bind.

        Raises:
            OSError: The port cannot be opened.
        """
        self._listen_port = listen_port
        self._bind_by_family = {
            family: host for family, host in ((socket.AF_INET, bind4), (socket.AF_INET6, bind6)) if host is not None
        }
        self._epoll = select.epoll()
        self._sockets_by_port: dict[int, dict[socket.AddressFamily, socket.socket]] = {}
        self._port_by_fd: dict[int, tuple[int, socket.socket]] = {}
        self._counters: Counter[str] = Counter()
        self._open(listen_port, tuple(self._bind_by_family))

    def start(self) -> None:
        """Nothing to start: whoever watches `upcall_fd` does the work."""

    def stop(self, timeout_s: float = 1.0) -> None:
        """Closes every socket."""
        for port in list(self._sockets_by_port):
            self._close(port)
        self._epoll.close()

    def is_offloaded(self) -> bool:
        """Never: the kernel forwards for the native forwarder alone."""
        return False

    def answer_strangers(
        self,
        *,
        nonce_key: bytes,
        realm: str,
        refusals_per_s: float,
        refusals_burst: float,
        nonce_cookie: bytes = b"",
        algorithms: bytes = b"",
    ) -> None:
        """Nothing to answer here: all of STUN is an upcall."""

    def open_allocation(self, port: int, *, ipv4: bool, ipv6: bool) -> None:
        """Opens the port in each of these families, or in none.

        Raises:
            OSError: One of them cannot be opened.
        """
        wanted = ((socket.AF_INET, ipv4), (socket.AF_INET6, ipv6))
        self._open(port, tuple(family for family, is_wanted in wanted if is_wanted))

    def close_allocation(self, port: int, *, ipv4: bool = True, ipv6: bool = True) -> bool:
        """Closes the port in these families."""
        wanted = ((socket.AF_INET, ipv4), (socket.AF_INET6, ipv6))
        return port != self._listen_port and self._close(port, [family for family, is_wanted in wanted if is_wanted])

    def add_channel(self, client: Addr, channel: int, port: int, peer: Addr) -> None:
        """Nothing to install: the state machine forwards."""

    def remove_channel(self, client: Addr, channel: int) -> bool:
        return False

    def add_permission(self, client: Addr, port: int, host: str) -> None:
        """Nothing to install: the state machine forwards."""

    def remove_permission(self, port: int, host: str) -> bool:
        return False

    def send_whole(self, datagrams: list[tuple[int, Addr, bytes]]) -> int:
        """Sends as `send` does, but what does not fit the link is lost rather than cut into fragments."""
        sent = 0
        for port, remote, payload in datagrams:
            own = self._sockets_by_port.get(port, {}).get(_family_of(remote))
            if own is None:
                continue
            level, option = _DISCOVERY[own.family]
            own.setsockopt(level, option, _DISCOVER_DO)
            sent += self.send([(port, remote, payload)])
            own.setsockopt(level, option, _DISCOVER_WANT)
        return sent

    def send(self, datagrams: list[tuple[int, Addr, bytes]]) -> int:
        """Sends `(port, remote, payload)`; what the kernel does not take is counted and lost."""
        sent = 0
        for port, remote, payload in datagrams:
            own = self._sockets_by_port.get(port, {}).get(_family_of(remote))
            try:
                if own is not None:
                    own.sendto(payload, remote)
                    sent += 1
            except OSError:
                self._counters["send_errors"] += 1
        return sent

    def poll_upcalls(self, limit: int = 256) -> list[tuple[int, Addr, bytes]]:
        """What has arrived: `(port, source, payload)`."""
        upcalls: list[tuple[int, Addr, bytes]] = []
        for fd, _ in self._epoll.poll(0, max(1, limit // PER_SOCKET)):
            port, own = self._port_by_fd[fd]
            with contextlib.suppress(BlockingIOError):
                for _ in range(PER_SOCKET):
                    try:
                        payload, source = own.recvfrom(MAX_DATAGRAM)
                    except ConnectionRefusedError:
                        continue  # an ICMP error of an earlier send
                    upcalls.append((port, (source[0], source[1]), payload))
        return upcalls

    def upcall_fd(self) -> int:
        """Readable while datagrams wait."""
        return self._epoll.fileno()

    def counters(self) -> dict[str, int]:
        return dict(self._counters)

    def failure(self) -> str | None:
        """There is no thread that could end by itself."""
        return None

    def _open(self, port: int, families: tuple[socket.AddressFamily, ...]) -> None:
        opened: dict[socket.AddressFamily, socket.socket] = {}
        try:
            for family in families:
                opened[family] = own = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
                if family == socket.AF_INET6:
                    own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                own.bind((self._bind_by_family[family], port))
        except OSError:
            for own in opened.values():
                own.close()
            raise
        self._sockets_by_port[port] = opened
        for own in opened.values():
            self._port_by_fd[own.fileno()] = (port, own)
            self._epoll.register(own.fileno(), select.EPOLLIN)

    def _close(self, port: int, families: Iterable[socket.AddressFamily] = tuple(_DISCOVERY)) -> bool:
        held = self._sockets_by_port.get(port, {})
        closing = [own for family in families if (own := held.pop(family, None)) is not None]
        for own in closing:
            self._epoll.unregister(own.fileno())
            del self._port_by_fd[own.fileno()]
            own.close()
        if not held:
            self._sockets_by_port.pop(port, None)
        return bool(closing)


def _family_of(remote: Addr) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in remote[0] else socket.AF_INET
