"""The long-term credential mechanism: RFC 8489, section 9.2, and who may do what, RFC 8656, section 5."""

from dataclasses import replace

from conformance import wire
from conformance.credentials import User
from conformance.lab import Client, Exchange, Lab
from conformance.registry import Failed, requirement
from conformance.wire import Draft, Message

IDENTITY = (wire.USERNAME, wire.USERHASH)
SIGNATURES = (wire.MESSAGE_INTEGRITY, wire.MESSAGE_INTEGRITY_SHA256)


def _allocate() -> Draft:
    return Draft(wire.ALLOCATE).transport()


def _challenged(lab: Lab) -> tuple[Client, Message]:
    lab.need_authentication()
    client = lab.client()
    return client, client.challenge()


def _must_have(exchange: Exchange, answer: Message, *types: int) -> None:
    if missing := [type_ for type_ in types if not answer.has(type_)]:
        raise exchange.failed(f"{wire.names_of(missing)} in the {answer.error_code}")


def _must_not_have(exchange: Exchange, answer: Message, *types: int) -> None:
    if found := [type_ for type_ in types if answer.has(type_)]:
        raise exchange.failed(f"no {wire.names_of(found)} in the answer")


def _partly_signed(client: Client, without: int) -> Exchange:
    """Asks with every attribute of the mechanism but one."""
    draft, user = _allocate(), client.user or User("", "")
    for type_, value in (
        (wire.USERNAME, user.name.encode()),
        (wire.REALM, client.realm.encode()),
        (wire.NONCE, client.nonce),
    ):
        if type_ != without:
            draft.add(type_, value)
    return client.ask(draft.integrity(client.key_of(None)))


def _wrong_password(client: Client) -> Exchange:
    user = client.user or User("", "")
    draft = client.signed(_allocate(), User(user.name, user.password + "-wrong"))
    return client.ask(draft.because("wrong password"))


def _forged_nonce(client: Client, text: bytes = b"") -> Exchange:
    """A nonce of the server's own kind, so that nothing but its content is wrong with it."""
    right = client.nonce
    last = right[-1:]
    client.nonce = text or right[:-1] + (b"0" if last != b"0" else b"1")
    exchange = client.ask(client.signed(_allocate()).because("a nonce that was never given out"))
    client.nonce = right
    return exchange


@requirement("8489-9.2.4-01", "MUST", "A request without MESSAGE-INTEGRITY is answered 401.")
def no_credentials(lab: Lab) -> None:
    lab.need_authentication()
    lab.client().ask(_allocate()).expect_error(401)


@requirement("8489-9.2.4-02", "MUST", "The 401 to a request without credentials has REALM.")
def challenge_has_realm(lab: Lab) -> None:
    lab.need_authentication()
    exchange = lab.client().ask(_allocate())
    _must_have(exchange, exchange.expect_error(401), wire.REALM)


@requirement("8489-9.2.4-03", "MUST", "The 401 to a request without credentials has NONCE.")
def challenge_has_nonce(lab: Lab) -> None:
    lab.need_authentication()
    exchange = lab.client().ask(_allocate())
    _must_have(exchange, exchange.expect_error(401), wire.NONCE)


@requirement("8489-9.2.4-04", "SHOULD", "The 401 to a request without credentials has no user name and no integrity.")
def challenge_is_bare(lab: Lab) -> None:
    lab.need_authentication()
    exchange = lab.client().ask(_allocate())
    _must_not_have(exchange, exchange.expect_error(401), *IDENTITY, *SIGNATURES)


@requirement("8489-9.2.4-05", "MUST", "Two clients never get the same nonce.")
def nonce_belongs_to_a_client(lab: Lab) -> None:
    (_, first), (_, second) = _challenged(lab), _challenged(lab)
    if first.first(wire.NONCE) == second.first(wire.NONCE):
        raise Failed("sent Allocate requests without credentials from two ports; got the same NONCE twice")


@requirement("8489-9.2.4-06", "MUST", "MESSAGE-INTEGRITY without USERNAME is answered 400.")
def integrity_without_username(lab: Lab) -> None:
    _partly_signed(_challenged(lab)[0], wire.USERNAME).expect_error(400)


