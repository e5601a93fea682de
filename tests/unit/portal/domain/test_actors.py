"""What may be said of actors, plans and providers: a row for each sentence of the reference."""

from typing import Any

import pytest

from wardgate.errors import Conflict, DomainError, Forbidden, InvalidInput
from wardgate.portal.domain.actors import (
    ActorState,
    WaysIn,
    check_actor,
    check_type_change,
    guard_change,
    is_other_email,
)
from wardgate.portal.domain.limits import check_open, check_room, kinds_of_actor, limit_of, newly_counted
from wardgate.portal.domain.providers import check_provider
from wardgate.portal.domain.subjects import ACTOR_TYPES

USER, ADMIN, ROBOT, API = ACTOR_TYPES


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": "Mia", "type": USER, "email": "mia@corp.example"}, set()),
        ({"name": "Mia", "type": ADMIN, "email": "mia@corp.example"}, set()),
        ({"name": "Backup", "type": ROBOT}, set()),
        ({"name": "API", "type": API}, set()),
        ({"name": "Mia", "type": USER}, {"email"}),
        ({"name": "Mia", "type": ADMIN, "email": None}, {"email"}),
        ({"name": "Backup", "type": ROBOT, "email": "a@corp.example"}, {"email"}),
        ({"name": "API", "type": API, "email": "a@corp.example"}, {"email"}),
        ({"type": ROBOT}, {"name"}),
        ({"name": " ", "type": ROBOT}, {"name"}),
        ({"name": "x" * 256, "type": ROBOT}, {"name"}),
        ({"name": "x" * 255, "type": ROBOT}, set()),
        ({"name": "Mia"}, {"type"}),
        ({"name": "Mia", "type": "king"}, {"type"}),
        ({"name": "a\x00b", "type": ROBOT}, {"name"}),
        ({"name": "a\ud800b", "type": ROBOT}, {"name"}),
        ({"name": "B", "type": ROBOT, "allow_email_otp_sign_in": "yes"}, {"allow_email_otp_sign_in"}),
    ],
)
def test_an_actor_has_a_name_a_type_and_an_address_if_it_is_a_person(fields: dict[str, Any], wrong: set[str]) -> None:
    if not wrong:
        check_actor(fields, ACTOR_TYPES)
        return
    with pytest.raises(InvalidInput) as refused:
        check_actor(fields, ACTOR_TYPES)
    assert set(refused.value.fields) == wrong
    assert all(one.accepted for one in refused.value.problems)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("mia@corp.example", "mia@corp.example"),
        (" Mia@CORP.Example ", "Mia@corp.example"),
        ("mia@bücher.example", "mia@xn--bcher-kva.example"),
        ("m.i+a@corp.example", "m.i+a@corp.example"),
        ("mia@corp", None),
        ("mia", None),
        ("@corp.example", None),
        ('"m a"@corp.example', None),
        ("m..a@corp.example", None),
        ("mia@-corp.example", None),
        ("mia@corp-.example", None),
        (f"mia@{'a' * 64}.example", None),
        (f"mia@{'a' * 63}.example", f"mia@{'a' * 63}.example"),
        ("mia@co_rp.example", None),
        (f"{'m' * 150}@corp.example", None),
    ],
)
def test_addresses_are_checked_and_their_domains_made_canonical(given: str, stored: str | None) -> None:
    fields = {"name": "Mia", "type": USER, "email": given}
    if stored is None:
        with pytest.raises(InvalidInput, match="email"):
            check_actor(fields, ACTOR_TYPES)
    else:
        assert check_actor(fields, ACTOR_TYPES)["email"] == stored


@pytest.mark.parametrize("old", ACTOR_TYPES)
@pytest.mark.parametrize("new", ACTOR_TYPES)
def test_only_users_and_admins_become_each_other(old: str, new: str) -> None:
    if old == new or {old, new} == {USER, ADMIN}:
        check_type_change(old, new)
    else:
        with pytest.raises(InvalidInput, match="type"):
            check_type_change(old, new)


ME, ADA, GONE = "me", ActorState("ada", ADMIN), None
DISABLED_ADA, DEMOTED_ADA = ActorState("ada", ADMIN, True), ActorState("ada", USER)


