"""Path probes: the packet's bytes, and what is none."""

from hypothesis import given
from hypothesis import strategies as st

from wardgate.wire import probe
from wardgate.wire.probe import Probe

REQUEST = bytes.fromhex("6000000000083a4001000000000000000000dead01ce000101000000000000000000dead01ce0002")


def test_request_is_an_icmpv6_echo_between_the_discard_addresses() -> None:
    packet = probe.encode(Probe(False, 7, 3))

    assert packet[:40] == REQUEST
    assert packet[40:42] == b"\x80\x00"
    assert packet[44:] == b"\x00\x07\x00\x03"
    assert len(packet) == probe.SIZE


def test_checksum_is_that_of_rfc_4443() -> None:
    packet = probe.encode(Probe(False, 7, 3))

    pseudo = packet[8:40] + b"\x00\x00\x00\x08\x00\x00\x00\x3a" + packet[40:]
    total = sum(int.from_bytes(pseudo[at : at + 2], "big") for at in range(0, len(pseudo), 2))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF


def test_reply_keeps_the_addresses_of_the_request() -> None:
    assert probe.encode(Probe(True, 7, 3))[:40] == REQUEST


def test_other_traffic_is_no_probe() -> None:
    swapped = REQUEST[:8] + REQUEST[24:40] + REQUEST[8:24] + bytes(8)

    assert not probe.is_probe(swapped)
    assert not probe.is_probe(b"")


@given(st.booleans(), st.integers(0, 65535), st.integers(0, 65535))
def test_round_trip(is_reply: bool, pair_id: int, sequence: int) -> None:
    value = Probe(is_reply, pair_id, sequence)

    assert probe.decode(probe.encode(value)) == value


@given(st.binary(max_size=60), st.integers(0, 47), st.integers(1, 255))
def test_damaged_and_random_packets_are_no_probes(tail: bytes, at: int, flip: int) -> None:
    packet = bytearray(probe.encode(Probe(False, 1, 2)))
    packet[at] ^= flip

    decoded = probe.decode(REQUEST + tail)
    assert decoded is None or probe.encode(decoded) == (REQUEST + tail)[: probe.SIZE]
    damaged = probe.decode(bytes(packet))
    assert damaged is None or at in (0, 1, 2, 3, 7)