@requirement("8489-9.2.4-07", "MUST", "MESSAGE-INTEGRITY without REALM is answered 400.")
def integrity_without_realm(lab: Lab) -> None:
    _partly_signed(_challenged(lab)[0], wire.REALM).expect_error(400)


@requirement("8489-9.2.4-08", "MUST", "MESSAGE-INTEGRITY without NONCE is answered 400.")
def integrity_without_nonce(lab: Lab) -> None:
    _partly_signed(_challenged(lab)[0], wire.NONCE).expect_error(400)


@requirement("8489-9.2.4-09", "SHOULD", "That 400 has no USERNAME, USERHASH, NONCE or REALM.")
def bare_bad_request(lab: Lab) -> None:
    exchange = _partly_signed(_challenged(lab)[0], wire.USERNAME)
    _must_not_have(exchange, exchange.expect_error(400), *IDENTITY, wire.REALM, wire.NONCE)


@requirement("8489-9.2.4-10", "MUST", "A user whom the server does not know is answered 401, with REALM and NONCE.")
def unknown_user(lab: Lab) -> None:
    client, _ = _challenged(lab)
    exchange = client.ask(client.signed(_allocate(), User("nobody-of-that-name", "x")).because("unknown user"))
    _must_have(exchange, exchange.expect_error(401), wire.REALM, wire.NONCE)


@requirement("8489-9.2.4-11", "SHOULD", "The 401 to an unknown user has no USERNAME and no USERHASH.")
def unknown_user_is_not_named(lab: Lab) -> None:
    client, _ = _challenged(lab)
    exchange = client.ask(client.signed(_allocate(), User("nobody-of-that-name", "x")).because("unknown user"))
    _must_not_have(exchange, exchange.expect_error(401), *IDENTITY)


@requirement("8489-9.2.4-12", "MUST", "A wrong password is answered 401.")
def wrong_password(lab: Lab) -> None:
    _wrong_password(_challenged(lab)[0]).expect_error(401)


@requirement("8489-9.2.4-13", "MUST", "The 401 to a wrong password has REALM and NONCE.")
def wrong_password_gets_challenge(lab: Lab) -> None:
    exchange = _wrong_password(_challenged(lab)[0])
    _must_have(exchange, exchange.expect_error(401), wire.REALM, wire.NONCE)


@requirement("8489-9.2.4-14", "SHOULD", "The 401 to a wrong password has no user name and no integrity.")
def wrong_password_gets_nothing_signed(lab: Lab) -> None:
    exchange = _wrong_password(_challenged(lab)[0])
    _must_not_have(exchange, exchange.expect_error(401), *IDENTITY, *SIGNATURES)


@requirement("8489-9.2.4-15", "MUST", "A request that was changed after it was signed is answered 401.")
def changed_after_signing(lab: Lab) -> None:
    client, _ = _challenged(lab)
    draft = client.signed(Draft(wire.ALLOCATE).transport().lifetime(600)).because("LIFETIME changed after signing")
    data = draft.encode()
    at = data.index(b"\x00\x0d\x00\x04") + 7
    client.ask(draft, data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]).expect_error(401)


@requirement("8489-9.2.4-16", "MUST", "A nonce that is not valid is answered 438.")
def stale_nonce(lab: Lab) -> None:
    _forged_nonce(_challenged(lab)[0]).expect_error(438)


@requirement("8489-9.2.4-17", "MUST", "The 438 has REALM and NONCE.")
def stale_nonce_gets_new_one(lab: Lab) -> None:
    exchange = _forged_nonce(_challenged(lab)[0])
    _must_have(exchange, exchange.expect_error(438), wire.REALM, wire.NONCE)


@requirement("8489-9.2.4-18", "MUST", "The nonce of a 438 is valid.")
def nonce_of_stale_works(lab: Lab) -> None:
    client, _ = _challenged(lab)
    client.nonce = _forged_nonce(client).expect_error(438).first(wire.NONCE) or b""
    client.ask(client.signed(_allocate()).because("with the nonce of a 438")).expect_success()


@requirement("8489-9.2.4-19", "SHOULD", "The 438 has no USERNAME and no USERHASH.")
def stale_nonce_names_nobody(lab: Lab) -> None:
    exchange = _forged_nonce(_challenged(lab)[0])
    _must_not_have(exchange, exchange.expect_error(438), *IDENTITY)