@pytest.mark.parametrize(
    ("before", "after", "by", "other_admins", "code"),
    [
        (ADA, DISABLED_ADA, ME, 0, "last_admin"),
        (ADA, DEMOTED_ADA, ME, 0, "last_admin"),
        (ADA, GONE, ME, 0, "last_admin"),
        (ADA, DISABLED_ADA, None, 0, "last_admin"),
        (ADA, DISABLED_ADA, ME, 1, None),
        (ADA, DEMOTED_ADA, ME, 1, None),
        (ADA, GONE, ME, 1, None),
        (DISABLED_ADA, GONE, ME, 0, None),
        (DISABLED_ADA, DISABLED_ADA, ME, 0, None),
        (ADA, ADA, ME, 0, None),
        (ADA, DISABLED_ADA, "ada", 5, "own_actor"),
        (ADA, DEMOTED_ADA, "ada", 5, "own_actor"),
        (ADA, GONE, "ada", 5, "own_actor"),
        (ADA, ActorState("ada", ADMIN, email="new@corp.example"), "ada", 5, None),
        (ActorState("api", API), ActorState("api", API, True), "api", 5, "own_actor"),
        (ActorState("api", API), GONE, "api", 5, "own_actor"),
        (ActorState("mia", USER), ActorState("mia", ADMIN), "mia", 5, None),
    ],
)
def test_nobody_locks_themselves_or_the_account_out(
    before: ActorState, after: ActorState | None, by: str | None, other_admins: int, code: str | None
) -> None:
    def change() -> None:
        guard_change(before, after, changed_by=by, other_admins=other_admins, ways_in=WaysIn())

    if code is None:
        change()
    else:
        with pytest.raises(DomainError) as refused:
            change()
        assert refused.value.code == code
        assert type(refused.value) is (Conflict if code == "last_admin" else Forbidden)


WITH_CODES = ActorState("mia", USER, allow_email_otp_sign_in=True)
IDP = "https://id.example"


@pytest.mark.parametrize(
    ("after", "ways", "is_refused"),
    [
        (ActorState("mia", USER), WaysIn(has_email_codes=True), True),
        (ActorState("mia", USER), WaysIn(True, [IDP], []), True),
        (ActorState("mia", USER), WaysIn(True, [IDP], ["https://other.example"]), True),
        (ActorState("mia", USER), WaysIn(True, [IDP], [IDP]), False),
        (ActorState("mia", USER), WaysIn(True, has_password=True), False),
        (ActorState("mia", USER), WaysIn(has_email_codes=False), False),
        (ActorState("mia", USER, True), WaysIn(has_email_codes=True), False),
        (WITH_CODES, WaysIn(has_email_codes=True), False),
    ],
)
def test_codes_are_not_switched_off_where_they_are_the_only_way_in(
    after: ActorState, ways: WaysIn, is_refused: bool
) -> None:
    def change() -> None:
        guard_change(WITH_CODES, after, changed_by=ME, other_admins=1, ways_in=ways)

    if is_refused:
        with pytest.raises(InvalidInput, match="allow_email_otp_sign_in"):
            change()
    else:
        change()


@pytest.mark.parametrize(
    ("old", "new", "is_other"),
    [
        ("mia@corp.example", "mia@corp.example", False),
        ("mia@corp.example", "MIA@corp.example", False),
        ("mia@corp.example", " mia@corp.example ", False),
        ("mia@corp.example", "ben@corp.example", True),
        (None, None, False),
    ],
)
def test_case_and_space_make_no_other_address(old: str | None, new: str | None, is_other: bool) -> None:
    assert is_other_email(old, new) is is_other


# --- plans ---


@pytest.mark.parametrize(
    ("limits", "kind", "used", "is_full"),
    [
        ({}, "users", 10**6, False),
        ({"users_count": None}, "users", 10**6, False),
        ({"users_count": 5}, "users", 4, False),
        ({"users_count": 5}, "users", 5, True),
        ({"users_count": 0}, "users", 0, True),
        ({"sites_count": 1}, "sites", 1, True),
        ({"account_admin_users_count": 1}, "account_admin_users", 1, True),
        ({"service_accounts_count": 1}, "service_accounts", 1, True),
        ({"monthly_active_users_count": 1}, "monthly_active_users", 1, True),
        ({}, "api_clients", 99, False),
        ({}, "api_clients", 100, True),
        ({"api_clients_count": None}, "api_clients", 100, False),
        ({}, "api_tokens_per_client", 100, True),
    ],
)
def test_a_full_plan_lets_no_more_be_made_and_names_the_kind(
    limits: dict[str, Any], kind: str, used: int, is_full: bool
) -> None:
    if not is_full:
        check_room(limits, kind, used)
        return
    with pytest.raises(Forbidden) as refused:
        check_room(limits, kind, used)
    assert refused.value.code == "limit_reached"
    assert refused.value.details == {"limit": kind, "used": used, "total": limit_of(limits, kind)}


