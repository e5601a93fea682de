"""Which resolvers a client asks, and under which sentinel address the host asks it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final

from wardgate.wire.addresses import SocketAddr
from wardgate.wire.ip import IpAddress
from wardgate.wire.ranges import SENTINEL_V4, SENTINEL_V6

MAX_UPSTREAMS: Final = 64
_LAST_NUMBER: Final = 254


@dataclass(frozen=True, slots=True)
class Do53:
    """A resolver over UDP and TCP."""

    address: SocketAddr


@dataclass(frozen=True, slots=True)
class Doh:
    """A resolver over HTTPS."""

    url: str


Upstream = Do53 | Doh


def effective_upstreams(do53: Iterable[Do53], doh: Iterable[Doh], system: Iterable[Do53]) -> tuple[Upstream, ...]:
    """The resolvers in use: those the portal names, over port 53 before HTTPS, else the system's.

    Sentinels among them (the host may already ask us) and repetitions are left out, the order is kept.
    """
    for candidates in (tuple(do53), tuple(doh), tuple(system)):
        usable: dict[Upstream, None] = {}
        for one in candidates:
            if not (isinstance(one, Do53) and _is_sentinel(ip_address(one.address.host))):
                usable[one] = None
        if usable:
            return tuple(usable)[:MAX_UPSTREAMS]
    return ()


def _is_sentinel(address: IpAddress) -> bool:
    return address in (SENTINEL_V4 if address.version == 4 else SENTINEL_V6)


class Sentinels:
    """One address of ours for each upstream, of its family.

    A change gives every upstream an address that was not in use before, so the host never asks a new resolver where it
    thinks to ask an old one. Without any upstream there is one sentinel all the same, for names of resources.
    """

    def __init__(self) -> None:
        self._upstream_by_sentinel: dict[IpAddress, Upstream | None] = {}

    @property
    def upstream_by_sentinel(self) -> Mapping[IpAddress, Upstream | None]:
        """What the host is to be told, in order of preference."""
        return MappingProxyType(self._upstream_by_sentinel)

    def set(self, upstreams: Iterable[Upstream]) -> bool:
        """Takes the upstreams in use now; returns whether the sentinels changed. Their mere order changes nothing."""
        wanted: tuple[Upstream | None, ...] = tuple(dict.fromkeys(upstreams))[:MAX_UPSTREAMS] or (None,)
        if set(wanted) == set(self._upstream_by_sentinel.values()):
            return False
        before = self._upstream_by_sentinel
        self._upstream_by_sentinel = {}
        for upstream in wanted:
            self._upstream_by_sentinel[self._free(upstream, before)] = upstream
        return True

    def _free(self, upstream: Upstream | None, before: Mapping[IpAddress, Upstream | None]) -> IpAddress:
        is_ipv6 = isinstance(upstream, Do53) and upstream.address.is_ipv6
        network = SENTINEL_V6 if is_ipv6 else SENTINEL_V4
        candidates = (network[number] for number in range(0 if is_ipv6 else 1, _LAST_NUMBER + 1))
        return next(one for one in candidates if one not in before and one not in self._upstream_by_sentinel)
