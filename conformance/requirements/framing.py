"""STUN and channel data in a stream of bytes: RFC 8489, section 6.2.2; RFC 8656, sections 12.5 and 12.6."""

import time

from conformance import wire
from conformance.lab import Client, Lab, seen
from conformance.registry import Failed, requirement
from conformance.wire import Draft, channel_data

PAUSE_S = 0.05  # long enough for a segment of its own
PATIENCE_S = 1.0  # twice what a datagram's answer may take: nothing is sent again over a stream


def _answered(client: Client, *drafts: Draft) -> None:
    """Each of these gets its success response."""
    wanted = {draft.transaction_id for draft in drafts}
    while wanted:
        data = client.hear(PATIENCE_S)
        if data is None:
            raise Failed(f"sent {len(drafts)} Binding requests; {len(wanted)} got no answer")
        wanted.discard(wire.decode(data).transaction_id)


@requirement("8489-6.2.2-01", "MUST", "A message that arrives in two segments is read.", over="stream", turn=False)
def split_message(lab: Lab) -> None:
    client, draft = lab.client(), Draft(wire.BINDING)
    data = draft.encode()
    client.link.send(data[:10])
    time.sleep(PAUSE_S)
    client.link.send(data[10:])
    _answered(client, draft)


@requirement("8489-6.2.2-02", "MUST", "A message that arrives byte by byte is read.", over="stream", turn=False)
def message_byte_by_byte(lab: Lab) -> None:
    client, draft = lab.client(), Draft(wire.BINDING)
    for byte in draft.encode():
        client.link.send(bytes((byte,)))
        time.sleep(0.002)
    _answered(client, draft)


@requirement("8489-6.2.2-03", "MUST", "Several messages in one segment are all answered.", over="stream", turn=False)
def several_messages_in_a_segment(lab: Lab) -> None:
    client, drafts = lab.client(), [Draft(wire.BINDING) for _ in range(3)]
    client.link.send(b"".join(draft.encode() for draft in drafts))
    _answered(client, *drafts)


@requirement(
    "8489-6.2.2-04", "MUST", "A message and a half, then the other half: both are answered.", over="stream", turn=False
)
def message_and_a_half(lab: Lab) -> None:
    client, first, second = lab.client(), Draft(wire.BINDING), Draft(wire.BINDING)
    data = first.encode() + second.encode()
    client.link.send(data[:30])
    time.sleep(PAUSE_S)
    client.link.send(data[30:])
    _answered(client, first, second)


@requirement(
    "8489-6.3.1.2-02", "MUST", "The response comes on the connection of its request.", over="stream", turn=False
)
def response_on_same_connection(lab: Lab) -> None:
    client, other, draft = lab.client(), lab.client(), Draft(wire.BINDING)
    client.link.send(draft.encode())
    _answered(client, draft)
    if (stray := other.hear()) is not None:
        raise Failed(f"sent {draft} on one connection; got {seen(stray)} on another")


@requirement("8489-6.2.2-05", "MUST", "A connection serves requests one after the other.", over="stream", turn=False)
def connection_is_kept(lab: Lab) -> None:
    client = lab.client()
    for _ in range(3):
        client.ask(Draft(wire.BINDING)).expect_success()


@requirement(
    "8656-5-05",
    "SHOULD",
    "TCP is served between client and server, and XOR-MAPPED-ADDRESS is its client's.",
    over="stream",
)
def tcp_is_served(lab: Lab) -> None:
    client = lab.client()
    answer = client.ask_signed(Draft(wire.ALLOCATE).transport()).expect_success()
    if answer.address(wire.XOR_MAPPED_ADDRESS) != client.link.local and client.link.local.host == "127.0.0.1":
        raise Failed(f"sent Allocate request from {client.link.local}; got {answer.address(wire.XOR_MAPPED_ADDRESS)}")


@requirement("8656-12.5-01", "MUST", "Channel data from the server is padded to a multiple of four.", over="stream")
def channel_data_is_padded(lab: Lab) -> None:
    client, peer, relayed = lab.allocated()
    client.bind(0x4000, peer.address)
    peer.send(b"12345", relayed)
    peer.send(b"67", relayed)
    first, second = client.delivery(), client.delivery()
    if first is None or second is None:
        raise Failed(f"the peer sent 5 and 2 bytes; got {seen(first)}, then {seen(second)}")
    if (first.payload, second.payload) != (b"12345", b"67"):
        raise Failed(f"the peer sent 5 and 2 bytes; read {first.raw.hex()}, then {second.raw.hex()}")


@requirement("8656-12.6-01", "MUST", "Padded channel data of a client is relayed without padding.", over="stream")
def padded_channel_data_is_relayed(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.bind(0x4000, peer.address)
    client.link.send(channel_data(0x4000, b"12345", padding=bytes(3)))
    came = peer.receive(lab.target.answer_s)
    if came is None or came[0] != b"12345":
        raise Failed(f"sent channel data of 5 bytes and padding; the peer got {seen(came)}")


@requirement("8656-12.6-02", "MUST", "Channel data and STUN in one segment are told apart.", over="stream")
def channel_data_and_stun_in_a_segment(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.bind(0x4000, peer.address)
    draft = Draft(wire.BINDING)
    frames = (
        channel_data(0x4000, b"1", padding=bytes(3)) + draft.encode() + channel_data(0x4000, b"22", padding=bytes(2))
    )
    client.link.send(frames)
    came = [peer.receive(lab.target.answer_s), peer.receive(lab.target.answer_s)]
    if [each[0] for each in came if each] != [b"1", b"22"]:
        raise Failed(f"sent channel data, a Binding request, channel data; the peer got {', '.join(map(seen, came))}")
    _answered(client, draft)
