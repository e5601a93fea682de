"""How many answers a source gets that has not shown that it is one."""

from wardgate.proto.turn_limits import AnswerLimit


def test_a_prefix_has_its_burst_and_then_its_rate() -> None:
    limit = AnswerLimit(bytes(16), per_s=2.0, burst=5.0)

    at_once = [limit.take(f"192.0.2.{i}", 0.0) for i in range(8)]
    later = [limit.take("192.0.2.200", 1.0) for _ in range(4)]

    assert at_once == [True] * 5 + [False] * 3
    assert later == [True, True, False, False]
    assert limit.take("192.0.3.1", 1.0)


def test_ipv6_sources_share_a_56_bit_prefix() -> None:
    limit = AnswerLimit(bytes(16), per_s=1.0, burst=1.0)

    assert limit.take("2001:db8:0:100::1", 0.0)
    assert not limit.take("2001:db8:0:1ff::2", 0.0)
    assert limit.take("2001:db8:0:200::1", 0.0)


def test_time_never_gives_more_than_the_burst() -> None:
    limit = AnswerLimit(bytes(16), per_s=10.0, burst=3.0)

    assert [limit.take("192.0.2.1", 1e6) for _ in range(4)] == [True] * 3 + [False]
