from ipaddress import ip_address

import pytest

from wardgate.tunnel.assignments import Assignments, are_proxy_ips
from wardgate.wire.ip import IpAddress


def ips(*texts: str) -> list[IpAddress]:
    return [ip_address(text) for text in texts]


PROXY_V4 = ips("100.96.0.4", "100.96.0.1", "100.96.0.3", "100.96.0.2")
PROXY_V6 = ips("fd00:2021:1111:8000::", "fd00:2021:1111:8000::1")


def test_proxy_ips_are_spread_round_robin_over_sorted_addresses() -> None:
    assignments = Assignments()

    assignments.assign("app.example", PROXY_V4, ips("10.9.0.3", "10.9.0.2", "10.9.0.3"))

    spread = [assignments.real_ip(one) for one in sorted(PROXY_V4, key=int)]
    assert spread == ips("10.9.0.2", "10.9.0.3", "10.9.0.2", "10.9.0.3")


def test_a_family_without_records_maps_to_nothing_but_is_known() -> None:
    assignments = Assignments()

    assignments.assign("app.example", PROXY_V4 + PROXY_V6, ips("10.9.0.2"))

    assert PROXY_V6[0] in assignments
    assert assignments.real_ip(PROXY_V6[0]) is None
    assert assignments.real_ip(PROXY_V4[0]) == ip_address("10.9.0.2")


def test_new_records_replace_the_old_ones() -> None:
    assignments = Assignments()
    assignments.assign("app.example", PROXY_V4, ips("10.9.0.2"))

    assignments.assign("app.example", PROXY_V4, ips("10.9.0.9"))

    assert assignments.real_ip(PROXY_V4[0]) == ip_address("10.9.0.9")


def test_another_name_behind_a_proxy_ip_is_noticed() -> None:
    assignments = Assignments()
    assignments.assign("app.example", PROXY_V4, ips("10.9.0.2"))

    assert not assignments.is_renumbered("app.example", PROXY_V4)
    assert assignments.is_renumbered("db.example", PROXY_V4[:1])
    assert not assignments.is_renumbered("db.example", ips("100.96.0.9"))


@pytest.mark.parametrize(
    "address",
    ["192.0.2.1", "10.9.0.2", "100.64.3.9", "100.100.111.1", "fd00:2021:1111::1", "fd00:2021:1111:8000:100:100:111:1"],
)
def test_addresses_outside_the_proxy_ranges_are_no_proxy_ips(address: str) -> None:
    assert not are_proxy_ips([*PROXY_V4, ip_address(address)])
    assert are_proxy_ips(PROXY_V4 + PROXY_V6)
