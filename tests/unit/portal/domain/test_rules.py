"""Filters, versions, the choice of gateways and relays, tokens, tunnel addresses, explanations."""

import itertools
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import InvalidInput
from wardgate.ids import AccountId, GatewayId, GroupId, PolicyId, RelayId, ResourceId, TokenId
from wardgate.portal.domain import tokens, versions
from wardgate.portal.domain.addresses import TUNNEL_IPV4, TUNNEL_IPV6
from wardgate.portal.domain.authorizations import PolicyRule
from wardgate.portal.domain.conditions import Circumstances, parse_conditions
from wardgate.portal.domain.explain import AccessFacts, PolicyFacts, explain
from wardgate.portal.domain.filters import parse_filters, wire_filters
from wardgate.portal.domain.selection import NoGateway, OnlineGateway, OnlineRelay, choose_gateway, choose_relays
from wardgate.portal.domain.subjects import Location
from wardgate.portal.domain.tunnel_ips import ipv4_candidates, ipv6_candidates
from wardgate.wire.portal import Filter

VIENNA, GRAZ, TOKYO = Location(lat=48.2, lon=16.4), Location(lat=47.1, lon=15.4), Location(lat=35.7, lon=139.7)


# --- filters --------------------------------------------------------------------------------------------------------


def test_a_filter_with_ports_is_sent_as_one_object_for_each_range() -> None:
    stored = [{"protocol": "tcp", "ports": ["443", "8000 - 8100"]}, {"protocol": "icmp", "ports": []}]

    assert wire_filters(stored) == (
        Filter(protocol="tcp", port_range_start=443, port_range_end=443),
        Filter(protocol="tcp", port_range_start=8000, port_range_end=8100),
        Filter(protocol="icmp"),
    )


def test_filters_keep_their_stored_form() -> None:
    parsed = parse_filters([{"protocol": "udp", "ports": ["53-60", 70]}])

    assert [one.stored() for one in parsed] == [{"protocol": "udp", "ports": ["53 - 60", "70"]}]
    assert parse_filters([one.stored() for one in parsed]) == parsed


@pytest.mark.parametrize(
    "value",
    [
        [{"protocol": "tcp", "ports": ["90-80"]}],
        [{"protocol": "tcp", "ports": ["1-10", "10"]}],
        [{"protocol": "tcp", "ports": ["0"]}],
        [{"protocol": "tcp", "ports": ["65536"]}],
        [{"protocol": "icmp", "ports": ["1"]}],
        [{"protocol": "sctp"}],
        [{"protocol": "tcp"}, {"protocol": "tcp", "ports": ["1"]}],
        "tcp",
        [1],
    ],
)
def test_other_filters_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="filters"):
        parse_filters(value)


@given(st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_value_is_filters_or_invalid_input(value: object) -> None:
    try:
        filters = parse_filters(value)
    except InvalidInput:
        return
    assert all(start <= end for one in filters for start, end in one.ranges)


# --- versions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user_agent", "version", "family"),
    [
        ("Ubuntu/24.4.0 headless-client/1.5.12 (x86_64; 6.8.0-45)", "1.5.12", "headless"),
        ("Debian/12.0.0 gateway/1.6.0 (x86_64)", "1.6.0", "gui"),
        ("Mac OS/14.1 apple-client/1.5.2", "1.5.2", "apple"),
        ("iOS/17.0 connlib/1.2.3", "1.2.3", "apple"),
        ("Windows/11 gui-client/1.5.10", "1.5.10", "gui"),
        ("curl/8", None, "gui"),
        ("", None, "gui"),
        ("x gateway/", None, "gui"),
    ],
)
def test_the_version_comes_from_the_user_agent(user_agent: str, version: str | None, family: str) -> None:
    assert versions.of_user_agent(user_agent) == version
    assert versions.family(user_agent) == family


@pytest.mark.parametrize(
    ("client", "gateway", "compatible"),
    [
        ("1.5.0", "1.4.0", True),
        ("1.5.0", "1.6.9", True),
        ("1.5.0", "1.7.0", False),
        ("1.5.0", "1.3.9", False),
        ("1.9.0", "1.10.0", True),
        ("1.0.0", "1.0.0", True),
        ("2.5.0", "1.5.0", False),
        (None, "1.5.0", True),
        ("nonsense", "1.5.0", False),
        ("1.5.0", None, False),
    ],
)
def test_gateways_serve_neighbouring_minor_versions(client: str | None, gateway: str | None, compatible: bool) -> None:
    assert versions.is_compatible(client, gateway) is compatible


