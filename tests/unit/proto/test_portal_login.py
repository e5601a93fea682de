"""URLs, headers and refusals of a portal login."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.portal.domain import versions
from wardgate.proto.portal_login import (
    SPOKEN_RELEASES,
    Refusal,
    bearer,
    external_id,
    login_url,
    parse_retry_after,
    read_refusal,
    user_agent,
)


def test_gateway_url_is_what_real_programs_dial() -> None:
    url = login_url(
        "ws://203.0.113.10",
        "gateway",
        [("external_id", "gw1"), ("name", "vm")],
        public_key="RCVm8tZDN/LSX48jcHy1rlPDAafuq1EUuyWgEN243G0=",
    )

    assert url == (
        "ws://203.0.113.10/gateway/v2/websocket"
        "?external_id=gw1&name=vm&public_key=RCVm8tZDN%2FLSX48jcHy1rlPDAafuq1EUuyWgEN243G0%3D"
    )


def test_relay_url_has_no_version_and_no_key() -> None:
    url = login_url("ws://203.0.113.10", "relay", [("ipv4", "203.0.113.3"), ("ipv6", None), ("port", "3478")])

    assert url == "ws://203.0.113.10/relay/websocket?ipv4=203.0.113.3&port=3478"


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("https://api.example/base/?x=1", "wss://api.example/base/client/websocket"),
        ("http://api.example:8080", "ws://api.example:8080/client/websocket"),
        ("wss://[2001:db8::1]:443/", "wss://[2001:db8::1]:443/client/websocket"),
    ],
)
def test_base_keeps_its_path_and_loses_its_query(base: str, expected: str) -> None:
    assert login_url(base, "client", [], v1=True) == expected


@pytest.mark.parametrize("base", ["", "api.example", "ftp://api.example", "ws://", "ws://host:99999"])
def test_other_addresses_are_refused(base: str) -> None:
    with pytest.raises(ValueError):
        login_url(base, "client", [])


def test_user_agent_is_ascii() -> None:
    agent = user_agent("Debian", "12.0.0", "gateway", "0.1.0", "x86_64", "6.18.44-fc-v595é\n")

    assert agent == "Debian/12.0.0 gateway/1.6.0 (x86_64; 6.18.44-fc-v595) wardgate/0.1.0"


@pytest.mark.parametrize("component", SPOKEN_RELEASES)
def test_a_portal_reads_the_release_whose_protocol_we_speak(component: str) -> None:
    agent = user_agent("Debian", "12", component, "0.1.0", "x86_64", "6.1")

    assert versions.of_user_agent(agent) == SPOKEN_RELEASES[component]


def test_our_programs_go_with_releases_of_this_year() -> None:
    client, gateway = SPOKEN_RELEASES["headless-client"], SPOKEN_RELEASES["gateway"]

    assert versions.is_compatible(client, gateway)
    assert versions.is_compatible("1.5.9", gateway)
    assert versions.is_compatible(client, "1.5.3")
    assert versions.has_pools("Debian/12 headless-client/" + client, client)


def test_bearer_drops_whitespace_and_refuses_nothing() -> None:
    assert bearer(" .SFM \r\n yNTY\n") == "Bearer .SFMyNTY"
    with pytest.raises(ValueError):
        bearer(" \n")
    with pytest.raises(ValueError):
        bearer("tökén")


def test_uuid_is_hashed_and_another_id_is_not() -> None:
    assert external_id("gw1") == "gw1"
    assert external_id("7f1d4f6e-8d0b-4a39-9b53-0f1ce4a0a7c2") == (
        "a20e42cffe23ca03816bbee2aa9e8a20c2cf8e4ee4bf63516b67f4c7278e4eb8"
    )


def test_refusal_reads_the_problem() -> None:
    body = json.dumps({"type": "about:blank", "status": 401, "detail": "expired", "code": "invalid_token"}).encode()

    refusal = read_refusal(401, body, "5", 0.0)

    assert refusal == Refusal(401, "invalid_token", "expired")
    assert refusal.requires_sign_in


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2", 2.0),
        ("  7 ", 7.0),
        ("999999999999999", 86400.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("", None),
    ],
)
def test_retry_after_in_seconds_or_as_date(text: str, seconds: float | None) -> None:
    assert parse_retry_after(text, 1445412480.0) == seconds


@given(st.integers(100, 599), st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=60)))
def test_any_answer_is_a_refusal(status: int, body: bytes, retry_after: str | None) -> None:
    refusal = read_refusal(status, body, retry_after, 0.0)

    assert refusal.status == status
    assert refusal.retry_after_s is None or 0.0 <= refusal.retry_after_s <= 86400.0
