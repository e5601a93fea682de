"""What a STUN message is, and what becomes of one that is none: RFC 8489, sections 5, 6.3, 11 and 12."""

from conformance import wire
from conformance.lab import Client, Lab, seen
from conformance.registry import Failed, NotApplicable, requirement
from conformance.wire import Draft, Message


def _raw_binding_answer(lab: Lab) -> tuple[Draft, bytes]:
    """The bytes that answer a Binding request, whatever is in them."""
    client, draft = lab.client(), Draft(wire.BINDING)
    for _ in range(2):
        client.link.send(draft.encode())
        if (data := client.hear(lab.target.answer_s)) is not None:
            return draft, data
    raise Failed(f"sent {draft}; expected a success response, got no answer")


def _binding(client: Client, draft: Draft | None = None) -> Message:
    return client.ask(draft or Draft(wire.BINDING)).expect_success()


def _must_ignore(lab: Lab, draft: Draft, data: bytes | None = None) -> None:
    """Nothing comes back, and the server is still there."""
    client = lab.client()
    client.link.send(draft.encode() if data is None else data)
    if (answer := client.hear()) is not None:
        raise Failed(f"sent {draft}; expected no answer, got {seen(answer)}")
    fresh = lab.client() if client.link.reliable else client
    fresh.ask(Draft(wire.BINDING).because("after that")).expect_success()


@requirement("8489-5-01", "MUST", "The first two bits of every message are zero.", turn=False)
def first_two_bits(lab: Lab) -> None:
    draft, data = _raw_binding_answer(lab)
    if data[0] & 0xC0:
        raise Failed(f"sent {draft}; the answer begins with 0x{data[0]:02x}")


@requirement("8489-5-02", "MUST", "Bytes 4 to 7 of every message are the magic cookie 0x2112A442.", turn=False)
def magic_cookie(lab: Lab) -> None:
    draft, data = _raw_binding_answer(lab)
    if data[4:8] != wire.MAGIC_COOKIE.to_bytes(4, "big"):
        raise Failed(f"sent {draft}; bytes 4 to 7 of the answer are {data[4:8].hex()}")


@requirement(
    "8489-5-03", "MUST", "The length field counts the bytes behind the header, a multiple of four.", turn=False
)
def length_field(lab: Lab) -> None:
    draft, data = _raw_binding_answer(lab)
    length = int.from_bytes(data[2:4], "big")
    if length % 4 or length != len(data) - wire.HEADER_SIZE:
        raise Failed(f"sent {draft}; the answer's length field is {length}, {len(data) - 20} bytes follow the header")


@requirement("8489-5-04", "MUST", "A response repeats the transaction id of its request.", turn=False)
def transaction_id(lab: Lab) -> None:
    draft, data = _raw_binding_answer(lab)
    if data[8:20] != draft.transaction_id:
        raise Failed(f"sent {draft} {draft.transaction_id.hex()}; the answer's transaction id is {data[8:20].hex()}")


@requirement(
    "8489-5-05", "MUST", "A response has the method of its request, and the class success or error.", turn=False
)
def method_and_class(lab: Lab) -> None:
    draft, data = _raw_binding_answer(lab)
    if data[:2] not in (b"\x01\x01", b"\x01\x11"):
        raise Failed(f"sent {draft}; the answer's type is 0x{data[:2].hex()}")


@requirement("8489-6.3-01", "MUST", "A message whose first two bits are not zero is discarded.", turn=False)
def top_bits_set(lab: Lab) -> None:
    draft = Draft(wire.BINDING).because("first two bits 10")
    _must_ignore(lab, draft, draft.encode(top_bits=2))


@requirement(
    "8489-6.3-02", "MUST", "A message with another value than the magic cookie gets no RFC 8489 answer.", turn=False
)
def wrong_cookie(lab: Lab) -> None:
    client, draft = lab.client(), Draft(wire.BINDING, cookie=0xDEADBEEF).because("magic cookie 0xdeadbeef")
    client.link.send(draft.encode())
    answer = client.hear()
    if answer is not None and answer[4:8] == wire.MAGIC_COOKIE.to_bytes(4, "big"):
        raise Failed(f"sent {draft}; expected no answer or a classic one, got {seen(answer)}")


@requirement(
    "8489-6.3-03",
    "MUST",
    "A length field that is no multiple of four: the message is discarded.",
    turn=False,
    over="udp",
)
def odd_length(lab: Lab) -> None:
    draft = Draft(wire.BINDING, body=bytes(3)).because("length 3")
    _must_ignore(lab, draft)


@requirement(
    "8489-6.3-04", "MUST", "A length field beyond the datagram's end: the message is discarded.", turn=False, over="udp"
)
def length_beyond_datagram(lab: Lab) -> None:
    draft = Draft(wire.BINDING).because("length 8, nothing behind the header")
    _must_ignore(lab, draft, draft.encode(length=8))


@requirement("8489-6.3-05", "MUST", "A datagram shorter than a header is discarded.", turn=False, over="udp")
def short_datagram(lab: Lab) -> None:
    draft = Draft(wire.BINDING).because("cut to 12 bytes")
    _must_ignore(lab, draft, draft.encode()[:12])


