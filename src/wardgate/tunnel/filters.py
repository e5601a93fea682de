"""Which protocols and ports a resource allows."""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from wardgate.wire.ip import ICMP, ICMPV6, TCP, UDP
from wardgate.wire.portal import Filter


class Filters:
    """The filters of one resource, compiled: an empty list allows everything, else what any of them names.

    A range that ends before it starts allows nothing. With ICMP every ICMP type is allowed; a protocol that no filter
    can name is refused as soon as there is any filter.
    """

    def __init__(self, filters: Iterable[Filter]) -> None:
        tcp: list[tuple[int, int]] = []
        udp: list[tuple[int, int]] = []
        self._allows_all = True
        self._allows_icmp = False
        for one in filters:
            self._allows_all = False
            if one.protocol == "icmp":
                self._allows_icmp = True
            else:
                (tcp if one.protocol == "tcp" else udp).append((one.port_range_start, one.port_range_end))
        self._edges_by_protocol = {TCP: _edges(tcp), UDP: _edges(udp)}

    def permits(self, protocol: int, port: int) -> bool:
        """Whether a packet passes.

        Args:
            protocol: The IP protocol number.
            port: The resource's port; not looked at for ICMP.
        """
        if self._allows_all:
            return True
        if protocol in (ICMP, ICMPV6):
            return self._allows_icmp
        return bisect_right(self._edges_by_protocol.get(protocol, ()), port) % 2 == 1


def _edges(ranges: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """Where the ranges' union begins and ends, by turns: a port is inside if an odd number of edges is not above it."""
    edges: list[int] = []
    for start, end in sorted(one for one in ranges if one[0] <= one[1]):
        if edges and start <= edges[-1]:
            edges[-1] = max(edges[-1], end + 1)
        else:
            edges += [start, end + 1]
    return tuple(edges)


ALLOW_ALL: Final = Filters(())
