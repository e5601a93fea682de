"""Candidate lines, against those of recorded conversations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import RemoteProtocolError
from wardgate.wire import candidates
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.candidates import Candidate, Kind

HOST = SocketAddr("10.5.0.2", 52625)
ICE_SRFLX = (
    "candidate:fffe7f6459ad92da2bffa742 1 udp 1686109951 203.0.113.31 52625 typ srflx raddr 0.0.0.0 rport 0 ufrag 3lfw"
)
ICELESS_RELAY = (
    "candidate:14646334164422518061 1 udp 16777215 203.0.113.3 50963 typ relay raddr 192.168.1.2 rport 52625"
)


def test_line_of_ice_mode_is_read_with_its_hidden_base() -> None:
    candidate = candidates.decode(ICE_SRFLX)

    assert candidate == Candidate(
        Kind.SRFLX, SocketAddr("203.0.113.31", 52625), SocketAddr("0.0.0.0", 0), priority=1686109951
    )


def test_line_of_iceless_mode_is_read_with_its_base() -> None:
    candidate = candidates.decode(ICELESS_RELAY)

    assert candidate.kind is Kind.RELAY
    assert candidate.address == SocketAddr("203.0.113.3", 50963)
    assert candidate.base == SocketAddr("192.168.1.2", 52625)


def test_line_without_ufrag_and_base_is_read() -> None:
    candidate = candidates.decode("candidate:1 1 udp 5 203.0.113.31 52625 typ srflx")

    assert candidate.base == candidate.address


@pytest.mark.parametrize(
    ("kind", "address", "base", "expected"),
    [
        (Kind.HOST, "10.0.0.1", "10.0.0.1", 2130706175),
        (Kind.HOST, "2001:db8::1", "2001:db8::1", 2130706431),
        (Kind.SRFLX, "203.0.113.1", "10.0.0.1", 1686109951),
        (Kind.RELAY, "203.0.113.3", "10.0.0.1", 37748479),
        (Kind.RELAY, "2001:db8::3", "2001:db8::1", 37748735),
        (Kind.RELAY, "203.0.113.3", "2001:db8::1", 37492479),
        (Kind.RELAY, "2001:db8::3", "10.0.0.1", 37492735),
    ],
)
def test_ice_priorities_are_those_seen(kind: Kind, address: str, base: str, expected: int) -> None:
    candidate = Candidate(kind, SocketAddr(address, 1), SocketAddr(base, 2))

    assert candidates.ice_priority(candidate, 0) == expected


def test_check_priority_is_peer_reflexive_with_the_preference_of_the_sender() -> None:
    host = Candidate.host(HOST)
    relay = Candidate(Kind.RELAY, SocketAddr("203.0.113.3", 1), HOST)

    assert candidates.ice_priority(host, 0, type_preference=110) == 0x6EFFFEFF
    assert candidates.ice_priority(relay, 0, type_preference=110) == 0x6E3FFEFF


def test_ice_lines_hide_the_base_and_name_the_ufrag() -> None:
    srflx = candidates.with_ice_priority(Candidate(Kind.SRFLX, SocketAddr("203.0.113.31", 52625), HOST), 0)
    relay6 = candidates.with_ice_priority(Candidate(Kind.RELAY, SocketAddr("2001:db8::3", 5000), HOST), 0)

    expected = "1 udp 1686109951 203.0.113.31 52625 typ srflx raddr 0.0.0.0 rport 0 ufrag 3lfw"
    assert candidates.encode_ice(srflx, "3lfw").split(" ", 1)[1] == expected
    assert candidates.encode_ice(relay6, "3lfw").endswith(" typ relay raddr :: rport 0 ufrag 3lfw")


def test_iceless_lines_carry_the_base_except_for_hosts() -> None:
    relay = candidates.encode_iceless(Candidate(Kind.RELAY, SocketAddr("203.0.113.3", 50963), HOST))
    host = candidates.encode_iceless(Candidate.host(HOST))

    assert relay.split(" ", 1)[1] == "1 udp 16777215 203.0.113.3 50963 typ relay raddr 10.5.0.2 rport 52625"
    assert host.split(" ", 1)[1] == "1 udp 2130706431 10.5.0.2 52625 typ host"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "candidate:1 1 udp 5 203.0.113.31 52625 typ",
        "candidate:1 1 udp 4294967296 203.0.113.31 52625 typ host",
        "candidate:1 1 udp x 203.0.113.31 52625 typ host",
        "candidate:1 1 tcp 5 203.0.113.31 52625 typ host",
        "candidate:1 1 udp 5 203.0.113.31 65536 typ host",
        "candidate:1 1 udp 5 203.0.113.31 0 typ host",
        "candidate:1 1 udp 5 0.0.0.0 9 typ host",
        "candidate:1 1 udp 5 224.0.0.1 9 typ host",
        "candidate:1 1 udp 5 fe80::1%eth0 9 typ host",
        "candidate:1 1 udp 5 name.example 9 typ host",
        "candidate:1 1 udp 5 203.0.113.31 9 typ other",
        "a=candidate:1 1 udp 5 203.0.113.31 9 typ host",
    ],
)
def test_what_is_no_candidate_is_refused(line: str) -> None:
    with pytest.raises(RemoteProtocolError):
        candidates.decode(line)


@given(st.one_of(st.text(), st.lists(st.sampled_from([*ICELESS_RELAY.split(" "), "::1", "-1", ""])).map(" ".join)))
def test_any_text_is_a_candidate_or_a_protocol_error(line: str) -> None:
    try:
        candidate = candidates.decode(line)
    except RemoteProtocolError:
        return

    again = candidates.decode(candidates.encode_iceless(candidate))
    assert (again.kind, again.address) == (candidate.kind, candidate.address)