def test_the_operating_system_is_how_a_user_agent_begins() -> None:
    assert versions.operating_system("Ubuntu/24.4.0 headless-client/1.5.12") == ("Ubuntu", "24.4.0")
    assert versions.operating_system("nothing") == ("nothing", None)


def test_old_clients_read_gateway_groups() -> None:
    assert versions.reads_sites("Ubuntu/24 headless-client/1.5.6", "1.5.6")
    assert not versions.reads_sites("Ubuntu/24 headless-client/1.5.5", "1.5.5")
    assert not versions.reads_sites("Ubuntu/24 x/1", None)


# --- selection ------------------------------------------------------------------------------------------------------


def gateway(name: str, version: str | None = "1.5.0", location: Location | None = None) -> OnlineGateway:
    return OnlineGateway(GatewayId(name), version, location or Location())


def chosen(*online: OnlineGateway, location: Location | None = None, connected: tuple[str, ...] = ()) -> str:
    one = choose_gateway(
        online,
        client_version="1.5.0",
        client_location=location or Location(),
        connected=[GatewayId(name) for name in connected],
        is_internet=False,
        choose=lambda some: some[0],
    )
    return one.reason if isinstance(one, NoGateway) else one.id


def test_a_gateway_in_use_is_kept() -> None:
    assert chosen(gateway("a"), gateway("b"), connected=("b",)) == "b"


def test_a_gateway_that_is_not_online_is_ignored_even_if_the_client_lists_it() -> None:
    assert chosen(gateway("a"), connected=("dead",)) == "a"


def test_the_nearest_gateways_come_first_and_of_them_the_newest() -> None:
    far, near, newer = gateway("a", "1.6.0", TOKYO), gateway("b", "1.5.9", GRAZ), gateway("c", "1.5.10", GRAZ)

    assert chosen(far, near, newer, gateway("d", "1.6.0"), location=VIENNA) == "c"


def test_no_gateway_says_why() -> None:
    assert chosen() == "offline"
    assert chosen(gateway("a", "1.9.0"), gateway("b", None)) == "version_mismatch"


def test_the_internet_needs_both_sides_to_know_it() -> None:
    for client, ours, found in (("1.3.0", "1.3.0", True), ("1.2.0", "1.3.0", False), ("1.3.0", "1.2.9", False)):
        one = choose_gateway(
            [gateway("a", ours)],
            client_version=client,
            client_location=Location(),
            connected=(),
            is_internet=True,
            choose=lambda some: some[0],
        )
        assert isinstance(one, OnlineGateway) is found


def test_two_nearest_relays_are_chosen_and_unknown_places_come_last() -> None:
    relays = [
        OnlineRelay(RelayId("a")),
        OnlineRelay(RelayId("b"), TOKYO),
        OnlineRelay(RelayId("c"), GRAZ),
        OnlineRelay(RelayId("d"), VIENNA),
    ]

    near = choose_relays(relays, location=VIENNA, shuffle=list)
    anywhere = choose_relays(relays, location=Location(), shuffle=lambda some: list(reversed(some)))

    assert [one.id for one in near] == ["d", "c"]
    assert [one.id for one in anywhere] == ["d", "c"]
    assert choose_relays([], location=VIENNA, shuffle=list) == []


# --- tokens ---------------------------------------------------------------------------------------------------------

ACCOUNT, TOKEN = AccountId("91c00000-0000-4000-8000-000000000001"), TokenId("4b1e0000-0000-4000-8000-000000000001")


def predictable(length: int) -> bytes:
    return bytes(range(length))


@pytest.mark.parametrize("kind", ["client", "gateway", "api"])
def test_a_token_proves_what_it_was_made_for(kind: tokens.TokenKind) -> None:
    new = tokens.create(kind, ACCOUNT, TOKEN, predictable)

    parsed = tokens.parse(new.text)

    assert new.text.startswith(".")
    assert not any(letter.isspace() for letter in new.text)
    assert parsed is not None
    assert (parsed.kind, parsed.account_id, parsed.token_id) == (kind, ACCOUNT, TOKEN)
    assert tokens.is_genuine(parsed, new.salt, new.hash)


