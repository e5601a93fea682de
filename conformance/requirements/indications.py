"""Send and Data indications: RFC 8656, section 11."""

from conformance import wire
from conformance.lab import Client, Lab, seen
from conformance.links import Peer
from conformance.registry import Failed, NotApplicable, requirement
from conformance.wire import Address, Draft

LARGEST = 1200  # bytes, so that nothing is fragmented on the way


def _permitted(lab: Lab) -> tuple[Client, Peer, Address]:
    client, peer, relayed = lab.allocated()
    client.permit(peer.address)
    return client, peer, relayed


def _send() -> Draft:
    return Draft(wire.SEND, wire.INDICATION)


def _must_arrive(lab: Lab, peer: Peer, draft: Draft, payload: bytes, relayed: Address | None = None) -> None:
    came = peer.receive(lab.target.answer_s)
    if came is None or came[0] != payload or (relayed is not None and came[1] != relayed):
        wanted = f"{len(payload)} bytes{f' from {relayed}' if relayed else ''}"
        raise Failed(f"sent {draft}; expected {wanted} at the peer, got {seen(came)}")


def _must_not_arrive(lab: Lab, client: Client, peer: Peer, draft: Draft) -> None:
    """Nothing of `draft` arrives, and what is right does; else silence would prove nothing."""
    if (came := peer.receive(lab.silence_s)) is not None:
        raise Failed(f"sent {draft}; expected nothing at the peer, got {seen(came)}")
    client.permit(peer.address)
    client.send_to(peer.address, b"right")
    if peer.receive(lab.target.answer_s) is None:
        raise NotApplicable("the server relays no Send indications at all")


@requirement("8656-11.2-01", "MUST", "A Send indication to a permitted peer is relayed.")
def send(lab: Lab) -> None:
    client, peer, _ = _permitted(lab)
    _must_arrive(lab, peer, client.send_to(peer.address, b"hello"), b"hello")


@requirement("8656-11.2-02", "MUST", "The datagram comes from the relayed address.")
def send_comes_from_relayed_address(lab: Lab) -> None:
    client, peer, relayed = _permitted(lab)
    _must_arrive(lab, peer, client.send_to(peer.address, b"hello"), b"hello", relayed)


