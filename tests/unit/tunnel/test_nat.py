from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from wardgate.tunnel.nat import LINGER_S, NatTable, Side
from wardgate.wire.ip import ICMP, TCP, UDP

PROXY_A, PROXY_B = ip_address("100.96.0.1"), ip_address("100.96.0.5")
REAL, OTHER = ip_address("10.9.0.2"), ip_address("10.9.0.3")


def test_the_port_is_kept_where_it_is_free() -> None:
    assert NatTable().bind(Side(TCP, 40000, PROXY_A), REAL, 0.0) == Side(TCP, 40000, REAL)


def test_two_proxy_ips_of_one_real_ip_are_told_apart_by_port() -> None:
    nat = NatTable()
    nat.bind(Side(UDP, 40000, PROXY_A), REAL, 0.0)

    assert nat.bind(Side(UDP, 40000, PROXY_B), REAL, 0.0) == Side(UDP, 40001, REAL)
    assert nat.inside_of(Side(UDP, 40001, REAL)) == Side(UDP, 40000, PROXY_B)


def test_the_search_wraps_to_port_one() -> None:
    nat = NatTable()
    nat.bind(Side(UDP, 65535, PROXY_A), REAL, 0.0)

    assert nat.bind(Side(UDP, 65535, PROXY_B), REAL, 0.0) == Side(UDP, 1, REAL)


def test_an_untranslated_flow_does_not_share_the_outside_of_a_translated_one() -> None:
    nat = NatTable()
    nat.bind(Side(ICMP, 7, PROXY_A), REAL, 0.0)

    assert nat.bind(Side(ICMP, 7, REAL), REAL, 0.0) == Side(ICMP, 8, REAL)


def test_protocols_do_not_alias() -> None:
    nat = NatTable()
    nat.bind(Side(TCP, 40000, PROXY_A), REAL, 0.0)

    assert nat.bind(Side(UDP, 40000, PROXY_B), REAL, 0.0) == Side(UDP, 40000, REAL)


def test_a_running_flow_stays_when_the_name_moves() -> None:
    nat = NatTable()
    nat.bind(Side(TCP, 40000, PROXY_A), REAL, 0.0)

    assert nat.bind(Side(TCP, 40000, PROXY_A), OTHER, 1.0) == Side(TCP, 40000, REAL)
    assert nat.bind(Side(TCP, 40001, PROXY_A), OTHER, 1.0) == Side(TCP, 40001, OTHER)


def test_a_binding_ends_with_its_last_flow_and_is_remembered_as_expired() -> None:
    nat = NatTable()
    inside = Side(TCP, 40000, PROXY_A)
    nat.bind(inside, REAL, 0.0)
    nat.bind(inside, REAL, 0.0)

    nat.release(inside, 5.0)
    assert nat.inside_of(Side(TCP, 40000, REAL)) == inside

    nat.release(inside, 6.0)
    assert nat.inside_of(Side(TCP, 40000, REAL)) is None
    assert nat.is_expired(Side(TCP, 40000, REAL))
    assert nat.bind(inside, OTHER, 7.0) == Side(TCP, 40000, OTHER)


def test_a_binding_outlives_a_lost_connection_for_a_while() -> None:
    nat = NatTable()
    inside = Side(UDP, 40000, PROXY_A)
    nat.bind(inside, REAL, 0.0)
    nat.release(inside, 10.0, linger=True)

    nat.expire(10.0 + LINGER_S[UDP] - 1)
    assert nat.bind(inside, OTHER, 20.0) == Side(UDP, 40000, REAL)

    nat.release(inside, 30.0, linger=True)
    nat.expire(30.0 + LINGER_S[UDP])
    assert len(nat) == 0


def test_clearing_forgets_running_flows() -> None:
    nat = NatTable()
    nat.bind(Side(TCP, 40000, PROXY_A), REAL, 0.0)

    nat.clear()

    assert nat.is_expired(Side(TCP, 40000, REAL))
    assert nat.bind(Side(TCP, 40000, PROXY_A), OTHER, 0.0) == Side(TCP, 40000, OTHER)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5), st.sampled_from([PROXY_A, PROXY_B, REAL]))))
def test_no_two_flows_share_an_outside(steps: list[tuple[bool, int, object]]) -> None:
    nat = NatTable()
    held: dict[Side, list[Side]] = {}
    for now, (is_new, port, address) in enumerate(steps):
        inside = Side(UDP, port, address)  # type: ignore[arg-type]
        if is_new:
            outside = nat.bind(inside, REAL, float(now))
            assert outside is not None
            held.setdefault(inside, []).append(outside)
        elif held.get(inside):
            held[inside].pop()
            nat.release(inside, float(now))
        outsides = [set(sides) for sides in held.values() if sides]
        assert all(len(one) == 1 for one in outsides)
        assert len(set().union(*outsides)) == len(outsides)
