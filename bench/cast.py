"""Who takes part, and in which lab."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from bench.contenders.base import Contender
from bench.contenders.openvpn import OpenVpn
from bench.contenders.plain import Plain
from bench.contenders.wardgate import Products, Wardgate
from bench.contenders.wireguard import UserSpaceWireGuard
from bench.peers import GOTATUN, WIREGUARD_GO
from bench.rows import FAR, NEAR

SYMMETRIC = "symmetric"


@dataclass(frozen=True, slots=True)
class Entry:
    """One contender.

    Attributes:
        name: As at the command line.
        title: As in the tables.
        make: Makes it for one lab; programs that several contenders share are in `Products`.
        carriers: The roles of its processes that carry packets, whose memory is counted.
        labs: Where it runs for rows of the near lab and, if there is a second one, of the far lab.
    """

    name: str
    title: str
    make: Callable[[Products], Contender]
    carriers: Sequence[str] = ("client", "gateway")
    labs: Mapping[str, str] | None = None

    def lab_for(self, where: str) -> str | None:
        """The lab in which it does rows of `near` or `far`; `None` if it does not do them."""
        return where if self.labs is None else self.labs.get(where)


def _wireguard_go(_: Products) -> Contender:
    return UserSpaceWireGuard("wireguard-go", [str(WIREGUARD_GO), "-f"], IPv4Address("10.9.0.21"), 51820, "10.76.0")


def _gotatun(_: Products) -> Contender:
    argv = [str(GOTATUN), "--foreground", "--log", "gotatun.out", "--verbosity", "error"]
    return UserSpaceWireGuard("gotatun", argv, IPv4Address("10.9.0.23"), 51821, "10.77.0")


_ENTRIES = (
    Entry("plain", "plain forwarding", lambda _: Plain(), carriers=()),
    Entry("openvpn", "OpenVPN", lambda _: OpenVpn()),
    Entry("wireguard-go", "wireguard-go", _wireguard_go),
    Entry("gotatun", "gotatun", _gotatun),
    Entry("wardgate", "Wardgate", Wardgate),
    Entry("wardgate-dns", "Wardgate, DNS resource", lambda products: Wardgate(products, resource="dns")),
    Entry(
        "wardgate-relayed",
        "Wardgate, relayed",
        lambda products: Wardgate(products, path="relayed"),
        carriers=("client", "gateway", "relay"),
        labs={NEAR: SYMMETRIC},
    ),
)
ENTRIES: Mapping[str, Entry] = {entry.name: entry for entry in _ENTRIES}
QUICK_CONTENDERS = ("plain", "openvpn", "wireguard-go", "wardgate")
__all__ = ["ENTRIES", "FAR", "NEAR", "QUICK_CONTENDERS", "SYMMETRIC", "Entry"]
