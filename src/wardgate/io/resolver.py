"""DNS over our own sockets: names for the gateway, forwarded queries for the client, the portal's address for both."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal

import dns.asyncresolver
import dns.exception
import dns.message
import dns.rdatatype
import dns.resolver

from wardgate.errors import InterfaceLost
from wardgate.wire.addresses import SocketAddr

MAX_IN_FLIGHT: Final = 1000
RESOLVE_TIMEOUT_S: Final = 10.0
FORWARD_TIMEOUT_S: Final = 5.0
HOST_QUERY_TIMEOUT_S: Final = 2.0
CACHE_ENTRIES: Final = 512
MAX_NAMESERVERS: Final = 3
MAX_ADDRESSES: Final = 32
RESOLV_CONF: Final = Path("/etc/resolv.conf")
HOSTS_FILE: Final = Path("/etc/hosts")

Prepare = Callable[[socket.socket], object]
"""Does to a new socket what has to be done before it is used, such as marking it."""


def read_nameservers(path: Path = RESOLV_CONF) -> list[str]:
    """The nameservers of a resolv.conf, without zones; none if there is no such file."""
    found: list[str] = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in path.read_text().splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == "nameserver":
                with contextlib.suppress(ValueError):
                    found.append(str(ip_address(words[1].partition("%")[0])))
    return list(dict.fromkeys(found))


class HostsFile:
    """The hosts file, read again when it changes."""

    def __init__(self, path: Path = HOSTS_FILE) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._addresses_by_name: dict[str, list[str]] = {}

    def addresses(self, name: str) -> list[str]:
        """The name's addresses, of both families."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._addresses_by_name = _parse_hosts(self._path.read_text())
                self._stamp = stamp
        return self._addresses_by_name.get(name.rstrip(".").lower(), [])


