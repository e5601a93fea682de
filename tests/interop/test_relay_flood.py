"""Our relay process in a small flood from strangers: its memory is bounded, every datagram is counted, users go on."""

import random
import shutil
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from bench.flood import Counts, mac
from bench.relay_client import CHANNEL, Pair, User, pairs
from bench.relay_measures import resident
from bench.relay_place import PORT, RELAY, TO_CLIENT, TO_RELAY, Place, Program, opened, wardgate

from wardgate.wire import channel_data, stun, turn
from wardgate.wire.stun import Builder, MessageClass, Method

pytestmark = [pytest.mark.interop, pytest.mark.netns]

COUNT = 20_000
MOST_GROWTH = 4 << 20
KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "bindings": lambda drawn: Builder(Method.BINDING, MessageClass.REQUEST, drawn.randbytes(12)).build(),
    "allocates": lambda drawn: (
        Builder(Method.ALLOCATE, MessageClass.REQUEST, drawn.randbytes(12))
        .requested_transport(turn.UDP_TRANSPORT)
        .build()
    ),
    "garbage": lambda drawn: drawn.randbytes(drawn.randrange(200)),
    "channel data": lambda drawn: channel_data.encode(CHANNEL + drawn.randrange(0x1000), bytes(100)),
    "forged proofs": lambda drawn: (
        Builder(Method.REFRESH, MessageClass.REQUEST, drawn.randbytes(12))
        .username("alice")
        .realm("bench")
        .nonce(drawn.randbytes(16).hex()[:16].encode())
        .build(bytes(16))
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if shutil.which("ip") is None:
        pytest.fail("not installed: iproute2", pytrace=False)
    with opened(tmp_path_factory.mktemp("flood")) as made:
        yield made


@pytest.fixture(scope="module", params=["--native", "--no-native"])
def relay(place: Place, request: pytest.FixtureRequest) -> Iterator[Program]:
    with wardgate(place, request.param) as program:
        yield program


@pytest.fixture(scope="module")
def pair(place: Place, relay: Program) -> Iterator[Pair]:
    with pairs(place, 1) as (made,):
        yield made


def test_strangers_cost_no_memory_and_all_they_send_is_counted(place: Place, relay: Program, pair: Pair) -> None:
    flood(place, 1000, seed=1)  # what is made once is there before memory is read
    before, memory = Counts.read(place), resident(relay)

    flood(place, COUNT, seed=2)

    counts = Counts.read(place).since(before)
    assert counts.delivered > 0
    assert counts.delivered == counts.answered + counts.refused
    if "upcalls" in counts.forwarder:  # the native one: plain requests do not reach Python
        assert counts.forwarder["bindings_answered"] > 0
        assert counts.forwarder["allocates_refused"] > 0
        assert counts.forwarder["upcalls"] < counts.delivered / 3
    assert resident(relay) - memory < MOST_GROWTH


def test_users_are_served_beside_a_flood(place: Place, relay: Program, pair: Pair) -> None:
    for seed in range(5):
        flood(place, 1000, seed=seed)
        pair.user.refresh()
        pair.peer.settimeout(5.0)
        pair.user.socket.send(channel_data.encode(CHANNEL, b"still here"))
        assert pair.peer.recv(100) == b"still here"


def test_a_stranger_can_become_a_user_after_a_flood(place: Place, relay: Program) -> None:
    flood(place, 1000, seed=9)
    user = User(place)
    with user.socket:
        assert user.allocate().host == str(RELAY)
        user.refresh(0)


def test_a_stranger_learns_its_address(place: Place, relay: Program) -> None:
    with place.client.socket() as own:
        own.connect((str(RELAY), PORT))
        own.settimeout(5.0)
        own.send(Builder(Method.BINDING, MessageClass.REQUEST, bytes(12)).build())
        assert stun.decode(own.recv(100)).mapped_address == own.getsockname()


def flood(place: Place, count: int, seed: int) -> None:
    """Sends datagrams of all kinds from random sources, as fast as Python does."""
    drawn = random.Random(seed)
    ethernet = bytes.fromhex((mac(place.relay, TO_CLIENT) + mac(place.client, TO_RELAY)).replace(":", "")) + b"\x08\0"
    with place.client.socket(socket.AF_PACKET, socket.SOCK_RAW) as own:
        own.bind((TO_RELAY, 0))
        for number in range(count):
            kind = list(KINDS.values())[number % len(KINDS)]
            own.send(ethernet + packet(drawn, kind(drawn)))


def packet(drawn: random.Random, payload: bytes) -> bytes:
    """An IPv4 packet from anywhere to the relay, without a UDP checksum."""
    source = bytes((drawn.randrange(11, 100), *drawn.randbytes(3)))
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, source, RELAY.packed)
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    head = head[:10] + struct.pack("!H", checksum) + head[12:]
    return head + struct.pack("!HHHH", drawn.randrange(1024, 65536), PORT, 8 + len(payload), 0) + payload
