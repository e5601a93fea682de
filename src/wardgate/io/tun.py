"""The tunnel interface's addresses and routes, and a client's policy routing around it.

All calls block on netlink and belong in a thread of their own (`asyncio.to_thread`). Each sets a state rather than
changing one, so that calling it twice, or after a run that was killed, ends the same.
"""

import errno
import fcntl
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface, ip_network
from pathlib import Path
from typing import Any, Final

import structlog
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wardgate.errors import InterfaceLost
from wardgate.io.udp import FWMARK

MTU: Final = 1280
TX_QUEUE_LENGTH: Final = 10_000
TABLE_RESOURCES: Final = 0x2021FD00
TABLE_LINK: Final = 0x2021FD01
TABLE_INTERNET: Final = 0x2021FD02
PRIORITIES: Final = {TABLE_RESOURCES: 100, TABLE_LINK: 200, TABLE_INTERNET: 300}
FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)

_FIB_RULE_INVERT: Final = 2
_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFMTU: Final = 0x8921
_SIOCGIFTXQLEN: Final = 0x8942
_IFF_UP: Final = 0x1
_IFF_RUNNING: Final = 0x40
_MAIN_TABLE: Final = 254
_SCOPE_LINK: Final = 253
_SCOPE_NOWHERE: Final = 255
_UNICAST: Final = 1
_HARMLESS: Final = frozenset({errno.EEXIST, errno.ESRCH, errno.ENOENT, errno.EOPNOTSUPP})

Network = IPv4Network | IPv6Network
log = structlog.get_logger("io.tun")


class TunInterface:
    """One TUN interface, already opened by the native module, by its name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._routes: dict[Network, int] = {}
        self._families = frozenset(map(int, FAMILIES))

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._name

    def configure(self, ipv4: str, ipv6: str) -> frozenset[int]:
        """Gives it exactly these addresses and brings it up; returns the families that the host accepted.

        Raises:
            InterfaceLost: The interface is gone, or neither family works.
        """
        _disable_link_local(self._name)
        with IPRoute() as netlink:
            index = self._index(netlink)
            netlink.link("set", index=index, mtu=MTU, txqlen=TX_QUEUE_LENGTH)
            netlink.link("set", index=index, state="up")
            wanted = {ip_interface(f"{ipv4}/32"), ip_interface(f"{ipv6}/128")}
            present = {
                ip_interface(f"{a.get_attr('IFA_ADDRESS')}/{a['prefixlen']}") for a in netlink.get_addr(index=index)
            }
            for address in sorted(present - wanted, key=str):
                self._change(
                    netlink.addr, "del", index=index, address=str(address.ip), prefixlen=address.network.prefixlen
                )
            self._families = frozenset(
                _family(address) for address in sorted(wanted, key=str) if self._add_address(netlink, index, address)
            )
        if not self._families:
            raise InterfaceLost(f"neither address could be given to {self._name}")
        return self._families

    def _add_address(self, netlink: IPRoute, index: int, address: IPv4Interface | IPv6Interface) -> bool:
        """Whether it has the address now; a host whose IPv6 is turned off is no worse than one that never had it."""
        try:
            netlink.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                return True
            log.warning("an address family is not used: the host refused it", version=address.version, error=str(error))
            return False
        return True

    def set_routes(self, networks: Iterable[Network], table: int = _MAIN_TABLE) -> None:
        """Routes exactly these networks, of the families that the host accepted, through the interface.

        Args:
            networks: The destinations.
            table: Where routes go; a client's default routes go to the table of the Internet resource.
        """
        wanted = {
            network: TABLE_INTERNET if network.prefixlen == 0 and table == TABLE_RESOURCES else table
            for network in networks
            if _family(network) in self._families
        }
        with IPRoute() as netlink:
            index = self._index(netlink)
            for network in sorted(self._routes.keys() - wanted.keys(), key=str):
                self._route(netlink, "del", index, network, self._routes.pop(network))
            for network in sorted(wanted.keys() - self._routes.keys(), key=str):
                if self._route(netlink, "add", index, network, wanted[network]):
                    self._routes[network] = wanted[network]

    def forget_routes(self) -> None:
        """Has the next `set_routes` set them all: somebody emptied the tables."""
        self._routes.clear()

    def _index(self, netlink: IPRoute) -> int:
        found = netlink.link_lookup(ifname=self._name)
        if not found:
            raise InterfaceLost(f"the interface {self._name} is gone")
        return int(found[0])

    def _route(self, netlink: IPRoute, what: str, index: int, network: Network, table: int) -> bool:
        return self._change(
            netlink.route, what, family=_family(network), dst=str(network), oif=index, table=table, scope=_SCOPE_LINK
        )

    def _change(self, call: Any, what: str, **values: object) -> bool:
        """One change; one that is made already counts as made, any other failure is logged."""
        try:
            call(what, **values)
        except NetlinkError as error:
            if error.code not in _HARMLESS:
                log.warning("the network could not be set up", change=what, error=str(error))
            return bool(error.code == errno.EEXIST)
        return True


def _family(address: Network | IPv4Interface | IPv6Interface) -> int:
    return int(socket.AF_INET if address.version == 4 else socket.AF_INET6)


def link_state(name: str) -> dict[str, Any] | None:
    """An interface's state as `ip link` has it, without netlink, so that it blocks nobody; `None` if it is gone."""
    request = struct.pack("16s24x", name.encode()[:15])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            flags, mtu, queue = (
                struct.unpack_from(kind, fcntl.ioctl(probe, number, request), 16)[0]
                for number, kind in ((_SIOCGIFFLAGS, "=H"), (_SIOCGIFMTU, "=i"), (_SIOCGIFTXQLEN, "=i"))
            )
    except OSError:
        return None
    return {"up": bool(flags & _IFF_UP), "running": bool(flags & _IFF_RUNNING), "mtu": mtu, "txqlen": queue}