def test_a_token_without_its_nonce_is_worthless() -> None:
    new = tokens.create("client", ACCOUNT, TOKEN, predictable, nonce="abc")

    whole, bare = tokens.parse("abc" + new.text), tokens.parse(new.text)

    assert whole
    assert tokens.is_genuine(whole, new.salt, new.hash)
    assert bare
    assert not tokens.is_genuine(bare, new.salt, new.hash)


def test_a_relay_token_belongs_to_no_account() -> None:
    parsed = tokens.parse(tokens.create("relay", None, TOKEN, predictable).text)

    assert parsed is not None
    assert parsed.account_id is None


def test_any_changed_letter_makes_a_token_worthless() -> None:
    new = tokens.create("client", ACCOUNT, TOKEN, predictable)
    for position, letter in enumerate(new.text):
        text = new.text[:position] + ("A" if letter != "A" else "B") + new.text[position + 1 :]
        parsed = tokens.parse(text)
        is_same = parsed is not None and (parsed.kind, parsed.token_id, parsed.account_id) == ("client", TOKEN, ACCOUNT)
        assert parsed is None or not is_same or not tokens.is_genuine(parsed, new.salt, new.hash)


def test_secrets_do_not_show_in_a_representation() -> None:
    new = tokens.create("client", ACCOUNT, TOKEN, predictable)
    parsed = tokens.parse(new.text)

    assert new.text not in repr(new)
    assert "secret" not in repr(parsed)


@given(st.text() | st.from_regex(r"\A[a-z]{0,3}\.wg[cgra]_[A-Za-z0-9_-]{80,90}\Z"))
def test_any_text_is_a_token_or_none(text: str) -> None:
    parsed = tokens.parse(text)

    assert parsed is None or len(parsed.secret) == 32


# --- tunnel addresses -----------------------------------------------------------------------------------------------


@given(st.integers(min_value=0, max_value=2**21 - 1))
def test_candidates_lie_in_the_pools(start: int) -> None:
    ipv4, ipv6 = next(ipv4_candidates(start)), next(ipv6_candidates(start))

    assert ip_address(ipv4) in TUNNEL_IPV4
    assert ip_address(ipv6) in TUNNEL_IPV6


def test_candidates_go_round_the_whole_pool() -> None:
    last = 2**21 - 3
    some = list(itertools.islice(ipv4_candidates(last), 3))

    assert some == ["100.95.255.254", "100.64.0.1", "100.64.0.2"]


# --- explanations ---------------------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def facts(
    *policies: PolicyFacts, gateway: OnlineGateway | NoGateway | None = None, disabled: bool = False
) -> AccessFacts:
    return AccessFacts(
        "Mia", "Wiki", False, disabled, policies, Circumstances(NOW), gateway or OnlineGateway(GatewayId("g"), "1.5.0")
    )


def policy(number: int, *, member: bool = True, disabled: bool = False, verified: bool = False) -> PolicyFacts:
    conditions = [{"property": "client_verified", "operator": "is", "values": ["true"]}] if verified else []
    rule = PolicyRule(PolicyId(f"p{number}"), ResourceId("r"), GroupId("g"), None, parse_conditions(conditions))
    return PolicyFacts(rule.policy_id, rule.group_id, "Engineering", disabled, rule if member else None)


@pytest.mark.parametrize(
    ("given_facts", "codes", "can_reach"),
    [
        (facts(), ["no_policy"], False),
        (facts(policy(1)), ["allowed"], True),
        (facts(policy(1, member=False)), ["not_in_group"], False),
        (facts(policy(1, disabled=True)), ["policy_disabled"], False),
        (facts(policy(1, verified=True)), ["conditions_violated"], False),
        (facts(policy(1, disabled=True), policy(2)), ["allowed"], True),
        (facts(policy(1), gateway=NoGateway("offline")), ["site_offline", "allowed"], False),
        (facts(policy(1), gateway=NoGateway("version_mismatch")), ["version_mismatch", "allowed"], False),
        (facts(policy(1), disabled=True), ["actor_disabled", "allowed"], False),
    ],
)
def test_an_explanation_names_what_allows_and_what_is_in_the_way(
    given_facts: AccessFacts, codes: list[str], can_reach: bool
) -> None:
    explanation = explain(given_facts)

    assert [reason.code for reason in explanation.reasons] == codes
    assert explanation.can_reach is can_reach
    assert all(reason.text.endswith(".") for reason in explanation.reasons)


def test_violated_conditions_are_named() -> None:
    [reason] = explain(facts(policy(1, verified=True))).reasons

    assert reason.properties == ("client_verified",)
