"""Sockets of clients and gateways."""

import socket
import struct

import pytest

from tests.unit.io.namespace import in_namespace
from wardgate.errors import InterfaceLost
from wardgate.io import udp
from wardgate.io.udp import FWMARK, PREFERRED_PORT, open_udp_sockets


@in_namespace
def test_both_families_take_the_preferred_port_and_the_mark() -> None:
    sockets = open_udp_sockets(must_mark=True)

    assert sockets.v4 is not None
    assert sockets.v6 is not None
    for each in (sockets.v4, sockets.v6):
        assert each.getsockname()[1] == PREFERRED_PORT
        assert struct.unpack("=I", each.getsockopt(socket.SOL_SOCKET, socket.SO_MARK, 4)) == (FWMARK,)
    assert sockets.v6.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


@in_namespace
def test_taken_port_is_replaced_by_another() -> None:
    first = open_udp_sockets(must_mark=True)

    second = open_udp_sockets(must_mark=True)

    assert first.v4 is not None
    assert second.v4 is not None
    assert second.v4.getsockname()[1] not in (0, PREFERRED_PORT)


def test_buffers_are_at_least_what_the_kernel_gives_by_itself() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        before = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        _, received = udp.enlarge_buffers(plain)

    assert received >= before


class Refusing:
    """A socket of a process that may not mark."""

    def setsockopt(self, *_: object) -> None:
        raise PermissionError(1, "Operation not permitted")


def test_unmarked_socket_is_an_error_only_where_it_would_loop() -> None:
    refusing: socket.socket = Refusing()  # type: ignore[assignment]

    assert not udp.mark(refusing, must=False)
    with pytest.raises(InterfaceLost, match="SO_MARK"):
        udp.mark(refusing, must=True)