@requirement("8489-9.2.4-20", "MUST", "A nonce of another form than the server's own is answered 438.")
def nonce_of_another_form(lab: Lab) -> None:
    _forged_nonce(_challenged(lab)[0], b"such a nonce no server makes").expect_error(438)


@requirement("8489-9.2.4-21", "MUST", "The success response to a signed request is signed with the same key.")
def success_is_signed(lab: Lab) -> None:
    client, _ = _challenged(lab)
    exchange = client.ask(client.signed(_allocate()))
    if not exchange.expect_success().is_signed_with(client.key_of(None)):
        raise exchange.failed("a right MESSAGE-INTEGRITY")


@requirement("8489-9.2.4-22", "MUST", "The error response to a rightly signed request is signed with the same key.")
def error_is_signed(lab: Lab) -> None:
    client, _ = _challenged(lab)
    exchange = client.ask(client.signed(Draft(wire.REFRESH).because("no allocation")))
    if not exchange.expect_error(437).is_signed_with(client.key_of(None)):
        raise exchange.failed("a right MESSAGE-INTEGRITY")


@requirement("8489-9.2.4-23", "SHOULD", "The response to a rightly signed request has no REALM, NONCE or user name.")
def success_repeats_nothing(lab: Lab) -> None:
    client, _ = _challenged(lab)
    exchange = client.ask(client.signed(_allocate()))
    _must_not_have(exchange, exchange.expect_success(), *IDENTITY, wire.REALM, wire.NONCE)


@requirement("8489-9.2.4-24", "MUST", "A nonce can be used for more than one request.")
def nonce_is_used_again(lab: Lab) -> None:
    client, _ = _challenged(lab)
    client.ask(client.signed(_allocate())).expect_success()
    client.ask(client.signed(Draft(wire.REFRESH).because("the same nonce"))).expect_success()


@requirement(
    "8489-14.3-01", "MUST", "A USERNAME of 508 bytes, the longest there may be, is read: 401 if it is unknown."
)
def long_username(lab: Lab) -> None:
    client, _ = _challenged(lab)
    client.ask(client.signed(_allocate(), User("n" * 508, "x")).because("a user of 508 bytes")).expect_error(401)


@requirement(
    "8489-9.2.2-01", "MUST", "The key is MD5 of user, realm and password; a request signed with it is accepted."
)
def long_term_key(lab: Lab) -> None:
    client, _ = _challenged(lab)
    client.ask(client.signed(_allocate())).expect_success()


@requirement("8489-9.2.2-02", "MUST", "A request signed with the bare password instead of the key is answered 401.")
def password_is_no_key(lab: Lab) -> None:
    client, _ = _challenged(lab)
    draft = client.named(_allocate()).integrity((client.user or User("", "")).password.encode())
    client.ask(draft.because("signed as a short-term credential")).expect_error(401)


def _refused_to_others(lab: Lab, draft: Draft) -> None:
    """Asks for something about an allocation in the name of another user."""
    lab.need_authentication()
    other, client = lab.other_user(), lab.client()
    client.allocate()
    signed = client.signed(replace(draft, types=list(draft.types)), other).because("another user's allocation")
    client.ask(signed).expect_error(441)


@requirement("8656-5-01", "MUST", "Refresh by another user than the allocation's is answered 441.")
def refresh_by_another_user(lab: Lab) -> None:
    _refused_to_others(lab, Draft(wire.REFRESH).lifetime(600))


@requirement("8656-5-02", "MUST", "Refresh with LIFETIME 0 by another user than the allocation's is answered 441.")
def delete_by_another_user(lab: Lab) -> None:
    _refused_to_others(lab, Draft(wire.REFRESH).lifetime(0))


@requirement("8656-5-03", "MUST", "CreatePermission by another user than the allocation's is answered 441.")
def permission_by_another_user(lab: Lab) -> None:
    _refused_to_others(lab, Draft(wire.CREATE_PERMISSION).peer(lab.peer().address))


@requirement("8656-5-04", "MUST", "ChannelBind by another user than the allocation's is answered 441.")
def channel_by_another_user(lab: Lab) -> None:
    _refused_to_others(lab, Draft(wire.CHANNEL_BIND).channel(0x4000).peer(lab.peer().address))
