"""What RFC 8489 added to authentication: the nonce cookie, SHA-256 and hidden user names; sections 9.2, 14.4 to 14.12.

A server that does not announce these features in its nonces need not have them.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass, replace

from conformance import wire
from conformance.credentials import User
from conformance.lab import Client, Exchange, Lab
from conformance.registry import Failed, NotApplicable, requirement
from conformance.wire import Draft, Message

COOKIE = b"obMatJos2"
MD5, SHA256 = 1, 2


@dataclass(frozen=True)
class Offer:
    """What the server's challenge announces."""

    client: Client
    challenge: Message
    nonce: bytes
    password_algorithms: bool
    anonymity: bool


def _offer(lab: Lab) -> Offer:
    lab.need_authentication()
    client = lab.client()
    challenge = client.challenge()
    nonce = challenge.first(wire.NONCE) or b""
    bits = 0
    if nonce.startswith(COOKIE):
        try:
            bits = int.from_bytes(base64.b64decode(nonce[len(COOKIE) : len(COOKIE) + 4], validate=True), "big")
        except binascii.Error:
            bits = 0
    return Offer(client, challenge, nonce, bool(bits & 0x800000), bool(bits & 0x400000))


def _algorithms_offer(lab: Lab) -> Offer:
    offer = _offer(lab)
    if not offer.password_algorithms:
        raise NotApplicable("the server's nonces do not announce password algorithms")
    return offer


def _sha256_offer(lab: Lab) -> Offer:
    offer = _algorithms_offer(lab)
    if SHA256 not in _listed(offer.challenge):
        raise NotApplicable("the server does not offer SHA-256")
    return offer


def _listed(challenge: Message) -> list[int]:
    """The algorithms in PASSWORD-ALGORITHMS; each has a length and parameters behind its number."""
    value, numbers = challenge.first(wire.PASSWORD_ALGORITHMS) or b"", []
    while len(value) >= 4:
        numbers.append(int.from_bytes(value[:2], "big"))
        size = int.from_bytes(value[2:4], "big")
        value = value[4 + size + -size % 4 :]
    return numbers


def _ask(offer: Offer, draft: Draft, *, algorithm: int | None = SHA256, lists: bytes | None = None) -> Exchange:
    """Asks with PASSWORD-ALGORITHMS, PASSWORD-ALGORITHM and MESSAGE-INTEGRITY-SHA256."""
    client = offer.client
    signed = client.named(draft)
    listed = offer.challenge.first(wire.PASSWORD_ALGORITHMS) if lists is None else lists
    if listed:
        signed.add(wire.PASSWORD_ALGORITHMS, listed)
    if algorithm is not None:
        signed.add(wire.PASSWORD_ALGORITHM, algorithm.to_bytes(2, "big") + bytes(2))
    return client.ask(signed.integrity_sha256(_sha256_key(client)))


def _sha256_key(client: Client) -> bytes:
    name, password = client.user or User("", "")
    return wire.sha256_key(name, client.realm, password)


def _allocate() -> Draft:
    return Draft(wire.ALLOCATE).transport()


@requirement("8489-9.2-01", "MUST", "A nonce begins with the nonce cookie: obMatJos2 and four base64 characters.")
def nonce_cookie(lab: Lab) -> None:
    nonce = _offer(lab).nonce
    if not nonce.startswith(COOKIE):
        raise Failed("sent Allocate request without credentials; NONCE does not begin with obMatJos2")
    try:
        base64.b64decode(nonce[len(COOKIE) : len(COOKIE) + 4], validate=True)
    except binascii.Error:
        raise Failed(f"the nonce cookie is {nonce[:13]!r}, which does not end in four base64 characters") from None


@requirement("8489-9.2.4-25", "MUST", "PASSWORD-ALGORITHMS is there if and only if the nonce cookie announces it.")
def algorithms_and_nonce_agree(lab: Lab) -> None:
    offer = _offer(lab)
    has = offer.challenge.has(wire.PASSWORD_ALGORITHMS)
    if not has and not offer.password_algorithms:
        raise NotApplicable("the server's nonces do not announce password algorithms")
    if has != offer.password_algorithms:
        raise Failed(f"sent Allocate request without credentials; got {offer.challenge}, NONCE {offer.nonce[:13]!r}")


@requirement("8489-9.2.4-26", "MUST", "Without PASSWORD-ALGORITHM and PASSWORD-ALGORITHMS, MD5 and SHA-1 still work.")
def md5_still_works(lab: Lab) -> None:
    client = _algorithms_offer(lab).client
    exchange = client.ask(client.signed(_allocate()))
    if not exchange.expect_success().is_signed_with(client.key_of(None)):
        raise exchange.failed("a right MESSAGE-INTEGRITY")