def _disable_link_local(name: str) -> None:
    """Keeps IPv6 from making an address of its own; a host without IPv6 has no such file."""
    try:
        Path(f"/proc/sys/net/ipv6/conf/{name}/addr_gen_mode").write_text("1")
    except OSError as error:
        log.debug("IPv6 link-local addresses could not be turned off", error=str(error))


class ClientRouting:
    """Policy routing of a client: everything without our mark looks at our three tables first.

    Resources win over the local networks, those win over the Internet resource.
    """

    def __init__(self) -> None:
        self._has_policy_routing = True

    def install(self, families: Iterable[int]) -> None:
        """Empties the tables, left over from a killed run, and adds the rules."""
        self.remove()
        with IPRoute() as netlink:
            for family in sorted(families):
                for table, priority in PRIORITIES.items():
                    self._rule(netlink, "add", family, table, priority)
            self._name_earlier(netlink, families)
        self.mirror_links()

    def _name_earlier(self, netlink: IPRoute, families: Iterable[int]) -> None:
        """Says whose packets never come to our tables; 0 is the kernel's own, for packets to this host."""
        found = {
            int(rule.get_attr("FRA_PRIORITY") or 0) for family in families for rule in netlink.get_rules(family=family)
        }
        earlier = sorted(each for each in found if 0 < each < min(PRIORITIES.values()))
        if earlier:
            log.warning("rules of another program go before ours, and may keep packets away", priorities=earlier)

    def remove(self) -> None:
        """Takes the rules and all routes of the tables away."""
        with IPRoute() as netlink:
            for family in FAMILIES:
                for table, priority in PRIORITIES.items():
                    while self._rule(netlink, "del", family, table, priority):
                        pass
                    self._flush(netlink, family, table)

    def mirror_links(self) -> None:
        """Copies the main table's link routes of interfaces that are up, so that the local networks stay reachable."""
        with IPRoute() as netlink:
            up = {link["index"] for link in netlink.get_links() if link.get_attr("IFLA_OPERSTATE") in ("UP", "UNKNOWN")}
            for family in FAMILIES:
                wanted = {_key(route) for route in _link_routes(netlink, family, _MAIN_TABLE) if _key(route)[1] in up}
                present = {_key(route) for route in _link_routes(netlink, family, TABLE_LINK)}
                for what, keys in (("del", present - wanted), ("add", wanted - present)):
                    for destination, index, source, metric in sorted(keys, key=str):
                        values = {"family": family, "dst": destination, "oif": index, "table": TABLE_LINK}
                        if source:
                            values["prefsrc"] = source
                        if metric:
                            values["priority"] = metric  # of two ways into one network the host's choice stays
                        _quietly(netlink.route, what, scope=_SCOPE_LINK, **values)

    def _rule(self, netlink: IPRoute, what: str, family: int, table: int, priority: int) -> bool:
        try:
            netlink.rule(
                what, family=family, table=table, priority=priority, fwmark=FWMARK, flags=_FIB_RULE_INVERT, action=1
            )
        except NetlinkError as error:
            if error.code == errno.EOPNOTSUPP and self._has_policy_routing:
                self._has_policy_routing = False
                log.warning("this kernel has no policy routing; tunnels of tunnels cannot be told apart")
            elif error.code not in _HARMLESS:
                log.warning("a routing rule could not be set", change=what, error=str(error))
            return False
        return True

    def _flush(self, netlink: IPRoute, family: int, table: int) -> None:
        for route in netlink.get_routes(family=family, table=table):
            if route["family"] != family:
                continue  # a kernel without IPv6 lists IPv4's routes instead
            values = {"family": family, "dst": _destination(route), "table": table, "oif": route.get_attr("RTA_OIF")}
            _quietly(netlink.route, "del", scope=_SCOPE_NOWHERE, **values)


def _link_routes(netlink: IPRoute, family: int, table: int) -> list[Any]:
    return [
        route
        for route in netlink.get_routes(family=family, table=table)
        if route["family"] == family
        and route["type"] == _UNICAST
        and route["dst_len"] > 0
        and route.get_attr("RTA_GATEWAY") is None
        and route.get_attr("RTA_MULTIPATH") is None
        and route.get_attr("RTA_OIF") is not None
        and not _is_tunnel(route)
    ]


def _is_tunnel(route: Any) -> bool:
    """Whether it is one of a tunnel's own, as a gateway on the same host has in its main table."""
    network = ip_network(_destination(route))
    return any(network.version == own.version and network.subnet_of(own) for own in TUNNEL_NETWORKS)  # type: ignore[arg-type]


TUNNEL_NETWORKS: Final = (IPv4Network("100.64.0.0/10"), IPv6Network("fd00:2021:1111::/96"))


def _destination(route: Any) -> str:
    fallback = "0.0.0.0" if route["family"] == socket.AF_INET else "::"
    return f"{route.get_attr('RTA_DST') or fallback}/{route['dst_len']}"


def _key(route: Any) -> tuple[str, int, str | None, int | None]:
    attributes = ("RTA_OIF", "RTA_PREFSRC", "RTA_PRIORITY")
    interface, source, metric = (route.get_attr(name) for name in attributes)
    return _destination(route), interface, source, metric


def _quietly(call: Any, what: str, **values: object) -> None:
    try:
        call(what, **values)
    except NetlinkError as error:
        if error.code not in _HARMLESS:
            log.warning("a route could not be changed", change=what, error=str(error))
