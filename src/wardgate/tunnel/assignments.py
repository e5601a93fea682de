"""Gateway half of DNS-resource NAT: which real IP each proxy IP of a client stands for."""

from collections.abc import Iterable
from typing import Final

from wardgate.tunnel.ranges import is_proxy_address
from wardgate.wire.ip import IpAddress

MAX_ASSIGNED: Final = 65_536


def are_proxy_ips(addresses: Iterable[IpAddress]) -> bool:
    """Whether a client may announce these.

    An address outside the proxy ranges would get a route without a translation, and so open whatever lies behind the
    gateway; nobody needs that.
    """
    return all(is_proxy_address(address) for address in addresses)


class Assignments:
    """The names behind one client's proxy IPs and the real IPs they are spread over."""

    def __init__(self) -> None:
        self._domain_by_proxy: dict[IpAddress, str] = {}
        self._real_by_proxy: dict[IpAddress, IpAddress | None] = {}
        self.refused = 0

    def __contains__(self, proxy_ip: IpAddress) -> bool:
        return proxy_ip in self._real_by_proxy

    def is_renumbered(self, domain: str, proxy_ips: Iterable[IpAddress]) -> bool:
        """Whether one of these stood for another name: the client began anew, all it said before is void."""
        return any(self._domain_by_proxy.get(one, domain) != domain for one in proxy_ips)

    def assign(self, domain: str, proxy_ips: Iterable[IpAddress], resolved: Iterable[IpAddress]) -> bool:
        """Spreads the proxy IPs over the resolved ones, each family for itself; one without records maps to nothing.

        Returns:
            Whether there was room (else counted).
        """
        proxies = sorted(set(proxy_ips), key=lambda one: (one.version, int(one)))
        if len(self._domain_by_proxy.keys() | set(proxies)) > MAX_ASSIGNED:
            self.refused += 1
            return False
        reals = sorted(set(resolved), key=lambda one: (one.version, int(one)))
        for version in (4, 6):
            real = [one for one in reals if one.version == version]
            for index, proxy in enumerate(one for one in proxies if one.version == version):
                self._domain_by_proxy[proxy] = domain
                self._real_by_proxy[proxy] = real[index % len(real)] if real else None
        return True

    def real_ip(self, proxy_ip: IpAddress) -> IpAddress | None:
        """What a proxy IP stands for; `None` if its name has no address of that family."""
        return self._real_by_proxy.get(proxy_ip)

    def clear(self) -> None:
        """Forgets everything."""
        self._domain_by_proxy.clear()
        self._real_by_proxy.clear()
