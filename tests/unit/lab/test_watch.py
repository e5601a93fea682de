"""The demo's own look at packets: total on any bytes."""

from ipaddress import IPv4Address

from hypothesis import example, given
from hypothesis import strategies as st

from wardgate.lab.demo.watch import ports_of

HERE, THERE = IPv4Address("203.0.113.21"), IPv4Address("203.0.113.31")


def packet(*, options: bytes = b"", protocol: int = 17) -> bytes:
    first = 0x45 + len(options) // 4
    return (
        bytes([first]) + bytes(8) + bytes([protocol, 0, 0]) + HERE.packed + THERE.packed + options + b"\x10\x00\x20\x01"
    )


def test_ports_are_found_behind_options_too() -> None:
    assert ports_of(packet(), HERE, THERE) == (0x1000, 0x2001)
    assert ports_of(packet(options=bytes(8)), HERE, THERE) == (0x1000, 0x2001)


def test_other_packets_are_none() -> None:
    assert ports_of(packet(), THERE, HERE) is None
    assert ports_of(packet(protocol=6), HERE, THERE) is None
    assert ports_of(packet()[:22], HERE, THERE) is None


@given(st.binary(max_size=100))
@example(packet(options=bytes(40))[:50])
def test_any_bytes_are_read(data: bytes) -> None:
    found = ports_of(data, HERE, THERE)

    assert found is None or all(0 <= port < 65536 for port in found)
