"""A gateway's nameserver for its clients."""

import dns.flags
import dns.message
import dns.rcode

from tests.unit.io.test_resolver import nameserver
from wardgate.io.dns_server import DnsServer
from wardgate.io.resolver import forward_query

QUERY = dns.message.make_query("app.corp.example", "A", id=7).to_wire()


async def test_questions_are_handed_on_over_both_transports() -> None:
    async with nameserver() as upstream:
        server = DnsServer(lambda: [upstream.host], 0, upstream.port)
        await server.listen(["127.0.0.1"])
        (address,) = server.addresses
        over_udp = await forward_query(address, QUERY, "udp")
        over_tcp = await forward_query(address, QUERY, "tcp")
        server.close()

    assert over_udp == over_tcp
    assert over_udp is not None
    assert "10.9.0.2" in dns.message.from_wire(over_udp).to_text()


async def test_an_answer_too_long_for_a_packet_is_truncated_over_udp_and_whole_over_tcp() -> None:
    async with nameserver() as upstream:
        server = DnsServer(lambda: [upstream.host], 0, upstream.port)
        await server.listen(["127.0.0.1"])
        (address,) = server.addresses
        query = dns.message.make_query("long.corp.example", "TXT", use_edns=0, payload=4096).to_wire()
        over_udp = await forward_query(address, query, "udp")
        over_tcp = await forward_query(address, query, "tcp")
        server.close()

    assert over_udp is not None
    assert over_tcp is not None
    assert len(over_udp) < 100
    assert dns.message.from_wire(over_udp).flags & dns.flags.TC
    assert len(over_tcp) > 2600


async def test_without_any_server_the_answer_is_a_failure_at_once() -> None:
    server = DnsServer(list, 0)
    await server.listen(["127.0.0.1"])
    (address,) = server.addresses

    answer = await forward_query(address, QUERY, "udp")
    server.close()

    assert answer is not None
    message = dns.message.from_wire(answer)
    assert message.rcode() == dns.rcode.SERVFAIL
    assert message.id == 7


async def test_dead_server_is_passed_over_and_asked_last_the_next_time() -> None:
    async with nameserver() as upstream:
        asked = []
        server = DnsServer(lambda: asked.append(1) or ["127.0.0.9", upstream.host], 0, upstream.port)  # type: ignore[func-returns-value]
        await server.listen(["127.0.0.1"])
        (address,) = server.addresses
        first = await forward_query(address, QUERY, "tcp")
        second = await forward_query(address, QUERY, "tcp")
        server.close()

    assert first == second
    assert first is not None
    assert server._suspect_until.keys() == {"127.0.0.9"}


async def test_unavailable_address_leaves_the_others() -> None:
    server = DnsServer(list, 0)

    await server.listen(["192.0.2.77", "127.0.0.1"])
    addresses = server.addresses
    server.close()

    assert [address.host for address in addresses] == ["127.0.0.1"]
