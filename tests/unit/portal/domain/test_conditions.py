"""Conditions: what may be said, whether it holds, and until when."""

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import InvalidInput
from wardgate.ids import GroupId, PolicyId, ResourceId
from wardgate.portal.domain.authorizations import Denied, Granted, PolicyRule, authorize, connectable
from wardgate.portal.domain.conditions import Circumstances, Passed, Violated, evaluate, next_change, parse_conditions

MONDAY_NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PROVIDER = "91c00000-0000-4000-8000-000000000001"


def condition(name: str, operator: str, *values: str) -> list[dict[str, Any]]:
    return [{"property": name, "operator": operator, "values": list(values)}]


def hours(*values: str) -> list[dict[str, Any]]:
    return condition("current_utc_datetime", "is_in_day_of_week_time_ranges", *values)


@pytest.mark.parametrize(
    ("conditions", "circumstances", "holds"),
    [
        (condition("remote_ip_location_region", "is_in", "AT", "DE"), {"region": "AT"}, True),
        (condition("remote_ip_location_region", "is_in", "AT"), {"region": "FR"}, False),
        (condition("remote_ip_location_region", "is_in", "AT"), {}, False),
        (condition("remote_ip_location_region", "is_not_in", "AT"), {"region": "FR"}, True),
        (condition("remote_ip_location_region", "is_not_in", "AT"), {}, False),
        (condition("remote_ip", "is_in_cidr", "10.0.0.0/8", "2001:db8::/32"), {"remote_ip": "10.1.2.3"}, True),
        (condition("remote_ip", "is_in_cidr", "10.0.0.0/8"), {"remote_ip": "2001:db8::1"}, False),
        (condition("remote_ip", "is_not_in_cidr", "10.0.0.1"), {"remote_ip": "10.0.0.2"}, True),
        (condition("remote_ip", "is_not_in_cidr", "10.0.0.1"), {}, False),
        (condition("auth_provider_id", "is_in", PROVIDER), {"auth_provider_id": PROVIDER}, True),
        (condition("auth_provider_id", "is_in", PROVIDER), {}, False),
        (condition("auth_provider_id", "is_not_in", PROVIDER), {}, True),
        (condition("client_verified", "is", "true"), {"is_verified": True}, True),
        (condition("client_verified", "is", "true"), {}, False),
        (condition("client_verified", "is", "false"), {}, True),
    ],
)
def test_a_condition_holds_or_not(conditions: list[dict[str, Any]], circumstances: dict[str, Any], holds: bool) -> None:
    outcome = evaluate(parse_conditions(conditions), Circumstances(MONDAY_NOON, **circumstances))

    assert isinstance(outcome, Passed) is holds


@pytest.mark.parametrize(
    ("values", "at", "ends"),
    [
        (["M/09:00-17:00/UTC"], MONDAY_NOON, datetime(2026, 11, 23, 17, 0, tzinfo=UTC)),
        (["M/09:00-12:00/UTC"], MONDAY_NOON, MONDAY_NOON),
        (["M/09-11/UTC"], MONDAY_NOON, None),
        (["T/09:00-17:00/UTC"], MONDAY_NOON, None),
        (["M/09:00-13:00,13:00-18:00/UTC"], MONDAY_NOON, datetime(2026, 11, 23, 18, 0, tzinfo=UTC)),
        (["M/09:00-13:00/UTC", "M/12:30-15:00/UTC"], MONDAY_NOON, datetime(2026, 11, 23, 15, 0, tzinfo=UTC)),
        (["M/12:30-14:00/Europe/Vienna"], MONDAY_NOON, datetime(2026, 11, 23, 13, 0, tzinfo=UTC)),
        (["M/true/UTC"], MONDAY_NOON, datetime(2026, 11, 24, 0, 0, tzinfo=UTC)),
        (["M/00:00-23:59:59/UTC"], datetime(2026, 11, 23, 23, 59, 59, 5, UTC), datetime(2026, 11, 24, tzinfo=UTC)),
        (["M//UTC"], MONDAY_NOON, None),
        (
            ["U/01:00-05:00/Europe/Vienna"],
            datetime(2026, 3, 29, 0, 30, tzinfo=UTC),
            datetime(2026, 3, 29, 3, tzinfo=UTC),
        ),
    ],
)
def test_time_ranges_say_until_when(values: list[str], at: datetime, ends: datetime | None) -> None:
    outcome = evaluate(parse_conditions(hours(*values)), Circumstances(at))

    assert outcome == (Violated(("current_utc_datetime",)) if ends is None else Passed(ends))


@pytest.mark.parametrize(
    "value",
    [
        condition("remote_ip_location_region", "is_in"),
        condition("remote_ip_location_region", "is_in", "Austria"),
        condition("remote_ip_location_region", "contains", "AT"),
        condition("remote_ip_location_region", "is_in", "AT", "AT"),
        condition("remote_ip", "is_in_cidr", "10.0.0.0/99"),
        condition("auth_provider_id", "is_in", "x"),
        condition("client_verified", "is", "maybe"),
        condition("posture", "is", "good"),
        hours("M/09:00-17:00/Mars/Olympus"),
        hours("M/17:00-09:00/UTC"),
        hours("X/09:00-17:00/UTC"),
        hours("M/9:00:00:00-17/UTC"),
        hours("M/25-26/UTC"),
        hours("nonsense"),
        condition("client_verified", "is", "true") * 2,
        "text",
        [None],
        [{"values": "AT"}],
    ],
)
def test_other_conditions_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="conditions"):
        parse_conditions(value)


