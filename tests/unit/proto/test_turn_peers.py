"""Which hosts a relay sends to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.proto.turn_peers import PeerRules

PUBLIC = ("203.0.113.3", "2001:db8::3")
RULES = PeerRules(public=PUBLIC, own=("198.51.100.77", "10.1.2.3"))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.255.0.9",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "::ffff:10.0.0.1",
        "10.0.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "fd00::1",
        "198.51.100.77",
        "10.1.2.3",
        "::ffff:198.51.100.77",
        "::ffff:203.0.113.3",
    ],
)
def test_what_a_public_relay_does_not_send_to(host: str) -> None:
    assert RULES.problem(host)


@pytest.mark.parametrize("host", ["192.0.2.1", "8.8.8.8", "172.32.0.1", "2001:db8::4", "64:ff9b::808:808", *PUBLIC])
def test_what_a_public_relay_sends_to(host: str) -> None:
    assert RULES.problem(host) is None


def test_private_networks_are_reached_by_a_private_relay_or_by_setting() -> None:
    assert PeerRules(public=("10.0.0.3",)).problem("192.168.1.1") is None
    assert PeerRules(public=("10.0.0.3",), private=False).problem("192.168.1.1")
    assert PeerRules(public=PUBLIC, private=True).problem("192.168.1.1") is None
    assert PeerRules(public=PUBLIC, private=True).problem("169.254.169.254")


def test_allowed_networks_are_reached_in_spite_of_the_rules() -> None:
    rules = PeerRules(public=PUBLIC, own=("10.1.2.3",), allowed=("10.1.0.0/16", "::1/128"))

    assert [rules.problem(host) for host in ("10.1.9.9", "10.1.2.3", "::1")] == [None] * 3
    assert rules.problem("10.2.0.1")


def test_a_relay_on_loopback_sends_to_loopback() -> None:
    rules = PeerRules(public=("127.0.0.1",))

    assert rules.problem("127.0.0.9") is None
    assert not rules.is_this_host("127.0.0.1")
    assert RULES.is_this_host("203.0.113.3")


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_judged_as_the_one_it_holds(ip: object) -> None:
    if str(ip) not in PUBLIC:
        assert (RULES.problem(f"::ffff:{ip}") is None) == (RULES.problem(str(ip)) is None)
