"""DNS messages: what is read, what is refused, and the answers we lay out."""

from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import RemoteProtocolError
from wardgate.wire.dns import (
    Rcode,
    RecordType,
    address_of_reverse_name,
    address_record,
    decode_query,
    decode_response,
    encode_answer,
    pointer_record,
    relay_answer,
)

QUERY = dns.message.make_query("a.example", "A", id=1).to_wire()
PROXY_V4 = [ip_address(f"100.96.0.{n}") for n in range(1, 5)]
PROXY_V6 = [ip_address(f"fd00:2021:1111:8000::{n}") for n in range(4)]


def test_query_is_read() -> None:
    query = decode_query(wire("App.Corp.Example", "AAAA", id=7))

    assert (query.id, query.question.name, query.question.type) == (7, "app.corp.example", RecordType.AAAA)
    assert (query.udp_size, query.wants_dnssec) == (512, False)


@pytest.mark.parametrize(("offered", "used"), [(100, 512), (1000, 1000), (4096, 1212)])
def test_edns_size_is_bounded_both_ways(offered: int, used: int) -> None:
    assert decode_query(wire("a.example", "A", use_edns=0, payload=offered)).udp_size == used


def test_root_and_odd_names_are_read() -> None:
    assert decode_query(wire(".", "NS")).question.name == ""
    odd = decode_query(wire(r"a\.b.example", "A")).question
    assert odd.name == r"a\.b.example"
    assert not odd.is_plain


def test_four_addresses_of_a_16_letter_name_take_162_bytes() -> None:
    query = decode_query(wire("app.corp.example", "A", id=9))

    answer = encode_answer(query, Rcode.NOERROR, [address_record(query, one, 1) for one in PROXY_V4], query.udp_size)

    message = dns.message.from_wire(answer)
    assert len(answer) == 162
    assert (message.id, message.flags, message.edns) == (9, dns.flags.QR | dns.flags.RD, -1)
    assert [str(rdata) for rdata in message.answer[0]] == [str(one) for one in PROXY_V4]
    assert message.answer[0].ttl == 1


def test_edns_is_answered_with_edns() -> None:
    query = decode_query(wire("a.example", "A", use_edns=0, payload=4096))
    for answer in (
        encode_answer(query, Rcode.NOERROR, [address_record(query, PROXY_V4[0], 1)], query.udp_size),
        relay_answer(query, decode_response(response_to(query.raw, 200)), query.udp_size),
    ):
        message = dns.message.from_wire(answer)
        assert (message.edns, message.payload, message.options) == (0, 1212, ())


def test_the_question_comes_back_in_the_letter_case_it_was_asked_in() -> None:
    query = decode_query(wire("aPp.eXample", "A", id=5))
    lower = response_to(wire("app.example", "A", id=5), 1)

    answer = relay_answer(query, decode_response(lower), None)

    assert dns.message.from_wire(answer).question[0].name.to_text() == "aPp.eXample."
    assert answer[:12] == lower[:12]
    assert len(answer) == len(lower)


def test_answer_keeps_the_letter_case_and_rd_of_the_question() -> None:
    query = decode_query(wire("ApP.example", "A", flags=0))
    message = dns.message.from_wire(encode_answer(query, Rcode.NXDOMAIN))
    assert message.flags == dns.flags.QR | 3
    assert message.rcode() == 3
    assert message.question[0].name.to_text() == "ApP.example."


def test_long_names_are_compressed_before_they_are_truncated() -> None:
    name = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    query = decode_query(wire(name, "AAAA"))
    records = [address_record(query, one, 1) for one in PROXY_V6]

    message = dns.message.from_wire(encode_answer(query, Rcode.NOERROR, records, 512))
    truncated = dns.message.from_wire(encode_answer(query, Rcode.NOERROR, records * 8, 512))

    assert len(message.answer[0]) == 4
    assert not message.flags & dns.flags.TC
    assert truncated.flags & dns.flags.TC
    assert truncated.answer == []


