"""Which addresses a resource may have, and their canonical form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import InvalidInput
from wardgate.portal.domain.addresses import canonical_address, older_pattern
from wardgate.portal.domain.resources import matches_pattern


@pytest.mark.parametrize(
    ("kind", "given_text", "expected"),
    [
        ("dns", " app.corp.example ", "app.corp.example"),
        ("dns", "*.corp.example", "*.corp.example"),
        ("dns", "**.internal", "**.internal"),
        ("dns", "*.internal", "*.internal"),
        ("dns", "*.co.uk", "*.co.uk"),
        ("dns", "a?c.corp.example", "a?c.corp.example"),
        ("dns", "bücher.example", "bücher.example"),
        ("ip", "10.0.0.1", "10.0.0.1"),
        ("ip", "[2001:DB8::0:1]", "2001:db8::1"),
        ("cidr", "10.9.0.5/24", "10.9.0.0/24"),
        ("cidr", "2001:db8::1/64", "2001:db8::/64"),
    ],
)
def test_an_address_becomes_canonical(kind: str, given_text: str, expected: str) -> None:
    assert canonical_address(kind, given_text) == expected


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("dns", ""),
        ("dns", "com"),
        ("dns", "*.com"),
        ("dns", "**.uk"),
        ("dns", "*"),
        ("dns", "corp.*"),
        ("dns", "app.localhost"),
        ("dns", "localhost"),
        ("dns", "10.0.0.1"),
        ("dns", "10.0.0.0/8"),
        ("dns", "app.corp.example:443"),
        ("dns", "a**.corp.example"),
        ("dns", "-a.corp.example"),
        ("dns", "a-.corp.example"),
        ("dns", "a..example"),
        ("dns", "a_b.example"),
        ("dns", f"{'a' * 64}.example"),
        ("dns", f"{'a.' * 130}example"),
        ("ip", "10.0.0.1:80"),
        ("ip", "[::1"),
        ("ip", "127.0.0.1"),
        ("ip", "100.64.0.1"),
        ("ip", "fd00:2021:1111::1"),
        ("ip", "0.0.0.0"),
        ("ip", "10.0.0.0/8"),
        ("ip", "fe80::1%eth0"),
        ("cidr", "10.0.0.1"),
        ("cidr", "0.0.0.0/0"),
        ("cidr", "::/0"),
        ("cidr", "100.0.0.0/8"),
        ("cidr", "127.0.0.0/30"),
        ("cidr", "10.0.0.0/33"),
        ("cidr", "10.0.0.0/255.0.0.0"),
        ("cidr", "fd00::/8"),
    ],
)
def test_other_addresses_are_refused(kind: str, address: str) -> None:
    with pytest.raises(InvalidInput, match="address"):
        canonical_address(kind, address)


@given(st.sampled_from(["dns", "ip", "cidr", "dynamic_device_pool"]), st.text())
def test_any_text_is_an_address_or_invalid_input(kind: str, text: str) -> None:
    try:
        canonical = canonical_address(kind, text)
    except InvalidInput:
        return
    assert canonical_address(kind, canonical) == canonical


@pytest.mark.parametrize(
    ("pattern", "older"),
    [
        ("**.x.example", "*.x.example"),
        ("*.x.example", "?.x.example"),
        ("x.example", "x.example"),
        ("a.*.x.example", None),
        ("a*.x.example", None),
    ],
)
def test_older_peers_get_the_older_pattern(pattern: str, older: str | None) -> None:
    assert older_pattern(pattern) == older


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("**.x.example", "x.example", True),
        ("**.x.example", "a.b.x.example", True),
        ("*.x.example", "x.example", False),
        ("*.x.example", "A.X.example", True),
        ("*.x.example", "a.b.x.example", False),
        ("a?.x.example", "ab.x.example", True),
        ("a*d.x.example", "abcd.x.example", True),
        ("a*d.x.example", "abce.x.example", False),
        ("**." * 60 + "x", "a." * 120 + "y", False),
    ],
)
def test_patterns_cover_host_names(pattern: str, name: str, covered: bool) -> None:
    assert matches_pattern(pattern, name) is covered
