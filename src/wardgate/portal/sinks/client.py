"""HTTP to destinations that admins name: only to public addresses, with bounds on time and size, and nowhere else.

A name is resolved once a run, all its addresses are checked, and then one of the checked addresses is dialled, so that
a name cannot lead elsewhere between the check and the connect. Redirects are not followed and proxies not used.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

import httpx

from wardgate.portal.sinks.outcomes import NotAllowed, Request, Response, Unreachable

TIMEOUT_S: Final = 30.0
MAX_ANSWER: Final = 2_000_000
_MAX_ADDRESSES: Final = 4
_NAT64: Final = IPv6Network("64:ff9b::/96")


@dataclass
class Client:
    """Sends requests, for one run of one sink.

    Attributes:
        allows_private: Whether plain HTTP, and addresses that are not public, are allowed.
        connect_to: Where hosts are reached instead, by name; for tests.
    """

    allows_private: bool = False
    tls: ssl.SSLContext | None = None
    connect_to: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    timeout_s: float = TIMEOUT_S
    _clients: dict[str, httpx.AsyncClient] = field(default_factory=dict, init=False)
    _addresses: dict[str, list[str]] = field(default_factory=dict, init=False)

    async def send(self, request: Request) -> Response:
        """Sends one request and reads the answer.

        Raises:
            Unreachable: There is no answer within the time, or it is too long, or the certificate is not good.
            NotAllowed: The address is none that a sink may use.
        """
        parts = _split(request.url, self.allows_private)
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._send(request, parts)
        except TimeoutError:
            raise Unreachable(f"{parts.hostname}: no answer within {self.timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unreachable(f"{parts.hostname}: {error or type(error).__name__}") from None

    async def _send(self, request: Request, parts: SplitResult) -> Response:
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if host in self.connect_to:
            address, port = self.connect_to[host]
            addresses = [address]
        else:
            addresses = await self._resolve(host, port)
        for address in addresses[:-1]:
            try:
                return await self._send_to(address, port, request, parts)
            except httpx.ConnectError:
                continue
        return await self._send_to(addresses[-1], port, request, parts)

    async def _send_to(self, address: str, port: int, request: Request, parts: SplitResult) -> Response:
        shown = f"[{address}]" if ":" in address else address
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        headers = {"Host": parts.netloc, "User-Agent": "wardgate", "Accept-Encoding": "identity"} | request.headers
        client = self._client(parts.hostname or "")
        async with client.stream(
            request.method,
            f"{parts.scheme}://{shown}:{port}{target}",
            content=request.body,
            headers=headers,
            extensions={"sni_hostname": parts.hostname or ""},
        ) as response:
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_ANSWER:
                    raise Unreachable(f"{parts.hostname}: the answer is longer than {MAX_ANSWER} bytes")
        return Response(response.status_code, dict(response.headers), bytes(body))

    def _client(self, host: str) -> httpx.AsyncClient:
        """One client for each host: connections are kept by address, and two hosts may share one."""
        if host not in self._clients:
            self.tls = self.tls or _default_tls()
            self._clients[host] = httpx.AsyncClient(
                verify=self.tls, trust_env=False, follow_redirects=False, timeout=self.timeout_s
            )
        return self._clients[host]

    async def _resolve(self, host: str, port: int) -> list[str]:
        if host not in self._addresses:
            try:
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                raise Unreachable(f"{host}: {error}") from None
            addresses = list(dict.fromkeys(str(one[4][0]).partition("%")[0] for one in found))
            if not self.allows_private and not all(is_public(ip_address(one)) for one in addresses):
                raise NotAllowed(f"{host} is at an address that is not public")
            self._addresses[host] = addresses[:_MAX_ADDRESSES]
        return self._addresses[host]

    async def close(self) -> None:
        """Lets go of all connections."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the internet, also where it wraps another one."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def _split(url: str, allows_private: bool) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_fine = bool(parts.hostname) and (parts.port or 1) > 0 and parts.username is None
    except ValueError:
        raise NotAllowed("the address is not one") from None
    if not is_fine or parts.scheme not in (("https", "http") if allows_private else ("https",)):
        raise NotAllowed("the address must start with https://")
    return parts


@cache
def _default_tls() -> ssl.SSLContext:
    """Trusts what httpx brings along, and what the host trusts."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context