def test_pointer_answer_reads_back() -> None:
    query = decode_query(wire("1.0.96.100.in-addr.arpa", "PTR"))
    message = dns.message.from_wire(encode_answer(query, Rcode.NOERROR, [pointer_record(query, "app.corp.example", 1)]))
    assert str(message.answer[0][0]) == "app.corp.example."


def test_response_is_relayed_unchanged_under_the_askers_id() -> None:
    query = decode_query(wire("a.example", "A", id=1))
    response = decode_response(response_to(wire("a.example", "A", id=2), 3))

    relayed = relay_answer(query, response, 512)

    assert relayed[:2] == b"\0\x01"
    assert relayed[2:] == response.raw[2:]


def test_response_over_the_limit_is_emptied_and_marked() -> None:
    query = decode_query(wire("a.example", "A", id=1))
    response = decode_response(response_to(wire("a.example", "A", id=2), 60))

    message = dns.message.from_wire(relay_answer(query, response, 512))

    assert (message.id, message.answer) == (1, [])
    assert message.flags & dns.flags.TC
    assert relay_answer(query, response, None)[2:] == response.raw[2:]


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("1.0.96.100.in-addr.arpa", "100.96.0.1"),
        ("1.0.0.d.f.ip6.arpa", None),
        ("0.96.100.in-addr.arpa", None),
        ("x.0.96.100.in-addr.arpa", None),
        ("300.0.96.100.in-addr.arpa", None),
        ("app.corp.example", None),
    ],
)
def test_reverse_names(name: str, address: str | None) -> None:
    assert address_of_reverse_name(name) == (None if address is None else ip_address(address))


def test_reverse_name_of_an_ipv6_address() -> None:
    address = ip_address("fd00:2021:1111:8000::3")
    assert address_of_reverse_name(address.reverse_pointer) == address


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes(11),
        bytes(12),
        QUERY[:-1],
        QUERY + b"junk",
        QUERY[:2] + b"\x80\x00" + QUERY[4:],
        QUERY[:2] + b"\x28\x00" + QUERY[4:],
        QUERY[:5] + b"\x02" + QUERY[6:] + QUERY[12:],
        QUERY + bytes(4096),
    ],
)
def test_malformed_queries_are_refused(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_query(payload)


@given(st.binary(max_size=100), st.binary(max_size=60))
def test_any_bytes_are_a_message_or_refused(data: bytes, tail: bytes) -> None:
    good = wire("a.example", "A", id=1)
    for payload in (data, data[:12].ljust(12, b"\0") + tail, good + tail, good[:10] + b"\0\x01" + good[12:] + tail):
        for flags in (b"\x01\x00", b"\x81\x80"):
            for decode in (decode_query, decode_response):
                try:
                    decode(payload[:2] + flags + payload[4:])
                except RemoteProtocolError:
                    continue


@given(st.integers(0, 65535), st.binary(max_size=40))
def test_any_record_is_read_or_refused(kind: int, rdata: bytes) -> None:
    base = response_to(wire("a.example", "A", id=2), 0)
    record = b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\x01\0\0\0\x3c" + len(rdata).to_bytes(2, "big") + rdata
    try:
        response = decode_response(base[:6] + b"\0\x01" + base[8:] + record)
    except RemoteProtocolError:
        return
    assert len(response.answers) <= 1


@given(st.text(max_size=80))
def test_any_text_is_a_reverse_name_or_not(name: str) -> None:
    address_of_reverse_name(name)


def wire(name: str, kind: str, **options: int) -> bytes:
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]


def response_to(query: bytes, addresses: int) -> bytes:
    message = dns.message.make_response(dns.message.from_wire(query), recursion_available=True)
    name = message.question[0].name
    if addresses:
        message.answer = [dns.rrset.from_text_list(name, 60, "IN", "A", [f"192.0.2.{n}" for n in range(addresses)])]
    return message.to_wire()
