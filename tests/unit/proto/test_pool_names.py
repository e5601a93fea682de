"""Names of devices in dynamic pools: what is asked, what is kept, and how much."""

from ipaddress import ip_address

import dns.message
from hypothesis import given
from hypothesis import strategies as st

from wardgate.ids import ResourceId
from wardgate.proto.pool_names import MAX_ASKED, MAX_KNOWN, MAX_WAITING, TIMEOUT_S, PoolNames, PoolReply
from wardgate.proto.proxy_ips import NamedResource
from wardgate.wire.dns import Query, Rcode, decode_query
from wardgate.wire.domain_patterns import DomainPattern

POOL = ResourceId("pool")
ADDRESSES = (ip_address("100.64.1.2"), ip_address("fd00:2021:1111::1:2"))


def test_what_waits_for_one_name_is_answered_together() -> None:
    names = pools()
    for token in ("a", "b"):
        assert names.handle_query(token, query("mia.laptops.example"), 0.0)
    names.handle_query("c", query("mia.laptops.example", "AAAA"), 0.0)

    assert list(iter(names.poll_question, None)) == [(POOL, "mia.laptops.example")]
    assert names.handle_resolved(POOL, "Mia.laptops.example.", ADDRESSES)

    answers = replies(names)
    assert [(one.token, one.addresses) for one in answers] == [
        ("a", ADDRESSES[:1]),
        ("b", ADDRESSES[:1]),
        ("c", ADDRESSES[1:]),
    ]
    assert names.name_of(ADDRESSES[0]) == "mia.laptops.example"
    assert names.poll_timeout() is None


def test_other_names_are_not_ours() -> None:
    names = pools()
    assert not names.handle_query("a", query("example.org"), 0.0)
    assert not names.handle_resolved(POOL, "mia.laptops.example", ADDRESSES)


def test_what_is_known_goes_with_the_pool() -> None:
    names = pools()
    names.handle_query("a", query("mia.laptops.example"), 0.0)
    names.handle_resolved(POOL, "mia.laptops.example", ADDRESSES)

    names.set_pools([])
    names.set_pools([pool("*.laptops.example")])
    names.handle_query("b", query("mia.laptops.example"), 1.0)

    assert len(list(iter(names.poll_question, None))) == 2


def test_silence_of_the_portal_fails_after_five_seconds() -> None:
    names = pools()
    names.handle_query("a", query("mia.laptops.example"), 1.0)
    list(iter(names.poll_question, None))

    assert names.poll_timeout() == 1.0 + TIMEOUT_S
    names.handle_timeout(1.0 + TIMEOUT_S)

    assert [one.rcode for one in replies(names)] == [Rcode.SERVFAIL]
    assert names.poll_timeout() is None


def test_everything_is_bounded_and_refusals_are_counted() -> None:
    names = pools()
    for _ in range(MAX_WAITING + 1):
        names.handle_query("a", query("mia.laptops.example"), 0.0)
    for number in range(MAX_ASKED):
        names.handle_query("b", query(f"n{number}.laptops.example"), 0.0)
    assert names.refused == 2
    assert [one.rcode for one in replies(names)] == [Rcode.SERVFAIL] * 2

    for number in range(MAX_KNOWN + 10):
        names.handle_timeout(100.0 * number)
        names.handle_query("c", query(f"k{number}.laptops.example"), 100.0 * number)
        names.handle_resolved(POOL, f"k{number}.laptops.example", ADDRESSES)
    assert len(names._known) == MAX_KNOWN


@given(st.text(max_size=30))
def test_any_domain_in_an_answer_is_borne(domain: str) -> None:
    names = pools()
    assert not names.handle_resolved(POOL, domain, ADDRESSES)


def pool(pattern: str) -> NamedResource:
    parsed = DomainPattern.parse(pattern)
    assert parsed is not None
    return NamedResource(POOL, parsed)


def pools() -> PoolNames:
    names = PoolNames()
    names.set_pools([pool("*.laptops.example")])
    return names


def query(name: str, kind: str = "A") -> Query:
    return decode_query(dns.message.make_query(name, kind).to_wire())


def replies(names: PoolNames) -> list[PoolReply]:
    return list(iter(names.poll_reply, None))
