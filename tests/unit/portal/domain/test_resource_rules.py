"""What may be said of a resource, and of a policy's conditions: a row for each sentence that has no test of its own."""

from datetime import UTC, datetime
from typing import Any

import pytest

from wardgate.errors import InvalidInput
from wardgate.portal.domain import checks
from wardgate.portal.domain.conditions import Circumstances, Passed, evaluate, parse_conditions
from wardgate.portal.domain.filters import parse_filters
from wardgate.portal.domain.resources import POOL_TYPES, USER_TYPES, check_resource

SITE = "6f0a3c1e-93a5-4f1c-8d0e-1c5b9a1f7e42"
DNS = {"name": "Wiki", "type": "dns", "address": "wiki.corp.example", "site_id": SITE}
IP = {"name": "Host", "type": "ip", "address": "10.0.0.1", "site_id": SITE}
AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
ALL = (*USER_TYPES, *POOL_TYPES)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        (DNS, None),
        (IP, None),
        ({**DNS, "name": ""}, "name"),
        ({**DNS, "name": "x" * 255}, None),
        ({**DNS, "name": "x" * 256}, "name"),
        ({**DNS, "type": "internet"}, "type"),
        ({**DNS, "address": None}, "address"),
        ({**DNS, "site_id": None}, "site_id"),
        ({**DNS, "site_id": "x"}, "site_id"),
        ({**DNS, "address_description": "x" * 255}, None),
        ({**DNS, "address_description": "x" * 256}, "address_description"),
        ({**DNS, "ip_stack": "ipv6_only"}, None),
        ({**DNS, "ip_stack": "both"}, "ip_stack"),
        ({"name": "P", "type": "static_device_pool"}, None),
        ({"name": "P", "type": "dynamic_device_pool", "address": "*.lab"}, None),
        ({"name": "P", "type": "dynamic_device_pool"}, "address"),
    ],
)
def test_a_resource_says_what_its_type_needs(fields: dict[str, Any], wrong: str | None) -> None:
    if wrong is None:
        check_resource(fields, ALL)
        return
    with pytest.raises(InvalidInput) as refused:
        check_resource(fields, ALL)
    assert list(refused.value.fields) == [wrong]


def test_names_have_an_ip_stack_and_nothing_else_has() -> None:
    assert check_resource(DNS, ALL)["ip_stack"] == "dual"
    assert check_resource({**IP, "ip_stack": "ipv4_only"}, ALL)["ip_stack"] is None


def test_pools_have_no_address_unless_they_are_patterns() -> None:
    assert check_resource({"name": "P", "type": "static_device_pool", "address": "x"}, ALL)["address"] is None


@pytest.mark.parametrize(
    ("filters", "place", "code"),
    [
        ([{"protocol": "sctp"}], "filters[0].protocol", "invalid"),
        ([{"protocol": "tcp"}, {"protocol": "icmp", "ports": ["1"]}], "filters[1].ports", "not_allowed"),
        ([{"protocol": "tcp", "ports": ["0"]}], "filters[0].ports", "invalid"),
        ([{"protocol": "tcp", "ports": ["65536"]}], "filters[0].ports", "invalid"),
        ([{"protocol": "tcp", "ports": ["90 - 80"]}], "filters[0].ports", "reversed_range"),
        ([{"protocol": "tcp", "ports": ["80", "70 - 90"]}], "filters[0].ports", "overlap"),
        ([{"protocol": "tcp", "ports": ["80"]}, {"protocol": "tcp"}], "filters[0].ports", "overlap"),
        ("tcp", "filters", "invalid"),
    ],
)
def test_a_mistake_in_filters_is_at_its_place(filters: Any, place: str, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_filters(filters)
    [problem] = refused.value.problems
    assert (problem.field, problem.code) == (place, code)
    assert problem.accepted


REGION = {"property": "remote_ip_location_region", "operator": "is_in"}
VERIFIED = {"property": "client_verified", "operator": "is"}


@pytest.mark.parametrize(
    ("conditions", "place", "code"),
    [
        ([{**REGION, "values": []}], "conditions[0].values", "required"),
        ([{**REGION, "operator": "is_not_in", "values": []}], "conditions[0].values", "required"),
        ([{**REGION, "values": ["XX"]}], "conditions[0].values", "invalid"),
        ([{**REGION, "values": ["at"]}], "conditions[0].values", "invalid"),
        ([{**REGION, "values": ["AT", " AT"]}], "conditions[0].values", "duplicate"),
        ([{**REGION, "operator": "contains", "values": ["AT"]}], "conditions[0].operator", "invalid"),
        ([{**REGION, "operator": "does_not_contain", "values": ["AT"]}], "conditions[0].operator", "invalid"),
        ([{**REGION, "operator": "is_in_cidr", "values": ["AT"]}], "conditions[0].operator", "invalid"),
        ([{**VERIFIED, "values": ["true", "false"]}], "conditions[0].values", "invalid"),
        ([{**VERIFIED, "values": ["yes"]}], "conditions[0].values", "invalid"),
        ([{**VERIFIED, "values": ["true"]}] * 2, "conditions[1].property", "duplicate"),
        ([{"property": "posture", "values": ["x"]}], "conditions[0].property", "invalid"),
        (
            [{"property": "remote_ip", "operator": "is_in_cidr", "values": ["10.0.0.5/8", "10.0.0.0/8"]}],
            "conditions[0].values",
            "duplicate",
        ),
        ([None], "conditions[0]", "invalid"),
        ("x", "conditions", "invalid"),
    ],
)
def test_a_mistake_in_conditions_is_at_its_place(conditions: Any, place: str, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_conditions(conditions)
    [problem] = refused.value.problems
    assert (problem.field, problem.code) == (place, code)
    assert problem.accepted


def test_property_and_operator_have_defaults() -> None:
    [condition] = parse_conditions([{"values": ["AT"]}])

    assert (condition.property, condition.operator) == ("remote_ip_location_region", "is_in")


def test_a_condition_that_a_device_is_not_verified_always_holds() -> None:
    conditions = parse_conditions([{**VERIFIED, "values": ["false"]}])

    for is_verified in (True, False):
        assert evaluate(conditions, Circumstances(AT, is_verified=is_verified)) == Passed(None)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("lap", "lap"),
        ("Laptop-1.lab_x", "Laptop-1.lab_x"),
        ("ab", None),
        ("x" * 256, None),
        ("a b", None),
        ("ü.lab", None),
    ],
)
def test_a_host_name_has_3_to_255_plain_characters(given: str, stored: str | None) -> None:
    problems = checks.Problems()
    value = checks.hostname(problems, {"hostname": given})
    if stored is None:
        with pytest.raises(InvalidInput, match="hostname"):
            problems.raise_if_any()
    else:
        problems.raise_if_any()
        assert value == stored