@requirement("8656-11.2-03", "MUST", "A Send indication to a peer without permission is discarded.")
def send_without_permission(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    _must_not_arrive(lab, client, peer, client.send_to(peer.address, b"hello"))


@requirement("8656-11.2-04", "MUST", "A Send indication without DATA is discarded.")
def send_without_data(lab: Lab) -> None:
    client, peer, _ = _permitted(lab)
    draft = _send().peer(peer.address)
    client.link.send(draft.encode())
    _must_not_arrive(lab, client, peer, draft)


@requirement("8656-11.2-05", "MUST", "A Send indication without XOR-PEER-ADDRESS is discarded, without an answer.")
def send_without_peer(lab: Lab) -> None:
    client, peer, _ = _permitted(lab)
    draft = _send().data(b"hello")
    client.link.send(draft.encode())
    if (answer := client.hear(0.05)) is not None:
        raise Failed(f"sent {draft}; expected no answer, got {seen(answer)}")
    _must_not_arrive(lab, client, peer, draft)


@requirement("8656-11.2-06", "MUST", "A Send indication with DATA of no bytes gives an empty datagram.")
def send_nothing(lab: Lab) -> None:
    client, peer, _ = _permitted(lab)
    _must_arrive(lab, peer, client.send_to(peer.address, b"").because("DATA of 0 bytes"), b"")


@requirement("8656-11.2-07", "MUST", "Padding of DATA is not relayed.")
def send_padded(lab: Lab) -> None:
    client, peer, _ = _permitted(lab)
    _must_arrive(lab, peer, client.send_to(peer.address, b"12345"), b"12345")


@requirement("8656-11.2-08", "MUST", "DATA of 1200 bytes is relayed whole.")
def send_much(lab: Lab) -> None:
    client, peer, _ = _permitted(lab)
    payload = bytes(range(256)) * 5
    _must_arrive(lab, peer, client.send_to(peer.address, payload[:LARGEST]), payload[:LARGEST])


@requirement(
    "8656-11.2-09", "MUST", "DONT-FRAGMENT in a Send indication is obeyed, or has it discarded if unsupported."
)
def send_unfragmented(lab: Lab) -> None:
    client, peer, _ = _permitted(lab)
    supported = lab.client().ask_signed(Draft(wire.ALLOCATE).transport().add(wire.DONT_FRAGMENT)).answer
    draft = _send().peer(peer.address).data(b"hello").add(wire.DONT_FRAGMENT)
    client.link.send(draft.encode())
    if supported is not None and supported.error_code == 420:
        _must_not_arrive(lab, client, peer, draft)
    else:
        _must_arrive(lab, peer, draft, b"hello")


@requirement("8656-11.2-10", "MUST", "A Send indication works although a channel is bound to the peer.")
def send_beside_channel(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.bind(0x4000, peer.address)
    _must_arrive(lab, peer, client.send_to(peer.address, b"hello"), b"hello")


@requirement("8656-11.2-11", "MUST", "A Send indication to any port of a permitted address is relayed.")
def send_to_other_port(lab: Lab) -> None:
    client, _, _ = _permitted(lab)
    other = lab.peer()
    _must_arrive(lab, other, client.send_to(other.address, b"hello"), b"hello")


@requirement("8656-11.3-01", "MUST", "Data of a peer without a channel comes in a Data indication.")
def data_indication(lab: Lab) -> None:
    client, peer, relayed = _permitted(lab)
    peer.send(b"hello", relayed)
    came = client.delivery()
    if came is None or came.channel is not None or came.payload != b"hello":
        raise Failed(f"a permitted peer sent 5 bytes; expected a Data indication, got {seen(came)}")


@requirement("8656-11.3-02", "MUST", "XOR-PEER-ADDRESS of a Data indication is the sender's address and port.")
def data_indication_names_peer(lab: Lab) -> None:
    client, peer, relayed = _permitted(lab)
    other = lab.peer()
    for each in (peer, other):
        each.send(b"hello", relayed)
        came = client.delivery()
        if came is None or came.peer != each.address:
            raise Failed(f"{each.address} sent 5 bytes; the client got {seen(came)}")


@requirement("8656-11.3-03", "MUST", "An empty datagram of a peer gives a Data indication with DATA of no bytes.")
def empty_data_indication(lab: Lab) -> None:
    client, peer, relayed = _permitted(lab)
    peer.send(b"", relayed)
    came = client.delivery()
    if came is None or came.payload:
        raise Failed(f"a permitted peer sent an empty datagram; the client got {seen(came)}")


@requirement("8656-11.3-04", "MUST", "A datagram of 1200 bytes reaches the client whole.")
def large_data_indication(lab: Lab) -> None:
    client, peer, relayed = _permitted(lab)
    payload = (bytes(range(256)) * 5)[:LARGEST]
    peer.send(payload, relayed)
    came = client.delivery()
    if came is None or came.payload != payload:
        raise Failed(f"a permitted peer sent {LARGEST} bytes; the client got {seen(came)}")


@requirement(
    "8656-11.3-05", "MUST", "Two clients of one server can talk to each other through their relayed addresses."
)
def two_clients(lab: Lab) -> None:
    first, second = lab.client(), lab.client()
    first_relayed, second_relayed = first.allocate(), second.allocate()
    first.permit(second_relayed)
    second.permit(first_relayed)
    for sender, source, receiver, target in (
        (first, first_relayed, second, second_relayed),
        (second, second_relayed, first, first_relayed),
    ):
        draft = sender.send_to(target, b"hello")
        came = receiver.delivery()
        if came is None or came.payload != b"hello" or came.peer != source:
            raise Failed(f"sent {draft} from {source} to {target}; the other client got {seen(came)}")


@requirement("8656-11.5-01", "MAY", "When a peer's port is closed, the client gets a Data indication with ICMP.")
def icmp(lab: Lab) -> None:
    client, peer, _ = _permitted(lab)
    closed = lab.peer()
    address = closed.address
    closed.close()
    for _ in range(2):
        client.send_to(address, b"anybody there?")
        data = client.hear(lab.silence_s)
        if data is not None:
            break
    if data is None:
        raise NotApplicable("the server tells clients of no ICMP errors")
    message = wire.decode(data)
    value = message.first(wire.ICMP)
    if value is None or message.address(wire.XOR_PEER_ADDRESS) != address or value[2:4] != b"\x03\x03":
        raise Failed(f"sent to a closed port, {address}; expected ICMP 3/3 from there, got {seen(data)}")
    assert peer is not closed
