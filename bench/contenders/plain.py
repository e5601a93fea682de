"""The ceiling: the same namespaces and the same NATs, and no tunnel."""

from collections.abc import Mapping
from ipaddress import IPv4Address, ip_network

from bench.place import GATEWAY, GATEWAY_PUBLIC, TUNNEL_MTU, Place, reaches, wait
from wardgate.lab import operations as ops
from wardgate.lab.process import Process

PUBLIC = IPv4Address("203.0.113.32")
APP = IPv4Address("10.9.0.20")


class Plain:
    """The gateway's NAT forwards one more public address to the app, by way of the gateway host.

    The route has the tunnel's MTU, so TCP segments are as large as in the tunnels. The gateway masquerades, as it does
    for what comes out of a tunnel, so answers return by the same way.
    """

    def start(self, place: Place) -> None:
        """Adds routes and rules; there is no program."""
        place.app_answers_at(APP)
        place.masquerade("plain", f"iifname eth0 ip daddr {APP}")
        place.forward("plain", f"ip daddr {PUBLIC}", APP)
        place.lab.apply(
            [
                ops.route("wan", ip_network(PUBLIC), "gateway-nat", GATEWAY_PUBLIC),
                ops.route("gateway-nat", ip_network(APP), "lan0", GATEWAY),
            ]
        )
        words = ["ip", "route", "replace", str(PUBLIC), "via", "192.168.1.1", "mtu", "lock", str(TUNNEL_MTU)]
        place.client.run(words).check()
        wait(lambda: reaches(place, self.target()), 5.0, "the plain path answers")

    def target(self) -> str:
        """The public address."""
        return str(PUBLIC)

    def processes(self) -> Mapping[str, Process]:
        """None."""
        return {}

    def facts(self) -> Mapping[str, str]:
        """Nothing to say."""
        return {}
