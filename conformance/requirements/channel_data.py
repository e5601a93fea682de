"""Channel data in both directions: RFC 8656, sections 12.4 to 12.7."""

from conformance.lab import Client, Lab, seen
from conformance.links import Peer
from conformance.registry import Failed, requirement
from conformance.wire import Address, channel_data

NUMBER = 0x4001
LARGEST = 1200


def _bound(lab: Lab) -> tuple[Client, Peer, Address]:
    client, peer, relayed = lab.allocated()
    client.bind(NUMBER, peer.address)
    return client, peer, relayed


def _padded(payload: bytes, client: Client) -> bytes:
    """As the transport wants it: streams need padding."""
    return channel_data(NUMBER, payload, padding=bytes(-len(payload) % 4) if client.link.reliable else b"")


def _must_arrive(lab: Lab, peer: Peer, sent: str, payload: bytes, relayed: Address | None = None) -> None:
    came = peer.receive(lab.target.answer_s)
    if came is None or came[0] != payload or (relayed is not None and came[1] != relayed):
        raise Failed(f"sent {sent}; expected {len(payload)} bytes at the peer, got {seen(came)}")


def _must_not_arrive(lab: Lab, peer: Peer, client: Client, sent: str) -> None:
    """Silence, and then right channel data arrives; else silence would prove nothing."""
    came = peer.receive(lab.silence_s) or client.hear(0.02)
    if came is not None:
        raise Failed(f"sent {sent}; expected silence, got {seen(came)}")
    client.link.send(channel_data(NUMBER, b"after it"))
    _must_arrive(lab, peer, f"channel data of 8 bytes after {sent}", b"after it")


@requirement("8656-12.6-03", "MUST", "Channel data on a bound channel is relayed to the peer.")
def to_peer(lab: Lab) -> None:
    client, peer, _ = _bound(lab)
    client.link.send(channel_data(NUMBER, b"hello123"))
    _must_arrive(lab, peer, "channel data of 8 bytes", b"hello123")


@requirement("8656-12.6-04", "MUST", "The datagram comes from the relayed address.")
def from_relayed_address(lab: Lab) -> None:
    client, peer, relayed = _bound(lab)
    client.link.send(channel_data(NUMBER, b"hello123"))
    _must_arrive(lab, peer, "channel data of 8 bytes", b"hello123", relayed)


@requirement("8656-12.5-02", "MUST", "Over UDP channel data without padding is accepted.", over="udp")
def unpadded(lab: Lab) -> None:
    client, peer, _ = _bound(lab)
    client.link.send(channel_data(NUMBER, b"12345"))
    _must_arrive(lab, peer, "channel data of 5 bytes without padding", b"12345")


@requirement(
    "8656-12.5-03", "MUST", "Over UDP channel data with padding is accepted, and the padding not relayed.", over="udp"
)
def padded(lab: Lab) -> None:
    client, peer, _ = _bound(lab)
    client.link.send(channel_data(NUMBER, b"12345", padding=bytes(3)))
    _must_arrive(lab, peer, "channel data of 5 bytes and 3 of padding", b"12345")


@requirement("8656-12.6-05", "MUST", "Channel data of no bytes gives an empty datagram.")
def empty_to_peer(lab: Lab) -> None:
    client, peer, _ = _bound(lab)
    client.link.send(channel_data(NUMBER, b""))
    _must_arrive(lab, peer, "channel data of 0 bytes", b"")


@requirement("8656-12.6-06", "MUST", "A length beyond the datagram's end: the message is discarded.", over="udp")
def length_beyond_datagram(lab: Lab) -> None:
    client, peer, _ = _bound(lab)
    client.link.send(channel_data(NUMBER, b"hello", length=9))
    _must_not_arrive(lab, peer, client, "channel data of 5 bytes with length 9")


@requirement("8656-12.6-07", "MUST", "A datagram shorter than the header of channel data is discarded.", over="udp")
def shorter_than_header(lab: Lab) -> None:
    client, peer, _ = _bound(lab)
    client.link.send(b"\x40\x01\x00")
    _must_not_arrive(lab, peer, client, "channel data cut to 3 bytes")


@requirement("8656-12.6-08", "MUST", "Channel data on a channel that is not bound is discarded.")
def unbound(lab: Lab) -> None:
    client, peer, _ = _bound(lab)
    client.link.send(channel_data(NUMBER + 1, b"hello123"))
    _must_not_arrive(lab, peer, client, "channel data on a channel that is not bound")


