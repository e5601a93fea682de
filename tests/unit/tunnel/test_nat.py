from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from wardgate.tunnel.nat import LINGER_S, NatTable, Side, side
from wardgate.wire.ip import ICMP, TCP, UDP

PROXY_A, PROXY_B = ip_address("100.96.0.1"), ip_address("100.96.0.5")
REAL, OTHER = ip_address("10.9.0.2"), ip_address("10.9.0.3")
REAL_BYTES, OTHER_BYTES = REAL.packed, OTHER.packed


def test_the_port_is_kept_where_it_is_free() -> None:
    assert NatTable().bind(side(TCP, 40000, PROXY_A), REAL_BYTES, 0.0) == side(TCP, 40000, REAL)


def test_two_proxy_ips_of_one_real_ip_are_told_apart_by_port() -> None:
    nat = NatTable()
    nat.bind(side(UDP, 40000, PROXY_A), REAL_BYTES, 0.0)

    assert nat.bind(side(UDP, 40000, PROXY_B), REAL_BYTES, 0.0) == side(UDP, 40001, REAL)
    assert nat.inside_of(side(UDP, 40001, REAL)) == side(UDP, 40000, PROXY_B)


def test_the_search_wraps_to_port_one() -> None:
    nat = NatTable()
    nat.bind(side(UDP, 65535, PROXY_A), REAL_BYTES, 0.0)

    assert nat.bind(side(UDP, 65535, PROXY_B), REAL_BYTES, 0.0) == side(UDP, 1, REAL)


def test_an_untranslated_flow_does_not_share_the_outside_of_a_translated_one() -> None:
    nat = NatTable()
    nat.bind(side(ICMP, 7, PROXY_A), REAL_BYTES, 0.0)

    assert nat.bind(side(ICMP, 7, REAL), REAL_BYTES, 0.0) == side(ICMP, 8, REAL)


def test_a_port_that_others_use_outside_is_passed_over() -> None:
    nat = NatTable()
    taken = {side(TCP, 40000, REAL), side(TCP, 40001, REAL)}

    assert nat.bind(side(TCP, 40000, PROXY_A), REAL_BYTES, 0.0, taken) == side(TCP, 40002, REAL)


def test_a_lingering_binding_that_ran_out_makes_room() -> None:
    nat = NatTable()
    nat.bind(side(UDP, 40000, PROXY_A), REAL_BYTES, 0.0)
    nat.release(side(UDP, 40000, PROXY_A), 0.0, linger=True)

    assert nat.bind(side(UDP, 40000, PROXY_B), REAL_BYTES, LINGER_S[UDP] - 1) == side(UDP, 40001, REAL)
    assert nat.bind(side(UDP, 40000, PROXY_B), REAL_BYTES, LINGER_S[UDP] + 1) == side(UDP, 40001, REAL)
    nat.release(side(UDP, 40000, PROXY_B), LINGER_S[UDP] + 1)
    nat.release(side(UDP, 40000, PROXY_B), LINGER_S[UDP] + 1)
    assert nat.bind(side(UDP, 40000, PROXY_B), REAL_BYTES, LINGER_S[UDP] + 1) == side(UDP, 40000, REAL)


def test_protocols_do_not_alias() -> None:
    nat = NatTable()
    nat.bind(side(TCP, 40000, PROXY_A), REAL_BYTES, 0.0)

    assert nat.bind(side(UDP, 40000, PROXY_B), REAL_BYTES, 0.0) == side(UDP, 40000, REAL)


def test_a_running_flow_stays_when_the_name_moves() -> None:
    nat = NatTable()
    nat.bind(side(TCP, 40000, PROXY_A), REAL_BYTES, 0.0)

    assert nat.bind(side(TCP, 40000, PROXY_A), OTHER_BYTES, 1.0) == side(TCP, 40000, REAL)
    assert nat.bind(side(TCP, 40001, PROXY_A), OTHER_BYTES, 1.0) == side(TCP, 40001, OTHER)


def test_a_binding_ends_with_its_last_flow() -> None:
    nat = NatTable()
    inside = side(TCP, 40000, PROXY_A)
    nat.bind(inside, REAL_BYTES, 0.0)
    nat.bind(inside, REAL_BYTES, 0.0)

    nat.release(inside, 5.0)
    assert nat.inside_of(side(TCP, 40000, REAL)) == inside

    nat.release(inside, 6.0)
    assert nat.inside_of(side(TCP, 40000, REAL)) is None
    assert nat.bind(inside, OTHER_BYTES, 7.0) == side(TCP, 40000, OTHER)


def test_a_binding_outlives_a_lost_connection_for_a_while() -> None:
    nat = NatTable()
    inside = side(UDP, 40000, PROXY_A)
    nat.bind(inside, REAL_BYTES, 0.0)
    nat.release(inside, 10.0, linger=True)

    nat.expire(10.0 + LINGER_S[UDP] - 1)
    assert nat.bind(inside, OTHER_BYTES, 20.0) == side(UDP, 40000, REAL)

    nat.release(inside, 30.0, linger=True)
    nat.expire(30.0 + LINGER_S[UDP])
    assert len(nat) == 0


def test_clearing_forgets_running_flows() -> None:
    nat = NatTable()
    nat.bind(side(TCP, 40000, PROXY_A), REAL_BYTES, 0.0)

    nat.clear()

    assert len(nat) == 0
    assert nat.bind(side(TCP, 40000, PROXY_A), OTHER_BYTES, 0.0) == side(TCP, 40000, OTHER)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5), st.sampled_from([PROXY_A, PROXY_B, REAL]))))
def test_no_two_flows_share_an_outside(steps: list[tuple[bool, int, object]]) -> None:
    nat = NatTable()
    held: dict[Side, list[Side]] = {}
    for now, (is_new, port, address) in enumerate(steps):
        inside = side(UDP, port, address)  # type: ignore[arg-type]
        if is_new:
            outside = nat.bind(inside, REAL_BYTES, float(now))
            assert outside is not None
            held.setdefault(inside, []).append(outside)
        elif held.get(inside):
            held[inside].pop()
            nat.release(inside, float(now))
        outsides = [set(sides) for sides in held.values() if sides]
        assert all(len(one) == 1 for one in outsides)
        assert len(set().union(*outsides)) == len(outsides)
