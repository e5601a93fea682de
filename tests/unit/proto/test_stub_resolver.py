"""The client's resolver: what it answers itself, whom it asks for the rest, and how it recovers from silence."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import islice
from random import Random
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.ids import ResourceId
from wardgate.proto.dns_upstreams import Do53, Doh, Sentinels, Upstream, effective_upstreams
from wardgate.proto.proxy_ips import IpStack, NamedResource, PatternIndex, proxy_addresses_v4
from wardgate.proto.stub_resolver import (
    LLMNR_PORT,
    MAX_OUTSTANDING,
    Answer,
    Asker,
    Forward,
    StubResolver,
    ToSite,
    Transport,
    Waiting,
)
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.domain_patterns import DomainPattern
from wardgate.wire.ranges import PROXY_V4, SENTINEL_V4

HOST = SocketAddr("100.64.0.1", 40000)
SENTINEL = SocketAddr("100.100.111.1", 53)
RESOLVER = Do53(SocketAddr("192.0.2.53", 53))
RESOLVER6 = Do53(SocketAddr("2001:db8::53", 53))
DOH = Doh("https://dns.example/dns-query")
FIRST_V4 = ["100.96.0.1", "100.96.0.2", "100.96.0.3", "100.96.0.4"]
FIRST_V6 = ["fd00:2021:1111:8000::", *(f"fd00:2021:1111:8000::{n}" for n in (1, 2, 3))]


# --- local answers -------------------------------------------------------------------------------------------------


def test_name_of_a_resource_gets_four_addresses_of_each_family() -> None:
    stub = resolver("app.corp.example")
    assert addresses(ask(stub, "app.corp.example", "A")) == FIRST_V4
    assert addresses(ask(stub, "APP.corp.example", "AAAA")) == FIRST_V6
    assert addresses(ask(stub, "app.corp.example", "A")) == FIRST_V4


def test_next_name_gets_the_next_addresses() -> None:
    stub = resolver("*.corp.example")
    ask(stub, "a.corp.example", "AAAA")
    assert addresses(ask(stub, "b.corp.example", "A")) == [f"100.96.0.{n}" for n in (5, 6, 7, 8)]
    assert addresses(ask(stub, "b.corp.example", "AAAA"))[0] == "fd00:2021:1111:8000::4"


def test_answer_tells_what_to_announce_and_is_found_by_proxy_ip() -> None:
    stub = resolver("app.corp.example")
    answer = ask(stub, "app.corp.example", "A")
    assert isinstance(answer, Answer)
    assert answer.assignment is not None
    assert [str(one) for one in answer.assignment.proxy_ips] == FIRST_V4 + FIRST_V6
    assert stub.resource_of(ip_address("100.96.0.3")) == answer.assignment
    assert stub.resource_of(ip_address("100.96.0.5")) is None


@pytest.mark.parametrize(("stack", "v4", "v6"), [("dual", 4, 4), ("ipv4_only", 4, 0), ("ipv6_only", 0, 4)])
def test_ip_stack_leaves_a_family_empty(stack: IpStack, v4: int, v6: int) -> None:
    stub = resolver()
    stub.set_resources([named(1, "app.corp.example", stack)])
    assert len(addresses(ask(stub, "app.corp.example", "A"))) == v4
    assert len(addresses(ask(stub, "app.corp.example", "AAAA"))) == v6


def test_ip_stack_holds_for_names_that_were_known_before() -> None:
    stub = resolver("app.corp.example")
    ask(stub, "app.corp.example", "A")
    stub.set_resources([named(1, "app.corp.example", "ipv6_only")])
    assert addresses(ask(stub, "app.corp.example", "A")) == []


def test_nothing_about_a_resources_name_leaves_for_the_upstream() -> None:
    stub = resolver("app.corp.example", "*.other.example")
    for kind in ("HTTPS", "SVCB"):
        assert addresses(ask(stub, "app.corp.example", kind)) == []
    for kind in ("MX", "NS", "CNAME", "SOA", "CAA", "DS", "NAPTR", "TYPE65280"):
        asked = ask(stub, "App.corp.example", kind)
        assert isinstance(asked, ToSite)
        assert asked.resource_id == resource_id(1)
    assert isinstance(ask(stub, "other.example", "MX"), ToSite)
    assert isinstance(ask(stub, "corp.example", "MX"), Forward)
    assert isinstance(ask(stub, "corp.example", "HTTPS"), Forward)


def test_asked_for_anything_a_name_has_its_addresses() -> None:
    assert addresses(ask(resolver("app.corp.example"), "app.corp.example", "ANY")) == FIRST_V4 + FIRST_V6
    assert isinstance(ask(resolver("app.corp.example"), "example.org", "ANY"), Forward)


def test_services_of_a_name_are_known_at_its_site() -> None:
    stub = resolver("app.corp.example")
    for name in ("_ldap._tcp.app.corp.example", "_acme-challenge.app.corp.example"):
        assert isinstance(ask(stub, name, "SRV"), ToSite)
    for name in ("x.app.corp.example", "_ldap._tcp.corp.example", "_tcp"):
        assert isinstance(ask(stub, name, "SRV"), Forward)


def test_canary_does_not_exist() -> None:
    assert rcode(ask(resolver(), "use-application-dns.net", "A")) == 3


def test_reverse_name_of_a_proxy_ip_is_its_name() -> None:
    stub = resolver("app.corp.example")
    ask(stub, "app.corp.example", "A")
    for address in ("100.96.0.1", "fd00:2021:1111:8000::3"):
        answer = message(ask(stub, ip_address(address).reverse_pointer, "PTR"))
        assert [str(rdata) for rdata in answer.answer[0]] == ["app.corp.example."]
        assert answer.answer[0].ttl == 1
    for name in ("8.8.8.8.in-addr.arpa", "x.in-addr.arpa"):
        assert isinstance(ask(stub, name, "PTR"), Forward)


@pytest.mark.parametrize("address", ["100.96.0.5", "100.64.0.1", "100.100.111.1", "fd00:2021:1111:8000::9"])
def test_addresses_that_exist_only_here_have_no_names_elsewhere(address: str) -> None:
    assert rcode(ask(resolver(), ip_address(address).reverse_pointer, "PTR")) == 3


def test_names_of_addresses_behind_a_resource_are_known_at_its_site() -> None:
    stub = resolver()
    wide, narrow = (ip_network("10.9.0.0/16"), resource_id(7)), (ip_network("10.9.1.0/24"), resource_id(8))
    stub.set_resources([], [wide, narrow, (ip_network("fd00:9::/64"), resource_id(9))])

    asked = [ask(stub, ip_address(one).reverse_pointer, "PTR") for one in ("10.9.0.1", "10.9.1.1", "fd00:9::1")]

    assert [one.resource_id for one in asked if isinstance(one, ToSite)] == [resource_id(n) for n in (7, 8, 9)]
    assert isinstance(ask(stub, ip_address("10.8.0.1").reverse_pointer, "PTR"), Forward)
    assert isinstance(ask(stub, ip_address("10.9.0.1").reverse_pointer, "TXT"), Forward)


def test_escaped_dots_match_no_resource() -> None:
    assert isinstance(ask(resolver("*.corp.example"), r"a\.corp.corp.example", "A"), Forward)


def test_name_keeps_its_addresses_while_resources_come_and_go() -> None:
    stub = resolver("app.corp.example")
    ask(stub, "app.corp.example", "A")

    gone = stub.set_resources([])
    forwarded = ask(stub, "app.corp.example", "A")
    back = stub.set_resources([named(2, "*.corp.example")])

    assert [(one.domain, one.resources) for one in gone] == [("app.corp.example", ())]
    assert isinstance(forwarded, Forward)
    assert [one.resources[0].resource_id for one in back] == [resource_id(2)]
    assert stub.set_resources([named(2, "*.corp.example")]) == ()
    assert addresses(ask(stub, "app.corp.example", "A")) == FIRST_V4


def test_resources_are_ordered_by_pattern_then_id() -> None:
    stub = resolver()
    stub.set_resources(
        [named(1, "app.corp.example"), named(2, "*.corp.example"), named(3, "**.example"), named(4, "*.corp.example")]
    )
    answer = ask(stub, "app.corp.example", "A")
    assert isinstance(answer, Answer)
    assert answer.assignment is not None
    ids = [one.resource_id for one in answer.assignment.resources]
    assert ids == [resource_id(1), resource_id(4), resource_id(2), resource_id(3)]


def test_names_run_out_with_servfail() -> None:
    stub = StubResolver(Random(1).randbytes, max_names=1)
    stub.set_resources([named(1, "*.corp.example")])
    stub.set_upstreams([RESOLVER])
    ask(stub, "a.corp.example", "A")
    assert rcode(ask(stub, "b.corp.example", "A")) == 2
    assert stub.counters["refused_names"] == 1


# --- whom we ask ---------------------------------------------------------------------------------------------------


def test_everything_else_goes_to_the_upstream_under_another_id() -> None:
    stub = resolver()
    forward = ask(stub, "example.org", "A", id=7)
    assert isinstance(forward, Forward)
    assert (forward.upstream, forward.transport) == (RESOLVER, "udp")
    assert forward.payload[2:] == query("example.org", "A", id=7)[2:]

    reply = stub.handle_response(forward.query_id, respond(forward.payload), 0.1)

    assert reply is not None
    assert reply.asker == asker()
    assert dns.message.from_wire(reply.payload).id == 7


def test_doh_is_asked_with_id_zero() -> None:
    stub = resolver(upstreams=[DOH])
    forward = ask(stub, "example.org", "A", id=7)
    assert isinstance(forward, Forward)
    assert forward.payload[:2] == b"\0\0"
    reply = stub.handle_response(forward.query_id, respond(forward.payload), 0.1)
    assert reply is not None
    assert reply.payload[:2] == b"\0\x07"


@pytest.mark.parametrize("kind", ["SRV", "TXT"])
def test_service_records_are_asked_at_the_most_specific_site(kind: str) -> None:
    stub = resolver()
    stub.set_resources([named(9, "**.example"), named(1, "*.corp.example")])
    question = ask(stub, "app.corp.example", kind)
    assert isinstance(question, ToSite)
    assert (question.resource_id, question.domain) == (resource_id(1), "app.corp.example")
    reply = stub.handle_response(question.query_id, respond(question.payload, rcode=3), 5.0)
    assert reply is not None
    assert dns.message.from_wire(reply.payload).rcode() == 3


def test_response_that_does_not_fit_the_question_is_ignored() -> None:
    stub = resolver()
    forward = ask(stub, "example.org", "A")
    assert isinstance(forward, Forward)
    wrong_id = bytes((forward.payload[0] ^ 1,)) + forward.payload[1:]

    for payload in (respond(wrong_id), respond(forward.payload[:2] + query("example.net", "A")[2:]), b"junk"):
        assert stub.handle_response(forward.query_id, payload, 0.1) is None
    assert stub.handle_response(forward.query_id, respond(forward.payload), 0.1) is not None
    assert stub.handle_response(forward.query_id, respond(forward.payload), 0.1) is None
    assert (stub.counters["foreign_responses"], stub.counters["malformed_responses"]) == (2, 1)
    assert stub.counters["late_responses"] == 1


def test_failure_is_servfail_at_once() -> None:
    stub = resolver()
    forward = ask(stub, "example.org", "A")
    assert isinstance(forward, Forward)
    reply = stub.handle_response(forward.query_id, None, 0.1)
    assert reply is not None
    assert dns.message.from_wire(reply.payload).rcode() == 2


@pytest.mark.parametrize(("transport", "replies"), [("udp", 0), ("tcp", 1)])
def test_silence_is_silence_over_udp_and_servfail_over_tcp(transport: Transport, replies: int) -> None:
    stub = resolver()
    ask(stub, "example.org", "A", transport=transport)
    assert stub.poll_timeout() == 5.0

    stub.handle_timeout(4.9)
    assert stub.poll_reply() is None
    stub.handle_timeout(5.0)

    assert stub.poll_timeout() == (5.0 if replies else None)
    assert [reply is not None for reply in (stub.poll_reply(), stub.poll_reply())] == [bool(replies), False]
    assert stub.poll_timeout() is None


def test_site_has_ten_seconds() -> None:
    stub = resolver("app.corp.example")
    ask(stub, "app.corp.example", "TXT")
    assert stub.poll_timeout() == 10.0


def test_too_many_questions_under_way_are_refused() -> None:
    stub = resolver()
    for n in range(MAX_OUTSTANDING):
        assert isinstance(ask(stub, f"n{n}.example.org", "A"), Forward)
    assert rcode(ask(stub, "more.example.org", "A")) == 2
    assert stub.counters["refused"] == 1


def test_without_any_upstream_resources_still_have_names() -> None:
    stub = resolver("app.corp.example", upstreams=[])
    assert addresses(ask(stub, "app.corp.example", "A")) == FIRST_V4
    assert rcode(ask(stub, "example.org", "A")) == 2


# --- where questions arrive ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sentinel", [SocketAddr("100.100.111.2", 53), SocketAddr("100.100.111.1", 5353)])
def test_unassigned_sentinels_and_other_ports_get_no_answer(sentinel: SocketAddr) -> None:
    stub = resolver("app.corp.example")
    assert stub.handle_query(Asker(HOST, sentinel, "udp"), query("app.corp.example", "A"), 0.0) is None
    assert not stub.is_for_us(sentinel)


def test_neighbour_queries_are_answered_only_for_resources() -> None:
    stub = resolver("app")
    to_all = Asker(HOST, SocketAddr("224.0.0.252", LLMNR_PORT), "udp")
    assert isinstance(stub.handle_query(to_all, query("app", "A"), 0.0), Answer)
    assert stub.handle_query(to_all, query("printer", "A"), 0.0) is None


def test_malformed_queries_are_counted() -> None:
    stub = resolver()
    assert stub.handle_query(asker(), b"\0" * 11, 0.0) is None
    assert stub.counters["malformed_queries"] == 1


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_in_either_direction_change_nothing(question: bytes, answer: bytes) -> None:
    stub = resolver("app.corp.example")
    stub.handle_query(asker(), question, 0.0)
    forward = ask(stub, "example.org", "A")
    assert isinstance(forward, Forward)
    stub.handle_response(forward.query_id, answer, 0.0)
    assert addresses(ask(stub, "app.corp.example", "A")) == FIRST_V4


# --- cache ---------------------------------------------------------------------------------------------------------


def test_cached_answers_count_down_and_end() -> None:
    stub = resolver()
    resolve(stub, "example.org", ttl=60, now=0.0)

    cached = message(ask(stub, "EXAMPLE.org", "A", now=20.5))

    assert cached.answer[0].ttl == 40
    assert cached.flags == dns.flags.QR | dns.flags.RD
    assert isinstance(ask(stub, "example.org", "A", now=60.0), Forward)


@pytest.mark.parametrize("options", [{"ttl": 4}, {"rcode": 3}, {"addresses": 0}, {"truncated": True}])
def test_what_is_not_worth_caching(options: dict[str, Any]) -> None:
    stub = resolver()
    resolve(stub, "example.org", **options)
    assert isinstance(ask(stub, "example.org", "A"), Forward)


def test_cache_is_flushed_by_new_resources_and_new_upstreams() -> None:
    stub = resolver()
    resolve(stub, "example.org", ttl=600)
    stub.set_resources([named(1, "app.corp.example")])
    assert isinstance(ask(stub, "example.org", "A", now=1.0), Forward)
    resolve(stub, "example.org", ttl=600, now=1.0)
    stub.set_upstreams([RESOLVER, RESOLVER6])
    sentinel = next(iter(stub.sentinels))
    again = stub.handle_query(Asker(HOST, SocketAddr(str(sentinel), 53), "udp"), query("example.org", "A"), 2.0)
    assert isinstance(again, Forward)


def test_signed_answers_are_not_served_from_the_cache() -> None:
    stub = resolver()
    resolve(stub, "example.org", ttl=600)
    assert isinstance(ask(stub, "example.org", "A", use_edns=0, ednsflags=0x8000), Forward)


# --- sentinels -----------------------------------------------------------------------------------------------------


def test_each_upstream_gets_a_sentinel_of_its_family() -> None:
    sentinels = Sentinels()
    assert sentinels.set([RESOLVER, RESOLVER6, DOH])
    assert dict(sentinels.upstream_by_sentinel) == {
        ip_address("100.100.111.1"): RESOLVER,
        IPv6Address("fd00:2021:1111:8000:100:100:111:0"): RESOLVER6,
        ip_address("100.100.111.2"): DOH,
    }


def test_changed_upstreams_never_get_a_sentinel_of_before() -> None:
    sentinels = Sentinels()
    sentinels.set([RESOLVER])
    other = Do53(SocketAddr("192.0.2.54", 53))
    assert sentinels.set([other, RESOLVER])
    assert [str(one) for one in sentinels.upstream_by_sentinel] == ["100.100.111.2", "100.100.111.3"]
    assert not sentinels.set([RESOLVER, other])
    assert sentinels.set([DOH])
    assert [str(one) for one in sentinels.upstream_by_sentinel] == ["100.100.111.1"]


def test_portal_servers_come_before_doh_before_the_system() -> None:
    sentinel = Do53(SocketAddr("100.100.111.1", 53))
    assert effective_upstreams([RESOLVER, RESOLVER], [DOH], [RESOLVER6]) == (RESOLVER,)
    assert effective_upstreams([sentinel], [DOH], [RESOLVER6]) == (DOH,)
    assert effective_upstreams([], [], [sentinel, RESOLVER6, RESOLVER]) == (RESOLVER6, RESOLVER)


# --- names ---------------------------------------------------------------------------------------------------------


PATTERNS = ["a.b", "*.b", "**.b", "?.b", "a.*.b", "a.**.b", "*", "**", "*a.b", "b", "a.b.*", "?*.a.b"]


@given(st.lists(st.sampled_from(["a", "b", "aa", "ab"]), min_size=1, max_size=4))
def test_index_finds_what_trying_every_pattern_finds(labels: list[str]) -> None:
    resources = [named(n, text) for n, text in enumerate(PATTERNS)]
    name = ".".join(labels)
    expected = {one.resource_id for one in resources if one.pattern.matches(name)}
    assert {one.resource_id for one in PatternIndex(resources).matches(name)} == expected


def test_proxy_ips_pass_over_the_sentinels() -> None:
    up_to = int(SENTINEL_V4.broadcast_address) - int(PROXY_V4.network_address)
    given_out = list(islice(proxy_addresses_v4(), up_to))
    assert IPv4Address("100.100.110.255") in given_out[-512:]
    assert IPv4Address("100.100.112.1") in given_out[-512:]
    assert not any(address in SENTINEL_V4 for address in given_out[-512:])


# --- helpers -------------------------------------------------------------------------------------------------------


def resource_id(number: int) -> ResourceId:
    return ResourceId(f"00000000-0000-0000-0000-{number:012}")


def named(number: int, pattern: str, ip_stack: IpStack = "dual") -> NamedResource:
    parsed = DomainPattern.parse(pattern)
    assert parsed is not None
    return NamedResource(resource_id(number), parsed, ip_stack)


def resolver(*patterns: str, upstreams: list[Upstream] | None = None) -> StubResolver:
    stub = StubResolver(Random(1).randbytes)
    stub.set_resources([named(n, pattern) for n, pattern in enumerate(patterns, 1)])
    stub.set_upstreams([RESOLVER] if upstreams is None else upstreams)
    return stub


def asker(transport: Transport = "udp") -> Asker:
    return Asker(HOST, SENTINEL, transport)


def query(name: str, kind: str, **options: int) -> bytes:
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]


def ask(
    stub: StubResolver, name: str, kind: str, now: float = 0.0, transport: Transport = "udp", **options: int
) -> Answer | Forward | ToSite | Waiting | None:
    return stub.handle_query(asker(transport), query(name, kind, **options), now)


def message(answer: Answer | Forward | ToSite | Waiting | None) -> dns.message.Message:
    assert isinstance(answer, Answer)
    return dns.message.from_wire(answer.payload)


def rcode(answer: Answer | Forward | ToSite | Waiting | None) -> int:
    return int(message(answer).rcode())


def addresses(answer: Answer | Forward | ToSite | Waiting | None) -> list[str]:
    read = message(answer)
    assert read.rcode() == 0
    return [str(rdata) for rrset in read.answer for rdata in rrset]


def respond(payload: bytes, ttl: int = 60, rcode: int = 0, addresses: int = 1, truncated: bool = False) -> bytes:
    response = dns.message.make_response(dns.message.from_wire(payload), recursion_available=True)
    response.set_rcode(dns.rcode.Rcode(rcode))
    if addresses and not rcode:
        name = response.question[0].name
        texts = [f"192.0.2.{n}" for n in range(addresses)]
        response.answer = [dns.rrset.from_text_list(name, ttl, "IN", "A", texts)]
    if truncated:
        response.flags |= dns.flags.TC
    return response.to_wire()


def resolve(stub: StubResolver, name: str, now: float = 0.0, **options: Any) -> None:
    forward = ask(stub, name, "A", now)
    assert isinstance(forward, Forward)
    assert stub.handle_response(forward.query_id, respond(forward.payload, **options), now) is not None
