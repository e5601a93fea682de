"""Notices that the host's network changed: another way out, other addresses, or a sleep."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from pyroute2 import AsyncIPRoute, IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import (
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_ROUTE,
    RTMGRP_LINK,
)

SETTLE_S: Final = 0.5
SLEEP_CHECK_S: Final = 2.0
SLEEP_S: Final = 5.0
_GROUPS: Final = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE
_MAIN_TABLE: Final = 254

WayOut = frozenset[tuple[int, str, int, tuple[str, ...]]]
"""Family, gateway, interface and that interface's addresses, of each default route."""

log = structlog.get_logger("io.network")


class NetworkMonitor:
    """Watches the host's routes, links and addresses.

    Args:
        own_interface: Ours, whose changes do not count.
        on_event: Called half a second after the last change of any kind.
        on_moved: Called when the host's way out is another one; with the reason.
    """

    def __init__(
        self,
        own_interface: str,
        on_event: Callable[[], Awaitable[None]],
        on_moved: Callable[[str], None],
    ) -> None:
        self._own = own_interface
        self._on_event = on_event
        self._on_moved = on_moved

    async def run(self) -> None:
        """Watches until it is cancelled."""
        await asyncio.gather(self._watch_routes(), self._watch_sleep())

    async def _watch_routes(self) -> None:
        before = await asyncio.to_thread(way_out, self._own)
        changed = asyncio.Event()
        listening = asyncio.create_task(self._listen(changed))
        try:
            while True:
                await changed.wait()
                await self._settle(changed)
                await self._on_event()
                after = await asyncio.to_thread(way_out, self._own)
                if after and before and after != before:
                    self._on_moved("the way out changed")
                before = after or before
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _settle(self, changed: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                changed.clear()
                async with asyncio.timeout(SETTLE_S):
                    await changed.wait()

    async def _listen(self, changed: asyncio.Event) -> None:
        while True:
            try:
                async with AsyncIPRoute() as netlink:
                    await netlink.bind(groups=_GROUPS)
                    while True:
                        async for _ in netlink.get():
                            changed.set()
            except (NetlinkError, OSError) as error:
                log.warning("netlink events were lost", error=str(error))
                changed.set()
                await asyncio.sleep(1.0)

    async def _watch_sleep(self) -> None:
        """Monotonic time stands still while the host sleeps, boot time does not."""
        before = _slept_s()
        while True:
            await asyncio.sleep(SLEEP_CHECK_S)
            slept = _slept_s()
            if slept - before >= SLEEP_S:
                self._on_moved("the host slept")
            before = slept


def _slept_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


def way_out(own_interface: str) -> WayOut:
    """How packets leave this host at present; blocks on netlink."""
    with IPRoute() as netlink:
        own = netlink.link_lookup(ifname=own_interface)
        addresses: dict[int, list[str]] = {}
        for address in netlink.get_addr():
            addresses.setdefault(address["index"], []).append(str(address.get_attr("IFA_ADDRESS")))
        found = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            for route in netlink.get_routes(family=family, table=_MAIN_TABLE):
                interface = route.get_attr("RTA_OIF")
                if route["dst_len"] == 0 and interface is not None and interface not in own:
                    gateway = str(route.get_attr("RTA_GATEWAY"))
                    found.add((int(family), gateway, int(interface), tuple(sorted(addresses.get(interface, ())))))
    return frozenset(found)
