"""Permissions and CreatePermission: RFC 8656, sections 9 and 10."""

from conformance import wire
from conformance.lab import Lab, seen
from conformance.registry import Failed, NotApplicable, requirement
from conformance.requirements.allocate_options import ipv6_allocation
from conformance.wire import Address, Draft

REFUSED_EVERYWHERE = {
    "multicast": Address("224.0.0.1", 5000),
    "broadcast": Address("255.255.255.255", 5000),
    "unspecified": Address("0.0.0.0", 5000),
}


def _permission() -> Draft:
    return Draft(wire.CREATE_PERMISSION)


@requirement("8656-10.2-01", "MUST", "CreatePermission for a peer succeeds.")
def permission(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.ask_signed(_permission().peer(peer.address)).expect_success()


@requirement("8656-10.2-02", "MUST", "CreatePermission without XOR-PEER-ADDRESS is answered 400.")
def permission_for_nobody(lab: Lab) -> None:
    client, _, _ = lab.allocated()
    client.ask_signed(_permission().because("no XOR-PEER-ADDRESS")).expect_error(400)


@requirement("8656-10.2-03", "MUST", "CreatePermission with a malformed XOR-PEER-ADDRESS is answered 400.")
def permission_for_malformed_peer(lab: Lab) -> None:
    client, _, _ = lab.allocated()
    draft = _permission().add(wire.XOR_PEER_ADDRESS, b"\0\1\0\0\0\0").because("XOR-PEER-ADDRESS of 6 bytes")
    client.ask_signed(draft).expect_error(400)


@requirement("8656-10.2-04", "MUST", "CreatePermission with an XOR-PEER-ADDRESS of an unknown family is refused.")
def permission_for_unknown_family(lab: Lab) -> None:
    client, _, _ = lab.allocated()
    draft = _permission().add(wire.XOR_PEER_ADDRESS, b"\0\x09\0\0\0\0\0\0").because("XOR-PEER-ADDRESS of family 9")
    client.ask_signed(draft).expect_error(400, 443, 440)


@requirement("8656-10.2-05", "MUST", "CreatePermission for a peer of another family is answered 443.")
def permission_for_other_family(lab: Lab) -> None:
    client, _, _ = lab.allocated()
    draft = _permission().peer(Address("2001:db8::1", 5000)).because("an IPv6 peer of an IPv4 allocation")
    client.ask_signed(draft).expect_error(443)


@requirement("8656-10.2-06", "MUST", "CreatePermission for an IPv4 peer of an IPv6 allocation is answered 443.")
def permission_for_ipv4_from_ipv6(lab: Lab) -> None:
    client, _ = ipv6_allocation(lab)
    draft = _permission().peer(Address("192.0.2.1", 5000)).because("an IPv4 peer of an IPv6 allocation")
    client.ask_signed(draft).expect_error(443)


@requirement("8656-10.2-07", "MUST", "One CreatePermission can permit several peers.")
def permission_for_several(lab: Lab) -> None:
    client, peer, relayed = lab.allocated()
    distant = lab.distant_peer()
    client.permit(distant.address, peer.address)
    for each in (peer, distant):
        each.send(b"hello", relayed)
        came = client.delivery()
        if came is None or came.payload != b"hello":
            raise Failed(
                f"permitted two peers in one request; {each.address} sent 5 bytes, the client got {seen(came)}"
            )


@requirement("8656-10.2-08", "MUST", "Of several peers in a request, one malformed has all refused with 400.")
def one_of_several_is_malformed(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    draft = _permission().peer(peer.address).add(wire.XOR_PEER_ADDRESS, b"\0\1\0\0\0\0")
    client.ask_signed(draft.because("a right and a malformed XOR-PEER-ADDRESS")).expect_error(400)


@requirement("8656-10.2-09", "MUST", "The port in CreatePermission is ignored, also port 0.")
def permission_ignores_port(lab: Lab) -> None:
    client, peer, relayed = lab.allocated()
    client.permit(Address(peer.address.host, 0))
    peer.send(b"hello", relayed)
    if (came := client.delivery()) is None:
        raise Failed(f"permitted port 0 of the peer's address; the peer sent 5 bytes, the client got {seen(came)}")


@requirement("8656-10.2-10", "MUST", "CreatePermission for the same peer again succeeds.")
def permission_again(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.permit(peer.address).permit(peer.address)


@requirement("8656-10.2-11", "MUST", "The response to CreatePermission is signed.")
def permission_is_signed(lab: Lab) -> None:
    lab.need_authentication()
    client, peer, _ = lab.allocated()
    exchange = client.ask_signed(_permission().peer(peer.address))
    if not exchange.expect_success().is_signed_with(client.key_of(None)):
        raise exchange.failed("a right MESSAGE-INTEGRITY")


@requirement("8656-10.2-12", "MUST", "CreatePermission without credentials is answered 401.")
def permission_without_credentials(lab: Lab) -> None:
    lab.need_authentication()
    client, peer, _ = lab.allocated()
    client.ask(_permission().peer(peer.address).because("no credentials")).expect_error(401)


@requirement("8656-10.2-13", "MAY", "A peer at the multicast address 224.0.0.1 is refused with 403.")
def permission_for_multicast(lab: Lab) -> None:
    _refused(lab, "multicast")


@requirement("8656-10.2-14", "MAY", "A peer at the broadcast address is refused with 403.")
def permission_for_broadcast(lab: Lab) -> None:
    _refused(lab, "broadcast")


@requirement("8656-10.2-15", "MAY", "A peer at the unspecified address 0.0.0.0 is refused with 403.")
def permission_for_unspecified(lab: Lab) -> None:
    _refused(lab, "unspecified")


def _refused(lab: Lab, kind: str) -> None:
    """A restriction is the server's choice, but then its code is 403; 400 says that this is no address at all."""
    client, _, _ = lab.allocated()
    draft = _permission().peer(REFUSED_EVERYWHERE[kind]).because(f"peer {REFUSED_EVERYWHERE[kind].host}")
    exchange = client.ask_signed(draft)
    if exchange.answer is not None and exchange.answer.message_class == wire.SUCCESS:
        raise NotApplicable(f"the server permits {kind} peers, as it may")
    exchange.expect_error(403, 400)


@requirement("8656-9-01", "MUST", "Data of a permitted peer reaches the client.")
def permitted_peer(lab: Lab) -> None:
    client, peer, relayed = lab.allocated()
    client.permit(peer.address)
    peer.send(b"hello", relayed)
    came = client.delivery()
    if came is None or came.payload != b"hello":
        raise Failed(f"a permitted peer sent 5 bytes; the client got {seen(came)}")


@requirement("8656-9-02", "MUST", "A permission is for an address, not for a port: another port of it gets through.")
def other_port_of_permitted_peer(lab: Lab) -> None:
    client, peer, relayed = lab.allocated()
    other = lab.peer()
    client.permit(peer.address)
    other.send(b"hello", relayed)
    if (came := client.delivery()) is None:
        raise Failed(f"another port of a permitted address sent 5 bytes; the client got {seen(came)}")


@requirement("8656-9-03", "MUST", "Data of another address than those permitted is discarded.")
def peer_without_permission(lab: Lab) -> None:
    client, peer, relayed = lab.allocated()
    client.permit(peer.address)
    lab.distant_peer().send(b"hello", relayed)
    if (came := client.hear()) is not None:
        raise Failed(f"an address without permission sent 5 bytes; the client got {seen(came)}")
    peer.send(b"hello", relayed)
    if client.delivery() is None:
        raise NotApplicable("the server relays nothing of permitted peers either")


@requirement("8656-9-04", "MUST", "Permissions of one allocation say nothing about another one.")
def permissions_are_separate(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.permit(peer.address)
    other = lab.client()
    relayed = other.allocate()
    peer.send(b"hello", relayed)
    if (came := other.hear()) is not None:
        raise Failed(f"a peer that another client permitted sent 5 bytes; the client got {seen(came)}")


@requirement("8656-9-05", "MUST", "A Send indication installs no permission.")
def send_installs_no_permission(lab: Lab) -> None:
    client, peer, relayed = lab.allocated()
    client.send_to(peer.address, b"may I?")
    peer.receive(lab.silence_s)
    peer.send(b"hello", relayed)
    if (came := client.hear()) is not None:
        raise Failed(f"sent a Send indication without permission, the peer then 5 bytes; the client got {seen(came)}")
