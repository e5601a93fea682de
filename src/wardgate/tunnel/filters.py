"""Which protocols and ports a resource allows."""

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
        self._ranges_by_protocol = {TCP: tuple(tcp), UDP: tuple(udp)}

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
        return any(start <= port <= end for start, end in self._ranges_by_protocol.get(protocol, ()))


ALLOW_ALL: Final = Filters(())
