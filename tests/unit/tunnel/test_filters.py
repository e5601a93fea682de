from hypothesis import given
from hypothesis import strategies as st

from wardgate.tunnel.filters import ALLOW_ALL, Filters
from wardgate.wire.ip import ICMP, ICMPV6, TCP, UDP
from wardgate.wire.portal import Filter

GRE = 47


def test_no_filters_allow_everything() -> None:
    assert ALLOW_ALL.permits(TCP, 1)
    assert ALLOW_ALL.permits(GRE, 0)


def test_port_ranges_include_both_ends() -> None:
    filters = Filters([Filter(protocol="tcp", port_range_start=80, port_range_end=82)])

    assert [filters.permits(TCP, port) for port in (79, 80, 82, 83)] == [False, True, True, False]


def test_a_protocol_without_ports_allows_all_of_them() -> None:
    filters = Filters([Filter(protocol="udp")])

    assert filters.permits(UDP, 0)
    assert filters.permits(UDP, 65535)
    assert not filters.permits(TCP, 53)


def test_icmp_covers_both_families_and_nothing_else() -> None:
    filters = Filters([Filter(protocol="icmp")])

    assert filters.permits(ICMP, 0)
    assert filters.permits(ICMPV6, 0)
    assert not filters.permits(TCP, 80)


def test_other_protocols_are_refused_once_there_is_a_filter() -> None:
    assert not Filters([Filter(protocol="tcp")]).permits(GRE, 0)


def test_a_range_that_ends_before_it_starts_allows_nothing() -> None:
    filters = Filters([Filter(protocol="tcp", port_range_start=90, port_range_end=80)])

    assert not any(filters.permits(TCP, port) for port in (0, 80, 85, 90))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))), st.integers(0, 31))
def test_a_port_is_allowed_if_any_range_has_it(ranges: list[tuple[int, int]], port: int) -> None:
    filters = [Filter(protocol="tcp", port_range_start=start, port_range_end=end) for start, end in ranges]

    assert Filters(filters).permits(TCP, port) == (not ranges or any(start <= port <= end for start, end in ranges))
