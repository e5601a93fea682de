"""Attributes, known and unknown, and what stands in them: RFC 8489, sections 6.3.1, 7 and 14."""

from conformance import wire
from conformance.lab import Client, Lab, seen
from conformance.registry import Failed, NotApplicable, NotTested, requirement
from conformance.wire import Draft, Message

UNKNOWN, OTHER_UNKNOWN, OPTIONAL_UNKNOWN = 0x7F01, 0x7F02, 0xFF01
MAX_TEXT = 763  # bytes of 127 characters at most, in UTF-8


def _binding(lab: Lab) -> Message:
    return lab.client().ask(Draft(wire.BINDING)).expect_success()


def _every_kind_of_answer(lab: Lab) -> list[Message]:
    """A Binding success response, and an error response where the server has one to give."""
    client = lab.client()
    answers = [_binding(lab), client.ask(Draft(wire.BINDING).u32(UNKNOWN, 0)).answer]
    answers.append(client.ask(Draft(wire.ALLOCATE).transport()).answer)
    return [answer for answer in answers if answer is not None]


@requirement("8489-6.3.1-02", "MUST", "An unknown required attribute in a Binding request is answered 420.", turn=False)
def unknown_required(lab: Lab) -> None:
    lab.client().ask(Draft(wire.BINDING).u32(UNKNOWN, 0)).expect_error(420)


@requirement("8489-6.3.1-03", "MUST", "The 420 lists the unknown attribute in UNKNOWN-ATTRIBUTES.", turn=False)
def unknown_is_listed(lab: Lab) -> None:
    exchange = lab.client().ask(Draft(wire.BINDING).u32(UNKNOWN, 0))
    listed = exchange.expect_error(420).unknown_attributes
    if UNKNOWN not in listed:
        raise exchange.failed(f"UNKNOWN-ATTRIBUTES with 0x{UNKNOWN:04x}, not {wire.names_of(listed)},")


@requirement("8489-6.3.1-04", "MUST", "The 420 lists every unknown attribute, if there are several.", turn=False)
def all_unknown_are_listed(lab: Lab) -> None:
    exchange = lab.client().ask(Draft(wire.BINDING).u32(UNKNOWN, 0).u32(OTHER_UNKNOWN, 0))
    listed = exchange.expect_error(420).unknown_attributes
    if not {UNKNOWN, OTHER_UNKNOWN} <= set(listed):
        raise exchange.failed(f"both in UNKNOWN-ATTRIBUTES, not {wire.names_of(listed)},")


@requirement("8489-6.3.1-05", "MUST", "UNKNOWN-ATTRIBUTES lists nothing that the server knows.", turn=False)
def only_unknown_are_listed(lab: Lab) -> None:
    draft = Draft(wire.BINDING).add(wire.SOFTWARE, b"suite").u32(UNKNOWN, 0).u32(OPTIONAL_UNKNOWN, 0)
    exchange = lab.client().ask(draft)
    listed = exchange.expect_error(420).unknown_attributes
    if set(listed) - {UNKNOWN}:
        raise exchange.failed(f"0x{UNKNOWN:04x} alone in UNKNOWN-ATTRIBUTES, not {wire.names_of(listed)},")


@requirement("8489-6.3-12", "MUST", "An unknown optional attribute is ignored.", turn=False)
def unknown_optional(lab: Lab) -> None:
    lab.client().ask(Draft(wire.BINDING).u32(OPTIONAL_UNKNOWN, 0)).expect_success()


@requirement("8489-6.3-13", "SHOULD", "A known attribute where nobody expects it is ignored.", turn=False)
def known_but_unexpected(lab: Lab) -> None:
    lab.client().ask(Draft(wire.BINDING).add(wire.REALM, b"somewhere")).expect_success()


@requirement("8489-6.3-14", "MUST", "Credentials are checked before unknown attributes: 401, not 420.")
def credentials_before_unknown_attributes(lab: Lab) -> None:
    lab.need_authentication()
    lab.client().ask(Draft(wire.ALLOCATE).transport().u32(UNKNOWN, 0)).expect_error(401)


@requirement("8489-6.3.1-06", "MUST", "An unknown required attribute in a signed request is answered 420.")
def unknown_required_in_signed_request(lab: Lab) -> None:
    client = lab.client()
    exchange = client.ask_signed(Draft(wire.ALLOCATE).transport().u32(UNKNOWN, 0))
    if UNKNOWN not in exchange.expect_error(420).unknown_attributes:
        raise exchange.failed(f"UNKNOWN-ATTRIBUTES with 0x{UNKNOWN:04x}")