def _parse_hosts(text: str) -> dict[str, list[str]]:
    addresses_by_name: dict[str, list[str]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        with contextlib.suppress(ValueError):
            canonical = str(ip_address(address.partition("%")[0]))
            for name in names:
                addresses_by_name.setdefault(name.lower(), []).append(canonical)
    return addresses_by_name


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name stands for; `error` says why nothing was found, an empty answer is none."""

    ipv4s: tuple[str, ...] = ()
    ipv6s: tuple[str, ...] = ()
    error: str | None = None


class NameResolver:
    """A gateway's view of names: the hosts file, then the system's nameservers, with a cache.

    Args:
        nameservers: Whom to ask; those of `/etc/resolv.conf` if none are given.
        port: Where they listen.
        hosts: The hosts file.
    """

    def __init__(
        self, nameservers: Sequence[str] | None = None, port: int = 53, hosts: HostsFile | None = None
    ) -> None:
        self._fixed = nameservers is not None
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.cache = dns.resolver.LRUCache(CACHE_ENTRIES)
        self._resolver.lifetime = RESOLVE_TIMEOUT_S
        self._resolver.timeout = HOST_QUERY_TIMEOUT_S
        self._resolver.port = port
        self._set(list(nameservers or read_nameservers()))
        self._hosts = hosts or HostsFile()
        self.in_flight = 0
        self.refused = 0

    def _set(self, nameservers: list[str]) -> None:
        self._resolver.nameservers = list(nameservers[:MAX_NAMESERVERS])

    def reload(self) -> None:
        """Reads the system's nameservers again."""
        if not self._fixed:
            self._set(read_nameservers())

    async def resolve(self, name: str) -> Resolved:
        """Both families at the same time, within 10 s; at most 1000 names at once, others get an error."""
        from_file = self._hosts.addresses(name)
        if from_file:
            return _resolved(from_file)
        if self.in_flight >= MAX_IN_FLIGHT:
            self.refused += 1
            return Resolved(error="too many names are being resolved")
        self.in_flight += 1
        try:
            v4, v6 = await asyncio.gather(self._ask(name, "A"), self._ask(name, "AAAA"))
        finally:
            self.in_flight -= 1
        if isinstance(v4, str) and isinstance(v6, str):
            return Resolved(error=v4)
        return _resolved([*(v4 if isinstance(v4, list) else []), *(v6 if isinstance(v6, list) else [])])

    async def _ask(self, name: str, kind: Literal["A", "AAAA"]) -> list[str] | str:
        try:
            answer = await self._resolver.resolve(name, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            return "the name does not exist"
        except dns.resolver.NoNameservers:
            return "the nameservers failed"
        except dns.exception.Timeout:
            return "the nameservers did not answer"
        except (dns.exception.DNSException, OSError, ValueError) as error:
            return f"the name could not be resolved: {error}"
        return [] if answer.rrset is None else [record.address for record in answer.rrset]


def _resolved(addresses: list[str]) -> Resolved:
    v4s = tuple(each for each in addresses if ":" not in each)
    v6s = tuple(each for each in addresses if ":" in each)
    return Resolved(v4s[:MAX_ADDRESSES], v6s[:MAX_ADDRESSES])


async def forward_query(
    server: SocketAddr,
    query: bytes,
    transport: Literal["udp", "tcp"],
    *,
    prepare: Prepare = lambda _: None,
    timeout_s: float = FORWARD_TIMEOUT_S,
) -> bytes | None:
    """Asks one server over a new socket and gives its answer as it is; `None` if none came in time."""
    if len(query) < 12 or len(query) > 65535:
        return None
    family = socket.AF_INET6 if server.is_ipv6 else socket.AF_INET
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    try:
        with socket.socket(family, kind) as upstream:
            upstream.setblocking(False)
            prepare(upstream)
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().sock_connect(upstream, (server.host, server.port))
                return await (_ask_tcp if transport == "tcp" else _ask_udp)(upstream, query)
    except (OSError, InterfaceLost):  # a timeout is an OSError
        return None


async def _ask_udp(upstream: socket.socket, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(upstream, query)
    while True:
        answer = await loop.sock_recv(upstream, 65535)
        if answer[:2] == query[:2] and len(answer) >= 12:
            return answer


async def _ask_tcp(upstream: socket.socket, query: bytes) -> bytes:
    await asyncio.get_running_loop().sock_sendall(upstream, struct.pack("!H", len(query)) + query)
    (length,) = struct.unpack("!H", await _read_exactly(upstream, 2))
    return await _read_exactly(upstream, length)


async def _read_exactly(upstream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await asyncio.get_running_loop().sock_recv(upstream, count - len(data))
        if not more:
            raise ConnectionResetError("the server closed the connection")
        data += more
    return data


class HostResolver:
    """Finds the portal: literal addresses as they are, then the hosts file, then given nameservers over own sockets.

    A client needs it because the system's resolver may be the one inside its tunnel.
    """

    def __init__(
        self,
        nameservers: Callable[[], Sequence[str]],
        *,
        prepare: Prepare = lambda _: None,
        port: int = 53,
        hosts: HostsFile | None = None,
    ) -> None:
        self._nameservers = nameservers
        self._prepare = prepare
        self._port = port
        self._hosts = hosts or HostsFile()

    async def __call__(self, host: str) -> list[str]:
        """The host's addresses.

        Raises:
            OSError: None was found.
        """
        try:
            return [str(ip_address(host))]
        except ValueError:
            pass
        found = self._hosts.addresses(host)
        for server in [] if found else list(self._nameservers())[:MAX_NAMESERVERS]:
            v4, v6 = await asyncio.gather(self._ask(server, host, "A"), self._ask(server, host, "AAAA"))
            found = [*v4, *v6]
            if found:
                break
        if not found:
            raise OSError(f"the name {host} cannot be resolved")
        return found

    async def _ask(self, server: str, host: str, kind: Literal["A", "AAAA"]) -> list[str]:
        try:
            query = dns.message.make_query(host, kind, id=int.from_bytes(os.urandom(2), "big")).to_wire()
        except dns.exception.DNSException:
            return []
        address = SocketAddr(server, self._port)
        for transport in ("udp", "tcp"):
            answer = await forward_query(
                address, query, transport, prepare=self._prepare, timeout_s=HOST_QUERY_TIMEOUT_S
            )
            if answer is not None and not (transport == "udp" and answer[2] & 0x02):
                return _addresses(answer, kind)
        return []


def _addresses(answer: bytes, kind: Literal["A", "AAAA"]) -> list[str]:
    try:
        message = dns.message.from_wire(answer)
    except (dns.exception.DNSException, ValueError):
        return []
    wanted = dns.rdatatype.from_text(kind)
    return [record.address for rrset in message.answer if rrset.rdtype == wanted for record in rrset]
