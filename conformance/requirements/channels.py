"""Binding channels: RFC 8656, sections 12, 12.1, 12.2 and 18.1."""

from conformance import wire
from conformance.lab import Lab, seen
from conformance.registry import Failed, NotApplicable, requirement
from conformance.requirements.allocate_options import ipv6_allocation
from conformance.wire import Address, Draft, channel_data


def _bind(number: int, peer: Address) -> Draft:
    return Draft(wire.CHANNEL_BIND).channel(number).peer(peer).because(f"channel 0x{number:04x}, peer {peer}")


@requirement("8656-12.2-01", "MUST", "ChannelBind with number 0x4000, the lowest, succeeds.")
def lowest_number(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.ask_signed(_bind(0x4000, peer.address)).expect_success()


@requirement("8656-12.2-02", "MUST", "ChannelBind with number 0x4FFF, the highest, succeeds.")
def highest_number(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.ask_signed(_bind(0x4FFF, peer.address)).expect_success()


@requirement("8656-12.2-03", "MUST", "ChannelBind with a number below 0x4000 is answered 400.")
def number_too_low(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.ask_signed(_bind(0x3FFF, peer.address)).expect_error(400)


@requirement(
    "8656-12.2-04", "MUST", "ChannelBind with 0x5000, which RFC 5766 allowed and RFC 8656 does not, is answered 400."
)
def number_of_older_range(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.ask_signed(_bind(0x5000, peer.address)).expect_error(400)


@requirement("8656-12.2-05", "MUST", "ChannelBind with number 0x8000 is answered 400.")
def number_too_high(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.ask_signed(_bind(0x8000, peer.address)).expect_error(400)


@requirement("8656-12.2-06", "MUST", "ChannelBind with number 0xFFFF is answered 400.")
def number_far_too_high(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.ask_signed(_bind(0xFFFF, peer.address)).expect_error(400)


@requirement("8656-12.2-07", "MUST", "ChannelBind without CHANNEL-NUMBER is answered 400.")
def no_number(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.ask_signed(Draft(wire.CHANNEL_BIND).peer(peer.address)).expect_error(400)


@requirement("8656-12.2-08", "MUST", "ChannelBind without XOR-PEER-ADDRESS is answered 400.")
def no_peer(lab: Lab) -> None:
    client, _, _ = lab.allocated()
    client.ask_signed(Draft(wire.CHANNEL_BIND).channel(0x4000)).expect_error(400)


@requirement("8656-12.2-09", "MUST", "A number that is bound to a peer cannot be bound to another one: 400.")
def number_bound_to_other_peer(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    other = lab.peer()
    client.bind(0x4000, peer.address)
    client.ask_signed(_bind(0x4000, other.address)).expect_error(400)


@requirement("8656-12.2-10", "MUST", "A peer that is bound to a number cannot be bound to another one: 400.")
def peer_bound_to_other_number(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.bind(0x4000, peer.address)
    client.ask_signed(_bind(0x4001, peer.address)).expect_error(400)


@requirement("8656-12.2-11", "MUST", "The refused binding leaves the first one as it was.")
def refused_binding_is_harmless(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.bind(0x4000, peer.address)
    client.ask_signed(_bind(0x4001, peer.address)).expect_error(400)
    client.link.send(channel_data(0x4000, b"still there!"))
    if (came := peer.receive(lab.target.answer_s)) is None:
        raise Failed(f"sent channel data after a refused ChannelBind; the peer got {seen(came)}")


@requirement("8656-12.2-12", "MUST", "Binding the same number to the same peer again succeeds.")
def bind_again(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.bind(0x4000, peer.address)
    client.ask_signed(_bind(0x4000, peer.address)).expect_success()


@requirement("8656-12.2-13", "MUST", "Two ports of one host are two peers, each with a channel of its own.")
def two_ports_two_channels(lab: Lab) -> None:
    client, peer, relayed = lab.allocated()
    other = lab.peer()
    client.bind(0x4000, peer.address).bind(0x4001, other.address)
    for each, number in ((other, 0x4001), (peer, 0x4000)):
        each.send(b"hello", relayed)
        came = client.delivery()
        if came is None or came.channel != number:
            raise Failed(f"the peer on channel 0x{number:04x} sent 5 bytes; the client got {seen(came)}")


@requirement("8656-12.2-14", "MUST", "ChannelBind to a peer of another family is answered 443.")
def peer_of_other_family(lab: Lab) -> None:
    client, _, _ = lab.allocated()
    client.ask_signed(_bind(0x4000, Address("2001:db8::1", 5000))).expect_error(443)


@requirement("8656-12.2-15", "MUST", "ChannelBind to an IPv4 peer of an IPv6 allocation is answered 443.")
def ipv4_peer_of_ipv6_allocation(lab: Lab) -> None:
    client, _ = ipv6_allocation(lab)
    client.ask_signed(_bind(0x4000, Address("192.0.2.1", 5000))).expect_error(443)


@requirement("8656-12.2-16", "MUST", "ChannelBind installs a permission: Send indications to the peer are relayed.")
def bind_permits_sending(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.bind(0x4000, peer.address)
    draft = client.send_to(peer.address, b"hello")
    if (came := peer.receive(lab.target.answer_s)) is None:
        raise Failed(f"sent {draft} after ChannelBind; the peer got {seen(came)}")


@requirement("8656-12.2-17", "MUST", "That permission is for the peer's address: another port of it gets through.")
def bind_permits_address(lab: Lab) -> None:
    client, peer, relayed = lab.allocated()
    other = lab.peer()
    client.bind(0x4000, peer.address)
    other.send(b"hello", relayed)
    came = client.delivery()
    if came is None or came.peer != other.address:
        raise Failed(f"another port of the bound peer's address sent 5 bytes; the client got {seen(came)}")


@requirement("8656-12.2-18", "MUST", "ChannelBind without credentials is answered 401.")
def bind_without_credentials(lab: Lab) -> None:
    lab.need_authentication()
    client, peer, _ = lab.allocated()
    client.ask(_bind(0x4000, peer.address).because("no credentials")).expect_error(401)


@requirement("8656-12.2-19", "MAY", "ChannelBind to the multicast address 224.0.0.1 is refused with 403.")
def bind_to_multicast(lab: Lab) -> None:
    client, _, _ = lab.allocated()
    exchange = client.ask_signed(_bind(0x4000, Address("224.0.0.1", 5000)))
    if exchange.answer is not None and exchange.answer.message_class == wire.SUCCESS:
        raise NotApplicable("the server permits multicast peers, as it may")
    exchange.expect_error(403, 400)


@requirement("8656-12.2-20", "MUST", "The response to ChannelBind is signed.")
def bind_is_signed(lab: Lab) -> None:
    lab.need_authentication()
    client, peer, _ = lab.allocated()
    exchange = client.ask_signed(_bind(0x4000, peer.address))
    if not exchange.expect_success().is_signed_with(client.key_of(None)):
        raise exchange.failed("a right MESSAGE-INTEGRITY")


@requirement("8656-18.1-01", "MUST", "The reserved bytes of CHANNEL-NUMBER are ignored.")
def number_reserved_bytes(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    draft = Draft(wire.CHANNEL_BIND).add(wire.CHANNEL_NUMBER, b"\x40\x00\xff\xff").peer(peer.address)
    client.ask_signed(draft.because("reserved bytes 0xff")).expect_success()


@requirement("8656-12-01", "MUST", "The same number in two allocations is two channels.")
def channels_belong_to_allocations(lab: Lab) -> None:
    first, first_peer, _ = lab.allocated()
    second, second_peer, _ = lab.allocated()
    first.bind(0x4000, first_peer.address)
    second.bind(0x4000, second_peer.address)
    first.link.send(channel_data(0x4000, b"1111"))
    second.link.send(channel_data(0x4000, b"2222"))
    came = first_peer.receive(lab.target.answer_s), second_peer.receive(lab.target.answer_s)
    if [each and each[0] for each in came] != [b"1111", b"2222"]:
        raise Failed(f"two clients used channel 0x4000; their peers got {seen(came[0])} and {seen(came[1])}")


@requirement("8656-12-02", "MUST", "The same peer may be bound in two allocations.")
def peers_belong_to_allocations(lab: Lab) -> None:
    first, peer, _ = lab.allocated()
    second = lab.client()
    second.allocate()
    first.bind(0x4000, peer.address)
    second.ask_signed(_bind(0x4001, peer.address)).expect_success()