@requirement("8489-6.3-06", "MUST", "An empty datagram is discarded.", turn=False, over="udp")
def empty_datagram(lab: Lab) -> None:
    _must_ignore(lab, Draft(wire.BINDING).because("an empty datagram"), b"")


@requirement(
    "8489-6.3-07", "MUST", "An attribute that reaches beyond the message: no success response, and no harm.", turn=False
)
def overrunning_attribute(lab: Lab) -> None:
    draft = Draft(wire.BINDING).add(wire.SOFTWARE, b"abcd", length=400).because("an attribute longer than the message")
    client = lab.client()
    exchange = client.ask_once(draft)
    if exchange.answer is not None:
        exchange.expect_error(400)
    fresh = lab.client() if client.link.reliable else client
    _binding(fresh)


@requirement("8489-6.3-08", "MUST", "A request with an unknown method is discarded.", turn=False)
def unknown_method(lab: Lab) -> None:
    _must_ignore(lab, Draft(0x0FF).because("method 0x0ff"))


@requirement("8489-6.3-09", "MUST", "A class that its method does not have, as Send requests, is discarded.")
def class_not_of_method(lab: Lab) -> None:
    peer = lab.peer()
    _must_ignore(lab, Draft(wire.SEND).peer(peer.address).data(b"x").because("class request"))


@requirement("8489-6.3-10", "MUST", "A success response to nothing that was asked is discarded.", turn=False)
def success_response_to_server(lab: Lab) -> None:
    _must_ignore(lab, Draft(wire.BINDING, wire.SUCCESS))


@requirement("8489-6.3-11", "MUST", "An error response to nothing that was asked is discarded.", turn=False)
def error_response_to_server(lab: Lab) -> None:
    _must_ignore(lab, Draft(wire.BINDING, wire.ERROR).add(wire.ERROR_CODE, b"\0\0\x04\0"))


@requirement("8489-6.3.2-01", "MUST", "An indication gets no answer.", turn=False)
def indication(lab: Lab) -> None:
    _must_ignore(lab, Draft(wire.BINDING, wire.INDICATION))


@requirement(
    "8489-6.3.2-02", "MUST", "An indication with an unknown required attribute gets no answer either.", turn=False
)
def indication_with_unknown_attribute(lab: Lab) -> None:
    _must_ignore(lab, Draft(wire.BINDING, wire.INDICATION).u32(0x7F01, 0))


@requirement(
    "8489-6.3.1.2-01", "MUST", "The response comes from the address and port that the request was sent to.", turn=False
)
def response_from_same_address(lab: Lab) -> None:
    _binding(lab.client())  # its socket is connected, so it hears nobody else


@requirement(
    "8489-6.3.1-01", "MUST", "A Binding request sent twice gets the same answer twice.", turn=False, over="udp"
)
def retransmitted_binding(lab: Lab) -> None:
    client, draft = lab.client(), Draft(wire.BINDING)
    first, second = _binding(client, draft), _binding(client, draft)
    if first.address(wire.XOR_MAPPED_ADDRESS) != second.address(wire.XOR_MAPPED_ADDRESS):
        raise Failed(f"sent {draft} twice; got two mapped addresses")


@requirement("8489-6.3.1.1-01", "MUST", "A Binding success response has XOR-MAPPED-ADDRESS.", turn=False)
def binding_has_mapped_address(lab: Lab) -> None:
    answer = _binding(lab.client())
    if answer.address(wire.XOR_MAPPED_ADDRESS) is None:
        raise Failed(f"sent Binding request; got {answer}")


@requirement("8489-6.3.1.1-02", "SHOULD", "A response has SOFTWARE.", turn=False)
def software_in_response(lab: Lab) -> None:
    answer = _binding(lab.client())
    if not answer.has(wire.SOFTWARE):
        raise Failed(f"sent Binding request; got {answer}")


@requirement("8489-12-01", "SHOULD", "A Binding request needs no credentials.", turn=False)
def binding_without_credentials(lab: Lab) -> None:
    _binding(lab.client())


@requirement("8489-12-02", "MUST", "Nobody has to send FINGERPRINT.", turn=False)
def binding_without_fingerprint(lab: Lab) -> None:
    _binding(lab.client())


@requirement(
    "8489-11-01", "MAY", "A classic request (RFC 3489, no magic cookie) gets MAPPED-ADDRESS.", turn=False, over="udp"
)
def classic_binding(lab: Lab) -> None:
    client, draft = lab.client(), Draft(wire.BINDING, cookie=0x01020304).because("classic: no magic cookie")
    client.link.send(draft.encode())
    answer = client.hear(lab.target.answer_s)
    if answer is None:
        raise NotApplicable("the server does not talk to RFC 3489 clients, as it may")
    if answer[4:20] != draft.encode()[4:20]:
        raise Failed(f"sent {draft}; the answer's transaction id has other 16 bytes")
    host, port = client.link.local
    wanted = b"\x00\x01\x00\x08\x00\x01" + port.to_bytes(2, "big") + bytes(int(part) for part in host.split("."))
    if answer[:2] != b"\x01\x01" or wanted not in answer:
        raise Failed(f"sent {draft}; expected MAPPED-ADDRESS {client.link.local}, got {answer.hex()}")