@pytest.mark.parametrize(
    ("before", "after", "limits", "kinds"),
    [
        (None, ActorState("", USER), {}, ("users",)),
        (None, ADA, {}, ("users", "account_admin_users")),
        (None, ActorState("", ROBOT), {}, ("service_accounts",)),
        (None, ActorState("", API), {}, ("api_clients",)),
        (None, ActorState("", USER), {"monthly_active_users_count": 5}, ("monthly_active_users",)),
        (DEMOTED_ADA, ADA, {}, ("account_admin_users",)),
        (ADA, DEMOTED_ADA, {}, ()),
        (DISABLED_ADA, ADA, {}, ("users", "account_admin_users")),
        (ADA, DISABLED_ADA, {}, ()),
        (ADA, ADA, {}, ()),
    ],
)
def test_room_is_needed_when_made_enabled_again_or_promoted(
    before: ActorState | None, after: ActorState, limits: dict[str, Any], kinds: tuple[str, ...]
) -> None:
    assert newly_counted(before, after, limits) == kinds


def test_disabled_actors_do_not_count_and_a_disabled_account_makes_nothing() -> None:
    assert kinds_of_actor(DISABLED_ADA, {}) == ()
    check_open(False)
    with pytest.raises(Forbidden, match="disabled"):
        check_open(True)


# --- ways to sign in ---

OKTA = {"issuer": "https://corp.okta.com", "okta_domain": "corp.okta.com", "client_id": "c", "client_secret": "s"}
OIDC = {"issuer": IDP, "discovery_document_uri": f"{IDP}/d", "client_id": "c", "client_secret": "s"}


@pytest.mark.parametrize(
    ("kind", "fields", "wrong"),
    [
        ("email_otp", {}, None),
        ("userpass", {}, None),
        ("google", {"issuer": "https://accounts.google.com"}, None),
        ("entra", {"issuer": IDP}, None),
        ("okta", OKTA, None),
        ("oidc", OIDC, None),
        ("google", {}, "issuer"),
        ("email_otp", {"is_default": True}, "is_default"),
        ("userpass", {"is_default": True}, "is_default"),
        ("google", {"issuer": IDP, "is_default": True}, None),
        ("email_otp", {"name": "x" * 256}, "name"),
        ("email_otp", {"context": "clients_only"}, None),
        ("email_otp", {"context": "nobody"}, "context"),
        ("email_otp", {"client_session_lifetime_secs": 3_599}, "client_session_lifetime_secs"),
        ("email_otp", {"client_session_lifetime_secs": 7_776_001}, "client_session_lifetime_secs"),
        ("email_otp", {"client_session_lifetime_secs": 7_776_000}, None),
        ("email_otp", {"portal_session_lifetime_secs": 299}, "portal_session_lifetime_secs"),
        ("email_otp", {"portal_session_lifetime_secs": 86_401}, "portal_session_lifetime_secs"),
        ("email_otp", {"portal_session_lifetime_secs": True}, "portal_session_lifetime_secs"),
        ("entra", {"issuer": IDP, "email_claim": "name"}, "email_claim"),
        ("okta", {**OKTA, "okta_domain": "localhost"}, "okta_domain"),
        ("okta", {**OKTA, "issuer": "https://other.okta.com"}, "issuer"),
        ("okta", {**OKTA, "client_secret": ""}, "client_secret"),
        ("okta", {**OKTA, "client_id": None}, "client_id"),
        ("oidc", {**OIDC, "discovery_document_uri": "http://id.example/d"}, "discovery_document_uri"),
        ("oidc", {**OIDC, "discovery_document_uri": "https://10.0.0.1/d"}, "discovery_document_uri"),
        ("oidc", {**OIDC, "email_verification_method": "proof"}, None),
        ("oidc", {**OIDC, "email_verification_method": "trust"}, "email_verification_method"),
    ],
)
def test_a_provider_says_what_its_kind_needs(kind: str, fields: dict[str, Any], wrong: str | None) -> None:
    if wrong is None:
        assert check_provider(kind, fields)["client_session_lifetime_secs"] >= 3_600
    else:
        with pytest.raises(InvalidInput) as refused:
            check_provider(kind, fields)
        assert list(refused.value.fields) == [wrong]


def test_a_provider_has_defaults() -> None:
    values = check_provider("email_otp", {})

    assert (values["name"], values["issuer"], values["context"]) == ("Email (OTP)", "firezone", "clients_and_portal")
    assert (values["client_session_lifetime_secs"], values["portal_session_lifetime_secs"]) == (604_800, 28_800)
