"""Resolving and forwarding against a small nameserver on loopback."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.io import resolver
from wardgate.io.resolver import HostResolver, HostsFile, NameResolver, Resolved, forward_query, read_nameservers
from wardgate.wire.addresses import SocketAddr

QUERY = dns.message.make_query("app.corp.example", "A", id=7).to_wire()


async def test_name_gives_both_families() -> None:
    async with nameserver() as server:
        resolved = await NameResolver([server.host], server.port).resolve("app.corp.example")

    assert resolved == Resolved(("10.9.0.2",), ("2001:db8::2",))


async def test_second_question_is_answered_from_the_cache() -> None:
    async with nameserver() as server:
        names = NameResolver([server.host], server.port)
        first = await names.resolve("app.corp.example")
    second = await names.resolve("app.corp.example")

    assert second == first


async def test_missing_name_is_an_error_and_a_name_of_one_family_is_not() -> None:
    async with nameserver() as server:
        names = NameResolver([server.host], server.port)
        missing = await names.resolve("no.corp.example")
        v4_only = await names.resolve("four.corp.example")

    assert missing == Resolved(error="the name does not exist")
    assert v4_only == Resolved(("10.9.0.4",))


async def test_hosts_file_comes_first_and_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("10.1.1.1 App.corp.example other # comment\n2001:db8::9 app.corp.example\nnonsense line\n")
    names = NameResolver([], hosts=HostsFile(path))

    first = await names.resolve("app.CORP.example.")
    path.write_text("10.2.2.2 app.corp.example extended\n")
    second = await names.resolve("app.corp.example")

    assert first == Resolved(("10.1.1.1",), ("2001:db8::9",))
    assert second == Resolved(("10.2.2.2",))


async def test_too_many_names_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "MAX_IN_FLIGHT", 0)
    names = NameResolver(["127.0.0.1"], 1)

    assert (await names.resolve("app.corp.example")).error == "too many names are being resolved"
    assert names.refused == 1


async def test_query_is_forwarded_over_both_transports() -> None:
    async with nameserver() as server:
        over_udp = await forward_query(server, QUERY, "udp")
        over_tcp = await forward_query(server, QUERY, "tcp")

    assert over_udp is not None
    assert over_udp == over_tcp
    assert over_udp[:2] == QUERY[:2]


async def test_silent_or_absent_server_gives_nothing() -> None:
    async with nameserver(silent=True) as server:
        assert await forward_query(server, QUERY, "udp", timeout_s=0.01) is None
    assert await forward_query(SocketAddr("127.0.0.1", 1), QUERY, "tcp", timeout_s=1.0) is None


async def test_answer_with_another_id_does_not_count() -> None:
    async with nameserver(other_id_first=True) as server:
        answer = await forward_query(server, QUERY, "udp")

    assert answer is not None
    assert answer[:2] == QUERY[:2]


async def test_every_socket_is_prepared() -> None:
    families = []

    async with nameserver() as server:
        for transport in ("udp", "tcp"):
            await forward_query(server, QUERY, transport, prepare=lambda each: families.append(each.family))

    assert len(families) == 2


async def test_host_is_found_by_literal_file_and_nameserver(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("10.3.3.3 file.example\n")

    async with nameserver() as server:
        resolve = HostResolver(lambda: [server.host], port=server.port, hosts=HostsFile(hosts))

        assert await resolve("2001:DB8::1") == ["2001:db8::1"]
        assert await resolve("file.example") == ["10.3.3.3"]
        assert await resolve("app.corp.example") == ["10.9.0.2", "2001:db8::2"]
        with pytest.raises(OSError, match="cannot be resolved"):
            await resolve("no.corp.example")


def test_nameservers_are_read_without_zones_comments_and_doubles(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# nameserver 9.9.9.9\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\nnameserver x\n"
    )

    assert read_nameservers(path) == ["192.0.2.1", "fe80::1"]
    assert read_nameservers(tmp_path / "missing") == []


@given(st.binary(max_size=80))
async def test_any_answer_is_survived(answer: bytes) -> None:
    assert all(isinstance(address, str) for address in resolver._addresses(answer, "A"))


def answer_to(query: bytes) -> bytes:
    message = dns.message.from_wire(query)
    (question,) = message.question
    name, kind = question.name.to_text(), question.rdtype
    records = {
        ("app.corp.example.", 1): "10.9.0.2",
        ("app.corp.example.", 28): "2001:db8::2",
        ("four.corp.example.", 1): "10.9.0.4",
    }
    response = dns.message.make_response(message)
    if name.startswith("long."):
        texts = [f'"{str(n % 10) * 250}"' for n in range(10)]
        response.answer.append(dns.rrset.from_text_list(name, 60, "IN", "TXT", texts))
    elif name.startswith("no."):
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif (name, int(kind)) in records:
        response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, records[name, int(kind)]))
    return response.to_wire()


class Nameserver(asyncio.DatagramProtocol):
    def __init__(self, silent: bool, other_id_first: bool) -> None:
        self._silent = silent
        self._other_id_first = other_id_first
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._silent or self._transport is None:
            return
        answer = answer_to(data)
        if self._other_id_first:
            self._transport.sendto(b"\xff\xff" + answer[2:], addr)
        self._transport.sendto(answer, addr)


async def serve_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    answer = answer_to(await reader.readexactly(length))
    writer.write(struct.pack("!H", len(answer)) + answer)
    await writer.drain()
    writer.close()


@asynccontextmanager
async def nameserver(*, silent: bool = False, other_id_first: bool = False) -> AsyncIterator[SocketAddr]:
    tcp = await asyncio.start_server(serve_tcp, "127.0.0.1", 0)
    address = SocketAddr(*tcp.sockets[0].getsockname())
    udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Nameserver(silent, other_id_first), local_addr=address
    )
    try:
        yield address
    finally:
        udp.close()
        tcp.close()