@requirement("8656-12.6-09", "MUST", "Channel data with a number of the reserved range is discarded.", over="udp")
def reserved_number(lab: Lab) -> None:
    client, peer, _ = _bound(lab)
    for number in (0x5001, 0x8001, 0xFFFF):
        client.link.send(channel_data(number, b"hello123"))
    _must_not_arrive(lab, peer, client, "channel data on 0x5001, 0x8001 and 0xffff")


@requirement("8656-12.6-10", "MUST", "1200 bytes on a channel are relayed whole.")
def much_to_peer(lab: Lab) -> None:
    client, peer, _ = _bound(lab)
    payload = (bytes(range(256)) * 5)[:LARGEST]
    client.link.send(channel_data(NUMBER, payload))
    _must_arrive(lab, peer, f"channel data of {LARGEST} bytes", payload)


@requirement("8656-12.7-01", "MUST", "Data of a bound peer comes as channel data.")
def to_client(lab: Lab) -> None:
    client, peer, relayed = _bound(lab)
    peer.send(b"hello", relayed)
    came = client.delivery()
    if came is None or came.channel != NUMBER or came.payload != b"hello":
        raise Failed(f"the peer on channel 0x{NUMBER:04x} sent 5 bytes; the client got {seen(came)}")


@requirement("8656-12.7-02", "MUST", "An empty datagram of a bound peer comes as channel data of no bytes.")
def empty_to_client(lab: Lab) -> None:
    client, peer, relayed = _bound(lab)
    peer.send(b"", relayed)
    came = client.delivery()
    if came is None or came.channel != NUMBER or came.payload:
        raise Failed(f"the peer on channel 0x{NUMBER:04x} sent an empty datagram; the client got {seen(came)}")


@requirement("8656-12.7-03", "MUST", "1200 bytes of a bound peer come whole.")
def much_to_client(lab: Lab) -> None:
    client, peer, relayed = _bound(lab)
    payload = (bytes(range(256)) * 5)[:LARGEST]
    peer.send(payload, relayed)
    came = client.delivery()
    if came is None or came.payload != payload:
        raise Failed(f"the peer on channel 0x{NUMBER:04x} sent {LARGEST} bytes; the client got {seen(came)}")


@requirement("8656-12.5-04", "MUST", "Once a channel is bound, no Data indications come from its peer.")
def no_indications_beside_channel(lab: Lab) -> None:
    client, peer, relayed = lab.allocated()
    client.permit(peer.address)
    peer.send(b"first", relayed)
    first = client.delivery()
    client.bind(NUMBER, peer.address)
    peer.send(b"second", relayed)
    came = client.delivery()
    if came is None or came.channel != NUMBER:
        raise Failed(f"before ChannelBind the client got {seen(first)}; after it {seen(came)}")


@requirement("8656-12.6-11", "MUST", "A Send indication to a bound peer and channel data arrive alike.")
def channel_beside_indication(lab: Lab) -> None:
    client, peer, relayed = _bound(lab)
    client.send_to(peer.address, b"one")
    _must_arrive(lab, peer, "a Send indication to a bound peer", b"one", relayed)
    client.link.send(_padded(b"two", client))
    _must_arrive(lab, peer, "channel data of 3 bytes", b"two", relayed)


@requirement("8656-12.7-04", "MUST", "Two clients of one server reach each other over channels.")
def two_clients_over_channels(lab: Lab) -> None:
    first, second = lab.client(), lab.client()
    first_relayed, second_relayed = first.allocate(), second.allocate()
    first.bind(NUMBER, second_relayed)
    second.bind(NUMBER, first_relayed)
    for sender, receiver in ((first, second), (second, first)):
        sender.link.send(channel_data(NUMBER, b"hello123"))
        came = receiver.delivery()
        if came is None or came.channel != NUMBER or came.payload != b"hello123":
            raise Failed(f"sent channel data to another client's relayed address; that client got {seen(came)}")


@requirement("8656-12.6-12", "MUST", "Channel data of a stranger, on another 5-tuple, is not relayed.")
def stranger(lab: Lab) -> None:
    client, peer, _ = _bound(lab)
    lab.client().link.send(channel_data(NUMBER, b"hello123"))
    _must_not_arrive(lab, peer, client, "channel data from another port than the allocation's")


@requirement(
    "8656-12.6-13", "MUST", "A first byte that belongs to no protocol (0x80 to 0xff) is discarded.", over="udp"
)
def reserved_first_byte(lab: Lab) -> None:
    client, peer, _ = _bound(lab)
    for first in (0x14, 0x80, 0xC8, 0xFF):
        client.link.send(bytes((first,)) + bytes(19))
    _must_not_arrive(lab, peer, client, "datagrams that begin with 0x14, 0x80, 0xc8 and 0xff")