@requirement("8489-9.2.4-27", "MUST", "PASSWORD-ALGORITHM without PASSWORD-ALGORITHMS is answered 400.")
def algorithm_without_list(lab: Lab) -> None:
    _ask(_algorithms_offer(lab), _allocate(), lists=b"").expect_error(400)


@requirement("8489-9.2.4-28", "MUST", "PASSWORD-ALGORITHMS without PASSWORD-ALGORITHM is answered 400.")
def list_without_algorithm(lab: Lab) -> None:
    _ask(_algorithms_offer(lab), _allocate(), algorithm=None).expect_error(400)


@requirement("8489-9.2.4-29", "MUST", "Another PASSWORD-ALGORITHMS than the server sent is answered 400.")
def changed_list(lab: Lab) -> None:
    _ask(_algorithms_offer(lab), _allocate(), lists=b"\x00\x01\x00\x00\x00\x7f\x00\x00").expect_error(400)


@requirement("8489-9.2.4-30", "MUST", "A PASSWORD-ALGORITHM that is not among PASSWORD-ALGORITHMS is answered 400.")
def unlisted_algorithm(lab: Lab) -> None:
    _ask(_algorithms_offer(lab), _allocate(), algorithm=0x7F).expect_error(400)


@requirement("8489-9.2.4-31", "MUST", "Every 401 and 438 has PASSWORD-ALGORITHMS where the nonce announces it.")
def errors_list_algorithms(lab: Lab) -> None:
    client = _algorithms_offer(lab).client
    exchange = client.ask(client.signed(_allocate(), User("nobody-of-that-name", "x")).because("unknown user"))
    if not exchange.expect_error(401).has(wire.PASSWORD_ALGORITHMS):
        raise exchange.failed("PASSWORD-ALGORITHMS in the 401")


@requirement("8489-14.6-01", "MUST", "A request signed with SHA-256, if it is offered, is accepted.")
def sha256_is_accepted(lab: Lab) -> None:
    _ask(_sha256_offer(lab), _allocate()).expect_success()


@requirement("8489-9.2.4-32", "MUST", "The response to it has MESSAGE-INTEGRITY-SHA256, made with the same key.")
def sha256_is_answered(lab: Lab) -> None:
    offer = _sha256_offer(lab)
    exchange = _ask(offer, _allocate())
    if not exchange.expect_success().is_signed_with(_sha256_key(offer.client), wire.MESSAGE_INTEGRITY_SHA256):
        raise exchange.failed("a right MESSAGE-INTEGRITY-SHA256")


@requirement("8489-14.6-02", "MUST", "A wrong MESSAGE-INTEGRITY-SHA256 is answered 401.")
def wrong_sha256(lab: Lab) -> None:
    offer = _sha256_offer(lab)
    user = offer.client.user or User("", "")
    offer.client.user = User(user.name, user.password + "-wrong")
    _ask(offer, _allocate()).expect_error(401)


@requirement("8489-14.6-03", "MUST", "MESSAGE-INTEGRITY-SHA256 shorter than 16 bytes is not accepted.")
def short_sha256(lab: Lab) -> None:
    offer = _sha256_offer(lab)
    client, listed = offer.client, offer.challenge.first(wire.PASSWORD_ALGORITHMS) or b""
    draft = client.named(_allocate()).add(wire.PASSWORD_ALGORITHMS, listed)
    draft.add(wire.PASSWORD_ALGORITHM, b"\x00\x02\x00\x00").integrity_sha256(_sha256_key(client), 12)
    exchange = client.ask_once(draft.because("MESSAGE-INTEGRITY-SHA256 of 12 bytes"))
    if exchange.answer is not None:
        exchange.expect_error(400, 401)


@requirement("8489-14.4-01", "MUST", "USERHASH instead of USERNAME is accepted where the nonce announces it.")
def userhash(lab: Lab) -> None:
    offer = _offer(lab)
    if not offer.anonymity:
        raise NotApplicable("the server's nonces do not announce anonymous user names")
    client, user = offer.client, offer.client.user or User("", "")
    draft = replace(_allocate(), types=[])
    draft.add(wire.USERHASH, hashlib.sha256(f"{user.name}:{client.realm}".encode()).digest())
    draft.add(wire.REALM, client.realm.encode()).add(wire.NONCE, client.nonce)
    client.ask(draft.integrity(client.key_of(None))).expect_success()