@given(st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_value_is_conditions_or_invalid_input(value: object) -> None:
    try:
        parse_conditions(value)
    except InvalidInput:
        return


@given(st.text())
def test_any_time_text_is_a_range_or_invalid_input(text: str) -> None:
    for value in (text, f"M/{text}/UTC", f"M/09:00-17:00/{text}"):
        try:
            parse_conditions(hours(value))
        except InvalidInput:
            continue


def rule(number: int, *conditions: dict[str, Any], resource: int = 1) -> PolicyRule:
    return PolicyRule(
        PolicyId(f"p{number}"), ResourceId(f"r{resource}"), GroupId("g"), None, parse_conditions(list(conditions))
    )


def test_of_several_policies_the_one_that_holds_longest_is_taken() -> None:
    short, long = rule(1, *hours("M/09:00-13:00/UTC")), rule(2, *hours("M/09:00-17:00/UTC"))

    verdict = authorize([short, long], Circumstances(MONDAY_NOON))

    assert verdict == Granted(long, datetime(2026, 11, 23, 17, 0, tzinfo=UTC))


def test_a_policy_without_end_beats_one_with_an_end() -> None:
    endless, long = rule(1), rule(2, *hours("M/true/UTC"))

    assert authorize([long, endless], Circumstances(MONDAY_NOON)) == Granted(endless, None)
    assert authorize([endless, long], Circumstances(MONDAY_NOON)) == Granted(endless, None)


def test_a_grant_does_not_outlive_its_token() -> None:
    token_end = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)

    assert authorize([rule(1)], Circumstances(MONDAY_NOON), token_end) == Granted(rule(1), token_end)


def test_a_denial_names_each_violated_property_once() -> None:
    verified = condition("client_verified", "is", "true")[0]
    region = condition("remote_ip_location_region", "is_in", "AT")[0]

    verdict = authorize([rule(1, verified), rule(2, verified, region)], Circumstances(MONDAY_NOON))

    assert verdict == Denied(("client_verified", "remote_ip_location_region"))


def test_no_policy_is_a_denial_without_properties() -> None:
    assert authorize([], Circumstances(MONDAY_NOON)) == Denied(())


def test_connectable_lists_each_allowed_resource_once() -> None:
    verified = condition("client_verified", "is", "true")[0]
    rules = [rule(1), rule(2), rule(3, verified, resource=2), rule(4, resource=3)]

    assert list(connectable(rules, Circumstances(MONDAY_NOON))) == ["r1", "r3"]


VIENNA = ZoneInfo("Europe/Vienna")


@pytest.mark.parametrize(
    ("values", "local", "ends"),
    [
        # 29 March 2026: clocks go from 02:00 to 03:00, at 01:00 UTC
        ("U/01:00-02:30/Europe/Vienna", datetime(2026, 3, 29, 1, 59, tzinfo=VIENNA), (1, 0)),
        ("U/02:30-04:00/Europe/Vienna", datetime(2026, 3, 29, 3, 0, tzinfo=VIENNA), (2, 0)),
        # 25 October 2026: clocks go from 03:00 back to 02:00, at 01:00 UTC
        ("U/01:00-02:30/Europe/Vienna", datetime(2026, 10, 25, 2, 15, tzinfo=VIENNA), (0, 30)),
        ("U/01:00-02:30/Europe/Vienna", datetime(2026, 10, 25, 2, 15, fold=1, tzinfo=VIENNA), (1, 30)),
        ("U/01:00-02:30/Europe/Vienna", datetime(2026, 10, 25, 2, 45, tzinfo=VIENNA), None),
    ],
)
def test_ranges_end_at_the_right_instant_when_clocks_change(
    values: str, local: datetime, ends: tuple[int, int] | None
) -> None:
    outcome = evaluate(parse_conditions(hours(values)), Circumstances(local.astimezone(UTC)))

    end = datetime.combine(local.date(), time(*(ends or (0, 0))), UTC)
    assert outcome == (Violated(("current_utc_datetime",)) if ends is None else Passed(end))


_zones = st.sampled_from(["UTC", "Europe/Vienna", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"])
_seconds_of_day = st.integers(0, 24 * 3600)


def _text(second: int) -> str:
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"


@given(
    st.lists(st.tuples(st.sampled_from("MTWRFSU"), _seconds_of_day, _seconds_of_day, _zones), min_size=1, max_size=4),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)),
    st.integers(1, 1000),
)
def test_between_two_changes_of_the_hours_nothing_changes(
    ranges: list[tuple[str, int, int, str]], at: datetime, part: int
) -> None:
    values = dict.fromkeys(f"{day}/{_text(min(a, b))}-{_text(max(a, b))}/{zone}" for day, a, b, zone in ranges)
    conditions = parse_conditions(hours(*values))
    change = next_change(conditions, at)
    if change is None:
        change = at + timedelta(days=7)

    between = at + (change - timedelta(milliseconds=2) - at) * (part / 1000)

    if between > at:
        now, then = evaluate(conditions, Circumstances(at)), evaluate(conditions, Circumstances(between))
        assert isinstance(now, Passed) is isinstance(then, Passed)
        if isinstance(now, Passed) and now.expires_at is not None:
            assert now.expires_at >= between or now.expires_at == at or isinstance(then, Passed)
