"""The XDP program, frame by frame, against headers and checksums that are computed from scratch."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xdp.frames import DONT_FRAGMENT, Datagram, parse, pseudo_header, sum_of
from tests.xdp.host import LISTEN, NEXT_MAC, OWN4, OWN6, OWN_MAC, ROUTER_MAC, Host, host, network_namespace
from tests.xdp.program import Action, Outcome
from wardgate.lab import namespaces
from wardgate.wire import channel_data

pytestmark = pytest.mark.netns

OWN = {4: OWN4, 6: OWN6}
CLIENT = {4: ("203.0.113.2", 40000), 6: ("2001:db8::2", 40001)}  # a neighbour
PEER = {4: ("198.51.100.7", 52625), 6: ("2001:db8:7::7", 52626)}  # behind the router
OTHER = {4: ("198.51.100.8", 40002), 6: ("2001:db8:8::8", 40003)}  # a client, too
NUMBER = {(4, 4): 0x4000, (4, 6): 0x4046, (6, 4): 0x4064, (6, 6): 0x7FFF}
PORT = {(4, 4): 50044, (4, 6): 50046, (6, 4): 50064, (6, 6): 50066}
PAIRS = [pytest.param(*pair, id=f"client{pair[0]}-peer{pair[1]}") for pair in NUMBER]
PAYLOAD = bytes(range(200))
HEADERS = {4: 14 + 20 + 8, 6: 14 + 40 + 8}


@pytest.fixture(scope="module")
def relay() -> Iterator[Host]:
    """A relay with a channel for each pair of families."""
    with network_namespace() as own, namespaces.inside_network(own), host() as made:
        bind_channels(made)
        yield made


def bind_channels(made: Host) -> None:
    for (client, peer), number in NUMBER.items():
        made.io.open_allocation(PORT[client, peer], ipv4=True, ipv6=True)
        made.io.add_channel(CLIENT[client], number, PORT[client, peer], PEER[peer])


def from_client(client: int, peer: int, payload: bytes = PAYLOAD) -> Datagram:
    framed = channel_data.encode(NUMBER[client, peer], payload)
    return Datagram(*CLIENT[client], OWN[client], LISTEN, framed, tos=0xB9, ttl=57, fragment=df(client))


def from_peer(client: int, peer: int, payload: bytes = PAYLOAD) -> Datagram:
    return Datagram(*PEER[peer], OWN[peer], PORT[client, peer], payload, tos=0x2A, ttl=9, fragment=df(peer))


def df(family: int) -> int:
    return DONT_FRAGMENT if family == 4 else 0


@pytest.mark.parametrize(("client", "peer"), PAIRS)
def test_channel_data_is_unwrapped_for_the_peer(relay: Host, client: int, peer: int) -> None:
    done = relay.program.run(from_client(client, peer).frame())

    assert done.action == Action.TRANSMIT
    assert parse(done.frame) == Datagram(
        *(OWN[peer], PORT[client, peer], *PEER[peer], PAYLOAD),
        to_mac=ROUTER_MAC,
        from_mac=OWN_MAC,
        tos=0xB9,
        ttl=56,
        fragment=df(peer),
    )


@pytest.mark.parametrize(("client", "peer"), PAIRS)
def test_a_peers_datagram_is_wrapped_for_the_client(relay: Host, client: int, peer: int) -> None:
    done = relay.program.run(from_peer(client, peer).frame())

    assert done.action == Action.TRANSMIT
    assert parse(done.frame) == Datagram(
        *(OWN[client], LISTEN, *CLIENT[client], channel_data.encode(NUMBER[client, peer], PAYLOAD)),
        to_mac=NEXT_MAC,
        from_mac=OWN_MAC,
        tos=0x2A,
        ttl=8,
        fragment=df(client),
    )


@pytest.mark.parametrize(("client", "peer"), PAIRS)
@settings(max_examples=60)
@given(
    payload=st.binary(min_size=32, max_size=1300) | st.sampled_from([bytes(64), b"\xff" * 65]),
    tos=st.integers(0, 255),
    ttl=st.integers(2, 255),
    id_=st.integers(0, 0xFFFF),
)
def test_any_payload_goes_both_ways_with_right_checksums(
    relay: Host, client: int, peer: int, payload: bytes, tos: int, ttl: int, id_: int
) -> None:
    for given_, family, expected in (
        (from_client(client, peer, payload), client, payload),
        (from_peer(client, peer, payload), peer, channel_data.encode(NUMBER[client, peer], payload)),
    ):
        sent = given_.with_(tos=tos, ttl=ttl, id=id_ if family == 4 else 0)
        done = relay.program.run(sent.frame())
        assert done.action == Action.TRANSMIT
        got = parse(done.frame)
        assert (got.payload, got.tos, got.ttl) == (expected, tos, ttl - 1)
        if got.family == family == 4:
            assert (got.id, got.fragment) == (id_, DONT_FRAGMENT)


@pytest.mark.parametrize("fragment", [0, DONT_FRAGMENT])
def test_whether_a_datagram_may_be_fragmented_stays_as_its_sender_has_it(relay: Host, fragment: int) -> None:
    done = relay.program.run(from_client(4, 4).with_(fragment=fragment, id=7).frame())

    assert (parse(done.frame).fragment, parse(done.frame).id) == (fragment, 7)


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize("between", [4, 6])
def test_between_two_allocations_of_this_relay_there_is_no_detour(
    relay: Host, one: int, other: int, between: int
) -> None:
    first, second = 51000 + between, 52000 + between
    for port in (first, second):
        relay.io.open_allocation(port, ipv4=True, ipv6=True)
    relay.io.add_channel(CLIENT[one], 0x4111, first, (OWN[between], second))
    frame = from_client(one, one).with_(payload=channel_data.encode(0x4111, PAYLOAD)).frame()
    alone = relay.program.run(frame)
    relay.io.add_channel(OTHER[other], 0x4222, second, (OWN[between], first))

    done = relay.program.run(frame)

    assert (alone.action, alone.frame) == (Action.PASS, frame)
    assert done.action == Action.TRANSMIT
    got = parse(done.frame)
    assert (got.source, got.source_port, got.destination, got.destination_port) == (OWN[other], LISTEN, *OTHER[other])
    assert (got.payload, got.ttl) == (channel_data.encode(0x4222, PAYLOAD), 56)
    size = len(PAYLOAD)
    rows = {(row[0], row[1]): row[2:] for row in relay.io.channels()}
    assert rows[CLIENT[one], 0x4111] == (1, size, 0, 0)
    assert rows[OTHER[other], 0x4222] == (0, 0, 1, size)
    for port in (first, second):
        assert relay.io.close_allocation(port)
    assert relay.program.run(frame).action == Action.PASS


def partial(datagram: Datagram) -> Datagram:
    """As a local sender leaves it, whose device is to add the rest of the checksum."""
    header = pseudo_header(datagram.source, datagram.destination, 8 + len(datagram.payload))
    return datagram.with_(check=sum_of(header))


def inserted(datagram: Datagram, at: int, data: bytes, **changes: int) -> bytes:
    frame = bytearray(datagram.frame())
    frame[at:at] = data
    for place, value in changes.items():
        frame[int(place.removeprefix("at"))] = value
    return bytes(frame)


LEFT_ALONE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "no IP": ("other", lambda: inserted(from_client(4, 4), 12, b"\x08\x06")),
    "a VLAN tag": ("other", lambda: inserted(from_client(4, 4), 12, b"\x81\0\0\x05")),
    "TCP": ("other", lambda: inserted(from_client(4, 4), 0, b"", at23=6)),
    "an extension header": ("other", lambda: inserted(from_client(6, 6), 54, b"\x11" + bytes(7), at20=0)),
    "a fragment header": ("other", lambda: inserted(from_client(6, 6), 54, b"\x11" + bytes(7), at20=44)),
    "a wrong IPv4 header": ("unusual", lambda: inserted(from_client(4, 6), 0, b"", at15=0)),
    "another host's frame": ("unusual", lambda: from_client(4, 4).with_(to_mac=b"\2\0\0\0\0\7").frame()),
    "a broadcast": ("other", lambda: from_client(4, 4).with_(to_mac=b"\xff" * 6).frame()),
    "another IPv4 address": ("other", lambda: from_client(4, 4).with_(destination="203.0.113.77").frame()),
    "another IPv6 address": ("other", lambda: from_client(6, 6).with_(destination="2001:db8::77").frame()),
    "an Ethernet header alone": ("other", lambda: from_client(4, 4).frame()[:14]),
    "half an IPv4 header": ("other", lambda: from_client(4, 4).frame()[:30]),
    "half an IPv6 header": ("other", lambda: from_client(6, 6).frame()[:40]),
    "IPv4 options": ("unusual", lambda: from_client(4, 4).with_(options=b"\1\1\1\1").frame()),
    "a first fragment": ("unusual", lambda: from_client(4, 4).with_(fragment=0x2000).frame()),
    "a last fragment": ("unusual", lambda: from_client(4, 4).with_(fragment=5).frame()),
    "a reserved flag": ("unusual", lambda: from_client(4, 4).with_(fragment=0x8000).frame()),
    "no checksum": ("unusual", lambda: from_client(4, 4).with_(check=0).frame()),
    "no checksum from a peer": ("unusual", lambda: from_peer(4, 4).with_(check=0).frame()),
    "no checksum over IPv6": ("unusual", lambda: from_client(6, 6).with_(check=0).frame()),
    "half a checksum": ("unusual", lambda: partial(from_client(4, 4)).frame()),
    "half a checksum over IPv6": ("unusual", lambda: partial(from_peer(6, 6)).frame()),
    "source port 0": ("unusual", lambda: from_client(4, 4).with_(source_port=0).frame()),
    "padding behind the payload": ("unusual", lambda: padded(from_client(4, 4), 3).frame()),
    "more than padding": ("unusual", lambda: padded(from_client(6, 6), 100).frame()),
    "less than its length": ("unusual", lambda: padded(from_client(4, 6), -1).frame()),
    "bytes behind the datagram": ("unusual", lambda: from_client(4, 4).frame() + b"\0"),
    "a datagram cut short": ("unusual", lambda: from_client(4, 4).frame()[:-1]),
    "half a UDP header": ("unusual", lambda: from_client(4, 4).frame()[:38]),
    "a UDP length of less": ("unusual", lambda: inserted(from_client(4, 4), 0, b"", at39=211)),
    "the end of its life": ("unusual", lambda: from_client(4, 4).with_(ttl=1).frame()),
    "life 0": ("unusual", lambda: from_peer(6, 6).with_(ttl=0).frame()),
    "a frame that would be too short": ("unusual", lambda: from_client(4, 4, b"x" * 17).frame()),
    "STUN": ("control", lambda: from_client(4, 4).with_(payload=bytes.fromhex("00010000")).frame()),
    "an empty datagram": ("control", lambda: from_client(4, 4).with_(payload=b"").frame()),
    "three bytes": ("control", lambda: from_client(6, 6).with_(payload=b"\x40\0\0").frame()),
    "number 0x3fff": ("control", lambda: from_client(4, 4).with_(payload=b"\x3f\xff\0\0").frame()),
    "number 0x8000": ("control", lambda: from_client(4, 4).with_(payload=b"\x80\0\0\0").frame()),
    "another number": (
        "unknown",
        lambda: from_client(4, 4).with_(payload=channel_data.encode(0x4001, PAYLOAD)).frame(),
    ),
    "another client port": ("unknown", lambda: from_client(4, 4).with_(source_port=40009).frame()),
    "another client": ("unknown", lambda: from_client(6, 6).with_(source="2001:db8::3").frame()),
    "a client's address in IPv6": ("unknown", lambda: mapped().frame()),
    "another peer port": ("unknown", lambda: from_peer(4, 4).with_(source_port=1).frame()),
    "another peer": ("unknown", lambda: from_peer(6, 4).with_(source="198.51.100.9").frame()),
    "another allocation": ("unknown", lambda: from_peer(4, 4).with_(destination_port=50009).frame()),
    "a port of another program": ("unknown", lambda: from_peer(4, 4).with_(destination_port=53).frame()),
}


def padded(datagram: Datagram, more: int) -> Datagram:
    payload = datagram.payload + bytes(more) if more > 0 else datagram.payload[:more]
    return datagram.with_(payload=payload)


def mapped() -> Datagram:
    frame = from_client(6, 6).with_(source="::ffff:203.0.113.2", source_port=CLIENT[4][1])
    return frame.with_(payload=channel_data.encode(NUMBER[4, 4], PAYLOAD))


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_is_not_ordinary_is_left_to_user_space_unchanged(relay: Host, name: str) -> None:
    reason, make = LEFT_ALONE[name]
    frame = make()
    before = relay.counted()

    done = relay.program.run(frame)

    assert (done.action, done.frame) == (Action.PASS, frame)
    assert changes(before, relay.counted()) == {f"xdp_passed_{reason}": 1}


@given(frame=st.binary(min_size=14, max_size=200))
def test_any_other_bytes_are_left_alone(relay: Host, frame: bytes) -> None:
    done = relay.program.run(frame)

    assert (done.action, done.frame) == (Action.PASS, frame)


@settings(max_examples=400)
@given(
    datagram=st.sampled_from([make(*pair) for pair in NUMBER for make in (from_client, from_peer)]),
    where=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
)
def test_a_changed_byte_makes_a_frame_pass_or_stay_recognizably_wrong(
    relay: Host, datagram: Datagram, where: float, value: int
) -> None:
    frame = bytearray(datagram.frame())
    at = int(where * len(frame))
    is_changed = frame[at] != value
    frame[at] = value

    done = relay.program.run(bytes(frame))

    if done.action == Action.PASS:
        assert done.frame == bytes(frame)
        return
    assert done.action == Action.TRANSMIT
    in_ethernet_or_hop = at < 14 or (datagram.family == 6 and at in (14, 15, 16, 17, 21))
    if is_changed and not in_ethernet_or_hop:
        with pytest.raises(AssertionError, match="checksum"):
            parse(done.frame)
    else:
        parse(done.frame)


def test_what_would_not_fit_the_link_is_left_to_user_space(relay: Host) -> None:
    fits = 1500 - 20 - 8 - 4
    for size, action in ((fits, Action.TRANSMIT), (fits + 1, Action.PASS)):
        frame = from_peer(4, 4, bytes(size)).frame()
        assert relay.program.run(frame).action == action
    for size, action in ((fits - 16, Action.TRANSMIT), (fits - 15, Action.PASS)):
        frame = from_client(4, 6, bytes(size)).frame()
        assert relay.program.run(frame).action == (action if size + 48 <= 1500 else Action.PASS)
    assert relay.counted()["xdp_passed_too_big"] >= 1


def test_without_a_neighbour_or_a_route_it_is_left_to_user_space(relay: Host) -> None:
    port = 53000
    relay.io.open_allocation(port, ipv4=True, ipv6=True)
    for number, peer in ((0x4301, "203.0.113.200"), (0x4302, "2001:db8::200"), (0x4303, OWN4), (0x4304, "127.0.0.1")):
        relay.io.add_channel(CLIENT[4], number, port, (peer, 9))
        before = relay.counted()
        done = relay.program.run(from_client(4, 4).with_(payload=channel_data.encode(number, PAYLOAD)).frame())
        assert done.action == Action.PASS
        reason = "unknown" if peer == OWN4 else "route"
        assert changes(before, relay.counted()) == {f"xdp_passed_{reason}": 1}
    relay.io.close_allocation(port)


def test_each_half_and_each_channel_is_counted(relay: Host) -> None:
    before, rows_before = relay.counted(), row_of(relay, 4, 6)

    outcomes = [relay.program.run(from_client(4, 6).frame()) for _ in range(3)]
    outcomes += [relay.program.run(from_peer(4, 6).frame()) for _ in range(2)]

    assert {done.action for done in outcomes} == {Action.TRANSMIT}
    assert changes(before, relay.counted()) == {"xdp_forwarded_to_peer": 3, "xdp_forwarded_to_client": 2}
    after = row_of(relay, 4, 6)
    assert [new - old for new, old in zip(after, rows_before, strict=True)] == [3, 600, 2, 400]


def test_a_refreshed_channel_keeps_its_counters_and_a_removed_one_is_gone(relay: Host) -> None:
    frames = [from_client(6, 4).frame(), from_peer(6, 4).frame()]

    def actions_of() -> list[Action]:
        return [relay.program.run(frame).action for frame in frames]

    assert actions_of() == [Action.TRANSMIT] * 2
    counted = row_of(relay, 6, 4)

    bind_again = (CLIENT[6], NUMBER[6, 4], PORT[6, 4], PEER[4])
    relay.io.add_channel(*bind_again)
    assert row_of(relay, 6, 4) == counted

    assert relay.io.remove_channel(CLIENT[6], NUMBER[6, 4])
    assert not relay.io.remove_channel(CLIENT[6], NUMBER[6, 4])
    assert actions_of() == [Action.PASS] * 2

    relay.io.add_channel(*bind_again)
    assert actions_of() == [Action.TRANSMIT] * 2
    assert row_of(relay, 6, 4) == (1, 200, 1, 200)
    assert "xdp_map_errors" not in relay.counted()


def test_a_closed_port_takes_its_channels_out_of_the_kernel(relay: Host) -> None:
    assert relay.io.close_allocation(PORT[6, 6])
    assert relay.program.run(from_client(6, 6).frame()).action == Action.PASS
    assert relay.program.run(from_peer(6, 6).frame()).action == Action.PASS
    assert relay.program.run(from_client(4, 4).frame()).action == Action.TRANSMIT

    relay.io.open_allocation(PORT[6, 6], ipv4=True, ipv6=True)
    relay.io.add_channel(CLIENT[6], NUMBER[6, 6], PORT[6, 6], PEER[6])
    assert relay.program.run(from_client(6, 6).frame()).action == Action.TRANSMIT


@pytest.mark.parametrize(("client", "peer"), PAIRS)
def test_a_checksum_of_zero_is_sent_as_its_other_form(relay: Host, client: int, peer: int) -> None:
    unfinished = parse(relay.program.run(from_client(client, peer, PAYLOAD + bytes(2)).frame()).frame).frame()
    check = unfinished[HEADERS[peer] - 2 : HEADERS[peer]]

    done = relay.program.run(from_client(client, peer, PAYLOAD + check).frame())

    assert parse(done.frame).payload == PAYLOAD + check
    assert done.frame[HEADERS[peer] - 2 : HEADERS[peer]] == b"\xff\xff"


def test_a_wrong_checksum_stays_wrong(relay: Host) -> None:
    right = from_client(4, 6).frame()
    wrong = right[:-1] + bytes([right[-1] ^ 1])

    done = relay.program.run(wrong)

    assert done.action == Action.TRANSMIT
    with pytest.raises(AssertionError, match="checksum"):
        parse(done.frame)


@pytest.mark.parametrize("family", [4, 6])
def test_one_family_is_enough_and_the_listening_port_is_any(family: int) -> None:
    public = {"public4": OWN4 if family == 4 else None, "public6": OWN6 if family == 6 else None}
    with network_namespace() as own, namespaces.inside_network(own), host(**public, listen_port=5349) as made:  # type: ignore[arg-type]
        made.io.open_allocation(1025, ipv4=family == 4, ipv6=family == 6)
        made.io.open_allocation(1026, ipv4=family == 4, ipv6=family == 6)
        made.io.add_channel(CLIENT[family], 0x4000, 1025, PEER[family])
        made.io.add_channel(CLIENT[family], 0x4001, 1025, (OWN[family], 1026))
        made.io.add_channel(OTHER[family], 0x4002, 1026, (OWN[family], 1025))

        def sent(number: int, port: int = 5349) -> Outcome:
            payload = channel_data.encode(number, PAYLOAD)
            return made.program.run(Datagram(*CLIENT[family], OWN[family], port, payload).frame())

        assert parse(sent(0x4000).frame).payload == PAYLOAD
        assert parse(sent(0x4001).frame).payload == channel_data.encode(0x4002, PAYLOAD)
        back = made.program.run(Datagram(*PEER[family], OWN[family], 1025, PAYLOAD).frame())
        assert parse(back.frame).payload == channel_data.encode(0x4000, PAYLOAD)
        assert sent(0x4000, LISTEN).action == Action.PASS
        stranger = 10 - family
        frame = Datagram(*CLIENT[stranger], OWN[stranger], 5349, channel_data.encode(0x4000, PAYLOAD)).frame()
        assert made.program.run(frame).action == Action.PASS


@pytest.mark.parametrize(("mode", "action"), [("generic", Action.REDIRECT), ("driver", Action.PASS)])
def test_out_of_another_interface(mode: str, action: Action) -> None:
    setup = "link add inside type veth peer name other\nlink set inside up\nlink set other up\n"
    setup += "route add 198.51.100.0/24 dev inside\nneighbour add 198.51.100.7 lladdr 02:00:00:00:00:07 dev inside\n"
    with network_namespace(extra=setup) as own, namespaces.inside_network(own), host(mode=mode) as made:
        bind_channels(made)
        frame = from_client(4, 4).frame()

        done = made.program.run(frame)

        assert done.action == action
        if action == Action.REDIRECT:
            assert parse(done.frame).to_mac == bytes.fromhex("020000000007")
        else:
            assert done.frame == frame


def changes(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


def row_of(relay: Host, client: int, peer: int) -> tuple[int, ...]:
    own = (CLIENT[client], NUMBER[client, peer])
    return next(tuple(row[2:]) for row in relay.io.channels() if (row[0], row[1]) == own)
