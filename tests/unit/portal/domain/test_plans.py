"""Limits of plans and the latest versions, as pure rules."""

import pytest

from wardgate.errors import InvalidInput
from wardgate.portal.domain import components
from wardgate.portal.domain.plans import Usage, exceeded, limit_of, parse_limit


@pytest.mark.parametrize(
    ("limits", "usage", "flags"),
    [
        ({}, Usage(users=9000), ""),
        ({"users_count": 3}, Usage(users=3), ""),
        ({"users_count": 3}, Usage(users=4), "users"),
        ({"users_count": None}, Usage(users=4), ""),
        ({"users_count": 0}, Usage(users=1), "users"),
        ({"users_count": 3, "monthly_active_users_count": 5}, Usage(users=4, monthly_active_users=5), ""),
        ({"users_count": 3, "monthly_active_users_count": 5}, Usage(users=4, monthly_active_users=6), "seats"),
        ({"service_accounts_count": 1}, Usage(service_accounts=2), "service_accounts"),
        ({"sites_count": 1}, Usage(sites=2), "sites"),
        ({"account_admin_users_count": 1}, Usage(account_admin_users=2), "admins"),
    ],
)
def test_a_limit_is_exceeded_when_there_are_more_than_it_says(
    limits: dict[str, int | None], usage: Usage, flags: str
) -> None:
    found = exceeded(limits, usage)

    names = ("users", "seats", "service_accounts", "sites", "admins")
    assert [name for name in names if getattr(found, f"{name}_limit_exceeded")] == flags.split()
    assert found.keeps_clients_out is (flags in ("users", "service_accounts"))


def test_api_clients_and_their_tokens_are_a_hundred_unless_set() -> None:
    assert limit_of({}, "api_clients_count") == 100
    assert limit_of({"api_clients_count": None}, "api_clients_count") is None
    assert limit_of({"api_clients_count": 7}, "api_clients_count") == 7


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("users_count=5", ("users_count", 5)),
        (" users_count = 0 ", ("users_count", 0)),
        ("sites_count=unlimited", ("sites_count", None)),
    ],
)
def test_a_limit_is_read_as_an_operator_writes_it(text: str, read: tuple[str, int | None]) -> None:
    assert parse_limit(text) == read


@pytest.mark.parametrize(
    "text", ["", "=", "users=5", "users_count", "users_count=", "users_count=-1", "users_count=1.5", "users_count=1e3",
             "users_count=99999999999999999999", "users_count=٣", "users_count=null"]
)  # fmt: skip
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_limit(text)


@pytest.mark.parametrize(
    ("component", "version", "is_outdated"),
    [
        ("gateway", "1.5.2", True),
        ("gateway", "1.5.10", False),
        ("gateway", "1.5.3", False),
        ("gateway", None, False),
        ("gui", "0.1.0", False),
    ],
)
def test_a_program_is_outdated_when_the_latest_is_known_and_newer(
    component: str, version: str | None, is_outdated: bool
) -> None:
    latest = components.parse_latest("gateway=1.5.3, headless=1.5.11")

    assert components.is_outdated(component, version, latest) is is_outdated


def test_a_service_accounts_client_counts_as_headless() -> None:
    agent = "Windows/10.0 gui-client/1.5.11"

    assert components.of_client(agent, "service_account") == "headless"
    assert components.of_client(agent, "account_user") == "gui"


@pytest.mark.parametrize("text", ["gateway", "gateway=1", "toaster=1.2.3", "=1.2.3", "gateway=1.2.3=4"])
def test_what_names_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"gateway=1\.5\.3"):
        components.parse_latest(text)
