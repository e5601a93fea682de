"""What a gateway asks of its host: packets are forwarded, and leave with the host's own addresses.

Masquerading lives in a table of our own, `wardgate`. Where another firewall drops forwarded packets by default, two
rules of ours, known by their comment, let the tunnel's through. Everything is taken back at the end, and what a killed
run left behind is taken away at the start.
"""

from typing import Any, Final

import structlog

from wardgate.errors import WardgateError
from wardgate.io.nftables import FirewallError, Nftables
from wardgate.io.sysctls import Sysctls

TABLE: Final = "wardgate"
FAMILY: Final = "inet"
COMMENT: Final = "wardgate"
CLIENT_NETWORKS: Final = (("ip", "100.64.0.0", 11), ("ip6", "fd00:2021:1111::", 107))
IP_FORWARD: Final = "net/ipv4/ip_forward"
SYSCTLS: Final = {
    IP_FORWARD: "1",
    "net/ipv4/conf/all/src_valid_mark": "1",
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/forwarding": "1",
    "net/ipv6/conf/all/forwarding": "1",
}

log = structlog.get_logger("io.forwarding")
Json = dict[str, Any]


class ForwardingError(WardgateError):
    """The host does not forward packets."""


class HostForwarding:
    """Set once, taken back once; calls block and belong in a thread."""

    def __init__(self, interface: str, sysctls: Sysctls | None = None) -> None:
        self._interface = interface
        self._sysctls = sysctls or Sysctls()

    def install(self) -> None:
        """Turns forwarding and masquerading on.

        Raises:
            FirewallError: The firewall refused; nothing of ours is left in it.
            ForwardingError: The host does not forward, and cannot be made to.
        """
        self._set_sysctls()
        with Nftables() as firewall:
            _clean(firewall)
            firewall.run([*self._table(), *self._exceptions(firewall)])

    def remove(self) -> None:
        """Takes everything back; what cannot be is logged."""
        try:
            with Nftables() as firewall:
                _clean(firewall)
        except FirewallError as error:
            log.warning("the firewall could not be cleaned up", error=str(error))
        self._sysctls.restore()

    # --- sysctls --------------------------------------------------------------------------------------------------

    def _set_sysctls(self) -> None:
        self._sysctls.take_over()
        self._keep_router_advertisements()
        for name, value in SYSCTLS.items():
            self._sysctls.set(name, value)
        if self._sysctls.get(IP_FORWARD) == "0":
            self._sysctls.restore()
            raise ForwardingError(
                "this host does not forward IPv4 packets, and that cannot be changed from here. Set it where it can: "
                "sysctl -w net.ipv4.ip_forward=1, for a container --sysctl net.ipv4.ip_forward=1; or start the gateway "
                "with --no-masquerade if the host's network is managed elsewhere"
            )

    def _keep_router_advertisements(self) -> None:
        """A forwarding host ignores router advertisements, and with them loses its own route, unless told not to."""
        for path in sorted(self._sysctls.root.glob("net/ipv6/conf/*/accept_ra")):
            name = str(path.relative_to(self._sysctls.root))
            if path.parent.name != self._interface and self._sysctls.get(name) == "1":
                self._sysctls.set(name, "2")

    # --- firewall -------------------------------------------------------------------------------------------------

    def _table(self) -> list[Json]:
        chain = {"family": FAMILY, "table": TABLE, "name": "postrouting"}
        rules = [
            _rule(
                FAMILY,
                TABLE,
                "postrouting",
                [
                    _match_network(family, address, length),
                    _match("!=", "oifname", self._interface),
                    {"masquerade": None},
                ],
            )
            for family, address, length in CLIENT_NETWORKS
        ]
        return [
            {"add": {"table": {"family": FAMILY, "name": TABLE}}},
            {"add": {"chain": {**chain, "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}}},
            *({"add": rule} for rule in rules),
        ]

    def _exceptions(self, firewall: Nftables) -> list[Json]:
        """Rules that let the tunnel through where forwarded packets are dropped by default."""
        commands: list[Json] = []
        for item in firewall.run([{"list": {"chains": None}}]):
            chain = item.get("chain", {})
            is_other = chain.get("hook") == "forward" and chain.get("table") != TABLE
            if is_other and (chain.get("policy") == "drop" or (chain["table"], chain["name"]) == ("filter", "FORWARD")):
                for direction in ("iifname", "oifname"):
                    expression = [_match("==", direction, self._interface), {"accept": None}]
                    rule = _rule(chain["family"], chain["table"], chain["name"], expression)
                    commands.append({"insert": rule})
        return commands


def _clean(firewall: Nftables) -> None:
    """Removes our table and our rules in others' tables."""
    commands: list[Json] = []
    listed = firewall.run([{"list": {"ruleset": None}}])
    for item in listed:
        table, rule = item.get("table"), item.get("rule")
        if table and (table["family"], table["name"]) == (FAMILY, TABLE):
            commands.append({"delete": {"table": {"family": FAMILY, "name": TABLE}}})
        elif rule and rule.get("comment") == COMMENT and rule["table"] != TABLE:
            place = {key: rule[key] for key in ("family", "table", "chain", "handle")}
            commands.append({"delete": {"rule": place}})
    if commands:
        firewall.run(commands)


def _rule(family: str, table: str, chain: str, expression: list[Json]) -> Json:
    return {"rule": {"family": family, "table": table, "chain": chain, "expr": expression, "comment": COMMENT}}


def _match(operator: str, key: str, value: str) -> Json:
    return {"match": {"op": operator, "left": {"meta": {"key": key}}, "right": value}}


def _match_network(family: str, address: str, length: int) -> Json:
    left = {"payload": {"protocol": family, "field": "saddr"}}
    return {"match": {"op": "==", "left": left, "right": {"prefix": {"addr": address, "len": length}}}}