@requirement("8489-14-01", "MUST", "What stands in the padding of an attribute is ignored.", turn=False)
def padding_is_ignored(lab: Lab) -> None:
    draft = Draft(wire.BINDING).add(wire.SOFTWARE, b"suite", padding=b"\xff\xff\xff").because("padding 0xff")
    lab.client().ask(draft).expect_success()


@requirement("8489-14-02", "MUST", "The padding of attributes that the server sends is zero.", turn=False)
def padding_of_server_is_zero(lab: Lab) -> None:
    for answer in _every_kind_of_answer(lab):
        for attribute in answer.attributes:
            if attribute.padding.strip(b"\0"):
                raise Failed(f"in {answer}: {wire.names_of([attribute.type])} has padding {attribute.padding.hex()}")


@requirement(
    "8489-14-03", "MUST", "Of an attribute that is there twice, the first counts, unless the request is refused."
)
def first_of_two_counts(lab: Lab) -> None:
    client = lab.client()
    exchange = client.ask_signed(
        Draft(wire.ALLOCATE).transport(wire.UDP).transport(99).because("transports 17, then 99")
    )
    if exchange.answer is None or exchange.answer.message_class != wire.SUCCESS:
        exchange.expect_error(400)


@requirement("8489-14-04", "MUST", "Of an attribute that is there twice, the second never replaces the first.")
def second_of_two_does_not_count(lab: Lab) -> None:
    client = lab.client()
    exchange = client.ask_signed(
        Draft(wire.ALLOCATE).transport(99).transport(wire.UDP).because("transports 99, then 17")
    )
    exchange.expect_error(442, 400)


@requirement("8489-14.2-01", "MUST", "XOR-MAPPED-ADDRESS is the client's address and port (IPv4 or IPv6).", turn=False)
def mapped_address(lab: Lab) -> None:
    client = lab.client()
    _check_mapped(client, client.ask(Draft(wire.BINDING)).expect_success())


@requirement(
    "8489-14.2-02", "MUST", "XOR-MAPPED-ADDRESS over IPv6 is XORed with the transaction id as well.", turn=False
)
def mapped_address_over_ipv6(lab: Lab) -> None:
    server = lab.target.server if ":" in lab.target.server.host else lab.target.server6
    if server is None:
        raise NotTested("needs the server's IPv6 address: --server6")
    client = lab.client(server=server)
    exchange = client.ask(Draft(wire.BINDING))
    if exchange.answer is None:
        raise NotApplicable(f"the server does not answer at {server}")
    _check_mapped(client, exchange.expect_success())


def _check_mapped(client: Client, answer: Message) -> None:
    """A NAT in between changes the address, so it is compared only where there can be none."""
    mapped = answer.address(wire.XOR_MAPPED_ADDRESS)
    if mapped is None or (mapped != client.link.local and client.link.local.host.startswith(("127.", "::1"))):
        raise Failed(f"sent Binding request from {client.link.local}; XOR-MAPPED-ADDRESS is {mapped}")


@requirement("8489-14.2-03", "MUST", "The first byte of XOR-MAPPED-ADDRESS is zero.", turn=False)
def mapped_address_first_byte(lab: Lab) -> None:
    value = _binding(lab).first(wire.XOR_MAPPED_ADDRESS)
    if value is None or value[0]:
        raise Failed(f"sent Binding request; XOR-MAPPED-ADDRESS is {value.hex() if value else 'missing'}")


@requirement("8489-14.7-01", "MUST", "A request with a right FINGERPRINT is answered.", turn=False)
def right_fingerprint(lab: Lab) -> None:
    lab.client().ask(Draft(wire.BINDING).fingerprint()).expect_success()


@requirement("8489-14.7-02", "MUST", "A request with a wrong FINGERPRINT is discarded.", turn=False)
def wrong_fingerprint(lab: Lab) -> None:
    draft = Draft(wire.BINDING).fingerprint(right=False).because("wrong FINGERPRINT")
    lab.client().ask_once(draft).expect_nothing()


@requirement("8489-14.7-03", "MUST", "FINGERPRINT in a response is right, and the last attribute.", turn=False)
def fingerprint_of_response(lab: Lab) -> None:
    answer = lab.client().ask(Draft(wire.BINDING).fingerprint()).expect_success()
    if not answer.has(wire.FINGERPRINT):
        raise NotApplicable("the server sends no FINGERPRINT")
    if answer.attributes[-1].type != wire.FINGERPRINT or not answer.has_right_fingerprint():
        raise Failed(f"sent Binding request; the FINGERPRINT of {answer} is wrong or not the last attribute")


@requirement("8489-14.8-01", "MUST", "ERROR-CODE has a class from 3 to 6 and a number up to 99.", turn=False)
def error_code_is_in_range(lab: Lab) -> None:
    for value in _error_codes(lab):
        if len(value) < 4 or not 3 <= value[2] & 7 <= 6 or value[3] > 99:
            raise Failed(f"ERROR-CODE is {value.hex()}")


@requirement("8489-14.8-02", "SHOULD", "The reserved bits of ERROR-CODE are zero.", turn=False)
def error_code_reserved_bits(lab: Lab) -> None:
    for value in _error_codes(lab):
        if value[:2] != b"\0\0" or value[2] & 0xF8:
            raise Failed(f"ERROR-CODE begins with {value[:4].hex()}")


@requirement("8489-14.8-03", "MUST", "The reason phrase is UTF-8 of fewer than 128 characters.", turn=False)
def reason_phrase(lab: Lab) -> None:
    for value in _error_codes(lab):
        _check_text("the reason phrase", value[4:])


def _error_codes(lab: Lab) -> list[bytes]:
    answers = _every_kind_of_answer(lab)
    values = [value for answer in answers for value in answer.all(wire.ERROR_CODE)]
    if not values:
        raise NotApplicable("the server gave no error response")
    return values


@requirement("8489-14.9-01", "MUST", "REALM is UTF-8 of fewer than 128 characters.")
def realm_text(lab: Lab) -> None:
    lab.need_authentication()
    _check_text("REALM", lab.client().challenge().first(wire.REALM) or b"")


@requirement("8489-14.10-01", "MUST", "NONCE has fewer than 128 characters.")
def nonce_text(lab: Lab) -> None:
    lab.need_authentication()
    _check_text("NONCE", lab.client().challenge().first(wire.NONCE) or b"")


@requirement("8489-14.14-01", "MUST", "SOFTWARE is UTF-8 of fewer than 128 characters.", turn=False)
def software_text(lab: Lab) -> None:
    value = _binding(lab).first(wire.SOFTWARE)
    if value is None:
        raise NotApplicable("the server sends no SOFTWARE")
    _check_text("SOFTWARE", value)


def _check_text(name: str, value: bytes) -> None:
    try:
        characters = len(value.decode())
    except UnicodeDecodeError:
        raise Failed(f"{name} is no UTF-8: {value.hex()}") from None
    if characters >= 128 or len(value) > MAX_TEXT:
        raise Failed(f"{name} has {characters} characters in {len(value)} bytes")


@requirement(
    "8489-14.5-01", "MUST", "Attributes behind MESSAGE-INTEGRITY are ignored: a LIFETIME of 0 there frees nothing."
)
def attributes_behind_integrity(lab: Lab) -> None:
    lab.need_authentication()
    client = lab.client()
    client.allocate()
    draft = client.signed(Draft(wire.REFRESH)).lifetime(0).because("LIFETIME 0 behind MESSAGE-INTEGRITY")
    exchange = client.ask(draft)
    if exchange.expect_success().number(wire.LIFETIME) == 0:
        raise exchange.failed("a LIFETIME that is not 0")
    client.ask_signed(Draft(wire.REFRESH).because("whether the allocation is still there")).expect_success()


@requirement("8489-14.5-02", "MUST", "FINGERPRINT behind MESSAGE-INTEGRITY counts: a right one is accepted.")
def fingerprint_behind_integrity(lab: Lab) -> None:
    client = lab.client()
    client.ask(client.signed(Draft(wire.ALLOCATE).transport()).fingerprint()).expect_success()


@requirement(
    "8489-14.5-03", "MUST", "FINGERPRINT behind MESSAGE-INTEGRITY counts: a wrong one has the request discarded."
)
def wrong_fingerprint_behind_integrity(lab: Lab) -> None:
    client = lab.client()
    draft = client.signed(Draft(wire.ALLOCATE).transport()).fingerprint(right=False)
    client.ask_once(draft.because("wrong FINGERPRINT behind MESSAGE-INTEGRITY")).expect_nothing()


@requirement("8489-6.3.2-03", "MUST", "An indication with an unknown required attribute has no effect.")
def unknown_attribute_in_indication(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.permit(peer.address)
    draft = Draft(wire.SEND, wire.INDICATION).peer(peer.address).data(b"unknown").u32(UNKNOWN, 0)
    client.link.send(draft.encode())
    if (came := peer.receive(lab.silence_s)) is not None:
        raise Failed(f"sent {draft}; expected nothing at the peer, got {seen(came)}")
    client.send_to(peer.address, b"known")
    if peer.receive(lab.target.answer_s) is None:
        raise NotApplicable("the server relays no Send indications at all")
